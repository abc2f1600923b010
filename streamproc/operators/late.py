"""Rows that came too late, as a query's `late` shows them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.relation import ORIGIN


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
