"""A lease table in memory that can be made to fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from streamproc.errors import LeaseLost, Unavailable
from streamproc.lease.lease import Lease, LeaseTable


class MemoryLeases(LeaseTable):
    """Rows in a dict, shared by everyone who holds this instance, from any thread.

    `fail_next("before" | "after")` makes one change raise `Unavailable` without or with effect (the lost answer);
    `down = True` lets every call raise it. Owners named in `dead` are provably gone.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Lease] = {}
        self._failures: list[Literal["before", "after"]] = []
        self.down = False
        self.dead: set[str] = set()
        self.changes = 0

    def fail_next(self, when: Literal["before", "after"] = "before") -> None:
        self._failures.append(when)

    async def list(self) -> Sequence[Lease]:
        self._answer()
        return [self._rows[key] for key in sorted(self._rows)]

    async def take(self, lease: Lease, owner: str) -> Lease:
        return self._change(lease, Lease(lease.key, owner, lease.counter + 1))

    async def renew(self, lease: Lease) -> Lease:
        return self._change(lease, Lease(lease.key, lease.owner, lease.counter + 1))

    async def give(self, lease: Lease) -> Lease:
        return self._change(lease, Lease(lease.key, None, lease.counter + 1))

    async def drop(self, lease: Lease) -> None:
        self._change(lease, lease)
        del self._rows[lease.key]

    async def abandoned(self, lease: Lease) -> bool:
        return lease.owner in self.dead

    def __repr__(self) -> str:
        return f"<MemoryLeases {len(self._rows)} rows>"

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the memory lease table is down")

    def _change(self, seen: Lease, new: Lease) -> Lease:
        self._answer()
        failure = self._failures.pop(0) if self._failures else None
        if failure == "before":
            raise Unavailable("the memory lease table did not answer (injected before the change)")
        if self._rows.get(seen.key, Lease(seen.key, None, 0)) != seen:
            raise LeaseLost(f"lease {seen.key} was changed by another worker")
        self._rows[seen.key] = new
        self.changes += 1
        if failure == "after":
            raise Unavailable("the answer was lost (injected after the change)")
        return new
