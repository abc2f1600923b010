"""The first row of every key; keys are kept as runs.

A run's columns: `_we` (the watermark at which the key is forgotten, BIGINT µs, NULL = never), `_h` (hash of the key), the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.keys import hash_of, normalized, same_key
from streamproc.operators.late import LATE, Lateness, judged_again, late_in
from streamproc.operators.operator import Epoch, Finished, Input, Operator
from streamproc.plan.plan import Dedup, Query
from streamproc.state.merge import merge
from streamproc.state.runs import Run, next_chain, split_final
from streamproc.state.watermark import lowered

_AT = "_at"


class DedupOperator(Operator):
    """One `Dedup` step of a query."""

    state_schema: pa.Schema

    def __init__(self, step: Dedup, query: Query, duck: Duck) -> None:
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._carries_origin = query.carries_origin and "_offset" in step.input.schema.names
        prepared = duck.query(step.prepare, input=empty_input(step.input.schema)).schema
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        late = f"{self._lateness.is_late('_t')} AS {LATE}"
        judged = f"SELECT {normalized(step.keys, prepared)}, {late}, row_number() OVER () AS {_AT} FROM input"
        first = f"row_number() OVER (PARTITION BY {', '.join([LATE, *step.keys])} ORDER BY {_AT}) = 1"
        placed = f"SELECT *, {hash_of(step.keys)} AS _h FROM ({judged}) QUALIFY {LATE} OR {first} ORDER BY {_AT}"
        self._slice_sql = nested(step.prepare, placed)
        self.state_schema = pa.schema([("_we", pa.int64()), ("_h", pa.uint64()), *(prepared.field(key) for key in step.keys)])
        duck.query(self._slice_sql, input=empty_input(step.input.schema))  # whatever does not bind shows now

    def slice_sql(self, port: int = 0) -> str:
        return self._slice_sql

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.prepare,)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        late, late_rows = self._refused(epoch, inputs[0])
        parts = [fed.part.filter(pc.invert(fed.part.column(LATE))) for fed in inputs[0]]
        new = self._new(epoch.duck, pa.concat_tables(parts), state)
        fresh = [self._run(new, state)] if new.num_rows else []
        _, alive = split_final([*state, *fresh], lowered(epoch.time.watermark_end_us, self._step.lag_us))
        merged = merge(
            alive, lambda table: epoch.duck.query("SELECT * FROM input ORDER BY _we NULLS LAST, _h", input=table), epoch.merge_bytes_max
        )
        return Finished(new.select(self._step.schema.names).cast(self._step.schema), merged, late, late_rows)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        return sum(run.length for run in split_final(state, lowered(watermark_us, self._step.lag_us))[1])

    def _new(self, duck: Duck, rows: pa.Table, state: Sequence[Run]) -> pa.Table:
        """Rows whose key is not kept yet, each key once, in their order."""
        keys = ", ".join(self._step.keys)
        numbered = f"SELECT * REPLACE (row_number() OVER () AS {_AT}) FROM input"
        once = f"SELECT * FROM ({numbered}) QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_AT}) = 1 ORDER BY {_AT}"
        first = duck.query(once, input=rows)
        if not first.num_rows or not state:
            return first
        known = f"SELECT _h, {keys} FROM kept SEMI JOIN input ON {same_key(self._step.keys, 'kept', 'input')}"
        # the many rows that are kept run past the few new ones; the other way round they would be hashed each time
        found = duck.query(known, kept=pa.concat_tables([run.table for run in state]), input=first)
        unknown = f"SELECT * FROM input ANTI JOIN found ON {same_key(self._step.keys, 'input', 'found')} ORDER BY {_AT}"
        return duck.query(unknown, input=first, found=found) if found.num_rows else first

    def _run(self, new: pa.Table, state: Sequence[Run]) -> Run:
        kept = new.select(self.state_schema.names).cast(self.state_schema)
        return Run.of(kept.sort_by([("_we", "ascending"), ("_h", "ascending")]), next_chain(state))

    def _refused(self, epoch: Epoch, fed: Input) -> tuple[pa.Table | None, int]:
        shown = judged_again(epoch, self._query.sink, self._step.prepare, "_t", self._lateness, "late: event time")
        return late_in(fed, shown if self._carries_origin else None)

    def __repr__(self) -> str:
        return f"<DedupOperator {self.id}>"
