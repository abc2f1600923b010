"""Aggregates that give values of the rows: extremes, first and last, lists; and those over booleans and bits.

Order is event time, then shard, then offset: the same in every cut of the input. Where Spark leaves open which of several
equal rows counts, this order decides.
"""

from __future__ import annotations

import pyarrow as pa

from streamproc.plan.aggregates.call import AggregateCall, Aggregator
from streamproc.plan.aggregates.sums import whole
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.types import BINARY, BOOLEAN, STRING, Sql, duck_type, is_integral, is_orderable, quote, text_literal

_IN_ORDER = "ASC NULLS LAST"


def extreme(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        value = call[0]
        if not is_orderable(value.type):
            raise call.misfit()
        key = order_key(value)
        if key.text == value.text:
            return Sql(call.keep(function, value), value.type)
        return Sql(call.keep(f"arg_{function}_null", value, key, where=f"{value.text} IS NOT NULL"), value.type)

    return build


def order_key(value: Sql) -> Sql:
    """What orders nested values as Spark does, a NULL inside before everything; flat values are their own key."""
    text, kind = _order_key(value.text, value.type, 0)
    return Sql(text, kind)


def _order_key(text: str, kind: pa.DataType, depth: int) -> tuple[str, pa.DataType]:
    if pa.types.is_list(kind):
        element = f"_e{depth}"
        inner, inner_kind = _nullable_key(element, kind.value_type, depth + 1)
        return f"list_transform({text}, lambda {element}: {inner})", pa.list_(inner_kind)
    if pa.types.is_struct(kind):
        parts = [_nullable_key(f"struct_extract({text}, {text_literal(f.name)})", f.type, depth) for f in kind]
        fields = ", ".join(f"{quote(f.name)}: {part}" for f, (part, _) in zip(kind, parts, strict=True))
        return f"{{{fields}}}", pa.struct([(f.name, part) for f, (_, part) in zip(kind, parts, strict=True)])
    return text, kind


def _nullable_key(text: str, kind: pa.DataType, depth: int) -> tuple[str, pa.DataType]:
    inner, inner_kind = _order_key(text, kind, depth)
    return f"{{'p': {text} IS NOT NULL, 'v': {inner}}}", pa.struct([("p", BOOLEAN), ("v", inner_kind)])


def booleans(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        return Sql(call.keep(function, convert(call[0], BOOLEAN)), BOOLEAN)

    return build


def bits(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        if not is_integral(call[0].type):
            raise call.misfit()
        return Sql(call.keep(function, call[0]), call[0].type)

    return build


def by(function: str) -> Aggregator:
    """The value where `y` is largest or smallest, which may be NULL; rows with a NULL `y` do not count. Of several such rows
    max_by takes the last in order, min_by the first.
    """

    def build(call: AggregateCall) -> Sql:
        if len(call) == 3:
            raise RefusedError(f"{call.name}(x, y, k) is not supported; for the top k rows of a group use ROW_NUMBER()")
        call.expect(2)
        if not is_orderable(call[1].type):
            raise call.misfit(1)
        key, arrival = order_key(call[1]), call.arrival()
        order = Sql(f"{{'y': {key.text}, 'r': {arrival.text}}}", pa.struct([("y", key.type), ("r", arrival.type)]))
        return Sql(call.keep(function, call[0], order, where=f"{call[1].text} IS NOT NULL"), call[0].type)

    return build


def first(function: str) -> Aggregator:
    """The first or last row's value in order."""

    def build(call: AggregateCall) -> Sql:
        call.expect(1, 2)
        skip = call.ignore_nulls or (len(call) == 2 and bool(call.constant(1, bool, "whether NULLs are skipped")))
        where = f"{call[0].text} IS NOT NULL" if skip else None
        return Sql(call.keep(function, call[0], call.arrival(), where=where), call[0].type)

    return build


def collect_list(call: AggregateCall) -> Sql:
    """In order; with DISTINCT sorted."""
    call.expect(1)
    value = call[0]
    return _list(call, value, value.text if call.distinct else call.arrival().text)


def collect_set(call: AggregateCall) -> Sql:
    """Sorted, where Spark promises no order."""
    call.expect(1)
    call.distinct = True
    return _list(call, call[0], call[0].text)


def _list(call: AggregateCall, value: Sql, order: str) -> Sql:
    if call.distinct and not is_orderable(value.type):
        raise call.misfit()
    if call.ignore_nulls is False:
        raise LocatedError(f"{call.name}() leaves NULLs out; put a value in their place with coalesce(x, …)")
    kind = pa.list_(value.type)
    state = call.keep("list", value, where=f"{value.text} IS NOT NULL", order=[(order, _IN_ORDER)])
    return Sql(f"COALESCE({state}, CAST([] AS {duck_type(kind)}))", kind)


def listagg(call: AggregateCall) -> Sql:
    """By WITHIN GROUP (ORDER BY …), where that is equal or absent in order."""
    call.expect(1, 2)
    value = call[0]
    if value.type == BINARY:
        raise call.misfit()
    text, keys = convert(value, STRING), call.within_group()
    separator = "" if len(call) == 1 or call[1].type == pa.null() else call.string(1, "the separator")
    if call.distinct and any(key.text not in (value.text, text.text) for key, _ in keys):
        raise LocatedError(f"{call.name}(DISTINCT x) is ordered by x itself; leave DISTINCT or the other order out")
    if call.distinct and keys and value.type != STRING:
        raise LocatedError(f"{call.name}(DISTINCT x) joins the texts, so CAST x to STRING to order by that")
    if call.distinct:
        order = [(text.text, keys[0][1] if keys else _IN_ORDER)]
    else:
        order = [*((order_key(key).text, way) for key, way in keys), (call.arrival().text, _IN_ORDER)]
    state = call.keep("list", text, where=f"{text.text} IS NOT NULL", order=order)
    return Sql(f"array_to_string({state}, {text_literal(separator)})", STRING)


def approx_count_distinct(call: AggregateCall) -> Sql:
    """DuckDB's estimate, a few percent off, where Spark's is another."""
    call.expect(1)
    return whole(call.keep("approx_count_distinct", call[0]))
