"""Counts, sums and means. Sums are exact; one that leaves its type is an error of that result alone, NULL under try_."""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.aggregates.call import AggregateCall, Aggregator
from streamproc.plan.arithmetic import exact_quotient, pointed, unscaled
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import BIGINT, BOOLEAN, DOUBLE, NULL, STRING, Sql, decimal, duck_type, is_decimal, is_integral, is_numeric

_HALF = f"{10**18}::HUGEINT"
"""Where the digits of wide decimals are cut in two, so that neither half's sum leaves 128 bits."""


def count(call: AggregateCall) -> Sql:
    call.expect(1, 1000)
    if not call.distinct and all(isinstance(n, exp.Star) or call[i].literal is not None for i, n in enumerate(call.nodes)):
        return whole(call.keep("count_star"))
    if any(isinstance(n, exp.Star) for n in call.nodes):
        raise LocatedError("count(DISTINCT *) is not possible; name the columns")
    if call.distinct or len(call) == 1:
        return whole(call.keep("count", *call.values))
    present = " AND ".join(f"{v.text} IS NOT NULL" for v in call.values)
    return whole(call.keep("count", Sql(f"(CASE WHEN {present} THEN true END)", BOOLEAN)))


def whole(state: str) -> Sql:
    """A count: 0 in the group that has no rows."""
    return Sql(f"COALESCE(CAST({state} AS BIGINT), 0)", BIGINT)


def count_if(call: AggregateCall) -> Sql:
    call.expect(1)
    value = convert(call[0], BOOLEAN)
    if call.distinct:
        return whole(call.keep("count", value, where=value.text))
    return whole(call.keep("count_if", value))


def _summable(call: AggregateCall) -> Sql:
    call.expect(1)
    value = call[0]
    if value.type == pa.int8():  # no state of DuckDB sums TINYINT
        return convert(value, pa.int32())
    if is_integral(value.type) or is_decimal(value.type):
        return value
    if not is_numeric(value.type) and value.type not in (STRING, NULL):
        raise call.misfit()
    return convert(value, DOUBLE)


def total(cast: str) -> Aggregator:
    """sum() with CAST, try_sum() with TRY_CAST."""

    def build(call: AggregateCall) -> Sql:
        value = _summable(call)
        kind = _sum_type(value.type)
        if _is_wide(value.type):
            exact = f"CAST({pointed_sum(call, value)} AS {duck_type(kind)})"
            return Sql(exact if cast == "CAST" else f"TRY({exact})", kind)
        return Sql(f"{cast}({call.keep('sum', value)} AS {duck_type(kind)})", kind)

    return build


def _sum_type(kind: pa.DataType) -> pa.DataType:
    if is_decimal(kind):
        return decimal(kind.precision + 10, kind.scale)
    return BIGINT if is_integral(kind) else DOUBLE


def _is_wide(kind: pa.DataType) -> bool:
    """A decimal whose sum may not fit 38 digits."""
    return is_decimal(kind) and bool(kind.precision > 28)


def pointed_sum(call: AggregateCall, value: Sql) -> str:
    """The sum of wide decimals as text."""
    return f"list_transform([{_wide_sum(call, value)}], lambda _d: {pointed('_d', value.type.scale)})[1]"


def _wide_sum(call: AggregateCall, value: Sql) -> str:
    """The unscaled sum as HUGEINT; an error of the result where it has more than 38 digits."""
    digits, huge = unscaled(value), pa.decimal128(38, 0)
    high = call.keep("sum", Sql(f"CAST({digits} // {_HALF} AS {duck_type(huge)})", huge))
    low = call.keep("sum", Sql(f"CAST({digits} % {_HALF} AS {duck_type(huge)})", huge))
    halves = f"{{'h': CAST({high} AS HUGEINT), 'l': CAST({low} AS HUGEINT)}}"
    return f"list_transform([{halves}], lambda _s: (_s.h + _s.l // {_HALF}) * {_HALF} + _s.l % {_HALF})[1]"


def mean(call: AggregateCall) -> Sql:
    value = _summable(call)
    if not is_decimal(value.type):
        return Sql(call.keep("avg", value), DOUBLE)
    count = call.keep("count", value)
    kind = decimal(value.type.precision + 4, value.type.scale + 4)
    if _is_wide(value.type):
        return _wide_mean(_wide_sum(call, value), count, value.type.scale, kind)
    sum_ = Sql(call.keep("sum", value), pa.decimal128(38, value.type.scale))
    return exact_quotient(sum_, Sql(f"NULLIF({count}, 0)", pa.decimal128(20, 0)), kind)


def _wide_mean(sum_: str, count: str, scale: int, kind: pa.DataType) -> Sql:
    """Division in two steps, whole part and rest, since the sum has no room for more digits; rounded HALF_UP."""
    unit = f"{10 ** (kind.scale - scale)}::HUGEINT"
    rest = f"(2 * (_m.n % _m.d) * {unit} + sign(_m.n) * _m.d) // (2 * _m.d)"
    pair = f"{{'n': {sum_}, 'd': CAST(NULLIF({count}, 0) AS HUGEINT)}}"
    digits = f"list_transform([{pair}], lambda _m: (_m.n // _m.d) * {unit} + {rest})"
    return Sql(f"CAST(list_transform({digits}, lambda _d: {pointed('_d', kind.scale)})[1] AS {duck_type(kind)})", kind)


def try_mean(call: AggregateCall) -> Sql:
    value = mean(call)
    return Sql(f"TRY({value.text})", value.type) if is_decimal(value.type) else value
