"""Functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.plan import arithmetic
from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call, plain
from streamproc.plan.types import (
    BIGINT,
    DOUBLE,
    INT,
    STRING,
    Sql,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_numeric,
)


def _number(call: Call, index: int = 0) -> Sql:
    """An argument that is a number; a string is read as DOUBLE."""
    value = convert(call[index], DOUBLE) if call[index].type == STRING else call[index]
    if not is_numeric(value.type):
        raise call.misfit(index)
    return value


def _same_type(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        value = _number(call)
        return Sql(template.format(value.text), value.type)

    return build


def _whole(name: str) -> Builder:
    """Ceil and floor: BIGINT, or a decimal without fraction."""

    def build(call: Call) -> Sql:
        call.expect(1)
        value = _number(call)
        if is_decimal(value.type):
            kind = pa.decimal128(max(value.type.precision - value.type.scale + 1, 1), 0)
            return Sql(f"CAST({name}({value.text}) AS {duck_type(kind)})", kind)
        return Sql(
            f"CAST({name}({convert(value, DOUBLE).text}) AS BIGINT)" if is_fractional(value.type) else convert(value, BIGINT).text, BIGINT
        )

    return build


def _round(call: Call) -> Sql:
    """HALF_UP on the decimal digits that the number is printed with, as Spark: round(1.005, 2) = 1.01."""
    call.expect(1, 2)
    value, digits = _number(call), call.integer(1, "the number of digits") if len(call) == 2 else 0
    if not 0 <= digits <= 18:
        raise LocatedError("round() to fewer than 0 or more than 18 digits is not supported")
    if is_integral(value.type):
        return value
    if is_decimal(value.type):
        scale = min(value.type.scale, digits)
        kind = pa.decimal128(min(value.type.precision - value.type.scale + 1 + scale, 38), scale)
        return Sql(f"CAST({value.text} AS {duck_type(kind)})", kind)
    return Sql(_round_fraction(value, digits), value.type)


def _round_fraction(value: Sql, digits: int) -> str:
    """By the printed digits where the value is near a tie or large; else the nearest double is the same and quick."""
    text, scaled = value.text, f"abs({value.text} * 1e{digits})"
    printed = f"CAST(CAST(CAST({text} AS VARCHAR) AS DECIMAL(38,{digits})) AS {duck_type(value.type)})"
    exact = f"WHEN abs({text}) < 1e19 THEN {printed} ELSE {text} END)"
    if value.type != DOUBLE:
        return f"(CASE {exact}"
    quick = f"{scaled} < 1e9 AND abs({scaled} - floor({scaled}) - 0.5) > 1e-6"
    return f"(CASE WHEN {quick} THEN round({text} * 1e{digits}) / 1e{digits} {exact}"


def _double(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(template.format(convert(_number(call), DOUBLE).text), DOUBLE)

    return build


def _log(call: Call) -> Sql:
    call.expect(1, 2)
    if len(call) == 1:
        return _double("(CASE WHEN {0} > 0 THEN ln({0}) END)")(call)
    base, value = (convert(_number(call, i), DOUBLE).text for i in (0, 1))
    return Sql(f"(CASE WHEN {base} > 0 AND {value} > 0 THEN ln({value}) / ln({base}) END)", DOUBLE)


def _operator(symbol: str, *, safe: bool = False) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        if safe and not all(is_integral(v.type) for v in call.values):
            raise LocatedError(f"{call.name}() is supported for whole numbers only; test for the bad case with CASE")
        value = arithmetic.calculate(symbol, call[0], call[1])
        return Sql(f"TRY({value.text})", value.type) if safe else value

    return build


def _try_divide(call: Call) -> Sql:
    call.expect(2)
    divisor = Sql(f"NULLIF({call[1].text}, 0)", call[1].type)
    left, right = convert(call[0], DOUBLE), convert(divisor, DOUBLE)
    if is_decimal(call[0].type) or is_decimal(call[1].type):
        raise LocatedError("try_divide() of decimals is not supported; write a / nullif(b, 0)")
    return Sql(f"({left.text} / {right.text})", DOUBLE)


def _pmod(call: Call) -> Sql:
    """The remainder with the sign of the divisor's absolute value."""
    call.expect(2)
    left, right = unify([_number(call, 0), _number(call, 1)])
    if not is_integral(left.type):
        raise LocatedError("pmod() is supported for whole numbers only")
    rest = f"({left.text} % {right.text})"
    return Sql(f"(CASE WHEN {rest} < 0 THEN ({rest} + {right.text}) % {right.text} ELSE {rest} END)", left.type)


def _bit_count(call: Call) -> Sql:
    call.expect(1)
    if not is_integral(call[0].type):
        raise call.misfit()
    return Sql(f"CAST(bit_count({convert(call[0], BIGINT).text}) AS INTEGER)", INT)


def _negative(call: Call) -> Sql:
    call.expect(1)
    return arithmetic.negate(call[0])


_TWO_DOUBLES = (DOUBLE, DOUBLE)

FUNCTIONS: Mapping[str, Builder] = {
    "abs": _same_type("abs({0})"), "positive": _same_type("{0}"), "negative": _negative,
    "ceil": _whole("ceil"), "ceiling": _whole("ceil"), "floor": _whole("floor"), "round": _round, "rint": _double("round_even({0}, 0)"),
    "sqrt": _double("(CASE WHEN {0} < 0 THEN CAST('NaN' AS DOUBLE) ELSE sqrt({0}) END)"), "cbrt": _double("cbrt({0})"),
    "exp": _double("exp({0})"), "ln": _double("(CASE WHEN {0} > 0 THEN ln({0}) END)"), "log": _log,
    "log10": _double("(CASE WHEN {0} > 0 THEN log10({0}) END)"), "log2": _double("(CASE WHEN {0} > 0 THEN log2({0}) END)"),
    "sin": _double("sin({0})"), "cos": _double("cos({0})"), "tan": _double("tan({0})"), "atan": _double("atan({0})"),
    "sinh": _double("sinh({0})"), "cosh": _double("cosh({0})"), "tanh": _double("tanh({0})"),
    "degrees": _double("degrees({0})"), "radians": _double("radians({0})"),
    "sign": _double("CAST(sign({0}) AS DOUBLE)"), "signum": _double("CAST(sign({0}) AS DOUBLE)"),
    "pow": plain("pow({0}, {1})", DOUBLE, *_TWO_DOUBLES), "power": plain("pow({0}, {1})", DOUBLE, *_TWO_DOUBLES),
    "atan2": plain("atan2({0}, {1})", DOUBLE, *_TWO_DOUBLES), "mod": _operator("%"), "pmod": _pmod, "bit_count": _bit_count,
    "try_add": _operator("+", safe=True), "try_subtract": _operator("-", safe=True), "try_multiply": _operator("*", safe=True),
    "try_mod": _operator("%", safe=True), "try_divide": _try_divide,
}  # fmt: skip
