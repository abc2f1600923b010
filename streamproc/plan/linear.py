"""Counts, sums and means over changes, from sums of weighted values alone: a row that goes takes back what it added, so no row
needs to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamproc.plan.plan import WEIGHT, StateColumn
from streamproc.plan.types import quote

_W = quote(WEIGHT)
_COUNTS = ("count_star", "count", "count_if")
_WHOLE = ("SMALLINT", "INTEGER", "BIGINT")


def is_linear(states: Sequence[StateColumn]) -> bool:
    """Whether sums of weighted values say what the states would. Of doubles they do not: their last digits would stay behind."""
    return all(not state.distinct and (state.function in _COUNTS or _is_exact(state)) for state in states)


def _is_exact(state: StateColumn) -> bool:
    kind = state.types[0] if state.types else ""
    return (state.function == "sum" and kind.startswith("DECIMAL(")) or (state.function in ("sum", "avg") and kind in _WHOLE)


@dataclass
class WeightedSums:
    """The sums w0, w1, … that stand for states; w0 is how many rows the group has."""

    kept: dict[StateColumn, str] = field(default_factory=dict)

    @classmethod
    def of(cls, states: Sequence[StateColumn]) -> tuple[tuple[StateColumn, ...], str]:
        """What to keep, as states whose one argument is SQL over prepared rows, and `…, … AS s0`: the states' values over them,
        of the same types.
        """
        sums = cls()
        sums._sum(_W, "BIGINT")
        values = [f"{sums._value(state)} AS {state.name}" for state in states]
        kept = (StateColumn(name, s.function, s.args, s.types, s.filter) for s, name in sums.kept.items())
        return tuple(kept), ", ".join(values)

    def _value(self, state: StateColumn) -> str:
        rows = f"COALESCE(CAST({self._rows(state)} AS BIGINT), 0)"
        if state.function in _COUNTS:
            return rows
        (argument,), (kind,) = state.args, state.types
        wide = "HUGEINT" if kind in _WHOLE else f"DECIMAL(38,{kind.rpartition(',')[2]}"  # room for 10^10 times the widest value
        total = self._sum(f"CAST({argument} AS {wide}) * {_W}", wide, state.filter)
        if state.function == "avg":  # the quotient as DuckDB's own mean rounds it
            pair = f"{{'count': CAST({rows} AS UBIGINT), 'value': {total}}}"
            total = f"finalize(to_aggregate_state({pair}, 'avg', ['{kind}']::VARCHAR[]))"
        return f"CASE WHEN {rows} > 0 THEN {total} END"

    def _rows(self, state: StateColumn) -> str:
        """How many rows the state counts."""
        if state.function == "count_star":
            return self._sum(_W, "BIGINT", state.filter)
        counted = state.args[0] if state.function == "count_if" else f"{state.args[0]} IS NOT NULL"
        return self._sum(f"CASE WHEN {counted} THEN {_W} END", "BIGINT", state.filter)

    def _sum(self, argument: str, kind: str, where: str | None = None) -> str:
        return self.kept.setdefault(StateColumn("", "sum", (argument,), (kind,), where), f"w{len(self.kept)}")
