"""SQL of aggregate states: partial, combine, finalize; and the list of the aggregates that are allowed.

`function(args) EXPORT_STATE` yields a state as a plain value; `to_aggregate_state(value, name, argument types,
constants, order)` makes it one again, `combine_aggr` merges such and `finalize` gives the result. `constants` has one
entry for every argument (NULL where it is a column): without it string_agg loses its separator. `order` names columns of
the state's buffer, which holds the arguments first, then those columns of ORDER BY that are no arguments.
`central_moments` is no function of DuckDB, whose skewness and kurtosis lose their digits far from 0: a plain struct of
count, mean and sums of powers of the distances from it, combined after Pébay (SAND2008-6212).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from streamproc.operators.duck import quoted
from streamproc.plan.one_pass import MOMENTS
from streamproc.plan.plan import StateColumn


@dataclass(frozen=True)
class Allowed:
    """An aggregate whose exported states combine right: in k runs or one pass, the same result (doubles to rounding).

    `size`: bounded states have a fixed size; `values` ones keep every value (memory follows rows, not groups).
    `ordered`: the result depends on the order of rows, so ORDER BY is required.
    """

    size: str = "bounded"
    ordered: bool = False


AGGREGATES: Mapping[str, Allowed] = MappingProxyType(
    {
        "count_star": Allowed(), "count": Allowed(), "count_if": Allowed(),
        "sum": Allowed(), "avg": Allowed(), "product": Allowed(),
        "min": Allowed(), "max": Allowed(),
        "arg_min": Allowed(), "arg_max": Allowed(), "arg_min_null": Allowed(), "arg_max_null": Allowed(),
        "bool_and": Allowed(), "bool_or": Allowed(), "bit_and": Allowed(), "bit_or": Allowed(), "bit_xor": Allowed(),
        "stddev_samp": Allowed(), "stddev_pop": Allowed(), "var_samp": Allowed(), "var_pop": Allowed(),
        "corr": Allowed(), "covar_samp": Allowed(), "covar_pop": Allowed(), "central_moments": Allowed(),
        "regr_slope": Allowed(), "regr_intercept": Allowed(), "regr_r2": Allowed(), "regr_count": Allowed(),
        "regr_avgx": Allowed(), "regr_avgy": Allowed(), "regr_sxx": Allowed(), "regr_syy": Allowed(), "regr_sxy": Allowed(),
        "approx_count_distinct": Allowed(),
        "median": Allowed("values"), "quantile_cont": Allowed("values"), "quantile_disc": Allowed("values"),
        "list": Allowed("values", ordered=True), "string_agg": Allowed("values", ordered=True),
        "first": Allowed("values", ordered=True), "last": Allowed("values", ordered=True),
    }
)  # fmt: skip
"""By DuckDB's name. Of first and last prefer `arg_min_null` and `arg_max_null` over (value, order): these keep one
value a group. Refused, among others: mode, histogram, max(x, n) (no exported state). DISTINCT is no matter of a state: the
operator feeds it every value once."""

_TOTALS = (
    "list_transform([{0}], lambda _v: {{'v': _v, 'n': list_sum(list_transform(_v, lambda _x: _x.n)),"
    " 'a': list_sum(list_transform(_v, lambda _x: _x.n * _x.a)) / list_sum(list_transform(_v, lambda _x: _x.n))}})"
)
_SHIFTED = {
    2: "_x.m2 + _x.n * pow(_x.a - _p.a, 2)",
    3: "_x.m3 + 3 * (_x.a - _p.a) * _x.m2 + _x.n * pow(_x.a - _p.a, 3)",
    4: "_x.m4 + 4 * (_x.a - _p.a) * _x.m3 + 6 * pow(_x.a - _p.a, 2) * _x.m2 + _x.n * pow(_x.a - _p.a, 4)",
}
_SUMS = ", ".join(f"'m{k}': list_sum(list_transform(_p.v, lambda _x: {shifted}))" for k, shifted in _SHIFTED.items())
_COMBINED = f"list_transform({_TOTALS}, lambda _p: {{{{'n': _p.n, 'a': _p.a, {_SUMS}}}}})[1]"


def check_state(state: StateColumn) -> None:
    """ValueError if the aggregate is not on the list or lacks its order."""
    allowed = AGGREGATES.get(state.function)
    if allowed is None:
        raise ValueError(f"aggregate {state.function} is not supported; supported are {', '.join(sorted(AGGREGATES))}")
    if allowed.ordered and not state.order:
        raise ValueError(f"aggregate {state.function} needs an order: its result would differ from run to run")


def partial_sql(state: StateColumn) -> str:
    """Expression over prepared rows that yields the exported state under the state's name."""
    if state.function == "central_moments":
        return f"{MOMENTS.format(_values(state))} AS {state.name}"
    arguments = f"{', '.join(_arguments(state))}{_order_by(state)}"
    call = "count(*)" if state.function == "count_star" else f"{state.function}({arguments})"
    filtered = "" if state.filter is None else f" FILTER (WHERE {state.filter})"
    return f"{call}{filtered} EXPORT_STATE AS {state.name}"


