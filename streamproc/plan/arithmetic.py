"""Operators on typed values: Spark's result types, overflow and division by zero are errors."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    INTERVAL,
    NULL,
    STRING,
    TIMESTAMP_NTZ,
    Sql,
    adjusted_decimal,
    as_decimal,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_numeric,
    is_orderable,
    is_time,
    spark_type,
    text_literal,
    widest_type,
)

_BITWISE = {"&": "&", "|": "|", "^": "xor"}


def calculate(symbol: str, left: Sql, right: Sql) -> Sql:
    """`left symbol right` for + - * / div % & | ^; LocatedError if Spark has no such operation."""
    if is_time(left.type) or is_time(right.type) or INTERVAL in (left.type, right.type):
        return _time(symbol, left, right)
    left, right = _numbers(symbol, left, right)
    if symbol in _BITWISE:
        return _bits(symbol, left, right)
    if symbol == "div":
        return _whole(left, right)
    decimals = is_decimal(left.type) or is_decimal(right.type)
    if decimals and not (is_fractional(left.type) or is_fractional(right.type)):
        return _decimal(symbol, left, right)
    if symbol == "/":
        left, right = convert(left, DOUBLE), convert(right, DOUBLE)
        return Sql(f"({left.text} / {_divisor(left, right)})", DOUBLE)
    kind = widest_type(left, right)
    if kind is None or not is_numeric(kind):
        raise _misfit(symbol, left, right)
    left, right = convert(left, kind), convert(right, kind)
    divisor = _divisor(left, right) if symbol == "%" and is_fractional(kind) else right.text
    return Sql(f"({left.text} {symbol} {divisor})", kind)


def _divisor(left: Sql, right: Sql) -> str:
    """A fraction to divide by. DuckDB makes infinity of x / 0.0, Spark an error, but NULL of NULL / 0."""
    if right.literal:
        return right.text
    zero = f"{right.text} = 0 AND {left.text} IS NOT NULL"
    return f"(CASE WHEN {zero} THEN CAST(error('division by zero') AS {duck_type(right.type)}) ELSE {right.text} END)"


def _misfit(symbol: str, left: Sql, right: Sql) -> LocatedError:
    return LocatedError(f"{spark_type(left.type)} {symbol} {spark_type(right.type)} is not possible; CAST to numbers")


def _numbers(symbol: str, left: Sql, right: Sql) -> tuple[Sql, Sql]:
    """Strings are read as the other side's kind of number (ANSI: BIGINT or DOUBLE), NULL as the other side's type."""
    for value in (left, right):
        if not (is_numeric(value.type) or value.type in (STRING, NULL)):
            raise _misfit(symbol, left, right)
    return _number(left, right), _number(right, left)


def _number(value: Sql, other: Sql) -> Sql:
    if value.type == STRING:
        return convert(value, BIGINT if is_integral(other.type) else DOUBLE)
    if value.type == NULL:
        return convert(value, other.type if is_numeric(other.type) else DOUBLE)
    return value


def _bits(symbol: str, left: Sql, right: Sql) -> Sql:
    kind = widest_type(left, right)
    if kind is None or not is_integral(kind):
        raise _misfit(symbol, left, right)
    a, b = convert(left, kind).text, convert(right, kind).text
    return Sql(f"xor({a}, {b})" if symbol == "^" else f"({a} {symbol} {b})", kind)


def _whole(left: Sql, right: Sql) -> Sql:
    """`div`: BIGINT, towards zero."""
    if not (is_integral(left.type) and is_integral(right.type)):
        raise LocatedError("div takes whole numbers; CAST to BIGINT")
    return Sql(f"({convert(left, BIGINT).text} // {convert(right, BIGINT).text})", BIGINT)


def _decimal(symbol: str, left: Sql, right: Sql) -> Sql:
    a, b = as_decimal(left), as_decimal(right)
    x, y = convert(left, a), convert(right, b)
    if symbol == "/":
        return divide_decimals(x, y)
    kind = _decimal_result(symbol, a, b)
    if symbol == "*":
        if kind.scale != a.scale + b.scale or kind.scale > 38:
            raise LocatedError(f"the product would have more than 38 digits; CAST {spark_type(a)} or {spark_type(b)} to fewer digits")
        return Sql(f"CAST({x.text} * {y.text} AS {duck_type(kind)})", kind)
    scale = max(a.scale, b.scale)
    if kind.scale != scale:
        raise LocatedError(f"the result would have more than 38 digits; CAST {spark_type(a)} or {spark_type(b)} to fewer digits")
    wide = f"DECIMAL({max(a.precision - a.scale, b.precision - b.scale) + scale},{scale})"
    return Sql(f"CAST(CAST({x.text} AS {wide}) {symbol} CAST({y.text} AS {wide}) AS {duck_type(kind)})", kind)


def _decimal_result(symbol: str, a: pa.DataType, b: pa.DataType) -> pa.DataType:
    scale = max(a.scale, b.scale)
    if symbol == "*":
        return adjusted_decimal(a.precision + b.precision + 1, a.scale + b.scale)
    if symbol == "%":
        return adjusted_decimal(min(a.precision - a.scale, b.precision - b.scale) + scale, scale)
    return adjusted_decimal(max(a.precision - a.scale, b.precision - b.scale) + scale + 1, scale)


def divide_decimals(left: Sql, right: Sql) -> Sql:
    """Exact decimal division, rounded HALF_UP to Spark's type of `left / right`."""
    a, b = left.type, right.type
    scale = max(6, a.scale + b.precision + 1)
    return exact_quotient(left, right, adjusted_decimal(a.precision - a.scale + b.scale + scale, scale))


