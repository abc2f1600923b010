"""CAST as Spark does it with ANSI on: a value that does not fit is an error, never NULL and never rounded silently."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan import texts, zone
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import (
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    NULL,
    STRING,
    AnsiInterval,
    Sql,
    bound,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_interval,
    is_numeric,
    is_time,
    spark_type,
    text_literal,
)

_INTEGER = r"\s*[+-]?[0-9]+\s*"
_NUMBER = r"\s*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?\s*"
_DOUBLE = _NUMBER[:-3] + r"[dDfF]?\s*|\s*[+-]?([iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])\s*"


def try_cast(value: Sql, target: pa.DataType) -> Sql:
    """As `cast`, but what does not fit is NULL, also inside of arrays, maps and structs."""
    if value.type == target:
        return value
    nested = _nested(value, target, try_cast)
    if nested is not None:
        return Sql(nested, target)
    column = re.fullmatch(r'"[^"]+"|_\w+', value.text)
    text = value.text if column else "@x"
    made = f"TRY({cast(Sql(text, value.type), target).text.replace(_misfit(text, target), 'NULL')})"
    return Sql(made if column else bound({"x": value.text}, made), target)


def cast(value: Sql, target: pa.DataType) -> Sql:
    """`value` converted to `target`; LocatedError if Spark has no such cast or it is not the same here."""
    if value.type == target:
        return value
    if value.type == NULL:
        return _null(value, target)
    if type(value.literal) is int and is_integral(value.type) and is_numeric(target):
        if is_integral(target) and not -(2 ** (target.bit_width - 1)) <= value.literal < 2 ** (target.bit_width - 1):
            raise LocatedError(f"{value.literal} is beyond {spark_type(target)}")
        return Sql(f"CAST({value.literal} AS {duck_type(target)})", target, value.literal)
    text = _nested(value, target, cast) or _scalar(value, target)
    if text is None:
        raise LocatedError(f"{spark_type(value.type)} cannot be cast to {spark_type(target)}")
    return Sql(text, target)


def convert(value: Sql, target: pa.DataType) -> Sql:
    """`value` as `target` where Spark converts without being asked; LocatedError where it does not."""
    if value.type == target:
        return value
    if value.type == NULL:
        return _null(value, target)
    if _implicit(value.type, target):
        return cast(value, target)
    raise LocatedError(f"{spark_type(value.type)} stands where {spark_type(target)} is needed; CAST it")


def _null(value: Sql, target: pa.DataType) -> Sql:
    """A NULL of another type; an expression that only ever fails stays what it is."""
    return Sql(f"CAST({value.text if 'error(' in value.text else 'NULL'} AS {duck_type(target)})", target)


def _implicit(kind: pa.DataType, target: pa.DataType) -> bool:
    if isinstance(kind, AnsiInterval):
        return isinstance(target, AnsiInterval) and kind.is_months is target.is_months
    if kind == STRING:
        return is_numeric(target) or is_time(target) or target in (BOOLEAN, BINARY)
    if target == STRING:
        return is_numeric(kind) or is_time(kind) or kind == BOOLEAN
    if is_numeric(kind) and is_numeric(target):
        return True
    if pa.types.is_list(kind) and pa.types.is_list(target):
        return kind.value_type == NULL or _implicit(kind.value_type, target.value_type)
    return is_time(kind) and is_time(target)


def _scalar(value: Sql, target: pa.DataType) -> str | None:
    if isinstance(value.type, AnsiInterval):
        return _from_interval(value, target)
    plain = f"CAST({value.text} AS {duck_type(target)})"
    if value.type == STRING:
        return _from_string(value, target, plain)
    if target == STRING:
        return texts.text_of(value)
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
        return _guarded(value, texts.DAY, target, texts.date_of(text))
    if is_time(target):
        return _guarded(value, texts.MOMENT, target, texts.moment_of(text, target))
    if is_decimal(target):
        return _guarded(value, _NUMBER, target, _text_to_decimal(text, target))
    if is_fractional(target):
        return _guarded(value, _DOUBLE, target, f"CAST(regexp_replace({text}, '([0-9.])[dDfF]\\s*$', '\\1') AS {duck_type(target)})")
    return _guarded(value, _INTEGER, target, plain) if is_integral(target) else None


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


def _from_number(value: Sql, target: pa.DataType, plain: str) -> str | None:
    if is_integral(target) and not is_integral(value.type):
        return f"CAST(trunc({value.text}) AS {duck_type(target)})"
    if is_decimal(target) and is_fractional(value.type):
        return _fraction_to_decimal(value.text, target)
    if (value.type, target) == (DOUBLE, FLOAT):
        return bound({"x": value.text}, "CASE WHEN abs(@x) >= 3.4028235677973366e38 AND isfinite(@x) "
                     "THEN CAST(CASE WHEN @x > 0 THEN 'inf' ELSE '-inf' END AS FLOAT) ELSE CAST(@x AS FLOAT) END")  # fmt: skip
    if is_numeric(target) or target == BOOLEAN:
        return plain
    return _number_to_time(value) if target == TIMESTAMP else None


def _number_to_time(value: Sql) -> str:
    if is_integral(value.type):
        return f"make_timestamptz(CAST({value.text} AS BIGINT) * 1000000)"
    if is_decimal(value.type):
        return f"make_timestamptz(CAST(trunc(CAST({value.text} AS DECIMAL(38,6)) * 1000000) AS BIGINT))"
    return f"make_timestamptz(CAST(trunc(CAST({value.text} AS DOUBLE) * 1e6) AS BIGINT))"


def _fraction_to_decimal(text: str, target: pa.DataType) -> str:
    """Spark goes through the shortest decimal text of the double, so 1.005 becomes 1.01; NaN and infinity are NULL."""
    made = _text_to_decimal("CAST(CAST(@x AS DOUBLE) AS VARCHAR)", target)
    return bound({"x": text}, f"CASE WHEN isfinite(@x) THEN {made} END")


def _text_to_decimal(text: str, target: pa.DataType) -> str:
    """By way of 38 digits: DuckDB reads 5e-7 only where a digit before the point has room."""
    return f"CAST(CAST({text} AS DECIMAL(38,{target.scale})) AS {duck_type(target)})"


def _from_time(value: Sql, target: pa.DataType, plain: str) -> str | None:
    if is_time(target):
        if target == TIMESTAMP:
            return zone.instant(zone.local_of(value))
        return f"CAST({zone.local(value.text)} AS {duck_type(target)})" if value.type == TIMESTAMP else plain
    seconds = bound({"t": f"epoch_us({value.text})"}, "(@t - (@t % 1000000 + 1000000) % 1000000) // 1000000")
    if value.type == TIMESTAMP and is_integral(target):
        return f"CAST({seconds} AS {duck_type(target)})"
    if value.type == TIMESTAMP and is_decimal(target):
        return f"CAST(CAST(epoch_us({value.text}) AS DECIMAL(20,0)) * CAST('0.000001' AS DECIMAL(7,6)) AS {duck_type(target)})"
    if value.type == TIMESTAMP and target.equals(pa.float64()):
        return f"epoch_us({value.text}) / 1e6"
    return None


def _from_interval(value: Sql, target: pa.DataType) -> str | None:
    """A number of the interval's last unit, or an interval of more fields."""
    if isinstance(target, AnsiInterval) and value.type.is_months is target.is_months:
        return value.text
    if is_interval(target):
        return None
    unit = {"YEAR": 12, "MONTH": 1, "DAY": 86_400_000_000, "HOUR": 3_600_000_000, "MINUTE": 60_000_000, "SECOND": 1_000_000}[value.type.end]
    if is_integral(target):
        return f"CAST({value.text} // {unit} AS {duck_type(target)})"
    if is_decimal(target) and value.type.end == "SECOND":
        exact = f"CAST(CAST({value.text} AS DECIMAL(19,0)) * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(26,6))"
        return f"CAST({exact} AS {duck_type(target)})"
    return None


