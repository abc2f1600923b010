"""A sink in memory: what an epoch's rows look like to a reader, and a sink that can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyarrow as pa

from streamproc.errors import Unavailable
from streamproc.sink import Change, EpochId, Sink

Key = tuple[Any, ...]


class MemorySink(Sink):
    """Keeps every epoch's table under its id. The first write of an id counts, a repetition changes nothing.

    `rows()` is what a reader sees now: appended epochs one after another in the order they were written, the newest
    `replace`, or with `keys` the newest row of each key (`_op` = delete removes it).
    `fail_next("before" | "after")` makes one write raise `Unavailable` without or with effect; `on_write` is called
    before the rows become visible and may raise (a crash point) or look.
    """

    guarantee = "exactly once"
    undoes = True

    def __init__(self, keys: tuple[str, ...] = (), appends_only: bool = True) -> None:
        self.appends_only = appends_only and not keys  # type: ignore[misc]  # a fake stands for both kinds of sink
        self._keys = keys
        self._epochs: dict[EpochId, tuple[Change, pa.Table]] = {}
        self._failures: list[Literal["before", "after"]] = []
        self.on_write: Callable[[EpochId], None] | None = None

    @property
    def epochs(self) -> dict[EpochId, pa.Table]:
        """What each epoch wrote, in the order of the writes."""
        return {epoch: table for epoch, (_, table) in self._epochs.items()}

    def fail_next(self, when: Literal["before", "after"] = "before") -> None:
        self._failures.append(when)

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        failure = self._failures.pop(0) if self._failures else None
        table = rows.read_all()
        if failure == "before":
            raise Unavailable("the memory sink did not answer (injected before the write)")
        if self.on_write is not None:
            self.on_write(epoch)
        self._epochs.setdefault(epoch, (change, table))
        if failure == "after":
            raise Unavailable("the answer was lost (injected after the write)")

    async def undo(self, after: EpochId) -> str | None:
        for epoch in [e for e in self._epochs if _same_line(e, after) and e.epoch > after.epoch]:
            del self._epochs[epoch]
        return None

    def table(self) -> pa.Table:
        """What a reader sees now, as one table; without columns if nothing was written."""
        epochs = list(self._epochs.values())
        replaced = [i for i, (change, _) in enumerate(epochs) if change == "replace"]
        visible = [table for _, table in (epochs[replaced[-1] :] if replaced else epochs) if table.num_columns]
        return pa.concat_tables(visible, promote_options="default") if visible else pa.table({})

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table().to_pylist()
        return self._by_key(rows) if self._keys else rows

    def __repr__(self) -> str:
        return f"<MemorySink {len(self._epochs)} epochs>"

    def _by_key(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        newest: dict[Key, dict[str, Any]] = {}
        for row in rows:
            key = tuple(row[name] for name in self._keys)
            newest.pop(key, None)
            if row.pop("_op", None) != "delete":
                newest[key] = row
        return list(newest.values())


def _same_line(one: EpochId, other: EpochId) -> bool:
    return (one.checkpoint, one.generation, one.sink, one.task) == (other.checkpoint, other.generation, other.sink, other.task)
