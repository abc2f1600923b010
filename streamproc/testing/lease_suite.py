"""Every promise of a lease table, as a test of its own. Subclass it and give a `table` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streamproc.errors import LeaseLost
from streamproc.lease.lease import Lease, LeaseTable

NEW = Lease("job", None, 0)


class LeaseTableConformance:
    """Subclass as `class TestMyLeases(LeaseTableConformance)` with a fixture `table`: an empty table for each test."""

    async def test_take_creates_the_row_once(self, table: LeaseTable) -> None:
        assert list(await table.list()) == []
        taken = await table.take(NEW, "a")
        assert (taken.key, taken.owner) == ("job", "a")
        assert list(await table.list()) == [taken]
        with pytest.raises(LeaseLost):
            await table.take(NEW, "b")
        assert list(await table.list()) == [taken]

    async def test_take_succeeds_for_exactly_one_of_many(self, table: LeaseTable) -> None:
        for row in (NEW, await table.give(await table.take(Lease("other", None, 0), "z"))):
            answers = await asyncio.gather(*(table.take(row, f"w{i}") for i in range(8)), return_exceptions=True)
            won = [answer for answer in answers if isinstance(answer, Lease)]
            assert len(won) == 1
            assert all(isinstance(answer, LeaseLost) for answer in answers if answer not in won)
            assert won[0] in await table.list()

    async def test_take_from_an_owner_that_was_seen(self, table: LeaseTable) -> None:
        first = await table.take(NEW, "a")
        second = await table.take(first, "b")
        assert second.owner == "b"
        for late in (table.renew(first), table.give(first), table.take(first, "a")):
            with pytest.raises(LeaseLost):
                await late
        assert list(await table.list()) == [second]

    async def test_renew_and_give_need_counter_and_owner(self, table: LeaseTable) -> None:
        first = await table.take(NEW, "a")
        second = await table.renew(first)
        changes: list[Callable[[Lease], Awaitable[Lease]]] = [table.renew, table.give]
        for change in changes:
            for stale in (first, Lease("job", "b", second.counter), Lease("none", "a", 1)):
                with pytest.raises(LeaseLost):
                    await change(stale)
        free = await table.give(second)
        assert free.owner is None
        assert (await table.take(free, "b")).owner == "b"

    async def test_every_change_raises_the_counter(self, table: LeaseTable) -> None:
        row = await table.take(NEW, "a")
        counters = [row.counter]
        for _ in range(3):
            row = await table.renew(row)
            counters.append(row.counter)
        row = await table.give(row)
        counters.append(row.counter)
        counters.append((await table.take(row, "b")).counter)
        assert counters == sorted(set(counters))
        assert [lease.counter for lease in await table.list()] == [counters[-1]]

    async def test_drop_removes_the_row_as_it_was_seen(self, table: LeaseTable) -> None:
        first = await table.take(NEW, "a")
        second = await table.renew(first)
        with pytest.raises(LeaseLost):
            await table.drop(first)
        await table.drop(second)
        assert list(await table.list()) == []
        with pytest.raises(LeaseLost):
            await table.renew(second)
        assert (await table.take(NEW, "b")).owner == "b"

    async def test_rows_of_different_keys_are_independent(self, table: LeaseTable) -> None:
        one = await table.take(Lease("k1", None, 0), "a")
        two = await table.take(Lease("k2", None, 0), "b")
        assert list(await table.list()) == [one, two]
        await table.give(one)
        await table.renew(two)

    async def test_a_living_owner_is_not_abandoned(self, table: LeaseTable) -> None:
        taken = await table.take(NEW, "a")
        assert not await table.abandoned(taken)
        assert not await table.abandoned(await table.give(taken))
        await table.close()
