"""A lease table in memory that can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from streamproc.errors import Unavailable
from streamproc.lease.lease import Lease, LeaseTable, Listing, Mark, is_ours
from streamproc.lease.steps import changed_elsewhere, given, released, renewed, requested, taken


class MemoryLeases(LeaseTable):
    """Rows in a dict, shared by everyone who holds this instance, from any thread.

    `fail_next("before" | "after")` makes one change raise `Unavailable` without or with effect (the lost answer);
    `down = True` lets every call raise it. Workers named in `dead` are provably gone. With `keeps_marks` it is a table
    shared with other programs: whoever calls with an id that is not ours is one of them.
    """

    def __init__(self, *, keeps_marks: bool = False) -> None:
        self.keeps_marks = keeps_marks  # type: ignore[misc]  # one class stands for both kinds of table
        self._rows: dict[str, Lease] = {}
        self._workers: dict[str, int] = {}
        self._failures: list[Literal["before", "after"]] = []
        self._lock = threading.Lock()
        self.down = False
        self.dead: set[str] = set()
        self.changes = 0

    def fail_next(self, when: Literal["before", "after"] = "before") -> None:
        self._failures.append(when)

    async def list(self) -> Listing:
        self._answer()
        with self._lock:
            return Listing(tuple(self._rows[key] for key in sorted(self._rows)), dict(self._workers))

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        return self._replace(lease, lambda _: self._marked(taken(lease, owner), mark, owner))

    async def request(self, lease: Lease, owner: str) -> Lease:
        return self._replace(lease, lambda _: self._marked(requested(lease, owner), None, owner))

    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        self._change(lease.key, lambda row: self._marked(released(row, lease), mark, lease.checkpoint_owner))

    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        return self._replace(lease, lambda _: self._marked(renewed(lease, throughput_kbps), mark, lease.owner))

    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        return self._replace(lease, lambda _: self._marked(given(lease), mark, lease.owner))

    async def drop(self, lease: Lease) -> None:
        self._replace(lease, lambda _: None)

    async def add(self, key: str, mark: Mark) -> None:
        if not self.keeps_marks:
            await super().add(key, mark)
        self._change(key, lambda row: row or Lease(key, None, 0, mark=replace(mark, ours=True)))

    async def beat(self, worker: str) -> None:
        self._answer()
        self._workers[worker] = self._workers.get(worker, 0) + 1

    async def leave(self, worker: str) -> None:
        self._answer()
        self._workers.pop(worker, None)

    async def abandoned(self, lease: Lease) -> bool:
        return lease.owner in self.dead

    def __repr__(self) -> str:
        return f"<MemoryLeases {len(self._rows)} rows>"

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the memory lease table is down")

    def _replace(self, seen: Lease, change: Callable[[Lease], Lease | None]) -> Lease:
        """Change the row as it was seen; one that was never there is seen as free with counter 0."""

        def checked(row: Lease | None) -> Lease | None:
            if (row or Lease(seen.key, None, 0)) != seen:
                raise changed_elsewhere(seen.key)
            return change(seen)

        return self._change(seen.key, checked) or seen

    def _change(self, key: str, change: Callable[[Lease | None], Lease | None]) -> Lease | None:
        self._answer()
        failure = self._failures.pop(0) if self._failures else None
        if failure == "before":
            raise Unavailable("the memory lease table did not answer (injected before the change)")
        with self._lock:
            new = change(self._rows.get(key))
            if new is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = new
            self.changes += 1
        if failure == "after":
            raise Unavailable("the answer was lost (injected after the change)")
        return new

    def _marked(self, new: Lease, mark: Mark | None, writer: str | None) -> Lease:
        """With the mark that is written, or the one of before; ours only if we wrote it and nobody else has changed the row since."""
        if not self.keeps_marks:
            return replace(new, mark=None)
        before = self._rows[new.key].mark if new.key in self._rows else None
        shown = mark or before or Mark(None)
        ours = writer is not None and is_ours(writer) and (mark is not None or before is None or before.ours)
        return replace(new, mark=replace(shown, ours=ours))
