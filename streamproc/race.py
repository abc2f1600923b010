"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

CANCELLED_AGAIN_S = 0.5


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Until one of them is done; the others are cancelled, also when this wait is. An error of the first is raised."""
    futures = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()
    for future in done:
        future.result()


async def ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel until they have ended: a cancel that comes together with an answer is lost in `asyncio.wait_for` (Python 3.11), and
    the task would go on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=CANCELLED_AGAIN_S)
        await asyncio.gather(*done, return_exceptions=True)
