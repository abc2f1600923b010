"""A keeper in a thread of its own: what the worker's own loop does makes no difference to its leases."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from streamproc.clock import SystemClock
from streamproc.errors import InvalidJob, Unavailable
from streamproc.lease.balance import Unit
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.keeping import InThread
from streamproc.lease.lease import OUR_WORKERS, Lease, Listing
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.world import World

TTL_S = 1.0
DEADLINE_S = 20.0


class SteppedClock(SystemClock):
    """The machine's clock and what the test adds: a process that was stopped for a while."""

    skipped_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.skipped_s


class Table(MemoryLeases):
    broken: BaseException | None = None

    async def list(self) -> Listing:
        if self.broken is not None:
            raise self.broken
        return await super().list()

    async def row(self, key: str = "job/all") -> Lease:
        [found] = await self.get([key])
        return found


class Workers:
    """Keepers over one table; those that still run at the end are stopped."""

    def __init__(self) -> None:
        self.table = Table()
        self.news = asyncio.Event()
        self._started: list[InThread] = []

    def start(self, name: str, clock: SystemClock | None = None) -> InThread:
        world = World(clock=clock or SystemClock())

        def make(changed: Callable[[], None]) -> LeaseKeeper:
            keeper = LeaseKeeper(self.table, OUR_WORKERS + name, TTL_S, world, changed)
            keeper.wanted = (Unit("all", ("job/all",)),)
            return keeper

        self._started.append(InThread(make, self.news.set))
        return self._started[-1]

    async def until(self, reached: Callable[[], bool]) -> None:
        """Woken by the keepers, and by the clock for what only time changes."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not reached():
            assert time.monotonic() < deadline_s
            try:
                async with asyncio.timeout(0.05):
                    await self.news.wait()
            except TimeoutError:
                continue
            self.news.clear()

    async def stop(self) -> None:
        for keeping in self._started:
            await keeping.stop()


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.stop()


def held(keeping: InThread) -> bool:
    hold = keeping.keeper.holds.get("all")
    return hold is not None and hold.held


async def test_a_loop_that_is_kept_busy_loses_nothing(workers: Workers) -> None:
    keeping = workers.start("a")
    await workers.until(lambda: held(keeping))
    end_s = time.monotonic() + 3 * TTL_S
    while time.monotonic() < end_s:
        sum(range(10_000))
    assert held(keeping)
    assert (await workers.table.row()).owner == "streamproc:a"


async def test_calls_from_the_workers_loop_run_beside_the_keeper(workers: Workers) -> None:
    keeping = workers.start("a")
    await workers.until(lambda: held(keeping))

    async def where() -> str:
        return threading.current_thread().name

    assert await keeping.call(where) == "leases"
    await keeping.call(lambda: keeping.keeper.give("all", {}))
    assert not held(keeping)
    keeping.wake()
    await workers.until(lambda: held(keeping))


async def test_the_second_takes_over_when_the_first_stops_and_the_thread_ends(workers: Workers) -> None:
    first = workers.start("a")
    await workers.until(lambda: held(first))
    second = workers.start("b")
    await asyncio.sleep(TTL_S)
    assert not held(second)
    await first.stop()
    await workers.until(lambda: held(second))
    await second.stop()
    assert (await workers.table.row()).owner is None
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


async def test_a_process_that_was_stopped_knows_at_once_that_it_may_have_lost(workers: Workers) -> None:
    clock = SteppedClock()
    keeping = workers.start("a", clock)
    await workers.until(lambda: held(keeping))
    hold = keeping.keeper.holds["all"]
    clock.skipped_s = 100.0
    assert not hold.held


async def test_a_table_that_is_away_is_waited_for(workers: Workers) -> None:
    keeping = workers.start("a")
    await workers.until(lambda: held(keeping))
    workers.table.down = True
    await workers.until(lambda: not held(keeping))
    assert keeping.failure() is None
    workers.table.down = False
    await workers.until(lambda: held(keeping))
    workers.table.down = True
    await keeping.stop()


async def test_a_keeper_that_crashes_is_told_and_may_still_be_called(workers: Workers) -> None:
    keeping = workers.start("a")
    await workers.until(lambda: held(keeping))
    workers.table.broken = broken = ValueError("a row that is no row")
    await workers.until(lambda: keeping.failure() is not None)
    assert keeping.failure() is broken
    workers.table.broken = None
    await keeping.call(lambda: keeping.keeper.give("all", {}))
    assert (await workers.table.row()).owner is None
    await keeping.stop()


async def test_a_table_that_cannot_be_made_is_told_where_the_keeper_is_started() -> None:
    def make(changed: Callable[[], None]) -> LeaseKeeper:
        raise InvalidJob([])

    with pytest.raises(InvalidJob):
        InThread(make, lambda: None)


def test_a_keeper_outlives_the_loop_of_its_worker_and_renews_on() -> None:
    async def start() -> tuple[Workers, InThread]:
        workers = Workers()
        keeping = workers.start("a")
        await workers.until(lambda: held(keeping))
        return workers, keeping

    workers, keeping = asyncio.run(start())
    before = workers.table.changes
    deadline_s = time.monotonic() + DEADLINE_S
    while workers.table.changes < before + 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert held(keeping)
    asyncio.run(keeping.stop())
    assert asyncio.run(workers.table.row()).owner is None


async def test_an_answer_that_never_comes_is_not_waited_for_longer_than_a_third_of_the_ttl(workers: Workers) -> None:
    keeping = workers.start("a")
    await workers.until(lambda: held(keeping))
    listing, asked = workers.table.list, 0

    async def hangs() -> Listing:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(3600)
        return await listing()

    workers.table.list = hangs  # type: ignore[method-assign]
    await workers.until(lambda: asked > 1)
    assert held(keeping)
    with pytest.raises(Unavailable):
        workers.table.down = True
        await keeping.call(listing)
    workers.table.down = False
