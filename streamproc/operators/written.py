"""Changes of a result as a sink's reader sees them: each with its `_op`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.operators.duck import Duck
from streamproc.operators.operator import Output
from streamproc.plan.plan import WEIGHT, unweighted
from streamproc.plan.types import is_orderable, quote


def with_ops(duck: Duck, changes: pa.Table, key: Sequence[str] | None) -> pa.Table:
    """The rows that came and went, with `_op`: insert, delete, or for a key (columns; None: all of them) that has both
    update_before and update_after, the former first. In the order of their keys.
    """
    schema = unweighted(changes.schema)
    names = [quote(name) for name in schema.names]
    sortable = [quote(field.name) for field in schema if is_orderable(field.type)]
    by = [quote(name) for name in (schema.names if key is None else key)]
    order = [*(name for name in by if name in sortable), "_w", *(name for name in sortable if name not in by)]
    window = f"(PARTITION BY {', '.join(by)})" if by else "()"
    folded = f"SELECT {', '.join(names)}, sum({quote(WEIGHT)})::BIGINT AS _w FROM input GROUP BY ALL HAVING _w <> 0"
    came = f"CASE WHEN min(_w) OVER {window} < 0 THEN 'update_after' ELSE 'insert' END"
    went = f"CASE WHEN max(_w) OVER {window} > 0 THEN 'update_before' ELSE 'delete' END"
    named = f"SELECT *, CASE WHEN _w > 0 THEN {came} ELSE {went} END AS _op FROM ({folded})"
    each = f"SELECT *, unnest(range(abs(_w))) AS _n FROM ({named})"
    sql = f"SELECT {', '.join([*names, '_op'])} FROM ({each}) ORDER BY {', '.join(f'{name} NULLS FIRST' for name in order)}"
    return duck.query(sql, input=changes).cast(schema.append(pa.field("_op", pa.string())))


def for_sink(out: Output, appends_only: bool, changes: bool, epoch: int) -> Output:
    """A query's output as its sink takes it. With `changes` every change with its `_op`; else a sink that overwrites by key gets
    the new rows, after `_op` = delete for what is gone, and one that only appends gets the new rows. What such a sink gets of an
    update has the number of the epoch in `_epoch`.
    """
    rows = out.rows
    if changes:
        rows = rows if out.has_ops else rows.append_column("_op", pa.repeat("insert", rows.num_rows))
    elif out.has_ops:
        rows = _new(rows) if appends_only else _upserted(rows)
    if out.change != "upsert" or not appends_only:
        return Output(rows, out.change)
    return Output(rows.append_column("_epoch", pa.repeat(pa.scalar(epoch, pa.int64()), rows.num_rows)), "append")


def _new(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows.column("_op"), pa.array(["insert", "update_after"]))).drop_columns(["_op"])


def _upserted(rows: pa.Table) -> pa.Table:
    gone = rows.filter(pc.equal(rows.column("_op"), "delete"))
    new = _new(rows)
    return pa.concat_tables([gone, new.append_column("_op", pa.nulls(new.num_rows, pa.string()))])
