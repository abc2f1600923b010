"""Spark's aggregates by name → exportable DuckDB states and the expression over their finalized values.

The allow-list: every aggregate here is exact when partial states are combined in any cut, and has a test of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.arithmetic import exact_quotient
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Call
from streamproc.plan.plan import StateColumn
from streamproc.plan.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    STRING,
    Sql,
    decimal,
    duck_type,
    is_decimal,
    is_integral,
    is_numeric,
    is_orderable,
    text_literal,
)


@dataclass
class States:
    """What an aggregate operator must prepare and keep: arguments a0…, filters f0…, states s0…; equal ones are shared."""

    columns: dict[str, str] = field(default_factory=dict)
    """SQL of a prepared column → its name."""
    kept: dict[StateColumn, str] = field(default_factory=dict)
    arrival: Sql = field(default_factory=lambda: Sql("NULL", BIGINT))
    """What puts rows in order: a struct of event time, shard, offset."""
    in_order: bool = False

    def prepare(self, text: str, letter: str) -> str:
        if text not in self.columns:
            self.columns[text] = f"{letter}{sum(n[0] == letter for n in self.columns.values())}"
        return self.columns[text]

    def keep(
        self, function: str, arguments: Sequence[Sql], where: str | None = None, constants: tuple[str, ...] = (), order: str | None = None
    ) -> str:
        """Name of the finalized state of `function(arguments ORDER BY order) FILTER (WHERE where)`."""
        state = StateColumn(
            name="",
            function=function,
            args=tuple(self.prepare(a.text, "a") for a in arguments),
            types=(*(duck_type(a.type) for a in arguments), *("DOUBLE" for _ in constants)),
            filter=None if where is None else self.prepare(where, "f"),
            constants=(*("NULL" for _ in arguments), *constants) if constants else (),
            order=() if order is None else ((self.prepare(order, "o"), "ASC NULLS LAST"),),
        )
        return self.kept.setdefault(state, f"s{len(self.kept)}")

    @property
    def state_columns(self) -> tuple[StateColumn, ...]:
        return tuple(replace(state, name=name) for state, name in self.kept.items())


@dataclass
class AggregateCall(Call):
    """A call of an aggregate: its arguments are compiled over the input rows, its result over the states."""

    states: States = field(default_factory=States)
    where: str | None = None
    ignore_nulls: bool = False

    def keep(
        self, function: str, *arguments: Sql, where: str | None = None, constants: tuple[str, ...] = (), order: str | None = None
    ) -> str:
        both = " AND ".join(f"({w})" for w in (self.where, where) if w)
        return self.states.keep(function, arguments, both or None, constants, order)

    def arrival(self) -> Sql:
        """What puts the rows in order."""
        self.states.in_order = True
        return self.states.arrival


Aggregator = Callable[[AggregateCall], Sql]


def _count(call: AggregateCall) -> Sql:
    call.expect(1, 1000)
    stars = all(isinstance(n, exp.Star) or call[i].literal is not None for i, n in enumerate(call.nodes))
    if stars:
        return _whole(call.keep("count_star"))
    if len(call) == 1:
        return _whole(call.keep("count", call[0]))
    present = " AND ".join(f"{v.text} IS NOT NULL" for v in call.values)
    return _whole(call.keep("count", Sql(f"(CASE WHEN {present} THEN true END)", BOOLEAN)))


def _whole(state: str) -> Sql:
    """A count: 0 in the group that has no rows."""
    return Sql(f"COALESCE(CAST({state} AS BIGINT), 0)", BIGINT)


def _count_if(call: AggregateCall) -> Sql:
    call.expect(1)
    return _whole(call.keep("count_if", convert(call[0], BOOLEAN)))


def _summable(call: AggregateCall) -> Sql:
    call.expect(1)
    value = call[0]
    if value.type == pa.int8():  # no state of DuckDB sums TINYINT
        return convert(value, pa.int32())
    if is_integral(value.type) or is_decimal(value.type):
        return value
    if not is_numeric(value.type) and value.type != STRING:
        raise call.misfit()
    return convert(value, DOUBLE)


def _sum(call: AggregateCall) -> Sql:
    value = _summable(call)
    kind = _sum_type(value.type)
    return Sql(f"CAST({call.keep('sum', value)} AS {duck_type(kind)})", kind)


def _sum_type(kind: pa.DataType) -> pa.DataType:
    if is_decimal(kind):
        return decimal(kind.precision + 10, kind.scale)
    return BIGINT if is_integral(kind) else DOUBLE


def _avg(call: AggregateCall) -> Sql:
    value = _summable(call)
    if not is_decimal(value.type):
        return Sql(call.keep("avg", value), DOUBLE)
    total = Sql(call.keep("sum", value), pa.decimal128(38, value.type.scale))
    count = Sql(f"NULLIF({call.keep('count', value)}, 0)", pa.decimal128(20, 0))
    return exact_quotient(total, count, decimal(value.type.precision + 4, value.type.scale + 4))


def _extreme(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        if not is_orderable(call[0].type):
            raise call.misfit()
        return Sql(call.keep(function, call[0]), call[0].type)

    return build


def _doubles(function: str, arguments: int = 1) -> Aggregator:
    """Statistics over doubles; rows with a NULL among the arguments do not count."""

    def build(call: AggregateCall) -> Sql:
        call.expect(arguments)
        return Sql(call.keep(function, *(convert(v, DOUBLE) for v in call.values)), DOUBLE)

    return build


def _corr(call: AggregateCall) -> Sql:
    """NULL for a single pair, NaN where one side does not vary."""
    call.expect(2)
    pair = [convert(v, DOUBLE) for v in call.values]
    return Sql(f"CASE WHEN {call.keep('regr_count', *pair)} > 1 THEN {call.keep('corr', *pair)} END", DOUBLE)


def _regr_count(call: AggregateCall) -> Sql:
    call.expect(2)
    return _whole(call.keep("regr_count", *(convert(v, DOUBLE) for v in call.values)))


def _booleans(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        return Sql(call.keep(function, convert(call[0], BOOLEAN)), BOOLEAN)

    return build


def _bits(function: str) -> Aggregator:
    def build(call: AggregateCall) -> Sql:
        call.expect(1)
        if not is_integral(call[0].type):
            raise call.misfit()
        return Sql(call.keep(function, call[0]), call[0].type)

    return build


def _by(function: str) -> Aggregator:
    """The value where `y` is largest or smallest, which may be NULL; rows with a NULL `y` do not count."""

    def build(call: AggregateCall) -> Sql:
        call.expect(2)
        if not is_orderable(call[1].type):
            raise call.misfit(1)
        return Sql(call.keep(function, call[0], call[1], where=f"{call[1].text} IS NOT NULL"), call[0].type)

    return build


def _first(function: str) -> Aggregator:
    """By event time, shard and arrival: the same in every cut of the input."""

    def build(call: AggregateCall) -> Sql:
        call.expect(1, 2)
        skip = call.ignore_nulls or (len(call) == 2 and bool(call.constant(1, bool, "whether NULLs are skipped")))
        where = f"{call[0].text} IS NOT NULL" if skip else None
        return Sql(call.keep(function, call[0], call.arrival(), where=where), call[0].type)

    return build


def _listed(call: AggregateCall, value: Sql) -> str:
    """Values that are not NULL, by event time, shard and arrival."""
    return call.keep("list", value, where=f"{value.text} IS NOT NULL", order=call.arrival().text)


def _collect_list(call: AggregateCall) -> Sql:
    call.expect(1)
    kind = pa.list_(call[0].type)
    return Sql(f"COALESCE({_listed(call, call[0])}, CAST([] AS {duck_type(kind)}))", kind)


def _collect_set(call: AggregateCall) -> Sql:
    """Sorted, where Spark promises no order."""
    call.expect(1)
    if not is_orderable(call[0].type):
        raise call.misfit()
    state = call.keep("list", call[0], where=f"{call[0].text} IS NOT NULL", order=call[0].text)
    kind = pa.list_(call[0].type)
    return Sql(f"COALESCE(list_sort(list_distinct({state})), CAST([] AS {duck_type(kind)}))", kind)


def _listagg(call: AggregateCall) -> Sql:
    call.expect(1, 2)
    separator = call.string(1, "the separator") if len(call) == 2 else ""
    return Sql(f"array_to_string({_listed(call, convert(call[0], STRING))}, {text_literal(separator)})", STRING)


def _percentile(call: AggregateCall) -> Sql:
    call.expect(2)
    share = call[1].literal
    if share is None or not 0 <= float(share) <= 1:
        raise LocatedError(f"{call.name}(): the share must be a literal from 0 to 1")
    return _quantile(call, str(share))


def _median(call: AggregateCall) -> Sql:
    call.expect(1)
    return _quantile(call, "0.5")


def _quantile(call: AggregateCall, share: str) -> Sql:
    return Sql(call.keep("quantile_cont", convert(call[0], DOUBLE), constants=(f"{share}::DOUBLE",)), DOUBLE)


def _approx_count_distinct(call: AggregateCall) -> Sql:
    call.expect(1)
    return _whole(call.keep("approx_count_distinct", call[0]))


_REGRESSIONS = ("regr_slope", "regr_intercept", "regr_r2", "regr_avgx", "regr_avgy", "regr_sxx", "regr_sxy", "regr_syy")

AGGREGATES: Mapping[str, Aggregator] = {
    "count": _count, "count_if": _count_if, "sum": _sum, "avg": _avg, "mean": _avg, "min": _extreme("min"), "max": _extreme("max"),
    "stddev": _doubles("stddev_samp"), "std": _doubles("stddev_samp"), "stddev_samp": _doubles("stddev_samp"),
    "stddev_pop": _doubles("stddev_pop"),
    "variance": _doubles("var_samp"), "var_samp": _doubles("var_samp"), "var_pop": _doubles("var_pop"),
    "corr": _corr, "covar_samp": _doubles("covar_samp", 2), "covar_pop": _doubles("covar_pop", 2),
    **{name: _doubles(name, 2) for name in _REGRESSIONS},
    "regr_count": _regr_count,
    "bool_and": _booleans("bool_and"), "every": _booleans("bool_and"),
    "bool_or": _booleans("bool_or"), "some": _booleans("bool_or"), "any": _booleans("bool_or"),
    "bit_and": _bits("bit_and"), "bit_or": _bits("bit_or"), "bit_xor": _bits("bit_xor"),
    "max_by": _by("arg_max_null"), "min_by": _by("arg_min_null"),
    "first": _first("arg_min_null"), "first_value": _first("arg_min_null"), "any_value": _first("arg_min_null"),
    "last": _first("arg_max_null"), "last_value": _first("arg_max_null"),
    "collect_list": _collect_list, "array_agg": _collect_list, "collect_set": _collect_set, "listagg": _listagg, "string_agg": _listagg,
    "percentile": _percentile, "median": _median, "approx_count_distinct": _approx_count_distinct,
}  # fmt: skip
