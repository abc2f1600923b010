"""Percentiles, median and mode: exact, over all values of a group."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.aggregates.call import AggregateCall
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import BIGINT, BOOLEAN, DOUBLE, Sql, is_integral, is_numeric, is_orderable, is_time

_ASCENDING, _DESCENDING = "ASC NULLS LAST", "DESC NULLS LAST"


def percentile(call: AggregateCall) -> Sql:
    """`percentile(x, share or array of shares[, frequency])`, interpolated."""
    call.expect(2, 3)
    shares = _shares(call, 1)
    return _continuous(call, call[0], shares) if len(call) == 2 else _weighted(call, shares)


def percentile_cont(call: AggregateCall) -> Sql:
    call.expect(1)
    value, descending = _ordered_value(call)
    shares = _shares(call, 0)
    return _continuous(call, value, [1 - s for s in shares] if descending else shares, 0)


def median(call: AggregateCall) -> Sql:
    call.expect(1)
    return Sql(_quantile(call, _number(call, call[0]), "0.5"), DOUBLE)


def _continuous(call: AggregateCall, value: Sql, shares: Sequence[Decimal], at: int = 1) -> Sql:
    number = _number(call, value)
    if not _is_array(call.nodes[at]):
        return Sql(_quantile(call, number, str(shares[0])), DOUBLE)
    states = [_quantile(call, number, str(share)) for share in shares]
    return Sql(f"CASE WHEN {states[0]} IS NOT NULL THEN [{', '.join(states)}] END", pa.list_(DOUBLE))


def _quantile(call: AggregateCall, number: Sql, share: str) -> str:
    return call.keep("quantile_cont", number, constants=(f"{share}::DOUBLE",))


def _number(call: AggregateCall, value: Sql) -> Sql:
    if is_time(value.type) or value.type == BOOLEAN:
        raise LocatedError(f"{call.name}() takes numbers; of a time take unix_micros(t)")
    return convert(value, DOUBLE)


def percentile_disc(call: AggregateCall) -> Sql:
    """The first value that so large a share of the values reaches."""
    call.expect(1)
    value, descending = _ordered_value(call)
    return _discrete(call, _number(call, value), 0, _DESCENDING if descending else _ASCENDING)


def approx_percentile(call: AggregateCall) -> Sql:
    """The exact discrete percentile: a value that lies within every accuracy Spark may be asked for."""
    call.expect(2, 3)
    if len(call) == 3 and call.integer(2, "the accuracy") <= 0:
        raise LocatedError(f"{call.name}(): the accuracy must be above 0")
    if not (is_numeric(call[0].type) or is_time(call[0].type)):
        raise call.misfit()
    return _discrete(call, call[0], 1, _ASCENDING)


def _discrete(call: AggregateCall, value: Sql, at: int, way: str) -> Sql:
    values = _sorted(call, value, way)
    picks = [f"{values}[greatest(1, CAST(ceil({share}::DOUBLE * len({values})) AS BIGINT))]" for share in _shares(call, at)]
    if not _is_array(call.nodes[at]):
        return Sql(picks[0], value.type)
    return Sql(f"CASE WHEN {values} IS NOT NULL THEN [{', '.join(picks)}] END", pa.list_(value.type))


def mode(call: AggregateCall) -> Sql:
    """The most frequent value; of several the smallest, under WITHIN GROUP (ORDER BY x DESC) the largest."""
    call.expect(0 if call.within else 1, 0 if call.within else 2)
    if len(call) == 2:
        call.constant(1, bool, "whether it is deterministic")
    value, descending = _ordered_value(call) if call.within else (call[0], False)
    if not is_orderable(value.type):
        raise call.misfit()
    order = "list_reverse({0})" if descending else "{0}"
    keys, counts = order.format("map_keys(_h)"), order.format("map_values(_h)")
    pick = f"{keys}[list_position({counts}, list_max({counts}))]"
    values = _sorted(call, value, _ASCENDING)
    counted = f"list_transform([list_aggregate({values}, 'histogram')], lambda _h: {pick})[1]"
    return Sql(f"CASE WHEN {values} IS NOT NULL THEN {counted} END", value.type)


def _sorted(call: AggregateCall, value: Sql, way: str) -> str:
    """All values in order; NULL where there is none."""
    return call.keep("list", value, where=f"{value.text} IS NOT NULL", order=[(value.text, way)])


def _weighted(call: AggregateCall, shares: Sequence[Decimal]) -> Sql:
    """Values that stand for several each: one walk over the sorted values for a share."""
    number = _number(call, call[0])
    if not is_integral(call[2].type):
        raise call.misfit(2)
    frequency = convert(call[2], BIGINT).text
    wrong = f"error('percentile(): the frequency ' || {frequency} || ' is negative')"
    pair = f"{{'v': {number.text}, 'f': CASE WHEN {frequency} < 0 THEN CAST({wrong} AS BIGINT) ELSE {frequency} END}}"
    value = Sql(pair, pa.struct([("v", DOUBLE), ("f", BIGINT)]))
    state = call.keep("list", value, where=f"{number.text} IS NOT NULL AND {frequency} <> 0", order=[(pair, _ASCENDING)])
    results = [_walk(state, str(share)) for share in shares]
    if not _is_array(call.nodes[1]):
        return Sql(results[0], DOUBLE)
    return Sql(f"CASE WHEN {state} IS NOT NULL THEN [{', '.join(results)}] END", pa.list_(DOUBLE))


def _walk(state: str, share: str) -> str:
    total = f"list_sum(list_transform({state}, lambda _x: _x.f))"
    at = f"{{'l': {state}, 'p': ({total} - 1) * {share}::DOUBLE}}"
    here = "_a.c <= {0} AND {0} < _a.c + _x.f"
    low, high = (
        f"CASE WHEN {here.format(f'{end}(_q.p)')} THEN _x.v ELSE _a.{side} END" for side, end in (("low", "floor"), ("high", "ceil"))
    )
    step = f"lambda _a, _x: {{'c': _a.c + _x.f, 'low': {low}, 'high': {high}}}"
    start = "{'c': 0::HUGEINT, 'low': NULL::DOUBLE, 'high': NULL::DOUBLE}"
    between = "CASE WHEN floor(_q.p) = _q.p THEN _w.low ELSE (ceil(_q.p) - _q.p) * _w.low + (_q.p - floor(_q.p)) * _w.high END"
    found = f"list_transform([list_reduce(_q.l, {step}, {start})], lambda _w: {between})[1]"
    return f"CASE WHEN {state} IS NOT NULL THEN list_transform([{at}], lambda _q: {found})[1] END"


def _ordered_value(call: AggregateCall) -> tuple[Sql, bool]:
    keys = call.within_group()
    if len(keys) != 1:
        raise LocatedError(f"{call.name}() needs WITHIN GROUP (ORDER BY x) with one x")
    return keys[0][0], keys[0][1].startswith("DESC")


def _is_array(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() == "array"


def _shares(call: AggregateCall, at: int) -> list[Decimal]:
    """Shares as written, exactly: 1 - 0.9 is 0.1."""
    node = call.nodes[at]
    literals = [call.compiler.compile(n).literal for n in node.expressions] if _is_array(node) else [call[at].literal]
    try:
        shares = [Decimal(str(literal)) for literal in literals]
    except InvalidOperation:
        shares = []
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise LocatedError(f"{call.name}(): the share must be a literal from 0 to 1, or array(…) of such")
    return shares
