"""DISTINCT beside partial states: the values that groups have seen, as rows of the same runs.

A state of a DISTINCT aggregate is fed with every combination of its values once. What was fed stays as rows with `_d` (the
number of the combination's columns, NULL in the groups' own rows), the values, and `_f`, a bit for each filter under which
they were seen. Such a row has the `_we` of its group, so it leaves with it, and an `_h` of its own. An epoch looks up only the
values that it brings, and a result costs what its states cost, however many values the group has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.duck import Duck
from streamproc.operators.states import partial_sql
from streamproc.plan.plan import StateColumn
from streamproc.state.runs import Run

NUMBER, FILTERS = "_d", "_f"
GROUPS_ONLY = f"(SELECT * FROM input WHERE {NUMBER} IS NULL)"
FILTERS_MAX = 63
"""Bits of `_f`."""


class DistinctValues:
    """The sets of values of an aggregate's DISTINCT states. `groups`: the columns that make a group."""

    def __init__(self, states: Sequence[StateColumn], groups: Sequence[str], placed: str) -> None:
        """`placed`: SQL over a group's columns of its `_we` and `_h`. ValueError: too many filters."""
        self._states, self._groups = states, groups
        self._end = placed.partition(" AS _we")[0]
        self._sets: dict[tuple[str, ...], list[str | None]] = {}
        for state in states:
            filters = self._sets.setdefault(state.distinct, [])
            if state.filter not in filters:
                filters.append(state.filter)
        if max(map(len, self._sets.values())) > FILTERS_MAX:
            raise ValueError(f"DISTINCT takes at most {FILTERS_MAX} filters over the same columns")
        self.columns = tuple(dict.fromkeys(name for values in self._sets for name in values))
        self._known_sql, self._new_sql, self._fed_sql = self._known(), self._new(), self._fed(placed)

    def candidates(self, rows: str, windowed: Callable[[str], str] | None = None) -> str:
        """SELECTs joined by UNION ALL BY NAME: the values in `rows`, each once a group. `windowed` makes rows of groups of
        rows that have `_t` instead of `_ws`.
        """
        return " UNION ALL BY NAME ".join(self._candidates(number, values, rows, windowed) for number, values in enumerate(self._sets))

    def _candidates(self, number: int, values: tuple[str, ...], rows: str, windowed: Callable[[str], str] | None) -> str:
        bits = [f"CASE WHEN {where or 'true'} THEN {1 << bit} ELSE 0 END" for bit, where in enumerate(self._sets[values])]
        seen = f"CAST(bit_or({' | '.join(bits)}) AS BIGINT)"
        if windowed is not None:
            few = ", ".join(["_t", *(name for name in self._groups if name != "_ws"), *values])
            rows = f"({windowed(f'SELECT {few}, {seen} AS {FILTERS} FROM {rows} GROUP BY {few}')})"
            seen = f"bit_or({FILTERS})"
        listed = ", ".join([*self._groups, *values])
        hashed = f"hash({', '.join([*self._groups, str(number), *values])}) AS _h"
        once = f"SELECT {listed}, {seen} AS {FILTERS} FROM {rows} GROUP BY {listed}"
        numbered = f"{self._end} AS _we, {hashed}, CAST({number} AS INTEGER) AS {NUMBER}"
        return f"SELECT {numbered}, {listed}, {FILTERS} FROM ({once}) WHERE {FILTERS} <> 0"

    def feed(self, duck: Duck, parts: Sequence[pa.Table], runs: Sequence[Run], schema: pa.Schema) -> list[pa.Table]:
        """The groups' rows of `parts`, partial states of what is new in their values, and rows of these values, all of the
        runs' `schema`.
        """
        rows = pa.concat_tables(parts)
        numbers = rows.column(NUMBER)
        found, groups = rows.filter(numbers.is_valid()), conformed(rows.filter(numbers.is_null()), schema)
        if not found.num_rows:
            return [groups]
        new = duck.query(self._new_sql, found=found, known=self._look_up(duck, found, runs))
        return [groups, conformed(duck.query(self._fed_sql, new=new), schema), conformed(new, schema)]

    def schema(self, duck: Duck, parts: pa.Schema, groups: Sequence[str]) -> pa.Schema:
        """Columns of the runs: those of the groups' own rows by their names, then the values'. `parts`: of the slices."""
        fed = duck.query(self._fed_sql, new=parts.empty_table()).schema
        fields = {field.name: field for field in (*parts, *fed)}
        return pa.schema([fields[name] for name in (*groups, NUMBER, FILTERS, *self.columns)])

    def _look_up(self, duck: Duck, found: pa.Table, runs: Sequence[Run]) -> pa.Table:
        """Which of the values were seen before."""
        span = pc.min_max(found.column("_we"), skip_nulls=False).as_py()
        seen = [run.between(span["min"], span["max"]) for run in runs]
        if not seen:
            return found.slice(0, 0)
        return duck.query(self._known_sql, found=found, seen=pa.concat_tables(seen))

    def _match(self, left: str, right: str) -> str:
        same = " AND ".join(f"{left}.{name} IS NOT DISTINCT FROM {right}.{name}" for name in (*self._groups, *self.columns))
        return f"{left}._h = {right}._h AND {left}.{NUMBER} = {right}.{NUMBER} AND {same}"

    def _known(self) -> str:
        names = ", ".join(f"seen.{name}" for name in ("_h", NUMBER, *self._groups, *self.columns, FILTERS))
        match = self._match("seen", "found")
        return f"SELECT {names} FROM (SELECT * FROM seen WHERE {NUMBER} IS NOT NULL) AS seen SEMI JOIN found ON {match}"

    def _new(self) -> str:
        identity = ", ".join(("_h", NUMBER, *self._groups, *self.columns))
        once = f"SELECT _we, {identity}, bit_or({FILTERS}) AS {FILTERS} FROM found GROUP BY _we, {identity}"
        known = f"SELECT {identity}, bit_or({FILTERS}) AS {FILTERS} FROM known GROUP BY {identity}"
        left = f"found.{FILTERS} & ~COALESCE(known.{FILTERS}, 0)"
        joined = f"({once}) AS found LEFT JOIN ({known}) AS known ON {self._match('found', 'known')}"
        return f"SELECT found.* REPLACE ({left} AS {FILTERS}) FROM {joined} WHERE {left} <> 0 ORDER BY _we NULLS LAST, _h"

    def _fed(self, placed: str) -> str:
        states = ", ".join(partial_sql(self._over_new(state)) for state in self._states)
        groups = ", ".join(self._groups)
        grouped = f"SELECT {groups}, {states} FROM new GROUP BY {groups}" if groups else f"SELECT {states} FROM new"
        return f"SELECT {placed}, * FROM ({grouped})"

    def _over_new(self, state: StateColumn) -> StateColumn:
        number, bit = list(self._sets).index(state.distinct), self._sets[state.distinct].index(state.filter)
        return replace(state, distinct=(), filter=f"({NUMBER} = {number} AND {FILTERS} & {1 << bit} <> 0)")


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with all columns of `schema`, NULL where it has none."""
    known, rows = set(table.column_names), table.num_rows
    columns = [table.column(field.name) if field.name in known else pa.nulls(rows, field.type) for field in schema]
    return pa.table(columns, schema=schema)