def pane_sql(state: StateColumn) -> str:
    """As `partial_sql`, for `panes_sql` in the same statement: there DuckDB does not take the exported states of extremes."""
    return partial_sql(state).replace(" EXPORT_STATE", "") if state.function in ("min", "max") else partial_sql(state)


def panes_sql(state: StateColumn) -> str:
    """Expression over `pane_sql`'s values that yields the exported state under the state's name."""
    if state.function not in ("min", "max"):
        return combine_sql(state)
    return f"{state.function}({state.name}) EXPORT_STATE AS {state.name}"


def combine_sql(state: StateColumn) -> str:
    """Expression over exported states that yields their combination, exported again, under the state's name."""
    if state.function == "central_moments":
        return f"{_COMBINED.format(f'list({state.name}) FILTER (WHERE {state.name}.n > 0)')} AS {state.name}"
    return f"combine_aggr({_state(state)}) AS {state.name}"


def finalize_sql(state: StateColumn) -> str:
    """Expression over exported states that yields the aggregate's result under the state's name."""
    if state.function == "central_moments":
        return combine_sql(state)
    return f"finalize(combine_aggr({_state(state)})) AS {state.name}"


def is_nonzero_sql(state: StateColumn) -> str:
    """Whether exported states of a sum have one that is not 0."""
    return f"coalesce(finalize(combine_aggr({_state(state)})) <> 0, false)"


def _values(state: StateColumn) -> str:
    present = f"{state.args[0]} IS NOT NULL"
    return f"list({state.args[0]}) FILTER (WHERE {present if state.filter is None else f'{present} AND {state.filter}'})"


def _state(state: StateColumn) -> str:
    parts = [state.name, quoted(state.function), f"[{', '.join(map(quoted, state.types))}]::VARCHAR[]"]
    if state.constants or state.order:
        parts.append(f"[{', '.join(_constants(state))}]")
    if state.order:
        buffer = list(dict.fromkeys([*_arguments(state), *(column for column, _ in state.order)]))
        columns = ((buffer.index(column), order) for column, order in state.order)
        parts.append("[" + ", ".join(f"{{'column': {i}, 'order': {quoted(order)}}}" for i, order in columns) + "]")
    return f"to_aggregate_state({', '.join(parts)})"


def _constants(state: StateColumn) -> list[str]:
    return [*state.constants, *["NULL"] * (len(state.types) - len(state.constants))]


def _arguments(state: StateColumn) -> list[str]:
    """Arguments in SQL: constants, and columns for the rest (`args` names the columns, with or without the constants)."""
    if len(state.args) == len(state.types):
        return [arg if constant == "NULL" else constant for arg, constant in zip(state.args, _constants(state), strict=True)]
    columns = iter(state.args)
    return [next(columns) if constant == "NULL" else constant for constant in _constants(state)]


def _order_by(state: StateColumn) -> str:
    if not state.order:
        return ""
    return " ORDER BY " + ", ".join(f"{column} {order}" for column, order in state.order)