def exact_quotient(left: Sql, right: Sql, kind: pa.DataType) -> Sql:
    """`left / right` as `kind`, in whole numbers of 128 bits: (l·10ᵏ + half) // r, k by the scales. Numbers too
    large for that are an overflow error.
    """
    shift = kind.scale - left.type.scale + right.type.scale
    top, bottom = unscaled(left), unscaled(right)
    if shift >= 0:
        top = f"({top} * {10**shift}::HUGEINT)"
    else:
        bottom = f"({bottom} * {10**-shift}::HUGEINT)"
    whole = f"list_transform([{{'n': {top}, 'd': {bottom}}}], lambda _q: {_half_up('_q.n', '_q.d')})"
    return Sql(f"CAST(list_transform({whole}, lambda _d: {pointed('_d', kind.scale)})[1] AS {duck_type(kind)})", kind)


def pointed(digits: str, scale: int) -> str:
    """A whole number as text with its decimal point; an exponent would do, but DuckDB fails on many of those."""
    unit = f"{10**scale}::HUGEINT"
    sign = f"CASE WHEN {digits} < 0 THEN '-' ELSE '' END"
    fraction = f" || '.' || lpad(CAST(abs({digits}) % {unit} AS VARCHAR), {scale}, '0')" if scale else ""
    return f"{sign} || CAST(abs({digits}) // {unit} AS VARCHAR){fraction}"


def _half_up(top: str, bottom: str) -> str:
    away = f"CASE WHEN ({top} < 0) = ({bottom} < 0) THEN 1 ELSE -1 END"
    return f"({top} // {bottom} + CASE WHEN abs({top} % {bottom}) * 2 >= abs({bottom}) THEN {away} ELSE 0 END)"


def unscaled(value: Sql) -> str:
    """A decimal's digits as HUGEINT."""
    if value.type.scale == 0:
        return f"CAST({value.text} AS HUGEINT)"
    return f"CAST(replace(CAST({value.text} AS VARCHAR), '.', '') AS HUGEINT)"


def negate(value: Sql) -> Sql:
    if value.type == INTERVAL:
        return Sql(f"(-{value.text})", INTERVAL)
    value = _number(value, value)
    if not is_numeric(value.type):
        raise LocatedError(f"- takes a number, not {spark_type(value.type)}")
    return Sql(f"(-{value.text})", value.type)


def invert(value: Sql) -> Sql:
    if not is_integral(value.type):
        raise LocatedError(f"~ takes a whole number, not {spark_type(value.type)}")
    return Sql(f"(~{value.text})", value.type)


