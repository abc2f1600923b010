"""Operators on typed values: Spark's result types, overflow and division by zero are errors."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.plan import intervals
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INT,
    NULL,
    STRING,
    Sql,
    adjusted_decimal,
    as_decimal,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_interval,
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
    if any(is_time(v.type) or is_interval(v.type) for v in (left, right)):
        return intervals.calculate(symbol, left, right)
    if right.literal == 0 and symbol in ("/", "%", "div") and type(right.literal) is not bool and left.type != NULL:
        raise LocatedError(f"{symbol} 0 fails for every row that has a number here; write nullif(x, 0), or leave it out")
    return operate(symbol, left, right)


def operate(symbol: str, left: Sql, right: Sql) -> Sql:
    """`calculate` of numbers, also what fails for every row."""
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
    if left.type == right.type == STRING:
        raise LocatedError(f"STRING {symbol} STRING is not possible; CAST to numbers")
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
    if is_fractional(left.type) or is_fractional(right.type):
        raise LocatedError("div takes whole numbers and decimals; CAST to BIGINT")
    if is_decimal(left.type) or is_decimal(right.type):
        return _whole_decimal(convert(left, as_decimal(left)), convert(right, as_decimal(right)))
    return Sql(f"({convert(left, BIGINT).text} // {convert(right, BIGINT).text})", BIGINT)


def _whole_decimal(left: Sql, right: Sql) -> Sql:
    shift = right.type.scale - left.type.scale
    _check_digits(left, right, shift)
    top, bottom = f"({unscaled(left)} * {10 ** max(shift, 0)}::HUGEINT)", f"({unscaled(right)} * {10 ** max(-shift, 0)}::HUGEINT)"
    return Sql(f"CAST({top} // {bottom} AS BIGINT)", BIGINT)


def _check_digits(left: Sql, right: Sql, shift: int) -> None:
    """Numbers of 38 digits are computed with; LocatedError if a quotient could need more on the way."""
    if left.type.precision + max(shift, 0) > 38 or right.type.precision + max(-shift, 0) > 38:
        kinds = f"{spark_type(left.type)} or {spark_type(right.type)}"
        raise LocatedError(f"the division would need more than 38 digits; CAST {kinds} to fewer digits, or both to DOUBLE")


def _decimal(symbol: str, left: Sql, right: Sql) -> Sql:
    a, b = as_decimal(left), as_decimal(right)
    x, y = convert(left, a), convert(right, b)
    if symbol == "/":
        return divide_decimals(x, y)
    kind = _decimal_result(symbol, a, b)
    if symbol == "*":
        if kind.scale != a.scale + b.scale or kind.scale > 38:
            raise LocatedError(f"the product would have more than 38 digits; CAST {spark_type(a)} or {spark_type(b)} to fewer digits")
        wide = f"CAST({x.text} AS DECIMAL({min(max(a.precision + b.precision, 19), 38)},{a.scale}))"  # DuckDB stays at 18 digits else
        return Sql(f"CAST({wide} * {y.text} AS {duck_type(kind)})", kind)
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
    kind = adjusted_decimal(a.precision - a.scale + b.scale + scale, scale)
    _check_digits(left, right, kind.scale - a.scale + b.scale)
    return exact_quotient(left, right, kind)


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
    return f"({top} // {bottom} + CASE WHEN abs({top} % {bottom}) >= abs({bottom}) - abs({top} % {bottom}) THEN {away} ELSE 0 END)"


def unscaled(value: Sql) -> str:
    """A decimal's digits as HUGEINT."""
    if value.type.scale == 0:
        return f"CAST({value.text} AS HUGEINT)"
    return f"CAST(replace(CAST({value.text} AS VARCHAR), '.', '') AS HUGEINT)"


def negate(value: Sql) -> Sql:
    if is_interval(value.type):
        return Sql(f"(-{value.text})", value.type)
    value = number(value, "-")
    check_mathcontext(value)
    return Sql(f"(-{value.text})", value.type)


def number(value: Sql, name: str) -> Sql:
    """A number, of a string a DOUBLE."""
    value = convert(value, DOUBLE) if value.type in (STRING, NULL) else value
    if not is_numeric(value.type):
        raise LocatedError(f"{name} takes a number, not {spark_type(value.type)}")
    return value


def check_mathcontext(value: Sql) -> None:
    if is_decimal(value.type) and value.type.precision > 34:
        raise LocatedError(
            f"Spark rounds {spark_type(value.type)} to 34 digits here; CAST to DECIMAL(34,{min(value.type.scale, 34)}) or fewer"
        )


def invert(value: Sql) -> Sql:
    if not is_integral(value.type):
        raise LocatedError(f"~ takes a whole number, not {spark_type(value.type)}")
    return Sql(f"(~{value.text})", value.type)


_WRAPS = {INT: (31, 2**32 - 1, 2**31, "BIGINT"), BIGINT: (63, 2**64 - 1, 2**63, "HUGEINT")}


def shift_bits(symbol: str, left: Sql, right: Sql) -> Sql:
    """`<<`, `>>` and `>>>` of an INT or BIGINT: the count modulo its bits, and what is pushed out is lost."""
    kind = left.type if left.type == BIGINT else INT
    value, (mask, ones, top, wide) = convert(left, kind).text, _WRAPS[kind]
    count = f"({convert(right, INT).text} & {mask})"
    if symbol == ">>":
        return Sql(f"({value} >> {count})", kind)
    up = f"CAST({value} AS {wide}) * (1::{wide} << {count})"
    made = up if symbol == "<<" else f"(CAST({value} AS {wide}) & {ones}::{wide}) >> {count}"
    return Sql(f"CAST(xor(({made}) & {ones}::{wide}, {top}::{wide}) - {top}::{wide} AS {duck_type(kind)})", kind)


def element(value: Sql, index: Sql) -> Sql:
    """`array[i]` from 0 (outside is an error) and `map[key]` (absent is NULL)."""
    if pa.types.is_map(value.type):
        key = convert(index, value.type.key_type)
        return Sql(f"({value.text})[{key.text}]", value.type.item_type)
    if not pa.types.is_list(value.type):
        raise LocatedError(f"[…] takes an array or a map, not {spark_type(value.type)}")
    at = convert(index, INT).text
    outside = f"({at} < 0 AND {value.text} IS NOT NULL) OR {at} >= len({value.text})"
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
    if symbol in ("<", ">", "<=", ">=") and pa.types.is_nested(left.type):
        raise LocatedError("arrays and structs with NULL inside have another order here; compare one field or element of them")
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
