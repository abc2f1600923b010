"""CAST as Spark does it with ANSI on: a value that does not fit is an error, never NULL and never rounded silently."""

from __future__ import annotations

import re

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import (
    BINARY,
    BOOLEAN,
    DATE,
    NULL,
    STRING,
    TIMESTAMP_NTZ,
    Sql,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_numeric,
    is_time,
    spark_type,
)

_INTEGER = r"\s*[+-]?[0-9]+\s*"
_NUMBER = r"\s*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?\s*"
_DOUBLE = _NUMBER + r"|\s*[+-]?([iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])\s*"
_DATE = r"\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ].*)?\s*"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
_TIMESTAMP = r"\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ][0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2}([.][0-9]{1,6})?)?" + _ZONE + r")?\s*"


def try_cast(value: Sql, target: pa.DataType) -> Sql:
    """As `cast`, but what does not fit is NULL."""
    made = cast(Sql("\0", value.type), target).text.replace(_misfit("\0", target), "NULL")
    return Sql(made.replace("CAST(", "TRY_CAST(").replace("\0", value.text), target)


def cast(value: Sql, target: pa.DataType) -> Sql:
    """`value` converted to `target`; LocatedError if Spark has no such cast or it is not the same here."""
    if value.type == target:
        return value
    if value.type == NULL:
        return Sql(f"CAST(NULL AS {duck_type(target)})", target)
    if isinstance(value.literal, int) and is_integral(value.type) and is_numeric(target):
        return Sql(f"CAST({value.literal} AS {duck_type(target)})", target, value.literal)
    text = _nested(value, target) or _scalar(value, target)
    if text is None:
        raise LocatedError(f"{spark_type(value.type)} cannot be cast to {spark_type(target)}{_instead(value.type, target)}")
    return Sql(text, target)


def convert(value: Sql, target: pa.DataType) -> Sql:
    """`value` as `target` where Spark converts without being asked; LocatedError where it does not."""
    if value.type == target:
        return value
    if value.type == NULL:
        return Sql(f"CAST(NULL AS {duck_type(target)})", target)
    if _implicit(value.type, target):
        return cast(value, target)
    raise LocatedError(f"{spark_type(value.type)} stands where {spark_type(target)} is needed; CAST it")


def _implicit(kind: pa.DataType, target: pa.DataType) -> bool:
    if kind == STRING:
        return is_numeric(target) or is_time(target) or target in (BOOLEAN, BINARY)
    if target == STRING:
        return is_integral(kind) or is_decimal(kind) or is_time(kind) or kind == BOOLEAN
    if is_numeric(kind) and is_numeric(target):
        return True
    if pa.types.is_list(kind) and pa.types.is_list(target):
        return kind.value_type == NULL or _implicit(kind.value_type, target.value_type)
    return is_time(kind) and is_time(target)


def _instead(kind: pa.DataType, target: pa.DataType) -> str:
    if is_fractional(kind) and target == STRING:
        return " here, since the digits would differ from Spark's; CAST to DECIMAL(p,s) first"
    return ""


def _scalar(value: Sql, target: pa.DataType) -> str | None:
    plain = f"CAST({value.text} AS {duck_type(target)})"
    if value.type == STRING:
        return _from_string(value, target, plain)
    if target == STRING:
        return _to_string(value)
    if is_numeric(value.type):
        return _from_number(value, target, plain)
    if value.type == BOOLEAN:
        return plain if is_numeric(target) else None
    if is_time(value.type):
        return _from_time(value, target, plain)
    return None


