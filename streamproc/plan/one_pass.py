"""A state's aggregate as one expression over prepared rows, without states: what the states must agree with."""

from __future__ import annotations

from streamproc.plan.plan import StateColumn

_MEAN = "list_transform([{0}], lambda _v: {{'v': _v, 'a': list_avg(_v)}})"
_POWERS = ", ".join(f"'m{k}': list_sum(list_transform(_p.v, lambda _x: pow(_x - _p.a, {k})))" for k in (2, 3, 4))
MOMENTS = f"list_transform({_MEAN}, lambda _p: {{{{'n': CAST(len(_p.v) AS DOUBLE), 'a': _p.a, {_POWERS}}}}})[1]"
"""Of a list of DOUBLE: count, mean and the sums of powers of the distances from it."""


def one_pass_sql(state: StateColumn) -> str:
    """`function([DISTINCT] args ORDER BY order) FILTER (WHERE filter)`."""
    where = f" FILTER (WHERE {state.filter})" if state.filter else ""
    if state.function == "central_moments":
        (value,) = state.args
        present = f"{value} IS NOT NULL" + (f" AND {state.filter}" if state.filter else "")
        return MOMENTS.format(f"list({'DISTINCT ' * bool(state.distinct)}{value}) FILTER (WHERE {present})")
    if state.function == "count_star":
        values = ", ".join(state.distinct)
        counted = f"DISTINCT {values if len(state.distinct) == 1 else f'({values})'}" if state.distinct else "*"
        return f"count({counted}){where}"
    arguments = ", ".join([*state.args, *(c for c in state.constants if c != "NULL")])
    order = f" ORDER BY {', '.join(f'{name} {way}' for name, way in state.order)}" if state.order else ""
    return f"{state.function}({'DISTINCT ' * bool(state.distinct)}{arguments}{order}){where}"
