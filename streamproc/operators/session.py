"""Grouped aggregate over windows that merge (sessions), kept as runs of partial sessions with exported states.

A run's columns: `_we` (end, BIGINT µs), `_h` (hash of the key), `_ws` (start), the keys, the states. A session may lie in
several rows of several runs: those of one key whose intervals overlap or touch. They are put together when they are
read. A row whose end is final may be part of a session that goes on: it goes back into the state with that one's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.keys import hash_of, normalized, order_of, same_key
from streamproc.operators.late import LATE, Lateness, late_in, refused
from streamproc.operators.operator import Epoch, Failure, Fed, Finished, Input, Operator
from streamproc.operators.results import surviving
from streamproc.operators.states import check_state, combine_sql, finalize_sql, partial_sql
from streamproc.plan.plan import Query, SessionAggregate, unweighted
from streamproc.state.merge import merge
from streamproc.state.runs import Run, first_final_us, next_chain, split_final
from streamproc.state.watermark import lowered

_COUNT = "_n"


class SessionOperator(Operator):
    """One `SessionAggregate` step of a query. In `update` it writes changes: what a session was that grew or merged goes."""

    state_schema: pa.Schema

    def __init__(self, step: SessionAggregate, query: Query, duck: Duck) -> None:
        """ValueError: an aggregate is not allowed."""
        for state in step.states:
            check_state(state)
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._schema = unweighted(step.schema)
        self._timed = step.uses_watermark and query.mode != "complete"
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        self._carries_origin = query.carries_origin and "_offset" in step.input.schema.names
        self._prepared = duck.query(step.prepare, input=empty_input(step.input.schema)).schema
        self._slice_sql = nested(step.prepare, self._partial())
        self._combine_sql = f"{self._put_together('input')} ORDER BY _we, _h, _ws"
        self._result_sql = self._results("input")
        empty = duck.query(self._slice_sql, input=empty_input(step.input.schema))
        self.state_schema = pa.schema([column for column in empty.schema if column.name not in (LATE, _COUNT)])
        self._result(duck, self.state_schema.empty_table(), "")  # whatever does not bind shows now

    def slice_sql(self, port: int = 0) -> str:
        return self._slice_sql

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.prepare,)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        late, late_rows = self._refused(epoch, inputs[0])
        fresh = self._fresh(epoch.duck, inputs[0], state)
        runs = [*state, *fresh]
        closed, alive = self._close(epoch, runs)
        if self._query.mode == "update":
            rows, failures = self._changes(epoch, state, fresh)
        else:
            whole = pa.concat_tables([run.table for run in runs]) if self._query.mode == "complete" and runs else closed
            rows, failures = self._result(epoch.duck, whole, epoch.source)
        merged = merge(alive, lambda table: epoch.duck.query(self._combine_sql, input=table), epoch.merge_bytes_max)
        return Finished(rows, merged, late, late_rows, failures=failures)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Sessions that are not final at the watermark."""
        tables = [run.table for run in state]
        if not tables:
            return 0
        sessions = duck.query(self._combine_sql, input=pa.concat_tables(tables)).column("_we")
        final = self._behind(watermark_us)
        return len(sessions) if final is None else int(pc.sum(pc.greater(sessions, final)).as_py() or 0)

    def timer_us(self, state: Sequence[Run]) -> int | None:
        if self._query.mode != "append" or not self._timed:
            return None
        first_us = first_final_us(state)
        return None if first_us is None else first_us + self._step.lag_us

    def _behind(self, watermark_us: int | None) -> int | None:
        """The watermark as it counts here; None: nothing is final."""
        return None if not self._timed else lowered(watermark_us, self._step.lag_us)

    # -- late rows

    def _refused(self, epoch: Epoch, fed: Input) -> tuple[pa.Table | None, int]:
        return late_in(fed, partial(self._late_rows, epoch) if self._carries_origin else None, _COUNT)

    def _late_rows(self, epoch: Epoch, one: Fed) -> pa.Table:
        reached, window = one.rows(epoch.duck), "concat('[', make_timestamptz(_ws), ', ', make_timestamptz(_we), ')')"
        sql = f"SELECT {self._is_late()} AS late, {self._lateness.until} AS until, {window} AS window FROM input"
        judged = epoch.duck.query(nested(self._step.prepare, sql), input=reached)
        return refused(self._query.sink, reached, judged, "late: the row's own session was final")

    def _is_late(self) -> str:
        return f"(_we > _ws AND {self._lateness.is_late('_we')})" if self._timed else "false"

    # -- runs and results

    def _fresh(self, duck: Duck, fed: Input, state: Sequence[Run]) -> list[Run]:
        """The sessions of this epoch's rows as a run."""
        kept = [one.part.filter(pc.invert(one.part.column(LATE))).drop_columns([LATE, _COUNT]) for one in fed]
        filled = [part for part in kept if part.num_rows]
        return [Run.of(duck.query(self._combine_sql, input=pa.concat_tables(filled)), next_chain(state))] if filled else []

    def _close(self, epoch: Epoch, runs: Sequence[Run]) -> tuple[pa.Table, list[Run]]:
        """Sessions that are final, and the state without them."""
        ended, alive = split_final(runs, self._behind(epoch.time.watermark_end_us))
        if not ended:
            return self.state_schema.empty_table(), alive
        ends = pa.concat_tables(ended)
        going_on = [run.table for run in alive]
        touched = f"SELECT input.* FROM input SEMI JOIN ended ON {self._meets('input', 'ended')}"
        others = epoch.duck.query(touched, input=pa.concat_tables(going_on), ended=ends) if going_on else ends.slice(0, 0)
        both = "SELECT *, true AS _ended FROM ended UNION ALL BY NAME SELECT *, false AS _ended FROM input"
        sessions = epoch.duck.query(self._put_together(both, "_ended") + " ORDER BY _we, _h, _ws", input=others, ended=ends)
        watermark = self._behind(epoch.time.watermark_end_us)
        final = pc.less_equal(sessions.column("_we"), watermark)
        back = sessions.filter(pc.invert(final))
        return sessions.filter(final), [*alive, *([Run.of(back, next_chain(runs))] if back.num_rows else [])]

    def _changes(self, epoch: Epoch, state: Sequence[Run], fresh: Sequence[Run]) -> tuple[pa.Table, Sequence[Failure]]:
        """Sessions that this epoch made or widened, with weight 1, and what they were before, with -1."""
        if not fresh:
            return self._weighted(self._schema.empty_table(), 1), ()
        first_us = pc.min(fresh[0].table.column("_ws")).as_py()
        older = [rows for run in state if (rows := run.between(first_us, 2**63 - 1)).num_rows]
        known = f"SELECT input.* FROM input SEMI JOIN fresh ON {same_key(self._step.keys, 'input', 'fresh')}"
        was = epoch.duck.query(known, input=pa.concat_tables(older), fresh=fresh[0].table) if older else fresh[0].table.slice(0, 0)
        both = "SELECT *, true AS _fresh FROM fresh UNION ALL BY NAME SELECT *, false AS _fresh FROM input"
        keys = ["_h", *self._step.keys]
        touched = f"SELECT *, bool_or(_fresh) OVER (PARTITION BY {', '.join([*keys, '_s'])}) AS _touched FROM ({self._numbered(both)})"
        columns = ", ".join(self.state_schema.names)
        now = epoch.duck.query(f"SELECT {columns}, _fresh FROM ({touched}) WHERE _touched", input=was, fresh=fresh[0].table)
        old, lost = self._result(epoch.duck, now.filter(pc.invert(now.column("_fresh"))).select(self.state_schema.names), epoch.source)
        new, failed = self._result(epoch.duck, now.select(self.state_schema.names), epoch.source)
        del lost  # a result that failed was never written
        return pa.concat_tables([self._weighted(old, -1), self._weighted(new, 1)]), failed

    def _weighted(self, rows: pa.Table, weight: int) -> pa.Table:
        return rows.append_column("#w", pa.repeat(pa.scalar(weight, pa.int64()), rows.num_rows))

    def _result(self, duck: Duck, partial: pa.Table, source: str) -> tuple[pa.Table, Sequence[Failure]]:
        """Results of the sessions in `partial`, without those that fail: an expression over the aggregates may."""
        results = duck.query(self._result_sql, input=partial)
        rows, failures = surviving(duck, self._step.post, results, source, ["_ws", *self._step.keys])
        return rows.cast(self._schema), failures

    # -- SQL

    def _partial(self) -> str:
        """Prepared rows of a slice to partial sessions, late rows apart."""
        rows = f"SELECT {normalized(self._step.keys, self._prepared)}, {self._is_late()} AS {LATE} FROM input WHERE _we > _ws"
        columns = [*map(partial_sql, self._step.states), f"count(*) AS {_COUNT}"]
        return self._grouped(self._step.merging.numbered(rows, [LATE, *self._step.keys]), [LATE, *self._step.keys], columns)

    def _put_together(self, rows: str, only: str = "") -> str:
        """Partial sessions put together; with `only`, of those rows' states alone (but with the whole session's end)."""
        numbered = self._numbered(rows)
        columns = [*map(combine_sql, self._step.states)]
        if only:
            by = ", ".join([*self._step.keys, "_s"])
            numbered = f"SELECT * REPLACE (max(_we) OVER (PARTITION BY {by}) AS _we) FROM ({numbered}) QUALIFY {only}"
        return self._grouped(numbered, list(self._step.keys), columns)

    def _results(self, rows: str) -> str:
        grouped = self._grouped(self._numbered(rows), list(self._step.keys), [*map(finalize_sql, self._step.states)])
        return f"{grouped} ORDER BY {order_of(['_ws', *self._step.keys])}"

    def _numbered(self, rows: str) -> str:
        source = rows if rows.startswith("SELECT") else f"SELECT * FROM {rows}"
        return self._step.merging.numbered(source, list(self._step.keys))

    def _grouped(self, numbered: str, by: Sequence[str], columns: Sequence[str]) -> str:
        """Rows with `_s` to one row a session."""
        listed = ", ".join(["max(_we) AS _we", f"{hash_of(self._step.keys)} AS _h", "min(_ws) AS _ws", *by, *columns])
        return f"SELECT {listed} FROM ({numbered}) GROUP BY {', '.join([*by, '_s'])}"

    def _meets(self, left: str, right: str) -> str:
        touching = f"{left}._ws <= {right}._we AND {right}._ws <= {left}._we"
        return f"{same_key(self._step.keys, left, right)} AND {touching}"

    def __repr__(self) -> str:
        return f"<SessionOperator {self.id} {self._query.mode}>"
