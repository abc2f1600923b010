"""A keeper holds its lease against everything but another owner, and knows when it does not."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from streamproc.clock import SystemClock
from streamproc.errors import Unavailable
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.lease import Lease
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.world import World

TTL_S = 0.6
DEADLINE_S = 10.0


class SteppedClock(SystemClock):
    """The machine's clock and what the test adds: a process that was stopped for a while."""

    skipped_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.skipped_s


class Workers:
    """Keepers of one row; those that are still there at the end are given back."""

    def __init__(self) -> None:
        self.table = MemoryLeases()
        self.keepers: list[LeaseKeeper] = []

    def keeper(self, owner: str, ttl_s: float = TTL_S, clock: SystemClock | None = None) -> LeaseKeeper:
        self.keepers.append(LeaseKeeper(self.table, "job", owner, ttl_s, World(clock=clock or SystemClock())))
        return self.keepers[-1]

    async def row(self) -> Lease:
        [lease] = await self.table.list()
        return lease


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    for keeper in workers.keepers:
        await keeper.give()


async def until(what: object) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_a_free_row_is_acquired_renewed_and_given_back(workers: Workers) -> None:
    keeper = workers.keeper("a")
    assert not keeper.held
    await keeper.acquire()
    assert keeper.held
    first = await workers.row()
    await until(lambda: workers.table.changes > 4)
    assert keeper.held
    assert (await workers.row()).counter > first.counter
    await keeper.give()
    assert not keeper.held
    assert (await workers.row()).owner is None
    changes = workers.table.changes
    await asyncio.sleep(TTL_S)
    assert workers.table.changes == changes


async def test_a_loop_that_is_kept_busy_loses_nothing(workers: Workers) -> None:
    keeper = workers.keeper("a")
    await keeper.acquire()
    end = time.monotonic() + 3 * TTL_S
    while time.monotonic() < end:
        sum(range(10_000))
    assert keeper.held
    assert (await workers.row()).owner == "a"


async def test_the_second_waits_while_the_first_renews_and_takes_over_once_it_gives(workers: Workers) -> None:
    first, second = workers.keeper("a"), workers.keeper("b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(3 * TTL_S)
    assert not waiting.done()
    assert first.held
    await first.give()
    await asyncio.wait_for(waiting, DEADLINE_S)
    assert second.held
    assert not first.held


async def test_a_silent_owner_is_waited_out_and_a_dead_one_is_not(workers: Workers) -> None:
    await workers.table.take(Lease("job", None, 0), "silent")
    started = time.monotonic()
    await workers.keeper("a").acquire()
    assert time.monotonic() - started >= TTL_S
    workers.table.dead.add("a")
    await asyncio.wait_for(workers.keeper("b", ttl_s=100).acquire(), 5)
    assert (await workers.row()).owner == "b"


async def test_held_turns_false_when_the_table_is_away_before_others_may_take(workers: Workers) -> None:
    first, second = workers.keeper("a"), workers.keeper("b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(TTL_S / 2)
    workers.table.down = True
    with pytest.raises(Unavailable):
        await waiting
    await until(lambda: not first.held)
    workers.table.down = False
    await until(lambda: first.held)
    assert not second.held


async def test_a_process_that_was_stopped_knows_that_it_lost(workers: Workers) -> None:
    clock = SteppedClock()
    first = workers.keeper("a", clock=clock)
    await first.acquire()
    clock.skipped_s = 100.0
    assert not first.held


async def test_an_owner_that_was_replaced_stays_not_held(workers: Workers) -> None:
    first = workers.keeper("a")
    await first.acquire()
    for _ in range(100):
        try:
            await workers.table.take(await workers.row(), "thief")
            break
        except Exception:
            continue
    await until(lambda: not first.held)
    await asyncio.sleep(TTL_S)
    assert not first.held
    assert (await workers.row()).owner == "thief"


async def test_lost_answers_lose_no_lease(workers: Workers) -> None:
    keeper = workers.keeper("a")
    workers.table.fail_next("after")
    with pytest.raises(Unavailable):
        await keeper.acquire()
    await keeper.acquire()
    for _ in range(3):
        workers.table.fail_next("after")
        changes = workers.table.changes
        await until(lambda: workers.table.changes > changes + 1)  # noqa: B023
        assert keeper.held


async def test_giving_back_to_a_table_that_is_away_is_no_error(workers: Workers) -> None:
    keeper = workers.keeper("a")
    await keeper.acquire()
    workers.table.down = True
    await keeper.give()
    assert not keeper.held