def _time(symbol: str, left: Sql, right: Sql) -> Sql:
    if symbol == "+" and is_time(right.type):
        left, right = right, left
    if symbol in "+-" and right.type == INTERVAL and is_time(left.type):
        return shift_time(left, symbol, right)
    if symbol in "+-" and left.type == DATE and right.type in (INT, pa.int16(), pa.int8()):
        return Sql(f"({left.text} {symbol} {right.text})", DATE)
    if symbol in "+-" and (left.type, right.type) == (INTERVAL, INTERVAL):
        return Sql(f"({left.text} {symbol} {right.text})", INTERVAL)
    hint = "; for a difference use timestampdiff(SECOND, a, b) or datediff(a, b)" if symbol == "-" else ""
    raise LocatedError(f"{spark_type(left.type)} {symbol} {spark_type(right.type)} is not supported{hint}")


def shift_time(value: Sql, symbol: str, interval: Sql) -> Sql:
    if value.type in (TIMESTAMP, TIMESTAMP_NTZ):
        return Sql(f"({value.text} {symbol} {interval.text})", value.type)
    unit, amount = interval.literal or ("", 0)
    if unit == "months" or amount % 86_400_000_000 == 0:
        return Sql(f"CAST({value.text} {symbol} {interval.text} AS DATE)", DATE)
    return Sql(f"(CAST({value.text} AS TIMESTAMPTZ) {symbol} {interval.text})", TIMESTAMP)


def element(value: Sql, index: Sql) -> Sql:
    """`array[i]` from 0 (outside is an error) and `map[key]` (absent is NULL)."""
    if pa.types.is_map(value.type):
        key = convert(index, value.type.key_type)
        return Sql(f"({value.text})[{key.text}]", value.type.item_type)
    if not pa.types.is_list(value.type):
        raise LocatedError(f"[…] takes an array or a map, not {spark_type(value.type)}")
    at = convert(index, INT).text
    outside = f"{at} < 0 OR {at} >= len({value.text})"
    wrong = f"error('array index ' || {at} || ' is outside; use get(array, index) for NULL instead')"
    return Sql(f"(CASE WHEN {outside} THEN {wrong} ELSE ({value.text})[{at} + 1] END)", value.type.value_type)


def unify(values: Sequence[Sql]) -> list[Sql]:
    target = values[0]
    for value in values[1:]:
        kind = widest_type(Sql("", target.type), Sql("", value.type))
        if kind is None:
            raise LocatedError(f"{spark_type(target.type)} and {spark_type(value.type)} have no common type; CAST one of them")
        target = Sql("", kind)
    return [convert(v, target.type) for v in values]


def compare(symbol: str, left: Sql, right: Sql) -> Sql:
    if not is_orderable(left.type):
        raise LocatedError(f"{spark_type(left.type)} cannot be compared")
    return Sql(f"({left.text} {symbol} {right.text})", BOOLEAN)


def choice(tests: Sequence[Sql], values: Sequence[Sql], otherwise: Sql) -> Sql:
    whens = " ".join(f"WHEN {t.text} THEN {v.text}" for t, v in zip(tests, values, strict=True))
    return Sql(f"(CASE {whens} ELSE {otherwise.text} END)", otherwise.type)


def field(value: Sql, name: str) -> Sql:
    """`value.name`: a field of a struct, or of every struct of an array; the value of a key of a map."""
    if pa.types.is_struct(value.type):
        hits = [f for f in value.type if f.name.lower() == name.lower()]
        if len(hits) != 1:
            known = ", ".join(f.name for f in value.type)
            raise LocatedError(f"there is no field {name!r}; the fields are {known}")
        return Sql(f"struct_extract({value.text}, {text_literal(hits[0].name)})", hits[0].type)
    if pa.types.is_list(value.type) and pa.types.is_struct(value.type.value_type):
        item = field(Sql("_e", value.type.value_type), name)
        return Sql(f"list_transform({value.text}, lambda _e: {item.text})", pa.list_(item.type))
    if pa.types.is_map(value.type):
        return element(value, Sql(text_literal(name), STRING))
    raise LocatedError(f"{spark_type(value.type)} has no fields, so no {name!r}")
