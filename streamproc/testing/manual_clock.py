"""A clock that only the test moves."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from streamproc.clock import Clock, SystemClock

START_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, where the clock of a job's tests starts."""


class ManualClock(Clock):
    """Time stands still until `advance`; a `sleep` returns once the clock was advanced past its end (0: at once)."""

    def __init__(self, now_us: int = START_US) -> None:
        self._now_us = now_us
        self._elapsed_us = 0
        self._order = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._elapsed_us / 1e6

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await SystemClock().sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_us + round(seconds * 1e6), next(self._order), waiter))
        await waiter

    def advance(self, us: int) -> None:
        """Move on by `us` microseconds and wake, in the order of their ends, the sleepers that are due."""
        self._now_us += us
        self._elapsed_us += us
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_us:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<ManualClock {self._now_us} us, {len(self._sleepers)} sleeping>"
