"""Statistics over doubles; rows with a NULL among the arguments do not count."""

from __future__ import annotations

from streamproc.plan.aggregates.call import AggregateCall, Aggregator
from streamproc.plan.aggregates.sums import whole
from streamproc.plan.casts import convert
from streamproc.plan.types import DOUBLE, Sql


def doubles(function: str, arguments: int = 1) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(arguments)
        return Sql(call.keep(function, *(convert(v, DOUBLE) for v in call.values)), DOUBLE)

    return build


def corr(call: AggregateCall) -> Sql:
    """NULL for a single pair, an error of the result where one side does not vary."""
    call.expect(2)
    pair = [convert(v, DOUBLE) for v in call.values]
    spread = f"{call.keep('regr_sxx', *pair)} * {call.keep('regr_syy', *pair)}"
    several = f"CASE WHEN {spread} = 0 THEN CAST(error('corr(): division by zero, one side does not vary') AS DOUBLE) ELSE "
    return Sql(f"CASE WHEN {call.keep('regr_count', *pair)} > 1 THEN {several}{call.keep('corr', *pair)} END END", DOUBLE)


def regression(function: str) -> Aggregator:
    """A line's slope or intercept: NULL where x does not vary."""

    def build(call: AggregateCall) -> Sql:
        call.expect(2)
        pair = [convert(v, DOUBLE) for v in call.values]
        return Sql(f"CASE WHEN {call.keep('regr_sxx', *pair)} <> 0 THEN {call.keep(function, *pair)} END", DOUBLE)

    return build


def regr_count(call: AggregateCall) -> Sql:
    call.expect(2)
    return whole(call.keep("regr_count", *(convert(v, DOUBLE) for v in call.values)))


def skewness(call: AggregateCall) -> Sql:
    return _moments(call, "sqrt({m}.n) * {m}.m3 / sqrt({m}.m2 * {m}.m2 * {m}.m2)")


def kurtosis(call: AggregateCall) -> Sql:
    return _moments(call, "{m}.n * {m}.m4 / ({m}.m2 * {m}.m2) - 3.0")


def _moments(call: AggregateCall, formula: str) -> Sql:
    """Of the population, NULL where the values do not vary."""
    call.expect(1)
    state = call.keep("central_moments", convert(call[0], DOUBLE))
    return Sql(f"CASE WHEN {state}.m2 <> 0 THEN {formula.format(m=state)} END", DOUBLE)
