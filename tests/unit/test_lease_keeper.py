"""Keepers of several workers over one table, in virtual time: whatever happens to the table or to a worker, a unit is
held by one of them at a time, and soon by one of them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from keeper_scene import CALLS, TTL_S, Scene, Table, scene, units

from streamproc.errors import LeaseLost
from streamproc.lease.balance import Unit
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.keeping import InLoop
from streamproc.lease.lease import OUR_WORKERS, Lease, Mark
from streamproc.world import World


def test_a_free_unit_is_taken_renewed_and_given_back_and_the_worker_leaves() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        worker = scene.join("a", units(1, rows=3))
        await scene.until(lambda: worker.held == ["u0"], 1)
        before = scene.table.row("job/u0a").counter
        await asyncio.sleep(5 * TTL_S)
        assert worker.held == ["u0"]
        assert 10 <= scene.table.row("job/u0a").counter - before <= 14
        assert worker.id in (await scene.table.list()).workers
        await worker.stop()
        assert scene.table.owners() == {"job/u0a": None, "job/u0b": None, "job/u0c": None}
        assert not (await scene.table.list()).workers
        changes = scene.table.changes
        await asyncio.sleep(TTL_S)
        assert scene.table.changes == changes


def test_a_unit_is_had_whole_or_not_at_all() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        third = await scene.table.take(Lease("job/u0c", None, 0), f"{OUR_WORKERS}other")
        worker = scene.join("a", units(1, rows=3))
        for _ in range(int(1.5 * TTL_S)):
            await asyncio.sleep(1)
            assert not worker.held
            third = await scene.table.renew(third)
        scene.table.fail("take", "before", LeaseLost("somebody was quicker"))
        await scene.table.give(third)
        await scene.until(lambda: worker.held == ["u0"], 5)
        assert set(scene.table.owners().values()) == {"a"}


def test_what_was_had_of_a_unit_that_is_lost_in_the_middle_is_given_back() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        worker = scene.join("a", units(1, rows=3))
        take = scene.table.take

        async def too_late(lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
            if lease.key == "job/u0c" and owner == worker.id:
                raise LeaseLost("somebody was quicker")
            return await take(lease, owner, mark)

        scene.table.take = too_late  # type: ignore[method-assign,assignment]
        await scene.until(lambda: scene.table.calls["give"] == 2, 2)
        assert not worker.held
        scene.table.take = take  # type: ignore[method-assign]
        await scene.until(lambda: worker.held == ["u0"], 5)


def test_rows_that_come_to_a_unit_are_taken_and_those_that_leave_it_are_given_back() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        worker = scene.join("a", [Unit("u", ("r1", "r2"))])
        await scene.until(lambda: worker.held, 1)
        worker.want(Unit("u", ("r2", "r3")))
        await scene.until(lambda: set(worker.hold("u").rows) == {"r2", "r3"}, 3)
        await scene.until(lambda: scene.table.owners() == {"r1": None, "r2": "a", "r3": "a"}, 1)
        assert worker.held == ["u"]
        counters = {key: scene.table.row(key).counter for key in ("r1", "r2", "r3")}
        await asyncio.sleep(2 * TTL_S)
        assert {key for key, counter in counters.items() if scene.table.row(key).counter > counter} == {"r2", "r3"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_row_that_comes_to_a_unit_is_renewed_also_if_the_answer_was_lost(when: str) -> None:
    @scene()
    async def _(scene: Scene) -> None:
        worker = scene.join("a", [Unit("u", ("r1",))])
        await scene.until(lambda: worker.held, 1)
        scene.table.fail("take", when)
        worker.want(Unit("u", ("r1", "r2")))
        await scene.until(lambda: set(worker.hold("u").rows) == {"r1", "r2"}, 5)
        counter = scene.table.row("r2").counter
        await asyncio.sleep(TTL_S)
        assert scene.table.row("r2").counter > counter


# -- two


def test_the_second_waits_while_the_first_renews_and_takes_over_once_it_stops() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first, second = scene.join("a", units(1)), scene.join("b", units(1))
        await scene.until(lambda: first.held or second.held, 3)
        holder, waiting = (first, second) if first.held else (second, first)
        await asyncio.sleep(5 * TTL_S)
        assert holder.held
        assert not waiting.held
        await holder.stop()
        assert await scene.until(lambda: waiting.held, 2) < 1.1


@pytest.mark.parametrize("seed", range(12))
def test_what_a_killed_worker_had_is_held_again_within_the_ttl_and_a_second(seed: int) -> None:
    @scene(seed)
    async def _(scene: Scene) -> None:
        for name in "abc":
            scene.join(name, units(6))
        await scene.until(lambda: scene.shares() == [2, 2, 2], 30)
        await asyncio.sleep(scene.chance.uniform(0, TTL_S))
        scene.workers[seed % 3].process.kill()
        took_s = await scene.until(lambda: scene.shares() == [3, 3], 2 * TTL_S)
        assert 0.5 * TTL_S < took_s < TTL_S + 1


def test_a_worker_that_is_provably_dead_is_not_waited_out() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(2))
        await scene.until(lambda: len(first.held) == 2, 1)
        first.process.kill()
        scene.table.dead.add(first.id)
        second = scene.join("b", units(2))
        await scene.until(lambda: len(second.held) == 2, 3)


def test_held_ends_by_its_own_clock_while_the_table_is_away_before_another_may_take() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(1))
        await scene.until(lambda: first.held, 1)
        second = scene.join("b", units(1))
        await asyncio.sleep(TTL_S)
        scene.table.down = True
        assert await scene.until(lambda: not first.held, TTL_S) > 0.5 * TTL_S
        await asyncio.sleep(TTL_S)
        scene.table.down = False
        await scene.until(lambda: first.held or second.held, 3)


def test_a_worker_that_was_stopped_knows_on_waking_that_it_may_not_go_on() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(1))
        await scene.until(lambda: first.held, 1)
        hold = first.hold("u0")
        second = scene.join("b", units(1))
        await asyncio.sleep(TTL_S)
        first.process.pause(2 * TTL_S)
        await scene.until(lambda: second.held, TTL_S + 1)
        assert not hold.held
        await scene.until(lambda: first.lost == {"u0"}, 2 * TTL_S)
        await asyncio.sleep(3 * TTL_S)
        assert second.held
        assert not first.held


def test_a_worker_that_was_replaced_does_not_fight_for_its_unit() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        worker = scene.join("a", units(1))
        await scene.until(lambda: worker.held, 1)
        thief = await scene.table.take(scene.table.row("job/u0"), f"{OUR_WORKERS}thief")
        await scene.until(lambda: worker.lost == {"u0"}, 0.5 * TTL_S)
        for _ in range(30):
            thief = await scene.table.renew(thief)
            await scene.table.beat(f"{OUR_WORKERS}thief")
            await asyncio.sleep(1)
        assert scene.table.owners() == {"job/u0": "thief"}


# -- hand-over


def test_a_worker_that_joins_is_handed_its_part_without_a_moment_of_doubt() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(4), epoch_s=2.0)
        await scene.until(lambda: len(first.held) == 4, 1)
        await asyncio.sleep(3)
        second = scene.join("b", units(4))
        await scene.until(lambda: len(second.keeper.holds) == 2 if hasattr(second, "keeping") else False, 5)
        moving = sorted(second.keeper.holds)
        assert len(first.held) == 4, "the old owner goes on meanwhile"
        assert not any(second.hold(name).ready for name in moving)
        await scene.until(lambda: all(first.hold(name).asked for name in moving), 0.45 * TTL_S)
        assert not second.held
        await scene.until(lambda: len(first.released_s) == 2, 3)
        assert await scene.until(lambda: second.held == moving, 1) < 0.25
        requested = scene.table.calls["request"]
        await asyncio.sleep(20 * TTL_S)
        assert scene.table.calls["request"] == requested == 2, "nothing comes back"


def test_an_old_owner_whose_epoch_takes_too_long_has_lost_before_the_new_one_begins() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(2), epoch_s=5 * TTL_S)
        await scene.until(lambda: len(first.held) == 2, 1)
        await asyncio.sleep(3)
        second = scene.join("b", units(2))
        took_s = await scene.until(lambda: second.held, 2 * TTL_S)
        assert TTL_S < took_s < TTL_S + 3
        await scene.until(lambda: first.lost, 5 * TTL_S)
        assert scene.shares() == [1, 1]


def test_a_dead_old_owner_costs_a_hand_over_one_ttl() -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(2))
        await scene.until(lambda: len(first.held) == 2, 1)
        await asyncio.sleep(3)
        second = scene.join("b", units(2))
        await scene.until(lambda: scene.table.calls["request"], 5)
        first.process.kill()
        assert await scene.until(lambda: len(second.held) == 2, 2 * TTL_S) < TTL_S + 1


@pytest.mark.parametrize("leaves", ["stops", "dies"])
def test_a_new_owner_that_goes_before_the_hand_over_leaves_the_old_one_in_peace(leaves: str) -> None:
    @scene()
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(2), epoch_s=2)
        await scene.until(lambda: len(first.held) == 2, 1)
        third = scene.join("c", ())  # sees the rows, wants them only later
        await asyncio.sleep(3)
        second = scene.join("b", units(2), epoch_s=1)
        await scene.until(lambda: scene.table.calls["request"], 5)
        third.want(*units(2))
        if leaves == "stops":
            await second.stop()
        else:
            second.process.kill()
        await scene.until(lambda: scene.shares() in ([1, 1], [0, 1, 1]), 3 * TTL_S + 5)


def test_an_input_that_another_programs_leader_gives_us_is_read_after_its_worker_has_released_it() -> None:
    @scene(keeps_marks=True)
    async def _(scene: Scene) -> None:
        theirs = await scene.table.take(Lease("shard-1", None, 0), "kcl-worker", Mark("100"))
        worker = scene.join("a", ())
        await asyncio.sleep(1)
        given = await scene.table.request(theirs, worker.id)
        worker.want(Unit("u", ("shard-1",)))
        await scene.until(lambda: worker.keeper.holds, 2)
        await asyncio.sleep(1)
        assert not worker.held
        await scene.table.release(given, Mark("170"))
        assert await scene.until(lambda: worker.held, 1) < 0.5
        assert worker.hold("u").began["shard-1"] == Mark("170", ours=False)


# -- what the rows say


def test_positions_are_written_at_once_with_renewals_and_at_the_end() -> None:
    @scene(keeps_marks=True)
    async def _(scene: Scene) -> None:
        def position() -> str | None:
            mark = scene.table.row("r").mark
            return mark.position if mark else None

        worker = scene.join("a", [Unit("u", ("r",))])
        await scene.until(lambda: worker.held, 1)
        await worker.keeper.show("u", {"r": Mark("1")})
        assert position() == "1"
        renewed = scene.table.calls["renew"]
        shows = [asyncio.ensure_future(worker.keeper.show("u", {"r": Mark(str(n))})) for n in range(2, 20)]
        await asyncio.gather(*shows)
        await scene.until(lambda: position() == "19", 1)
        assert scene.table.calls["renew"] <= renewed + 2, "while one is written only the newest waits"
        scene.table.fail("renew", "before")
        await worker.keeper.show("u", {"r": Mark("20")})
        await scene.until(lambda: position() == "20", 0.5 * TTL_S)
        worker.hold("u").kbps = 7.5
        await scene.until(lambda: scene.table.row("r").throughput_kbps == 7.5, 0.5 * TTL_S)
        await worker.keeper.give("u", {"r": Mark("30")})
        assert (position(), scene.table.row("r").owner) == ("30", None)


def test_positions_of_rows_that_are_no_part_of_the_unit_hold_up_nothing() -> None:
    @scene(keeps_marks=True)
    async def _(scene: Scene) -> None:
        worker = scene.join("a", [Unit("u", ("r",))])
        await scene.until(lambda: worker.held, 1)
        for n in "12":
            await worker.keeper.show("u", {"r": Mark(n), "ended": Mark("SHARD_END")})
            shown = scene.table.row("r").mark
            assert shown is not None
            assert shown.position == n


def test_the_new_owner_begins_with_the_position_that_the_old_one_released() -> None:
    @scene(keeps_marks=True)
    async def _(scene: Scene) -> None:
        first = scene.join("a", units(2))
        await scene.until(lambda: len(first.held) == 2, 1)
        second = scene.join("b", units(2))
        await scene.until(lambda: second.held, 10)
        hold = second.hold(second.held[0])
        assert {mark.position for mark in hold.began.values()} == {"a's last"}


# -- a table that fails


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_is_lost_loses_and_doubles_nothing(call: str, when: str) -> None:
    """A worker takes four units, a second joins, the first stops; the next three calls of one kind fail at each stage."""

    @scene()
    async def _(scene: Scene) -> None:
        def fail() -> None:
            for _ in range(3):
                scene.table.fail(call, when)

        fail()
        first = scene.join("a", units(4, rows=2))
        await scene.until(lambda: len(first.held) == 4, 2 * TTL_S)
        await asyncio.sleep(2)
        fail()
        second = scene.join("b", units(4, rows=2))
        await scene.until(lambda: scene.shares() == [2, 2], 5 * TTL_S)
        fail()
        await first.stop()
        assert await scene.until(lambda: len(second.held) == 4, 2 * TTL_S) < TTL_S + 2
        await asyncio.sleep(2 * TTL_S)
        assert set(scene.table.owners().values()) == {"b"}
        assert len(second.held) == 4


@pytest.mark.parametrize("seed", range(9, 18))
def test_whenever_the_table_is_away_units_are_held_once_and_in_the_end_evenly(seed: int) -> None:
    @scene(seed)
    async def _(scene: Scene) -> None:
        async def storm() -> None:
            while True:
                await asyncio.sleep(scene.chance.expovariate(1 / 4))
                if scene.chance.random() < 0.3:
                    scene.table.down = True
                    await asyncio.sleep(scene.chance.uniform(0, 2 * TTL_S))
                    scene.table.down = False
                else:
                    scene.table.fail(scene.chance.choice(CALLS), scene.chance.choice(["before", "after"]))

        storming = asyncio.ensure_future(storm())
        for at, name in enumerate("abcdef"):
            scene.join(name, units(7, rows=2), epoch_s=scene.chance.uniform(0, 1.5 * TTL_S))
            await asyncio.sleep(scene.chance.uniform(0, TTL_S))
            if at > 1:
                goes = scene.chance.choice([worker for worker in scene.workers if worker.alive])
                how = scene.chance.choice(["stop", "kill", "pause"])
                if how == "stop":
                    stopping = asyncio.ensure_future(goes.stop())
                    await asyncio.sleep(scene.chance.uniform(0, TTL_S))
                    await stopping
                elif how == "kill":
                    goes.process.kill()
                else:
                    goes.process.pause(scene.chance.uniform(0, 3 * TTL_S))
        storming.cancel()
        with suppress(asyncio.CancelledError):
            await storming
        scene.table.down = False
        scene.table.failing.clear()
        await asyncio.sleep(8 * TTL_S)
        shares = scene.shares()
        assert sum(shares) == 7
        assert shares[-1] - shares[0] <= 1


@pytest.mark.parametrize("call", ["list", "take", "renew"])
async def test_a_keeper_that_crashes_is_told_and_gives_back_what_it_has(call: str) -> None:
    table, told = Table(), asyncio.Event()

    def make(changed: Callable[[], None]) -> LeaseKeeper:
        return LeaseKeeper(table, f"{OUR_WORKERS}a", 0.5, World(), changed)

    keeping = InLoop(make, told.set)
    assert keeping.failure() is None
    table.fail(call, "before", ValueError("a row that is no row"))
    keeping.keeper.wanted = tuple(units(1))
    keeping.wake()
    async with asyncio.timeout(10):
        while keeping.failure() is None:
            await told.wait()
            told.clear()
    assert isinstance(keeping.failure(), ValueError)
    await keeping.call(lambda: keeping.keeper.give("u0", {}))
    await keeping.stop()
    assert set(table.owners().values()) <= {None}
