"""Join of two streams, its buffered rows kept as one bag of runs.

A run's columns: `_we` (the watermark at which the row can no longer match; BIGINT µs, NULL = never), `_h` (hash of the key),
`_id` (counts the rows as they came), `_kind`, and the columns of both sides, those of one type sharing a column. A row that
has matched is marked by one more row with its `_we`, `_h` and `_id`, so an epoch writes what changed and no more; merging
folds the mark into the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck, empty_input, nested
from streamproc.operators.late import refused, source_rows
from streamproc.operators.operator import Epoch, Failure, Finished, Input, Operator
from streamproc.plan.plan import Join, JoinSide, Query
from streamproc.plan.probe import without_error
from streamproc.plan.types import quote
from streamproc.state.merge import merge
from streamproc.state.runs import Run, first_final_us, next_chain, split_final

LEFT, RIGHT = 0, 1
MATCHED, MARK = 2, 4
"""Kind of a run's row: its side; plus 2, a row that has matched; plus 4, the mark of a row of that side."""
_SPARSE = 32
"""Places of the table of hashes for every new row: as few as one in them of the buffered rows is looked at in vain."""
_META = ("_we", "_h", "_id", "_kind")


@dataclass(frozen=True)
class _Judged:
    """Rows of one side that are not late, and the late ones: as they reached the operator, and how many."""

    rows: pa.Table
    late: list[pa.Table]
    late_rows: int


