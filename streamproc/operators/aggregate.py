"""Grouped aggregate, kept as runs of exported states.

A run's columns: `_we` (window end, or the grouped event time; BIGINT µs, NULL = never final), `_h` (hash of the key),
`_ws` (window start, with a window), the keys, the states; with DISTINCT also rows of the values that were seen (see
distinct.py). An epoch: slices → partial states → one run; the rows to write come from the runs by output mode; then final
groups leave and runs are merged a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.errors import Bug
from streamproc.operators.difference import difference_sql
from streamproc.operators.distinct import FILTERS, GROUPS_ONLY, NUMBER, DistinctValues
from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.keys import hash_of, normalized, order_of
from streamproc.operators.late import Lateness, refused, source_rows
from streamproc.operators.operator import Epoch, Failure, Finished, Input, Operator
from streamproc.operators.results import surviving
from streamproc.operators.states import check_state, combine_sql, finalize_sql, pane_sql, panes_sql, partial_sql
from streamproc.plan.grouping_sets import SET
from streamproc.plan.plan import Aggregate, Query, StateColumn, unweighted
from streamproc.state.lookup import hashes_of, rows_of
from streamproc.state.merge import merge
from streamproc.state.runs import Run, first_final_us, next_chain, split_final
from streamproc.state.watermark import lowered

_COUNT = "_n"  # source rows of a group in a slice, each counted in its last window


class AggregateOperator(Operator):
    """One `Aggregate` step of a query."""

    row_count = "count(*){}"
    """SQL of how many rows a partial group stands for; {}: a filter."""

    def __init__(self, step: Aggregate, query: Query, duck: Duck) -> None:
        """ValueError: an aggregate is not allowed."""
        for state in step.states:
            check_state(state)
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._labels = {name: step.labels.get(name, "grouping set" if name == SET else name) for name in ("_ws", *step.keys)}
        self._schema = unweighted(step.schema)
        self._difference_sql = difference_sql(self._schema)
        self._timed = step.uses_watermark and (step.window is not None or step.time_key is not None)
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        self._carries_origin = query.carries_origin and "_offset" in step.input.schema.names
        self._prepared = duck.query(step.prepare, input=empty_input(step.input.schema)).schema
        distinct = [state for state in step.states if state.distinct]
        self._distinct = DistinctValues(distinct, self._groups(), self._place()) if distinct else None
        self._slice_sql = nested(step.prepare, self._partial())
        self._combine_sql = self._combine()
        self._result_sql = self._results()
        empty = duck.query(self._slice_sql, input=empty_input(step.input.schema)).drop_columns([_COUNT])
        names = ("_we", "_h", *self._groups(), *(state.name for state in step.states))
        self.state_schema = self._distinct.schema(duck, empty.schema, names) if self._distinct else empty.schema
        self._result(duck, [self.state_schema.empty_table()])  # whatever does not bind shows now

    def slice_sql(self, port: int = 0) -> str:
        return self._slice_sql

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        window = self._step.window
        placed = () if window is None else (f"SELECT *, {window.assign_one('_t')} AS _ws FROM input WHERE _t IS NOT NULL",)
        return (self._step.prepare, *placed)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        kept, late, late_rows = self._judge(epoch, inputs[0])
        fresh = self._fresh(epoch, inputs[0], kept, state)
        runs = [*state, *fresh]
        if self._query.mode == "complete":
            groups, alive = [run.table for run in runs], list(runs)
        else:
            groups, alive = split_final(runs, self._behind(epoch.time.watermark_end_us))
            if self._query.mode == "update":
                groups = self._touched(epoch.duck, runs, fresh)
        rows, failures = self._result(epoch.duck, groups, epoch.source)
        if self._step.writes_changes:
            before, _ = self._result(epoch.duck, groups[:-1])  # the last are this epoch's
            rows = epoch.duck.query(self._difference_sql, before=before, after=rows).cast(self._step.schema)
        merged = merge(alive, lambda table: epoch.duck.query(self._combine_sql, input=table), epoch.merge_bytes_max)
        return Finished(rows, merged, late, late_rows, failures=failures)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Groups that are not final at the watermark."""
        final = None if self._query.mode == "complete" else self._behind(watermark_us)
        tables = [run.table for run in split_final(state, final)[1]]
        if not tables:
            return 0
        names = ", ".join(["_we", *self._groups()])
        counted = duck.query(f"SELECT count(*) AS n FROM (SELECT DISTINCT {names} FROM input)", input=pa.concat_tables(tables))
        return int(counted.column("n")[0].as_py())

    def timer_us(self, state: Sequence[Run]) -> int | None:
        if self._query.mode != "append" or not self._timed:
            return None
        first_us = first_final_us(state)
        return None if first_us is None else first_us + self._step.lag_us

    def _behind(self, watermark_us: int | None) -> int | None:
        """The watermark as it counts here; None: nothing is final."""
        return None if not self._timed else lowered(watermark_us, self._step.lag_us)

    # -- late rows

    def _judge(self, epoch: Epoch, fed: Input) -> tuple[list[pa.Table], pa.Table | None, int]:
        """Partial groups that are still open, refused rows, and how many those are."""
        if not self._timed or self._query.mode == "complete" or not self._lateness.possible(epoch.time):
            return [one.part.drop_columns([_COUNT]) for one in fed], None, 0
        kept, gone, count = [], list[pa.Table](), 0
        for one in fed:
            part = one.part
            final = self._lateness.of(epoch, part, "_we")
            late = pc.sum(pc.filter(part.column(_COUNT), final)).as_py() or 0
            count += max(late, 0)
            if late > 0 and self._carries_origin:
                gone.append(self._late_rows(epoch.duck, one.rows(epoch.duck)))
            kept.append(part.filter(pc.invert(final)).drop_columns([_COUNT]))
        if not gone:
            return kept, None, count
        return kept, pa.concat_tables(gone), source_rows(gone)

    def _late_rows(self, duck: Duck, reached: pa.Table) -> pa.Table:
        """The operator's input rows that no open group takes, with the reason."""
        ended = f"SELECT *, {self._last_end()} AS _we FROM ({self._step.prepare})"
        shown = f"{self._lateness.is_late('_we')} AS late, {self._lateness.until} AS until, {self._window_text()} AS window"
        judged = duck.query(nested(ended, f"SELECT {shown} FROM input"), input=reached)
        if judged.num_rows != reached.num_rows:
            raise Bug(f"sink {self._query.sink}: the aggregate's prepared rows are not its input rows")
        reason = "late: every window of the row was final" if self._step.window else "late: event time"
        return refused(self._query.sink, reached, judged, reason)

    def _window_text(self) -> str:
        """SQL of the row's last window."""
        if self._step.window is None:
            return "NULL::VARCHAR"
        return f"concat('[', make_timestamptz({self._step.window.start('_we')}), ', ', make_timestamptz(_we), ')')"

    # -- runs and results

    def _fresh(self, epoch: Epoch, fed: Input, parts: Sequence[pa.Table], state: Sequence[Run]) -> list[Run]:
        """The partial states of this epoch as a run; none without rows, but the global group begins without."""
        if state and not any(one.table.num_rows for one in fed):
            return []
        filled = [part for part in parts if part.num_rows]
        if not filled:
            return []
        if self._distinct:
            assert self.state_schema is not None
            filled = self._distinct.feed(epoch.duck, filled, state, self.state_schema)
        if len(filled) == 1:
            table = filled[0].sort_by([("_we", "ascending"), ("_h", "ascending")])
        else:
            table = epoch.duck.query(self._combine_sql, input=pa.concat_tables(filled))
        return [Run.of(table, next_chain(state))]

    def _touched(self, duck: Duck, runs: Sequence[Run], fresh: Sequence[Run]) -> list[pa.Table]:
        """All partials of the groups that this epoch touched, in an order that is the same each time: run order, or (more
        groups touched than kept) the join's; states whose result depends on it have an order of their own.
        """
        if not fresh:
            return []
        new = fresh[0]
        never = new.table.column("_we").null_count  # such groups may be anywhere in a run
        span = (None, None) if never else (new.window_min, new.window_max)
        hashes = hashes_of(new.table)
        older = [rows for run in runs if run is not new and (rows := rows_of(run, hashes, *span)).num_rows]
        if not older:
            return [new.table]
        match = " AND ".join(f"input.{name} IS NOT DISTINCT FROM touched.{name}" for name in ["_h", *self._groups()])
        sql = f"SELECT input.* FROM {self._group_rows()} AS input SEMI JOIN touched ON {match}"
        return [duck.query(sql, input=pa.concat_tables(older), touched=new.table), new.table]

    def _result(self, duck: Duck, groups: Sequence[pa.Table], source: str = "") -> tuple[pa.Table, Sequence[Failure]]:
        """Results of the groups, without those that fail: an expression over the aggregates may."""
        if not groups:
            return self._schema.empty_table(), ()
        results = duck.query(self._result_sql, input=pa.concat_tables(groups))
        rows, failures = surviving(duck, self._step.post, results, source, self._labels)
        return rows.cast(self._schema), failures

    # -- SQL

    def _partial(self) -> str:
        """Prepared rows of a slice to partial states and the number of rows by group."""
        columns = (*self._step.keys, *(self._distinct.columns if self._distinct else ()))
        rows = self._expanded(f"SELECT {normalized(columns, self._prepared)} FROM input")
        if self._distinct is None:
            return self._partial_groups(f"({rows})")
        # every set of values reads the rows once more, so these are computed first
        values = self._partial_values("prepared")
        return f"WITH prepared AS MATERIALIZED ({rows}) {self._partial_groups('prepared')} UNION ALL BY NAME {values}"

    def _expanded(self, rows: str) -> str:
        """A row for every grouping set."""
        if not self._step.sets:
            return rows
        kept = {name: [str(i) for i, one in enumerate(self._step.sets) if name in one] for name in self._step.keys}
        masked = [f"CASE WHEN _s.g IN ({', '.join(sets)}) THEN {name} END AS {name}" for name, sets in kept.items() if sets]
        never = [f"CASE WHEN false THEN {name} END AS {name}" for name, sets in kept.items() if not sets and name != SET]
        numbers = f"(SELECT CAST(unnest(range({len(self._step.sets)})) AS INTEGER) AS g) AS _s"
        return f"SELECT r.* REPLACE ({', '.join([*masked, *never, f'_s.g AS {SET}'])}) FROM ({rows}) AS r CROSS JOIN {numbers}"

    def _partial_groups(self, rows: str) -> str:
        states = [state for state in self._step.states if not state.distinct]
        partials = [partial_sql(state) for state in states]
        window, once = self._step.window, f"{SET} = 0" if self._step.sets else "true"
        counted = f"{self.row_count.format(f' FILTER (WHERE {once})' if self._step.sets else '')} AS {_COUNT}"
        if window is None:
            grouped = self._group_by(rows, [*partials, counted])
        elif window.single:
            grouped = self._group_by(f"({self._in_one_window(rows)})", [*partials, counted])
        elif (pane := window.pane("_t")) is not None:
            placed = f"SELECT * EXCLUDE (_t), {pane} AS _t FROM {rows} WHERE _t IS NOT NULL"
            columns = ", ".join(["_t", *self._step.keys, *map(pane_sql, states), counted])
            panes = f"SELECT {columns} FROM ({placed}) GROUP BY ALL"
            count = f"coalesce(sum({_COUNT}) FILTER (WHERE _ws = _last), 0)::BIGINT AS {_COUNT}"
            grouped = self._group_by(f"({self._unnested(panes)})", [*map(panes_sql, states), count])
        else:
            placed = self._unnested(f"SELECT * FROM {rows} WHERE _t IS NOT NULL")
            last = self.row_count.format(f" FILTER (WHERE _ws = _last AND {once})")
            grouped = self._group_by(f"({placed})", [*partials, f"{last} AS {_COUNT}"])
        return self._placed(grouped, states, _COUNT)

    def _partial_values(self, rows: str) -> str:
        """Values of DISTINCT states in a slice."""
        assert self._distinct is not None
        window = self._step.window
        if window is None:
            return self._distinct.candidates(rows)
        if window.single:
            return self._distinct.candidates(f"({self._in_one_window(rows)})")
        pane = window.pane("_t") or "_t"
        return self._distinct.candidates(f"(SELECT * REPLACE ({pane} AS _t) FROM {rows} WHERE _t IS NOT NULL)", self._unnested)

    def _in_one_window(self, rows: str) -> str:
        assert self._step.window is not None
        return f"SELECT *, {self._step.window.assign_one('_t')} AS _ws FROM {rows} WHERE _t IS NOT NULL"

    def _unnested(self, rows: str) -> str:
        """A row for every window of `_t`."""
        assert self._step.window is not None
        return f"SELECT *, unnest({self._step.window.assign('_t')}) AS _ws, {self._step.window.assign_one('_t')} AS _last FROM ({rows})"

    def _grouped(self, expression: Callable[[StateColumn], str]) -> str:
        return self._group_by(self._group_rows(), [expression(state) for state in self._step.states])

    def _group_rows(self) -> str:
        """The groups' own rows of runs."""
        return GROUPS_ONLY if self._distinct else "input"

    def _combine(self) -> str:
        combined = self._placed(self._grouped(combine_sql))
        if self._distinct:
            values = (NUMBER, FILTERS, *self._distinct.columns)
            seen = f"SELECT {', '.join(('_we', '_h', *self._groups(), *values))} FROM input WHERE {NUMBER} IS NOT NULL"
            names = ("_we", "_h", *self._groups(), *(state.name for state in self._step.states), *values)
            combined = f"SELECT {', '.join(names)} FROM ({combined} UNION ALL BY NAME {seen})"
        return f"{combined} ORDER BY _we NULLS LAST, _h"

    def _results(self) -> str:
        return self._with_start(self._placed(self._grouped(finalize_sql)) + self._result_order())

    def _group_by(self, source: str, columns: Sequence[str]) -> str:
        groups = self._groups()
        by = f" GROUP BY {', '.join(groups)}" if groups else ""
        return f"SELECT {', '.join([*groups, *columns])} FROM {source}{by}"

    def _placed(self, grouped: str, states: Sequence[StateColumn] | None = None, *more: str) -> str:
        """`grouped` with `_we` and `_h` before its columns."""
        names = [*self._groups(), *(state.name for state in (self._step.states if states is None else states)), *more]
        return f"SELECT {self._place()}, {', '.join(names)} FROM ({grouped})"

    def _place(self) -> str:
        return f"{self._end()} AS _we, {hash_of(self._step.keys)} AS _h"

    def _with_start(self, results: str) -> str:
        """`_ws` is the window's key until here."""
        start = self._step.window.begin("_ws") if self._step.window else "_ws"
        return results if start == "_ws" else f"SELECT * REPLACE ({start} AS _ws) FROM ({results})"

    def _groups(self) -> list[str]:
        return [*(["_ws"] if self._step.window else []), *self._step.keys]

    def _end(self) -> str:
        """Final time of a group."""
        if self._step.window is not None:
            return self._step.window.end("_ws")
        return self._key_time()

    def _last_end(self) -> str:
        """Final time of the last group of a prepared row."""
        if self._step.window is not None:
            return self._step.window.end(self._step.window.assign_one("_t"))
        return self._key_time()

    def _key_time(self) -> str:
        return self._step.time_key or "NULL::BIGINT"

    def _result_order(self) -> str:
        names = [*(["_ws"] if self._step.window else ["_we"]), *self._step.keys]
        return f" ORDER BY {order_of(names)}"

    def __repr__(self) -> str:
        return f"<AggregateOperator {self.id} {self._query.mode}>"
