"""A result kept up with changes: the rows of the inputs are remembered, and what changes is computed anew.

State is a bag of rows (a Z-set): a run's columns are `_we` (final time of the row's key; BIGINT µs, NULL = never), `_h` (hash of
the key), the rows' own columns and `#w`, how often the row came (less than 0: went). A row's weight is the sum over the runs.
With several inputs, `#i` says whose a row is, and the columns of input n are called `n:name`.

An epoch: what came, with weights → the rows of the same hashes before it, and with it → result(after) - result(before). Keys whose
hashes collide are computed together, before and after, and so change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.batch import tables_of
from streamproc.operators.candidates import Candidates
from streamproc.operators.difference import difference_sql
from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.keys import hash_of
from streamproc.operators.late import Lateness, refused, source_rows
from streamproc.operators.operator import Epoch, Failure, Finished, Input, Operator
from streamproc.operators.results import surviving
from streamproc.plan.plan import WEIGHT, Maintain, Query, unweighted, weighted
from streamproc.plan.types import is_orderable, quote
from streamproc.state.lookup import hashes_of, rows_of
from streamproc.state.merge import merge
from streamproc.state.runs import Run, next_chain, split_final
from streamproc.state.watermark import lowered

_W = quote(WEIGHT)
_INPUT = "#i"


class MaintainOperator(Operator):
    """One `Maintain` step of a query."""

    state_schema: pa.Schema

    def __init__(self, step: Maintain, query: Query, duck: Duck) -> None:
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._schema = unweighted(step.schema)
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        self._carries_origin = query.carries_origin and all("_offset" in below.schema.names for below in step.inputs)
        kept = [duck.query(keep, input=empty_input(below.schema)).schema for keep, below in zip(step.keep, step.inputs, strict=True)]
        self._rows = [unweighted(schema) for schema in kept]
        self._slices = [self._slice(port, WEIGHT in schema.names) for port, schema in enumerate(kept)]
        empty = [duck.query(sql, input=empty_input(below.schema)) for sql, below in zip(self._slices, step.inputs, strict=True)]
        self.state_schema = weighted(unweighted(pa.unify_schemas([table.schema for table in empty])))
        names = [quote(name) for name in self.state_schema.names if name != WEIGHT]
        folded = f"SELECT {', '.join(names)}, sum({_W})::BIGINT AS {_W} FROM input GROUP BY ALL HAVING sum({_W}) <> 0"
        self._combine_sql = f"{folded} ORDER BY _we NULLS LAST, _h"
        sortable = [quote(field.name) for field in self.state_schema if is_orderable(field.type)]
        self._bag_sql = f"{folded} ORDER BY {', '.join(f'{name} NULLS LAST' for name in sortable)}"
        self._difference_sql = difference_sql(self._schema)
        self._candidates = Candidates(step.ranked, step.keys[0]) if step.ranked else None
        self._result(duck, self.state_schema.empty_table(), "")  # whatever does not bind shows now

    def slice_sql(self, port: int = 0) -> str:
        return self._slices[port]

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.keep[port],)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        came, late, late_rows = self._judge(epoch, inputs)
        begins = self._step.global_group and epoch.limit is None
        if not came.num_rows and not begins:
            return Finished(self._step.schema.empty_table(), self._left(epoch, state), late, late_rows, epoch.limit)
        known = self._known(state, came)
        before = self._bag(epoch.duck, known)
        after = self._bag(epoch.duck, [*known, came] if self._candidates else [before, came])
        was = self._schema.empty_table() if begins else self._result(epoch.duck, before, epoch.source)[0]
        now, failures = self._result(epoch.duck, after, epoch.source)
        rows = epoch.duck.query(self._difference_sql, before=was, after=now).cast(self._step.schema)
        kept = came if self._step.prune is None else self._pruned(epoch.duck, before, after)
        runs = [*state, *([Run.of(epoch.duck.query(self._combine_sql, input=kept), next_chain(state))] if kept.num_rows else [])]
        begun = 0 if self._step.global_group else None
        return Finished(rows, self._left(epoch, runs), late, late_rows, begun, failures)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Different rows that are kept, without those that are final at the watermark."""
        tables = [run.table for run in split_final(state, self._behind(watermark_us))[1]]
        return int(duck.query(self._combine_sql, input=pa.concat_tables(tables)).num_rows) if tables else 0

    def _behind(self, watermark_us: int | None) -> int | None:
        """The watermark as it counts here; None: nothing is final."""
        return None if not self._step.final else lowered(watermark_us, self._step.lag_us)

    def _left(self, epoch: Epoch, runs: Sequence[Run]) -> Sequence[Run]:
        """The state without keys that are final, merged a little. What they gave stays in force."""
        _, alive = split_final(runs, self._behind(epoch.time.watermark_end_us))
        merged = merge(alive, lambda table: epoch.duck.query(self._combine_sql, input=table), epoch.merge_bytes_max)
        return [run for run in merged if run.length]  # what came and went leaves nothing

    # -- what came

    def _judge(self, epoch: Epoch, inputs: Sequence[Input]) -> tuple[pa.Table, pa.Table | None, int]:
        """Rows of keys that are not final, refused rows, and how many those are."""
        fed = [one for port in inputs for one in port]
        if not self._step.final or not self._lateness.possible(epoch.time):
            return self._together([one.part for one in fed]), None, 0
        kept, gone, count = [], [], 0
        for one in fed:
            final = self._lateness.of(epoch, one.part, "_we")
            kept.append(one.part.filter(pc.invert(final)))
            late = pc.sum(pc.filter(one.part.column(WEIGHT), final)).as_py() or 0
            count += max(late, 0)
            if late > 0 and self._carries_origin:
                gone.append(self._late_rows(epoch.duck, one.rows(epoch.duck)))
        return self._together(kept), pa.concat_tables(gone) if gone else None, source_rows(gone) if gone else count

    def _late_rows(self, duck: Duck, reached: pa.Table) -> pa.Table:
        sql = f"SELECT {self._lateness.is_late(self._step.final[0])} AS late, {self._lateness.until} AS until FROM input"
        judged = duck.query(nested(self._step.keep[0], sql), input=reached)
        return refused(self._query.sink, reached, judged, "late: the row's key was final")

    def _together(self, parts: Sequence[pa.Table]) -> pa.Table:
        if len(self._rows) > 1:
            return pa.concat_tables(parts, promote_options="default").select(self.state_schema.names)
        return pa.concat_tables(parts)

    def _slice(self, port: int, has_weight: bool) -> str:
        """What is kept of a slice's rows, each once."""
        number = [quote(_INPUT)] if len(self._rows) > 1 else []
        listed = ["_we", "_h", *number, *(quote(self._stored(port, name)) for name in self._rows[port].names)]
        folded = f"SELECT {', '.join(listed)}, sum({_W})::BIGINT AS {_W} FROM input GROUP BY ALL HAVING sum({_W}) <> 0"
        return nested(self._step.keep[port], self._placed(port, _W if has_weight else "1"), folded)

    def _placed(self, port: int, weight: str) -> str:
        """Kept rows with their final time, the hash of their key, and a weight."""
        keys, finals = self._step.keys[port], self._step.final
        final = f"CAST({finals[port] if finals else 'NULL'} AS BIGINT) AS _we"
        hashed = f"{hash_of(keys)} AS _h"
        number = [f"{port}::TINYINT AS {quote(_INPUT)}"] if len(self._rows) > 1 else []
        names = [f"{quote(name)} AS {quote(self._stored(port, name))}" for name in self._rows[port].names]
        return f"SELECT {', '.join([final, hashed, *number, *names])}, {weight} AS {_W} FROM input"

    def _stored(self, port: int, name: str) -> str:
        return f"{port}:{name}" if len(self._rows) > 1 else name

    # -- bags and results

    def _known(self, state: Sequence[Run], came: pa.Table) -> list[pa.Table]:
        """Rows of the runs that have the hashes of what came."""
        hashes, ends = hashes_of(came), came.column("_we")
        span = pc.min_max(ends).as_py() if not ends.null_count else {"min": None, "max": None}
        return [came.slice(0, 0), *(rows for run in state if (rows := rows_of(run, hashes, span["min"], span["max"])).num_rows)]

    def _bag(self, duck: Duck, parts: Sequence[pa.Table]) -> pa.Table:
        """The rows that matter with their weights, in an order that depends on nothing else."""
        rows = pa.concat_tables(parts)
        if self._candidates is None:
            return duck.query(self._bag_sql, input=rows)
        return self._candidates.bag(duck, rows, lambda chosen: duck.query(self._bag_sql, input=chosen))

    def _result(self, duck: Duck, bag: pa.Table, source: str) -> tuple[pa.Table, Sequence[Failure]]:
        """The result over a bag, without what fails."""
        results = duck.query(self._step.sql, **self._expanded(duck, bag))
        rows, failures = surviving(duck, self._step.post, results, source, {name: name for name in results.column_names})
        return rows.cast(self._schema), failures

    def _expanded(self, duck: Duck, bag: pa.Table) -> Mapping[str, pa.Table]:
        """Each input's rows, as often as they are there."""
        if bag.num_rows and pc.any(pc.not_equal(bag.column(WEIGHT), 1)).as_py():
            bag = duck.query(f"SELECT * EXCLUDE (_n) FROM (SELECT *, unnest(range({_W})) AS _n FROM input)", input=bag)
        if len(self._rows) == 1:
            return tables_of([bag.select(self._rows[0].names)])
        parts = [bag.filter(pc.equal(bag.column(_INPUT), port)) for port in range(len(self._rows))]
        return tables_of(
            [
                part.select([self._stored(port, name) for name in rows.names]).rename_columns(rows.names)
                for port, (part, rows) in enumerate(zip(parts, self._rows, strict=True))
            ]
        )

    def _pruned(self, duck: Duck, before: pa.Table, after: pa.Table) -> pa.Table:
        """What to add to the bag so that it holds only rows that can still come into the result."""
        assert self._step.prune is not None
        (rows,) = self._expanded(duck, after).values()
        kept = duck.query(self._step.prune, input=rows)
        sql = f"{self._placed(0, '1')} UNION ALL SELECT * REPLACE (-{_W} AS {_W}) FROM before"
        return duck.query(nested(sql, self._combine_sql), input=kept, before=before)

    def __repr__(self) -> str:
        return f"<MaintainOperator {self.id} by {self._step.keys}>"