class JoinOperator(Operator):
    """One `Join` step of a query."""

    def __init__(self, step: Join, query: Query, duck: Duck) -> None:
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._carries_origin = [query.carries_origin and "_offset" in below.schema.names for below in step.inputs]
        prepared = [
            duck.query(side.prepare, input=empty_input(below.schema)).schema for side, below in zip(step.sides, step.inputs, strict=True)
        ]
        named = [schema.field(name).type for side, schema in zip(step.sides, prepared, strict=True) for name in side.columns]
        kinds = list(dict.fromkeys(named))
        self._slots = [_slots(side, schema, kinds) for side, schema in zip(step.sides, prepared, strict=True)]
        types = {slot: schema.field(name).type for slots, schema in zip(self._slots, prepared, strict=True) for name, slot in slots.items()}
        self._payload = pa.schema(sorted(types.items()))
        meta = [("_we", pa.int64()), ("_h", pa.uint64()), ("_id", pa.int64()), ("_kind", pa.int8())]
        self.state_schema = pa.schema([*meta, *self._payload])
        self._one_sided = step.kind in ("semi", "anti")
        self._tracked = [LEFT] if self._one_sided else [side for side in (LEFT, RIGHT) if step.preserved[side]]
        self._match_sql = self._matching(step.condition, one_sided=self._one_sided)
        tried = f"TRY(CASE WHEN {without_error(step.condition)} THEN 1 ELSE 0 END)"  # NULL where it fails
        self._surviving_sql = self._matching(f"{tried} = 1", one_sided=self._one_sided)
        self._failing_sql = self._matching(f"{tried} IS NULL", one_sided=False)
        self._lone_sql = [self._lone(side) for side in (LEFT, RIGHT)]
        self._merge_sql = self._merging()
        self._bind(duck)

    def _bind(self, duck: Duck) -> None:
        """Whatever does not bind shows now."""
        empty = self._state_schema.empty_table()
        duck.query_all([self._match_sql, self._surviving_sql, self._failing_sql], new=empty, old=empty)
        duck.query_all([*self._lone_sql, self._merge_sql], input=empty)

    @property
    def _state_schema(self) -> pa.Schema:
        assert self.state_schema is not None
        return self.state_schema

    def slice_sql(self, port: int = 0) -> str:
        side = self._step.sides[port]
        columns = ", ".join(f"{quote(name)} AS {slot}" for name, slot in self._slots[port].items())
        placed = f'SELECT "#end" AS _we, "#h" AS _h, "#ok" AS _ok, "#time" AS _time, {columns} FROM input'
        return nested(side.prepare, placed)

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.sides[port].prepare,)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        sides = [self._judge(epoch, fed, port) for port, fed in enumerate(inputs)]
        new, failing = self._numbered([side.rows for side in sides], state)
        old = self._touched(state, new)
        pairs, failures = self._pairs(epoch, new, old)
        fresh = self._fresh(epoch.duck, new, old, pairs, state)
        closed, alive = split_final([*state, *fresh], epoch.time.watermark_end_us)
        written = self._rows(pairs.slice(0, 0) if self._step.kind == "anti" else pairs)
        rows = pa.concat_tables([written, *self._unmatched(epoch.duck, [*closed, failing])])
        merged = merge(alive, lambda table: epoch.duck.query(self._merge_sql, input=table), epoch.merge_bytes_max)
        late = [table for side in sides for table in side.late]
        count = source_rows(late) if late else sum(side.late_rows for side in sides)
        refused_rows = pa.concat_tables(late, promote_options="default") if late else None
        return Finished(rows, [run for run in merged if run.length], refused_rows, count, failures=failures)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Buffered rows that may still match, or be written."""
        del duck
        kinds = [run.table.column("_kind") for run in split_final(state, watermark_us)[1]]
        rows = sum(pc.sum(pc.less(kind, MARK)).as_py() or 0 for kind in kinds)
        done = sum(pc.sum(pc.equal(kind, MARK)).as_py() or 0 for kind in kinds) if self._one_sided else 0
        return int(rows - done)

    def timer_us(self, state: Sequence[Run]) -> int | None:
        if not any(self._step.preserved):
            return None
        return first_final_us(state)

    # -- new rows

    def _judge(self, epoch: Epoch, fed: Input, port: int) -> _Judged:
        watermark, late, count = epoch.time.watermark_start_us, list[pa.Table](), 0
        if watermark is None:
            return _Judged(pa.concat_tables([one.part for one in fed]), late, 0)
        kept = []
        for one in fed:
            is_late = pc.fill_null(pc.less_equal(one.part.column("_time"), watermark), False)
            found = pc.sum(is_late).as_py() or 0
            count += found
            if found and self._carries_origin[port]:
                judged = pa.table({"late": is_late, "until": pa.repeat(pa.scalar(watermark, pa.int64()), len(is_late))})
                late.append(refused(self._query.sink, one.rows(epoch.duck), judged, "late: event time"))
            kept.append(one.part.filter(pc.invert(is_late)) if found else one.part)
        return _Judged(pa.concat_tables(kept), late, count)

    def _numbered(self, sides: Sequence[pa.Table], state: Sequence[Run]) -> tuple[pa.Table, pa.Table]:
        """Rows of both sides that may match, and those that cannot, in the runs' columns."""
        first = max((pc.max(run.table.column("_id")).as_py() for run in state), default=-1) + 1
        whole = []
        for side, rows in enumerate(sides):
            columns = {
                "_we": rows.column("_we"), "_h": rows.column("_h"), "_id": pa.array(np.arange(first, first + rows.num_rows)),
                "_kind": pa.repeat(pa.scalar(side, pa.int8()), rows.num_rows),
            }  # fmt: skip
            for slot in self._payload:
                columns[slot.name] = rows.column(slot.name) if slot.name in rows.column_names else pa.nulls(rows.num_rows, slot.type)
            whole.append(pa.table(columns, schema=self._state_schema))
            first += rows.num_rows
        new, able = pa.concat_tables(whole), pa.chunked_array([chunk for rows in sides for chunk in rows.column("_ok").chunks], pa.bool_())
        return new.filter(able), new.filter(pc.invert(able))

    def _touched(self, state: Sequence[Run], new: pa.Table) -> pa.Table:
        """Buffered rows, and marks, with a key that came on the other side; and a few others, which match nothing."""
        hashes, sides = new.column("_h").to_numpy(), new.column("_kind").to_numpy()
        size = 1 << max(len(hashes) * _SPARSE, 1).bit_length()
        came = np.zeros(size, np.uint8)  # by the low bits of a hash: 1 on the left, 2 on the right
        for side in (LEFT, RIGHT):
            came[hashes[sides == side] & np.uint64(size - 1)] |= np.uint8(1 + side)
        found = [self._state_schema.empty_table()]
        for run in state if len(hashes) else ():
            hits = came[run.table.column("_h").to_numpy() & np.uint64(size - 1)]
            at = np.flatnonzero(hits)
            kinds = run.table.column("_kind").take(pa.array(at)).to_numpy()
            found.append(run.table.take(pa.array(at[hits[at] & (2 - kinds % 2) != 0])))
        return pa.concat_tables(found)

    def _pairs(self, epoch: Epoch, new: pa.Table, old: pa.Table) -> tuple[pa.Table, list[Failure]]:
        """Matches of this epoch: columns of the result, `#l` and `#r` the rows' numbers (of semi and anti: left rows, once); and
        pairs for which ON fails: they are no matches.
        """
        try:
            return epoch.duck.query(self._match_sql, new=new, old=old), []
        except BadRecord as error:
            pairs, failing = epoch.duck.query_all([self._surviving_sql, self._failing_sql], new=new, old=old)
            if not failing.num_rows:
                raise
            shown = failing.drop_columns(["#l", "#r"]).to_pylist()
            return pairs, [Failure(epoch.source, str(pair), str(error)) for pair in shown]

    def _fresh(self, duck: Duck, new: pa.Table, old: pa.Table, pairs: pa.Table, state: Sequence[Run]) -> list[Run]:
        """New rows, and marks of old ones, as a run."""
        parts = [new]
        for side in self._tracked:
            matched = pairs.column("#r" if side else "#l").combine_chunks()
            kinds = old.column("_kind")
            hit = pc.and_(pc.equal(kinds, side), pc.is_in(old.column("_id"), matched))
            known = old.column("_id").filter(pc.equal(kinds, MARK + side)).combine_chunks()
            marked = old.filter(pc.and_(hit, pc.invert(pc.is_in(old.column("_id"), known))))
            parts = [self._with_matches(parts[0], side, matched), *parts[1:], self._marks(marked, side)]
        table = pa.concat_tables(parts)
        return [Run.of(duck.query(self._merge_sql, input=table), next_chain(state))] if table.num_rows else []

    def _with_matches(self, new: pa.Table, side: int, matched: pa.Array) -> pa.Table:
        """New rows that have matched at once, as such; left rows of semi and anti are done with then."""
        hit = pc.and_(pc.equal(new.column("_kind"), side), pc.is_in(new.column("_id"), matched))
        if self._one_sided:
            return new.filter(pc.invert(hit))
        kind = pc.if_else(hit, pa.scalar(side + MATCHED, pa.int8()), new.column("_kind"))
        return new.set_column(_META.index("_kind"), self._state_schema.field("_kind"), kind)

    def _marks(self, rows: pa.Table, side: int) -> pa.Table:
        kind = pa.repeat(pa.scalar(MARK + side, pa.int8()), rows.num_rows)
        nothing = [pa.nulls(rows.num_rows, slot.type) for slot in self._payload]
        return pa.table([*(rows.column(name) for name in _META[:3]), kind, *nothing], schema=self._state_schema)

    # -- results

    def _rows(self, found: pa.Table) -> pa.Table:
        """In the result's columns; those of the other side are NULL."""
        schema = self._step.schema
        columns = [found.column(f.name) if f.name in found.column_names else pa.nulls(found.num_rows, f.type) for f in schema]
        return pa.table(columns, names=schema.names).cast(schema)

    def _unmatched(self, duck: Duck, gone: Iterable[pa.Table]) -> list[pa.Table]:
        """Rows among those that leave which have had no match."""
        table = pa.concat_tables([self._state_schema.empty_table(), *gone])
        preserved = [side for side in (LEFT, RIGHT) if self._step.preserved[side]]
        return [self._rows(duck.query(self._lone_sql[side], input=table)) for side in preserved] if table.num_rows else []

    # -- SQL

    def _side(self, side: int, table: str, kinds: str) -> str:
        names = ", ".join(f"{slot} AS {quote(name)}" for name, slot in self._slots[side].items())
        return f'SELECT _id AS "#{"lr"[side]}", _h AS "#{"lr"[side]}h", {names} FROM {table} WHERE _kind IN ({kinds})'

    def _matching(self, condition: str, *, one_sided: bool) -> str:
        """New rows of the left side with all of the right, and old ones with new ones. `one_sided`: left rows, once."""
        unmatched = f"{LEFT}" if one_sided else f"{LEFT}, {LEFT + MATCHED}"
        old_left = self._side(LEFT, "old", unmatched)
        if one_sided:
            old_left += f" AND _id NOT IN (SELECT _id FROM old WHERE _kind = {MARK + LEFT})"
        new_right, old_right = self._side(RIGHT, "new", f"{RIGHT}"), self._side(RIGHT, "old", f"{RIGHT}, {RIGHT + MATCHED}")
        names = ", ".join(['"#l"', *([] if one_sided else ['"#r"']), *map(quote, self._step.schema.names)])
        word, on = ("SEMI" if one_sided else "INNER"), f'l."#lh" = r."#rh" AND {condition}'
        new_left, right = self._side(LEFT, "new", f"{LEFT}"), f"{new_right} UNION ALL {old_right}"
        first = f"SELECT {names} FROM ({new_left}) AS l {word} JOIN ({right}) AS r ON {on}"
        second = f"SELECT {names} FROM ({old_left}) AS l {word} JOIN ({new_right}) AS r ON {on}"
        return f'SELECT * FROM ({first} UNION ALL {second}) ORDER BY "#l"' + ("" if one_sided else ', "#r"')

    def _lone(self, side: int) -> str:
        rows = self._side(side, "input", f"{side}")
        return f'SELECT * FROM ({rows}) AS r ANTI JOIN input AS m ON r."#{"lr"[side]}" = m._id AND m._kind = {MARK + side} ORDER BY 1'

    def _merging(self) -> str:
        """Rows of several runs as one run, marks folded into their rows."""
        order = "ORDER BY _we NULLS LAST, _h, _id, _kind"
        if not self._tracked:
            return f"SELECT * FROM input {order}"
        rows, marks = f"(SELECT * FROM input WHERE _kind < {MARK})", f"(SELECT * FROM input WHERE _kind >= {MARK})"
        of_row = f"r._id = m._id AND m._kind = r._kind + {MARK}"
        payload = "".join(f", r.{slot}" for slot in self._payload.names)
        if self._one_sided:
            kept = f"SELECT r.* FROM {rows} AS r ANTI JOIN {marks} AS m ON {of_row}"
        else:
            kind = f"CASE WHEN m._id IS NULL THEN r._kind ELSE r._kind + {MATCHED}::TINYINT END AS _kind"
            kept = f"SELECT r._we, r._h, r._id, {kind}{payload} FROM {rows} AS r LEFT JOIN {marks} AS m ON {of_row}"
        return f"SELECT * FROM ({kept} UNION ALL SELECT m.* FROM {marks} AS m ANTI JOIN {rows} AS r ON {of_row}) {order}"

    def __repr__(self) -> str:
        return f"<JoinOperator {self.id} {self._step.kind}>"


def _slots(side: JoinSide, prepared: pa.Schema, kinds: Sequence[pa.DataType]) -> dict[str, str]:
    """The runs' column of each of the side's columns: a type's first one goes to the type's first one, and so on."""
    used: dict[pa.DataType, int] = {}
    slots = {}
    for name in side.columns:
        kind = prepared.field(name).type
        slots[name] = f"c{kinds.index(kind)}_{used.setdefault(kind, 0)}"
        used[kind] += 1
    return slots
