"""Functions of numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamproc.plan import arithmetic
from streamproc.plan.casts import cast, convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions import rounding
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.functions.rounding import decimal_to
from streamproc.plan.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INT,
    STRING,
    TINYINT,
    Sql,
    as_decimal,
    bound,
    duck_type,
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
        if not safe:
            return arithmetic.calculate(symbol, call[0], call[1])
        if not (is_numeric(call[0].type) and is_numeric(call[1].type)):
            raise LocatedError(f"{call.name}() is supported for numbers only; test for the bad case with CASE")
        left, right = Sql("@a", call[0].type, call[0].literal), Sql("@b", call[1].type, call[1].literal)
        value = arithmetic.operate(symbol, left, right)
        made = re.sub(r"error\('[^']*'\)", "NULL", value.text)
        return Sql(bound({"a": call[0].text, "b": call[1].text}, f"TRY({made})"), value.type)

    return build


def _pmod(call: Call) -> Sql:
    """The remainder with the sign of the divisor's absolute value."""
    call.expect(2)
    rest = arithmetic.calculate("%", call[0], call[1])
    divisor = cast(arithmetic.number(call[1], "pmod()"), rest.type)
    again = "fmod(@r + @d, @d)" if is_fractional(rest.type) else "(@r + @d) % @d"
    if is_integral(rest.type):
        again = f"CAST((CAST(@r AS HUGEINT) + @d) % @d AS {duck_type(rest.type)})"
    return Sql(
        bound({"r": rest.text, "d": divisor.text}, f"CAST(CASE WHEN @r < 0 THEN {again} ELSE @r END AS {duck_type(rest.type)})"), rest.type
    )


def _integer(call: Call, index: int = 0) -> Sql:
    if not is_integral(call[index].type):
        raise call.misfit(index)
    return call[index]


def _bit_count(call: Call) -> Sql:
    call.expect(1)
    value = cast(call[0], BIGINT) if call[0].type == BOOLEAN else _integer(call)
    return Sql(f"CAST(bit_count({convert(value, BIGINT).text}) AS INTEGER)", INT)


def _bit_get(call: Call) -> Sql:
    call.expect(2)
    value = _integer(call)
    width, position = value.type.bit_width, call.text(1, INT)
    wrong = f"CAST(error('bit_get(): the position is not within 0 and {width - 1}') AS TINYINT)"
    body = (
        f"CASE WHEN @x IS NULL THEN NULL WHEN @p < 0 OR @p >= {width} THEN {wrong} ELSE CAST((CAST(@x AS BIGINT) >> @p) & 1 AS TINYINT) END"
    )
    return Sql(bound({"x": value.text, "p": position}, body), TINYINT)


