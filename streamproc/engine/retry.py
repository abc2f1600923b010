"""Calls that are tried again while a server is away: with back-off and jitter, for as long as the lease is held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog

from streamproc.errors import Unavailable
from streamproc.world import World

T = TypeVar("T")
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
log = structlog.get_logger()


class Leased(Protocol):
    """What a retry needs to know of its surroundings."""

    @property
    def world(self) -> World: ...

    def check_lease(self) -> None:
        """LeaseLost once the lease is not ours any more."""


async def retried(around: Leased, what: str, call: Callable[[], Awaitable[T]]) -> T:
    """The call's result. `Unavailable` is retried (the call may have happened: callers' calls are idempotent)."""
    tries = 0
    while True:
        around.check_lease()
        try:
            return await call()
        except Unavailable as error:
            pause_s = BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * (0.5 + around.world.random.random())
            around.world.metrics.add("streamproc_retries_total", what=what)
            log.warning("not available, trying again", what=what, error=str(error), tries=tries + 1, pause_s=round(pause_s, 2))
            await around.world.clock.sleep(pause_s)
            tries += 1
