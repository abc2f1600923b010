"""State as runs: immutable Arrow tables, shared by every operator that remembers something.

An operator's state is a list of runs, oldest first: a bag of partial results. Every run is sorted by `_we` (final
time, µs; NULL = never, last) and `_h` (hash of the key). Runs next to each other with the same `chain` are one
sorted run in pieces: their ranges ascend and do not overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import pyarrow as pa

Merging = Literal["", "in", "out"]
"""Part of the merge that is under way: read by it (`in`) or written by it (`out`)."""

Key = tuple[bool, int, int]
"""Sort key of a run's row: has no final time, final time, hash."""


@dataclass(frozen=True, slots=True)
class Run:
    """An immutable part of an operator's state.

    `name` is None until the checkpoint has saved it; then the object's name, and `table` are the object's rows from
    `offset` on (expiry and merges eat a run from its front). `window_min`/`window_max`: smallest and largest final
    time (window end) in µs, None where no row has one. `nbytes` is an estimate that survives a restore.
    """

    table: pa.Table = field(repr=False)
    chain: int = 0
    window_min: int | None = None
    window_max: int | None = None
    nbytes: int = 0
    name: str | None = None
    offset: int = 0
    merging: Merging = ""

    @classmethod
    def of(cls, table: pa.Table, chain: int, merging: Merging = "") -> Run:
        """A new run of sorted rows (at least one)."""
        ends = table.column("_we")
        known = len(ends) - ends.null_count
        first, last = (ends[0].as_py(), ends[known - 1].as_py()) if known else (None, None)
        return cls(table, chain, first, last, int(table.nbytes), merging=merging)

    @property
    def length(self) -> int:
        return int(self.table.num_rows)

    def key(self, row: int) -> Key:
        end = self.table.column("_we")[row].as_py()
        return end is None, end or 0, self.table.column("_h")[row].as_py()

    def rank(self, key: Key) -> int:
        """How many rows have a key not above this one."""
        return bisect_right(range(self.length), key, key=self.key)

    def final(self, watermark_us: int | None) -> int:
        """How many rows (the first ones) are final at the watermark."""
        if watermark_us is None or self.window_min is None or self.window_min > watermark_us:
            return 0
        return self.rank((False, watermark_us, 2**64))

    def between(self, first_us: int | None, last_us: int | None) -> pa.Table:
        """Rows whose final time lies in [first, last]; all rows where that is None."""
        if first_us is None or last_us is None:
            return self.table
        start, stop = self.rank((False, first_us, -1)), self.rank((False, last_us, 2**64))
        return self.table.slice(start, stop - start)

    def after(self, rows: int) -> Run | None:
        """The run without its first rows; itself for 0, None if nothing is left."""
        if rows == 0:
            return self
        if rows == self.length:
            return None
        rest = self.table.slice(rows)
        first = rest.column("_we")[0].as_py()
        last = None if first is None else self.window_max
        nbytes = self.nbytes * rest.num_rows // self.length
        return replace(self, table=rest, window_min=first, window_max=last, nbytes=nbytes, offset=self.offset + rows if self.name else 0)


class RunRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A saved run as the commit log names it: `length` rows of object `name` from `offset` on."""

    name: str
    length: int
    nbytes: int
    chain: int = 0
    offset: int = 0
    window_min: int | None = None
    window_max: int | None = None
    merging: Merging = ""

    @classmethod
    def of(cls, run: Run) -> RunRef:
        """The reference of a saved run."""
        assert run.name is not None, "a run is saved before a commit names it"
        return cls(run.name, run.length, run.nbytes, run.chain, run.offset, run.window_min, run.window_max, run.merging)


def split_final(runs: Iterable[Run], watermark_us: int | None) -> tuple[list[pa.Table], list[Run]]:
    """Rows that are final at the watermark, run by run, and the runs without them."""
    closed, alive = [], []
    for run in runs:
        rows = run.final(watermark_us)
        if rows:
            closed.append(run.table.slice(0, rows))
        rest = run.after(rows)
        if rest is not None:
            alive.append(rest)
    return closed, alive


def first_final_us(runs: Iterable[Run]) -> int | None:
    """The smallest final time of a row; None if no row has one."""
    return min((run.window_min for run in runs if run.window_min is not None), default=None)


def next_chain(runs: Sequence[Run]) -> int:
    """A chain number that no run has."""
    return max((run.chain for run in runs), default=-1) + 1
