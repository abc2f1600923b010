"""Time as a dependency: nothing else in the project may ask the machine for it (the linter bans it)."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod


class Clock(ABC):
    """What time it is and how to wait for it.

    `now_us` is wall time in microseconds since 1970 UTC; it may jump. `monotonic_s` never goes back and
    is the only one to measure durations with. `sleep` waits at least `seconds` (0 = let others run).
    """

    @abstractmethod
    def now_us(self) -> int: ...

    @abstractmethod
    def monotonic_s(self) -> float: ...

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...


class SystemClock(Clock):
    """The machine's own clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"
