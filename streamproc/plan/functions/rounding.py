"""round, bround, ceil and floor: of whole numbers and decimals in whole numbers of 128 bits, of doubles by their printed digits."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.plan.arithmetic import number, pointed, unscaled
from streamproc.plan.casts import cast, convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import BIGINT, DOUBLE, Sql, as_decimal, bound, duck_type, is_decimal, is_fractional, is_integral

_WAYS = {  # what is added to the quotient towards zero: @r is the remainder, @u the unit, @q the quotient
    "round": "CASE WHEN abs(@r) >= @u - abs(@r) THEN sign(@r) ELSE 0 END",
    "bround": "CASE WHEN abs(@r) > @u - abs(@r) OR (abs(@r) = @u - abs(@r) AND @q % 2 <> 0) THEN sign(@r) ELSE 0 END",
    "ceil": "CASE WHEN @r > 0 THEN 1 ELSE 0 END",
    "floor": "CASE WHEN @r < 0 THEN -1 ELSE 0 END",
}
_LARGEST = 9_223_372_036_854_775_807


def _digits(call: Call) -> int:
    digits = call.integer(1, "the number of digits") if len(call) == 2 else 0
    if abs(digits) > 30:
        raise LocatedError(f"{call.name}() to more than 30 digits is not supported")
    return digits


def _quotient(digits: str, shift: int, way: str) -> str:
    """A whole number divided by 10 to the `shift`, rounded."""
    unit = f"{10**shift}::HUGEINT"
    parts = bound({"v": f"CAST({digits} AS HUGEINT)"}, f"{{'q': @v // {unit}, 'r': @v % {unit}, 'u': {unit}}}")
    return bound({"p": parts}, _rewritten(f"@q + {_WAYS[way]}"))


def _rewritten(body: str) -> str:
    for name in "qru":
        body = body.replace(f"@{name}", f"@p.{name}")
    return body


def _whole(value: Sql, digits: int, way: str) -> Sql:
    """A whole number to tens, hundreds, …: its own type, overflow is an error."""
    if digits >= 0:
        return value
    made = _quotient(value.text, -digits, way)
    return Sql(f"CAST({made} * {10**-digits}::HUGEINT AS {duck_type(value.type)})", value.type)


def decimal_to(value: Sql, digits: int, way: str) -> Sql:
    """A decimal to `digits` of fraction (fewer than 0: to tens, …), in Spark's type."""
    whole, scale = value.type.precision - value.type.scale + 1, value.type.scale
    if digits < 0:
        kind = pa.decimal128(min(max(whole, -digits + 1), 38), 0)
        made = f"{_quotient(unscaled(value), scale - digits, way)} * {10**-digits}::HUGEINT"
        return Sql(f"CAST({made} AS {duck_type(kind)})", kind)
    kept = min(scale, digits)
    kind = pa.decimal128(min(whole + kept, 38), kept)
    if way == "round":
        return Sql(f"CAST({value.text} AS {duck_type(kind)})", kind)
    text = bound({"d": _quotient(unscaled(value), scale - kept, way)}, pointed("@d", kept))
    return Sql(f"CAST({text} AS {duck_type(kind)})", kind)


def _round(call: Call) -> Sql:
    """HALF_UP on the decimal digits that the number is printed with, as Spark: round(1.005, 2) = 1.01. bround: HALF_EVEN."""
    call.expect(1, 2)
    value, digits = number(call[0], f"{call.name}()"), _digits(call)
    if is_integral(value.type):
        return _whole(value, digits, call.name)
    if is_decimal(value.type):
        return decimal_to(value, digits, call.name)
    if call.name == "bround" or not 0 <= digits <= 18:
        raise LocatedError(f"{call.name}({'x, digits' if digits else 'x'}) of a DOUBLE is not supported; CAST it to DECIMAL(p,s) first")
    return Sql(_round_fraction(value, digits), value.type)


def _round_fraction(value: Sql, digits: int) -> str:
    """By the printed digits where the value is near a tie or large; else the nearest double is the same and quick. Zero has no sign."""
    printed = f"CAST(CAST(CAST(@x AS VARCHAR) AS DECIMAL(38,{digits})) AS {duck_type(value.type)})"
    exact = f"WHEN abs(@x) < 1e19 THEN {printed} ELSE @x END"
    scaled = f"abs(@x * 1e{digits})"
    quick = f"WHEN {scaled} < 1e9 AND abs({scaled} - floor({scaled}) - 0.5) > 1e-6 THEN round(@x * 1e{digits}) / 1e{digits} + 0.0::DOUBLE "
    return bound({"x": value.text}, f"CASE {quick if value.type == DOUBLE else ''}{exact}")


def _to_whole(call: Call) -> Sql:
    """BIGINT, a decimal of a decimal; with a number of digits always a decimal. Beyond BIGINT is its largest, NaN is 0."""
    call.expect(1, 2)
    value, name, digits = number(call[0], f"{call.name}()"), call.name.replace("ceiling", "ceil"), _digits(call)
    if len(call) == 2:
        if is_fractional(value.type):
            raise LocatedError(f"{name}(x, digits) of a DOUBLE is not supported; CAST it to DECIMAL(p,s) first")
        return decimal_to(cast(value, _own_decimal(value)), digits, name)
    if is_decimal(value.type):
        return decimal_to(value, 0, name) if value.type.scale else value
    if is_integral(value.type):
        return convert(value, BIGINT)
    made = bound({"x": f"{name}({convert(value, DOUBLE).text})"},
                 f"CASE WHEN isnan(@x) THEN 0 WHEN @x >= 9.223372036854775807e18 THEN {_LARGEST} "
                 f"WHEN @x <= -9.223372036854775808e18 THEN {-_LARGEST} - 1 ELSE CAST(@x AS BIGINT) END")  # fmt: skip
    return Sql(f"CAST({made} AS BIGINT)", BIGINT)


def _own_decimal(value: Sql) -> pa.DataType:
    return as_decimal(Sql("", value.type))


FUNCTIONS: Mapping[str, Builder] = {"round": _round, "bround": _round, "ceil": _to_whole, "ceiling": _to_whole, "floor": _to_whole}
