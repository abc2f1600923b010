"""Rows that came too late, as a query's `late` shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.operators.duck import nested
from streamproc.operators.operator import Epoch, EpochTime, Fed, Input
from streamproc.plan.relation import ORIGIN
from streamproc.plan.types import quote
from streamproc.state.hash_range import hash_sql
from streamproc.state.watermark import lowered

LATE = "_late"
"""Column of an operator's parts: the row is late."""


class Lateness:
    """When a row is late at an operator: where its time ≤ the watermark at the epoch's start, less `lag_us`. `key`: the column that
    holds the partition key; then the floors of its hash count too.
    """

    def __init__(self, lag_us: int, key: str | None = None) -> None:
        self._lag_us, self._key = lag_us, key
        start = "getvariable('watermark_start')"
        if key is not None:  # costs nothing where there is no floor: then this is a constant
            inside = f"lambda f: {hash_sql(f'CAST({quote(key)} AS VARCHAR)')} BETWEEN f.low AND f.high"
            highest = f"list_max(list_transform(list_filter(getvariable('floors'), {inside}), lambda f: f.us))"
            start = f"greatest({start}, CASE WHEN len(getvariable('floors')) > 0 THEN {highest} END)"
        self.until = f"({start} - {lag_us})"
        """SQL of the time up to which a row is late (BIGINT µs, NULL: none is)."""

    def is_late(self, time: str) -> str:
        """SQL of `LATE`, by the BIGINT expression `time`."""
        return f"coalesce({time} <= {self.until}, false)"

    def possible(self, time: EpochTime) -> bool:
        """Whether any row can be late in the epoch."""
        return time.watermark_start_us is not None or self._by_key(time)

    def of(self, epoch: Epoch, rows: pa.Table, time: str) -> pa.ChunkedArray:
        """Of each row, with a column `time`, whether it is late."""
        watermark_us = lowered(epoch.time.watermark_start_us, self._lag_us)
        if not self._by_key(epoch.time):
            return pc.fill_null(pc.less_equal(rows.column(time), watermark_us), False)
        return epoch.duck.query(f"SELECT {self.is_late(time)} AS late FROM input", input=rows).column("late")

    def _by_key(self, time: EpochTime) -> bool:
        return bool(time.floors) and self._key is not None

    def __repr__(self) -> str:
        return f"<Lateness {self.until}>"


def late_in(fed: Input, shown: Callable[[Fed], pa.Table] | None, counted: str = "") -> tuple[pa.Table | None, int]:
    """Late rows of an input as they are `shown` (None: they are not), and how many; `counted`: a column that says it of a part's row."""
    gone = [(one, late) for one in fed if (late := one.part.filter(one.part.column(LATE))).num_rows]
    if gone and shown is not None:
        tables = [shown(one) for one, _ in gone]
        return pa.concat_tables(tables), source_rows(tables)
    return None, sum(pc.sum(late.column(counted)).as_py() if counted else late.num_rows for _, late in gone)


def judged_again(epoch: Epoch, sink: str, sql: str, time: str, lateness: Lateness, reason: str) -> Callable[[Fed], pa.Table]:
    """`shown` for parts that lack the rows' own columns: `sql` over the rows that reached the operator yields `time` again."""

    def shown(one: Fed) -> pa.Table:
        rows = one.rows(epoch.duck)
        judged = epoch.duck.query(nested(sql, f"SELECT {lateness.is_late(time)} AS late, {lateness.until} AS until FROM input"), input=rows)
        return refused(sink, rows, judged, reason)

    return shown


def refused(sink: str, rows: pa.Table, judged: pa.Table, reason: str) -> pa.Table:
    """Of `rows` as they reached the refusing operator those that are `late`, with `_window` (text; NULL without one), `_watermark`,
    `_reason`, `_sink`. `judged` has a row for each: `late`, `until` (BIGINT µs), and `window` where the operator has such.
    """
    late = judged.column("late")
    gone, judged = rows.filter(late), judged.filter(late)
    count = gone.num_rows
    columns = {
        "_window": judged.column("window") if "window" in judged.column_names else pa.nulls(count, pa.string()),
        "_watermark": judged.column("until").cast(TIMESTAMP),
        "_reason": pa.repeat(reason, count),
        "_sink": pa.repeat(sink, count),
    }
    for name, column in columns.items():
        gone = gone.append_column(name, column)
    return gone


def source_rows(late: Sequence[pa.Table]) -> int:
    """How many rows of the sources these are: one may have been refused several times."""
    return int(pa.concat_tables([rows.select(ORIGIN) for rows in late]).group_by(list(ORIGIN)).aggregate([]).num_rows) if late else 0