def _shift(symbol: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        return arithmetic.shift_bits(symbol, _integer(call), call[1])

    return build


def _bin(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"bin({call.text(0, BIGINT)})", STRING)


def _factorial(call: Call) -> Sql:
    """NULL outside of 0 to 20."""
    call.expect(1)
    return Sql(bound({"n": call.text(0, INT)}, "CASE WHEN @n BETWEEN 0 AND 20 THEN CAST(factorial(@n) AS BIGINT) END"), BIGINT)


def _width_bucket(call: Call) -> Sql:
    call.expect(4)
    low, high = "1 + CAST(floor(@n * (@v - @a) / (@b - @a)) AS BIGINT)", "1 + CAST(floor(@n * (@a - @v) / (@a - @b)) AS BIGINT)"
    bad = "@n <= 0 OR @n = 9223372036854775807 OR isnan(@v) OR @a = @b OR NOT isfinite(@a) OR NOT isfinite(@b)"
    up = f"WHEN @a < @b THEN CASE WHEN @v < @a THEN 0 WHEN @v >= @b THEN @n + 1 ELSE {low} END"
    down = f"ELSE CASE WHEN @v > @a THEN 0 WHEN @v <= @b THEN @n + 1 ELSE {high} END"
    known = "@v IS NULL OR @a IS NULL OR @b IS NULL OR @n IS NULL"
    names = {"v": call.text(0, DOUBLE), "a": call.text(1, DOUBLE), "b": call.text(2, DOUBLE), "n": call.text(3, BIGINT)}
    return Sql(bound(names, f"CASE WHEN {known} OR {bad} THEN NULL {up} {down} END"), BIGINT)


def _conv(call: Call) -> Sql:
    """Of texts in the bases 2 to 36; only literal bases, and what fits BIGINT without a sign."""
    call.expect(3)
    base, target = call.integer(1, "the base"), call.integer(2, "the base")
    if base != 10 or target not in (2, 16) or not is_integral(call[0].type):
        raise LocatedError("conv() is supported from whole numbers in base 10 to base 2 or 16; use hex(), bin() or unhex()")
    return Sql(f"{'bin' if target == 2 else 'hex'}({call.text(0, BIGINT)})", STRING)


def _format_number(call: Call) -> Sql:
    """`12,332.12`, rounded HALF_EVEN; NULL of fewer than 0 digits."""
    call.expect(2)
    value, digits = arithmetic.number(call[0], "format_number()"), call.integer(1, "the number of digits")
    if is_fractional(value.type) or digits > 18:
        raise LocatedError("format_number() of a DOUBLE is not supported, since its digits would differ; CAST it to DECIMAL(p,s) first")
    if digits < 0:
        return Sql("CAST(NULL AS VARCHAR)", STRING)
    exact = decimal_to(cast(value, as_decimal(Sql("", value.type))), digits, "bround")
    text = "split_part(CAST(abs(@x) AS VARCHAR), '.', {})"
    grouped = "regexp_replace(reverse({}), '([0-9]{{3}})', '\\1,', 'g')".format(
        f"CASE WHEN {text.format(1)} = '' THEN '0' ELSE {text.format(1)} END"
    )
    fraction = f" || '.' || rpad({text.format(2)}, {digits}, '0')" if digits else ""
    made = f"CASE WHEN @x < 0 THEN '-' ELSE '' END || ltrim(reverse({grouped}), ',')" + fraction
    return Sql(bound({"x": exact.text}, made), STRING)


def _constant(text: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(0)
        return Sql(text, DOUBLE)

    return build


def _negative(call: Call) -> Sql:
    call.expect(1)
    return arithmetic.negate(call[0])


def _abs(call: Call) -> Sql:
    call.expect(1)
    value = arithmetic.number(call[0], "abs()")
    arithmetic.check_mathcontext(value)
    return Sql(f"abs({value.text})", value.type)


def _two_doubles(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        return Sql(template.format(*(convert(_number(call, i), DOUBLE).text for i in (0, 1))), DOUBLE)

    return build


_NAN = "CAST('NaN' AS DOUBLE)"
_SIGN = "CASE WHEN isnan(@x) OR @x = 0 THEN @x ELSE CAST(sign(@x) AS DOUBLE) END"


def _bound_double(body: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(bound({"x": convert(_number(call), DOUBLE).text}, body), DOUBLE)

    return build


FUNCTIONS: Mapping[str, Builder] = {
    "abs": _abs, "positive": _same_type("{0}"), "negative": _negative, "rint": _double("round_even({0}, 0)"),
    "sqrt": _double(f"(CASE WHEN {{0}} < 0 THEN {_NAN} ELSE sqrt({{0}}) END)"), "cbrt": _double("cbrt({0})"),
    "exp": _double("exp({0})"), "ln": _double("(CASE WHEN {0} > 0 THEN ln({0}) END)"), "log": _log,
    "log10": _double("(CASE WHEN {0} > 0 THEN log10({0}) END)"), "log2": _double("(CASE WHEN {0} > 0 THEN log2({0}) END)"),
    "sin": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} ELSE sin(@x) END"),
    "cos": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} ELSE cos(@x) END"),
    "tan": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} ELSE tan(@x) END"),
    "asin": _bound_double(f"CASE WHEN abs(@x) <= 1 THEN asin(@x) WHEN @x IS NOT NULL THEN {_NAN} END"),
    "acos": _bound_double(f"CASE WHEN abs(@x) <= 1 THEN acos(@x) WHEN @x IS NOT NULL THEN {_NAN} END"),
    "asinh": _double("asinh({0})"), "acosh": _bound_double(f"CASE WHEN @x < 1 THEN {_NAN} ELSE acosh(@x) END"),
    "atanh": _bound_double(f"CASE WHEN abs(@x) > 1 THEN {_NAN} ELSE atanh(@x) END"), "atan": _double("atan({0})"),
    "sinh": _double("sinh({0})"), "cosh": _double("cosh({0})"), "tanh": _double("tanh({0})"),
    "degrees": _double("degrees({0})"), "radians": _double("radians({0})"),
    "cot": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} WHEN @x = 0 THEN 1 / @x ELSE 1 / tan(@x) END"),
    "sec": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} ELSE 1 / cos(@x) END"),
    "csc": _bound_double(f"CASE WHEN isinf(@x) THEN {_NAN} ELSE 1 / sin(@x) END"),
    "sign": _bound_double(_SIGN), "signum": _bound_double(_SIGN), "e": _constant("2.718281828459045::DOUBLE"),
    "pi": _constant("3.141592653589793::DOUBLE"), "pow": _two_doubles("pow({0}, {1})"), "power": _two_doubles("pow({0}, {1})"),
    "atan2": _two_doubles("atan2({0}, {1})"), "mod": _operator("%"), "pmod": _pmod,
    "bit_count": _bit_count, "bit_get": _bit_get, "getbit": _bit_get, "shiftleft": _shift("<<"), "shiftright": _shift(">>"),
    "shiftrightunsigned": _shift(">>>"), "bin": _bin, "factorial": _factorial, "width_bucket": _width_bucket, "conv": _conv,
    "format_number": _format_number, **rounding.FUNCTIONS,
    "try_add": _operator("+", safe=True), "try_subtract": _operator("-", safe=True), "try_multiply": _operator("*", safe=True),
    "try_mod": _operator("%", safe=True), "try_divide": _operator("/", safe=True),
}  # fmt: skip
