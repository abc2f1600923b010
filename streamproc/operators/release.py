"""Rows that wait until they are final and are then put through one statement: window functions in mode append.

A run's columns: `_we` (BIGINT µs: the watermark at which the row is released), `_h` (hash of the key), the keys, what is kept of a
row; where the statement looks back, also what a released key leaves behind: its last rows, or one row of running totals
(`carries`). Those have no `_we`, but the version `_v` (BIGINT: the epoch's `now`); of a key only the newest version counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.keys import hash_of, normalized, same_key
from streamproc.operators.late import LATE, Lateness, judged_again, late_in
from streamproc.operators.operator import Epoch, Failure, Finished, Input, Operator
from streamproc.operators.results import surviving
from streamproc.plan.plan import Query, Release
from streamproc.state.merge import merge
from streamproc.state.runs import Run, first_final_us, next_chain, split_final
from streamproc.state.watermark import lowered


class ReleaseOperator(Operator):
    """One `Release` step of a query."""

    state_schema: pa.Schema

    def __init__(self, step: Release, query: Query, duck: Duck) -> None:
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._carries_origin = query.carries_origin and "_offset" in step.input.schema.names
        kept = duck.query(step.keep, input=empty_input(step.input.schema)).schema
        rows = f"SELECT {normalized(step.keys, kept)} FROM input WHERE _we IS NOT NULL"
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        placed = f"{hash_of(step.keys)} AS _h, {self._lateness.is_late('_we')} AS {LATE}"
        self._slice_sql = nested(step.keep, f"SELECT *, {placed} FROM ({rows})")
        self.state_schema = self._schema(duck, kept)
        whose = ", ".join(["_h", *step.keys])
        newest = (
            f"QUALIFY _we IS NOT NULL OR _v = max(_v) FILTER (WHERE _we IS NULL) OVER (PARTITION BY {whose})" if self._looks_back else ""
        )
        self._combine_sql = f"SELECT * FROM input {newest} ORDER BY _we NULLS LAST, _h"
        self._release(duck, self.state_schema.empty_table(), self.state_schema.empty_table(), "")  # whatever does not bind shows now

    @property
    def _looks_back(self) -> bool:
        return bool(self._step.back or self._step.carries)

    def _schema(self, duck: Duck, kept: pa.Schema) -> pa.Schema:
        fields = [("_we", pa.int64()), ("_h", pa.uint64()), *(kept.field(name) for name in (*self._step.keys, *self._step.columns))]
        if self._looks_back:
            totals = ", ".join(["NULL::BIGINT AS _v", *(f"NULL::{kind} AS {name}" for name, kind in self._step.carries)])
            fields += list(duck.query(f"SELECT {totals}").schema)
        return pa.schema(fields)

    def slice_sql(self, port: int = 0) -> str:
        return self._slice_sql

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.keep,)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        late, late_rows = self._refused(epoch, inputs[0])
        runs = [*state, *self._fresh(inputs[0], state)]
        closed, alive = split_final(runs, self._behind(epoch.time.watermark_end_us))
        rows, failures = self._step.schema.empty_table(), list[Failure]()
        if closed:
            final = pa.concat_tables(closed)
            rows, left, failures = self._release(epoch.duck, final, self._left_behind(epoch.duck, final, alive), epoch.source)
            if left is not None and left.num_rows:
                left = left.set_column(
                    left.schema.get_field_index("_v"), "_v", pa.repeat(pa.scalar(epoch.time.now_us, pa.int64()), left.num_rows)
                )
                alive = [*alive, Run.of(left.sort_by("_h"), next_chain(runs))]
        merged = merge(alive, lambda table: epoch.duck.query(self._combine_sql, input=table), epoch.merge_bytes_max)
        return Finished(rows, merged, late, late_rows, failures=failures)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        tables = [run.table for run in split_final(state, self._behind(watermark_us))[1]]
        return int(duck.query(self._combine_sql, input=pa.concat_tables(tables)).num_rows) if tables else 0

    def timer_us(self, state: Sequence[Run]) -> int | None:
        first_us = first_final_us(state)
        return None if first_us is None else first_us + self._step.lag_us

    def _behind(self, watermark_us: int | None) -> int | None:
        return lowered(watermark_us, self._step.lag_us)

    def _fresh(self, fed: Input, state: Sequence[Run]) -> list[Run]:
        parts = [part for one in fed if (part := one.part.filter(pc.invert(one.part.column(LATE)))).num_rows]
        if not parts:
            return []
        rows = self._as_state(pa.concat_tables(parts))
        return [Run.of(rows.sort_by([("_we", "ascending"), ("_h", "ascending")]), next_chain(state))]

    def _as_state(self, rows: pa.Table) -> pa.Table:
        """The rows with the state's columns, NULL where they lack one."""
        columns = [
            rows.column(f.name).cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in self.state_schema
        ]
        return pa.table(columns, schema=self.state_schema)

    def _left_behind(self, duck: Duck, final: pa.Table, alive: Sequence[Run]) -> pa.Table:
        """What earlier rows of these keys left."""
        older = [rows for run in alive if run.table.column("_we").null_count and (rows := _without_end(run.table)).num_rows]
        if not self._looks_back or not older:
            return self.state_schema.empty_table()
        known = f"SELECT input.* FROM input SEMI JOIN final ON {same_key(self._step.keys, 'input', 'final')}"
        found = duck.query(known, input=pa.concat_tables(older), final=final)
        return duck.query(self._combine_sql, input=found)

    def _release(
        self, duck: Duck, final: pa.Table, before: pa.Table, source: str
    ) -> tuple[pa.Table, pa.Table | None, list[Failure]]:  # fmt: skip
        """What the statement makes of the final rows, and what their keys leave behind."""
        step = self._step
        kept = [*step.keys, *step.columns]
        left = None
        if step.back:
            rows = "SELECT *, true AS _new FROM final UNION ALL SELECT *, false AS _new FROM before"
            read = duck.query(rows, final=final.select(["_h", *kept]), before=before.select(["_h", *kept]))
            left = self._as_state(duck.query(self._last_rows(), input=read))
        elif step.carries:
            totals = ", ".join(f"before.{name}" for name, _ in step.carries)
            joined = f"SELECT final.*, {totals} FROM final LEFT JOIN before ON {same_key(step.keys, 'final', 'before')}"
            read = duck.query(joined, final=final.select(["_h", *kept]), before=before)
            left = self._as_state(duck.query(step.carried, input=read))
        else:
            read = final.select(kept) if kept else final
        together = duck.query(step.sql, input=read)
        if not source:
            return duck.query(step.post, input=together).cast(step.schema), left, []
        made, failures = surviving(duck, step.post, together, source, together.column_names)
        return made.cast(step.schema), left, failures

    def _last_rows(self) -> str:
        by = f"PARTITION BY {', '.join(self._step.keys)} " if self._step.keys else ""
        place = f"row_number() OVER ({by}ORDER BY {self._step.order})"
        count = f"count(*) OVER ({by.strip()})"
        return f"SELECT * EXCLUDE (_new) FROM input QUALIFY {count} - {place} < {self._step.back}"

    def _refused(self, epoch: Epoch, fed: Input) -> tuple[pa.Table | None, int]:
        shown = judged_again(epoch, self._query.sink, self._step.keep, "_we", self._lateness, "late: rows of its time were written")
        return late_in(fed, shown if self._carries_origin else None)

    def __repr__(self) -> str:
        return f"<ReleaseOperator {self.id}>"


def _without_end(table: pa.Table) -> pa.Table:
    """Rows that have no `_we`: the last ones of a run."""
    known = table.num_rows - table.column("_we").null_count
    return table.slice(known)
