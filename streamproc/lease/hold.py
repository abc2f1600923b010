"""What a worker has of a lease table: the rows of one unit."""

from __future__ import annotations

import asyncio

from streamproc.clock import Clock
from streamproc.lease.balance import Unit
from streamproc.lease.lease import Lease, Mark


class Hold:
    """The rows of a unit that belong to this worker. Written by the keeper, read from any thread.

    `ready`: the task may run: nobody before us is still finishing an epoch. `asked`: another worker is to go on with it:
    begin no epoch, `release` it. `lost`: somebody else has it. `began` is the rows as they were when they were taken.
    """

    def __init__(self, unit: Unit, clock: Clock, ttl_s: float) -> None:
        self.unit = unit
        self.rows: dict[str, Lease] = {}
        self.began: dict[str, Mark] = {}
        self.ready = self.asked = self.lost = self.growing = False
        self.lock = asyncio.Lock()
        self.marks: dict[str, Mark] = {}
        self.kbps: float | None = None
        self.renewal: asyncio.Task[None] | None = None
        self._clock, self._ttl_s = clock, ttl_s
        self._until_s: dict[str, float] = {}

    @property
    def held(self) -> bool:
        """Whether nobody else may run the task now: False, by our own clock, no later than anybody may judge it abandoned."""
        return self.ready and not self.lost and self._clock.monotonic_s() < min(self._until_s.values(), default=float("-inf"))

    def renewed(self, lease: Lease, sent_s: float) -> None:
        """A change of ours counts from before it was sent."""
        self.rows[lease.key] = lease
        self._until_s[lease.key] = sent_s + self._ttl_s

    def forget(self, key: str) -> Lease:
        """The row is no part of it any more."""
        self._until_s.pop(key, None)
        return self.rows.pop(key)

    def __repr__(self) -> str:
        state = "lost" if self.lost else "asked for" if self.asked else "held" if self.held else "waiting" if not self.ready else "expired"
        return f"<Hold {self.unit.name} {state}>"
