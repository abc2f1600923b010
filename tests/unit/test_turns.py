"""Fair turns between the jobs of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from streamproc.clock import SystemClock
from streamproc.engine import turns
from streamproc.engine.turns import RoundRobin, Turns


def drained(waiting: RoundRobin[str]) -> Iterator[str]:
    while (one := waiting.next()) is not None:
        yield one


def test_jobs_take_turns_whatever_their_tasks() -> None:
    waiting: RoundRobin[str] = RoundRobin()
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "c2"):
        waiting.add(name[0], name)
    assert len(waiting) == 7
    assert list(drained(waiting)) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_a_job_that_comes_back_waits_for_one_turn_of_each_other() -> None:
    waiting: RoundRobin[str] = RoundRobin()
    for number in range(100):
        waiting.add("greedy", f"g{number}")
    waiting.add("small", "s")
    assert [waiting.next(), waiting.next()] == ["g0", "s"]
    waiting.add("small", "s again")
    assert [waiting.next(), waiting.next()] == ["g1", "s again"]


def test_who_gave_up_gets_no_turn() -> None:
    waiting: RoundRobin[str] = RoundRobin()
    waiting.add("a", "a1")
    waiting.add("b", "b1")
    waiting.discard("a", "a1")
    waiting.discard("a", "a1")
    assert list(drained(waiting)) == ["b1"]


async def test_no_more_compute_at_once_than_there_are_slots() -> None:
    shared, now, most = Turns(2, SystemClock()), 0, 0

    async def epoch(job: str) -> None:
        nonlocal now, most
        async with shared.turn(job):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    await asyncio.gather(*(epoch(job) for job in "aabbccdd"))
    assert (now, most, repr(shared)) == (0, 2, "<Turns 2 free, 0 waiting>")


async def test_a_failed_epoch_and_a_cancelled_wait_give_their_turn_back() -> None:
    shared, entered = Turns(1, SystemClock()), asyncio.Event()

    async def failing() -> None:
        async with shared.turn("a"):
            entered.set()
            await asyncio.sleep(0.01)
            raise ValueError

    async def waiting() -> None:
        async with shared.turn("b"):
            pytest.fail("it was cancelled before its turn came")

    failed, cancelled = asyncio.ensure_future(failing()), asyncio.ensure_future(waiting())
    await entered.wait()
    cancelled.cancel()
    results = await asyncio.gather(failed, cancelled, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, asyncio.CancelledError]
    assert repr(shared) == "<Turns 1 free, 0 waiting>"


async def test_a_turn_granted_in_the_moment_of_a_cancel_is_passed_on() -> None:
    shared, release = Turns(1, SystemClock()), asyncio.Event()

    async def holding(job: str) -> None:
        async with shared.turn(job):
            await release.wait()

    first, second = asyncio.ensure_future(holding("a")), asyncio.ensure_future(holding("b"))
    third = asyncio.ensure_future(holding("c"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()  # gives its turn to b in the step in which b is cancelled
    second.cancel()
    release.set()
    async with asyncio.timeout(5):
        await asyncio.gather(first, second, third, return_exceptions=True)
    assert repr(shared) == "<Turns 1 free, 0 waiting>"


async def test_a_query_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.01)
    shared = Turns(1, SystemClock())

    async def hanging() -> None:
        async with shared.turn("poisoned"):
            await asyncio.Event().wait()

    hung = asyncio.ensure_future(hanging())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), shared.turn("other"):
        hung.cancel()
        await asyncio.gather(hung, return_exceptions=True)
    assert repr(shared) == "<Turns 1 free, 0 waiting>"