def _from_string(value: Sql, target: pa.DataType, plain: str) -> str | None:
    text = value.text
    if target == BINARY:
        return f"encode({text})"
    if target == BOOLEAN:
        low = f"lower(trim({text}))"
        return (
            f"CASE WHEN {text} IS NULL THEN NULL WHEN {low} IN ('t','true','y','yes','1') THEN true "
            f"WHEN {low} IN ('f','false','n','no','0') THEN false ELSE {_misfit(text, target)} END"
        )
    if target == DATE:
        day = f"CAST(regexp_extract({text}, '[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}') AS DATE)"
        return _guarded(value, _DATE, target, day)
    if is_time(target):
        return _guarded(value, _TIMESTAMP, target, f"CAST(trim({text}) AS {duck_type(target)})")
    if is_decimal(target):
        return _guarded(value, _NUMBER, target, _text_to_decimal(text, target))
    pattern = _INTEGER if is_integral(target) else _DOUBLE if is_fractional(target) else None
    return None if pattern is None else _guarded(value, pattern, target, plain)


def _guarded(value: Sql, pattern: str, target: pa.DataType, plain: str) -> str:
    """`plain` where the text has Spark's form, since DuckDB takes more. A literal is judged now, not for every row."""
    if isinstance(value.literal, str):
        if not re.fullmatch(pattern, value.literal):
            raise LocatedError(f"{value.literal!r} cannot be cast to {spark_type(target)}")
        return plain
    fits = f"{value.text} IS NULL OR regexp_full_match({value.text}, '{pattern}')"
    return f"CASE WHEN {fits} THEN {plain} ELSE {_misfit(value.text, target)} END"


def _misfit(text: str, target: pa.DataType) -> str:
    return f"CAST(error('cannot cast ''' || {text} || ''' to {spark_type(target)}') AS {duck_type(target)})"


def _to_string(value: Sql) -> str | None:
    if value.type in (TIMESTAMP, TIMESTAMP_NTZ):
        return (
            f"regexp_replace(CAST({value.text} AS VARCHAR), '[+-][0-9:]+$', '')"
            if value.type == TIMESTAMP
            else f"CAST({value.text} AS VARCHAR)"
        )
    if value.type == BINARY:
        return f"decode({value.text})"
    simple = is_integral(value.type) or is_decimal(value.type) or value.type in (BOOLEAN, DATE)
    return f"CAST({value.text} AS VARCHAR)" if simple else None


def _from_number(value: Sql, target: pa.DataType, plain: str) -> str | None:
    if is_integral(target) and not is_integral(value.type):
        return f"CAST(trunc({value.text}) AS {duck_type(target)})"
    if is_decimal(target) and is_fractional(value.type):
        return _fraction_to_decimal(value.text, target)
    if is_numeric(target) or target == BOOLEAN:
        return plain
    if target == TIMESTAMP and is_integral(value.type):
        return f"make_timestamptz(CAST({value.text} AS BIGINT) * 1000000)"
    return None


def _fraction_to_decimal(text: str, target: pa.DataType) -> str:
    """Spark goes through the shortest decimal text of the double, so 1.005 becomes 1.01; NaN and infinity are errors."""
    return _text_to_decimal(f"CAST({text} AS VARCHAR)", target)


def _text_to_decimal(text: str, target: pa.DataType) -> str:
    """By way of 38 digits: DuckDB reads 5e-7 only where a digit before the point has room."""
    return f"CAST(CAST({text} AS DECIMAL(38,{target.scale})) AS {duck_type(target)})"


def _from_time(value: Sql, target: pa.DataType, plain: str) -> str | None:
    if is_time(target):
        return plain
    if value.type == TIMESTAMP and target.equals(pa.int64()):
        return f"CAST(floor(epoch_us({value.text}) / 1000000) AS BIGINT)"
    if value.type == TIMESTAMP and target.equals(pa.float64()):
        return f"epoch_us({value.text}) / 1e6"
    return None


def _nested(value: Sql, target: pa.DataType) -> str | None:
    if not (pa.types.is_list(value.type) and pa.types.is_list(target)):
        return None
    item = cast(Sql("_e", value.type.value_type), target.value_type)
    return f"list_transform({value.text}, lambda _e: {item.text})"
