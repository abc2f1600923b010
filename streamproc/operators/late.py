"""Rows that came too late, as a query's `late` shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.operators.operator import Epoch, Fed, Input
from streamproc.plan.relation import ORIGIN

LATE = "_late"
"""Column of an operator's parts: the row is late."""


def is_late(time: str, lag_us: int) -> str:
    """SQL of `LATE`, by the BIGINT expression `time`."""
    return f"coalesce({time} <= getvariable('watermark_start') - {lag_us}, false)"


def late_in(fed: Input, shown: Callable[[Fed], pa.Table] | None, counted: str = "") -> tuple[pa.Table | None, int]:
    """Late rows of an input as they are `shown` (None: they are not), and how many; `counted`: a column that says it of a part's row."""
    gone = [(one, late) for one in fed if (late := one.part.filter(one.part.column(LATE))).num_rows]
    if gone and shown is not None:
        tables = [shown(one) for one, _ in gone]
        return pa.concat_tables(tables), source_rows(tables)
    return None, sum(pc.sum(late.column(counted)).as_py() if counted else late.num_rows for _, late in gone)


def judged_again(epoch: Epoch, sink: str, sql: str, time: str, watermark_us: int | None, reason: str) -> Callable[[Fed], pa.Table]:
    """`shown` for parts that lack the rows' own columns: `sql` over the rows that reached the operator yields `time` again."""

    def shown(one: Fed) -> pa.Table:
        assert watermark_us is not None, "rows are late by a watermark"
        rows = one.rows(epoch.duck)
        late = pc.fill_null(pc.less_equal(epoch.duck.query(sql, input=rows).column(time), watermark_us), False)
        return refused(sink, rows.filter(late), watermark_us, reason)

    return shown


def refused(sink: str, rows: pa.Table, watermark_us: int, reason: str, window: pa.ChunkedArray | None = None) -> pa.Table:
    """`rows` as they reached the refusing operator, with `_window` (text; NULL without one), `_watermark`, `_reason`, `_sink`."""
    count = rows.num_rows
    columns = {
        "_window": pa.nulls(count, pa.string()) if window is None else window,
        "_watermark": pa.repeat(pa.scalar(watermark_us, pa.int64()), count).cast(TIMESTAMP),
        "_reason": pa.repeat(reason, count),
        "_sink": pa.repeat(sink, count),
    }
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def source_rows(late: Sequence[pa.Table]) -> int:
    """How many rows of the sources these are: one may have been refused several times."""
    return int(pa.concat_tables([rows.select(ORIGIN) for rows in late]).group_by(list(ORIGIN)).aggregate([]).num_rows) if late else 0
