"""Positions in a shard: `TRIM_HORIZON`, `AT_TIMESTAMP:<ms since 1970>`, `<sequence number>`, and `<sequence number>:<sub>`.

The last one is of KPL aggregates: after their user record number `sub`. A sequence number alone is after the whole record. A record
that is no aggregate counts as its own user record 0, as KCL's checkpoints have it: `<sequence number>:0` is after it too.
"""

from __future__ import annotations

from bisect import bisect_right

import pyarrow as pa

from streamproc.offset import Position


def sequence_of(position: Position) -> str | None:
    """The sequence number of a position; None for those that name no record."""
    sequence = position.partition(":")[0]
    return sequence if sequence.isdigit() else None


def order(position: Position) -> tuple[int, float]:
    """Where a position lies in its shard: sequence numbers are long integers."""
    sequence, _, sub = position.partition(":")
    if not sequence.isdigit():
        return -1, 0
    return int(sequence), int(sub) if sub else float("inf")


def count_to(rows: pa.RecordBatch, position: Position) -> int:
    """How many of the rows lie at or before a position; about log2(rows) comparisons."""
    return bisect_right(rows["_offset"], order(position), key=lambda offset: _place(offset.as_py()))


def _place(offset: Position) -> tuple[int, int]:
    sequence, _, sub = offset.partition(":")
    return int(sequence), int(sub or 0)