def _nested(value: Sql, target: pa.DataType, each: Callable[[Sql, pa.DataType], Sql]) -> str | None:
    """`each` of the values in an array, a map, or a struct (by position)."""
    kind = value.type
    if pa.types.is_list(kind) and pa.types.is_list(target):
        return f"list_transform({value.text}, lambda _e: {each(Sql('_e', kind.value_type), target.value_type).text})"
    if pa.types.is_map(kind) and pa.types.is_map(target):
        parts = each(Sql("_e.key", kind.key_type), target.key_type), each(Sql("_e.value", kind.item_type), target.item_type)
        return (
            f"map_from_entries(list_transform(map_entries({value.text}), lambda _e: {{'key': {parts[0].text}, 'value': {parts[1].text}}}))"
        )
    if pa.types.is_struct(kind) and pa.types.is_struct(target) and kind.num_fields == target.num_fields:
        fields = [
            each(Sql(f"struct_extract_at(@s, {i + 1})", kind.field(i).type), target.field(i).type).text for i in range(kind.num_fields)
        ]
        made = ", ".join(f"{text_literal(f.name)}: {text}" for f, text in zip(target, fields, strict=True))
        return bound({"s": value.text}, f"CASE WHEN @s IS NOT NULL THEN {{{made}}} END")
    return None
