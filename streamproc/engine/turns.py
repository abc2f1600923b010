"""Whose epoch computes next, where the jobs of one process share its cores."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from streamproc.clock import Clock

T = TypeVar("T")
TURN_S = 5.0
"""A turn that lasts longer keeps nobody waiting: a query that hangs costs its own job, not the rest."""


class RoundRobin(Generic[T]):
    """Who waits, by job. Jobs take turns, so one with a hundred tasks gets no more of them than one with a single task;
    within a job the first that came is the first served.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def add(self, job: str, waiting: T) -> None:
        self._waiting.setdefault(job, deque()).append(waiting)

    def next(self) -> T | None:
        """The next one, or None if nobody waits."""
        if not self._waiting:
            return None
        job, queue = self._waiting.popitem(last=False)
        chosen = queue.popleft()
        if queue:
            self._waiting[job] = queue
        return chosen

    def discard(self, job: str, waiting: T) -> None:
        """Whoever gave up waiting."""
        queue = self._waiting.get(job)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            if not queue:
                del self._waiting[job]

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))


class Turns:
    """At most `slots` epochs compute at once (about the number of cores); who waits is served by `RoundRobin`."""

    def __init__(self, slots: int, clock: Clock) -> None:
        self._free, self._clock = slots, clock
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()

    @asynccontextmanager
    async def turn(self, job_name: str) -> AsyncIterator[None]:
        """Held while the block runs, and by others' count for `TURN_S` at most."""
        await self._acquire(job_name)
        expiry = asyncio.ensure_future(self._expire())
        try:
            yield
        finally:
            if expiry.cancel():
                self._release()

    async def _acquire(self, job: str) -> None:
        if self._free:
            self._free -= 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.add(job, granted)
        try:
            await granted
        except asyncio.CancelledError:
            self._waiting.discard(job, granted)
            if granted.done() and not granted.cancelled():
                self._release()
            raise

    async def _expire(self) -> None:
        await self._clock.sleep(TURN_S)
        self._release()

    def _release(self) -> None:
        while (granted := self._waiting.next()) is not None:
            if not granted.done():  # else its task was cancelled just now
                granted.set_result(None)
                return
        self._free += 1

    def __repr__(self) -> str:
        return f"<Turns {self._free} free, {len(self._waiting)} waiting>"
