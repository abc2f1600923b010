"""Every promise of a lease table, as a test of its own. Subclass it and give a `table` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streamproc.errors import LeaseLost
from streamproc.lease.lease import OUR_WORKERS, SHARD_END, Lease, LeaseTable, Listing, Mark

NEW = Lease("job", None, 0)
A, B, C = f"{OUR_WORKERS}a", f"{OUR_WORKERS}b", f"{OUR_WORKERS}c"


def rows(listing: Listing) -> list[Lease]:
    return list(listing.leases)


class LeaseTableConformance:
    """Subclass as `class TestMyLeases(LeaseTableConformance)` with a fixture `table`: an empty table for each test."""

    async def test_take_creates_the_row_once(self, table: LeaseTable) -> None:
        assert rows(await table.list()) == []
        taken = await table.take(NEW, "a")
        assert (taken.key, taken.owner) == ("job", "a")
        assert rows(await table.list()) == [taken]
        with pytest.raises(LeaseLost):
            await table.take(NEW, "b")
        assert rows(await table.list()) == [taken]

    async def test_take_succeeds_for_exactly_one_of_many(self, table: LeaseTable) -> None:
        for row in (NEW, await table.give(await table.take(Lease("other", None, 0), "z"))):
            answers = await asyncio.gather(*(table.take(row, f"w{i}") for i in range(8)), return_exceptions=True)
            won = [answer for answer in answers if isinstance(answer, Lease)]
            assert len(won) == 1
            assert all(isinstance(answer, LeaseLost) for answer in answers if answer not in won)
            assert won[0] in (await table.list()).leases

    async def test_take_from_an_owner_that_was_seen(self, table: LeaseTable) -> None:
        first = await table.take(NEW, "a")
        second = await table.take(first, "b")
        assert second.owner == "b"
        for late in (table.renew(first), table.give(first), table.take(first, "a")):
            with pytest.raises(LeaseLost):
                await late
        assert rows(await table.list()) == [second]

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
        assert [lease.counter for lease in (await table.list()).leases] == [counters[-1]]

    async def test_drop_removes_the_row_as_it_was_seen(self, table: LeaseTable) -> None:
        first = await table.take(NEW, "a")
        second = await table.renew(first)
        with pytest.raises(LeaseLost):
            await table.drop(first)
        await table.drop(second)
        assert rows(await table.list()) == []
        with pytest.raises(LeaseLost):
            await table.renew(second)
        assert (await table.take(NEW, "b")).owner == "b"

    async def test_rows_of_different_keys_are_independent(self, table: LeaseTable) -> None:
        one = await table.take(Lease("k1", None, 0), "a")
        two = await table.take(Lease("k2", None, 0), "b")
        assert rows(await table.list()) == [one, two]
        await table.give(one)
        await table.renew(two)

    async def test_a_living_owner_is_not_abandoned(self, table: LeaseTable) -> None:
        taken = await table.take(NEW, "a")
        assert not await table.abandoned(taken)
        assert not await table.abandoned(await table.give(taken))
        await table.close()

    async def test_request_succeeds_for_exactly_one_of_many(self, table: LeaseTable) -> None:
        first = await table.take(NEW, A)
        answers = await asyncio.gather(*(table.request(first, f"{OUR_WORKERS}{i}") for i in range(8)), return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, Lease)]
        assert len(won) == 1
        assert all(isinstance(answer, LeaseLost) for answer in answers if answer not in won)
        assert (won[0].checkpoint_owner, won[0].counter > first.counter) == (A, True)
        assert rows(await table.list()) == won
        with pytest.raises(LeaseLost):
            await table.renew(first)

    async def test_request_needs_an_owner_and_no_hand_over(self, table: LeaseTable) -> None:
        with pytest.raises(LeaseLost):
            await table.request(NEW, B)
        asked = await table.request(await table.take(NEW, A), B)
        with pytest.raises(LeaseLost):
            await table.request(asked, C)
        free = await table.give(await table.take(Lease("free", None, 0), A))
        with pytest.raises(LeaseLost):
            await table.request(free, B)
        assert rows(await table.list()) == [free, asked]

    async def test_release_while_the_new_owner_renews(self, table: LeaseTable) -> None:
        asked = await table.request(await table.take(NEW, A), B)
        renewed = await table.renew(await table.renew(asked))
        assert (renewed.owner, renewed.checkpoint_owner) == (B, A)
        await table.release(asked)
        [row] = await table.get(["job"])
        assert (row.owner, row.checkpoint_owner, row.counter > renewed.counter) == (B, None, True)
        with pytest.raises(LeaseLost):
            await table.renew(renewed)
        assert (await table.renew(row)).owner == B

    async def test_release_is_refused_of_any_but_the_checkpoint_owner(self, table: LeaseTable) -> None:
        first = await table.take(NEW, A)
        asked = await table.request(first, B)
        for other in (first, Lease("job", B, asked.counter, C), Lease("none", B, 1, A)):
            with pytest.raises(LeaseLost):
                await table.release(other)
        assert rows(await table.list()) == [asked]
        await table.release(asked)
        with pytest.raises(LeaseLost):
            await table.release(asked)

    async def test_take_ends_a_hand_over(self, table: LeaseTable) -> None:
        asked = await table.request(await table.take(NEW, A), B)
        forced = await table.take(asked, B)
        assert (forced.owner, forced.checkpoint_owner) == (B, None)
        with pytest.raises(LeaseLost):
            await table.release(asked)
        assert rows(await table.list()) == [forced]

    async def test_a_new_owner_that_stops_leaves_the_hand_over(self, table: LeaseTable) -> None:
        asked = await table.request(await table.take(NEW, A), B)
        free = await table.give(asked)
        assert (free.owner, free.checkpoint_owner) == (None, A)
        await table.release(asked)
        [row] = await table.get(["job"])
        assert (row.owner, row.checkpoint_owner) == (None, None)
        assert (await table.take(row, C)).owner == C

    async def test_get_gives_the_rows_that_are_there(self, table: LeaseTable) -> None:
        one = await table.renew(await table.take(Lease("job/source.shard-1", None, 0), "a"))
        await table.take(Lease("job/source.shard-2", None, 0), "b")
        assert list(await table.get(["job/source.shard-1", "job/none"])) == [one]
        assert list(await table.get([])) == []

    async def test_keys_of_any_characters(self, table: LeaseTable) -> None:
        keys = sorted(["a/b.c%2Fd", "a/b", "a b:c", "shardId-000000000001", "ü/#?&=+"])
        taken = [await table.take(Lease(key, None, 0), f"{OUR_WORKERS}host/1:a b") for key in keys]
        assert sorted(rows(await table.list()), key=lambda lease: lease.key) == taken

    async def test_many_rows_are_listed_in_order(self, table: LeaseTable) -> None:
        taken = await asyncio.gather(*(table.take(Lease(f"job/{i:03}", None, 0), "a") for i in range(40)))
        assert rows(await table.list()) == taken

    async def test_every_beat_is_seen(self, table: LeaseTable) -> None:
        seen = []
        for _ in range(3):
            await table.beat(A)
            seen.append((await table.list()).workers[A])
        assert seen == sorted(set(seen))
        await table.beat(B)
        workers = (await table.list()).workers
        assert workers.keys() == {A, B}
        assert workers[A] == seen[-1]
        assert rows(await table.list()) == []

    async def test_leave_takes_a_worker_away(self, table: LeaseTable) -> None:
        await table.beat(A)
        await table.beat(B)
        await table.leave(A)
        await table.leave("streamproc:never-there")
        assert (await table.list()).workers.keys() == {B}
        await table.beat(A)
        assert (await table.list()).workers.keys() == {A, B}

    async def test_throughput_stays_until_it_is_written_again(self, table: LeaseTable) -> None:
        row = await table.renew(await table.take(NEW, A), throughput_kbps=12.5)
        row = await table.renew(row)
        asked = await table.request(row, B)
        assert [lease.throughput_kbps for lease in (await table.list()).leases] == [12.5]
        await table.renew(asked, throughput_kbps=0.25)
        assert [lease.throughput_kbps for lease in await table.get(["job"])] == [0.25]

    async def test_a_table_without_marks_says_so(self, table: LeaseTable) -> None:
        row = await table.take(NEW, A, Mark("1:0"))
        if table.keeps_marks:
            assert row.mark == Mark("1:0")
            return
        row = await table.renew(row, Mark("2:0"))
        assert [lease.mark for lease in (row, *(await table.list()).leases)] == [None, None]
        with pytest.raises(NotImplementedError):
            await table.add("other", Mark("1:0"))

    async def test_marks_are_what_was_written_last(self, table: LeaseTable) -> None:
        if not table.keeps_marks:
            return
        mark = Mark("5:2", ("shardId-000000000007",), (), (0, 2**128 - 1))
        await table.add("shardId-000000000001", mark)
        await table.add("shardId-000000000001", Mark("9:0"))
        [row] = (await table.list()).leases
        assert (row.owner, row.counter, row.mark) == (None, 0, mark)
        row = await table.renew(await table.take(row, A))
        assert row.mark == mark
        ended = Mark(SHARD_END, ("shardId-000000000007",), ("shardId-000000000008", "shardId-000000000009"), (0, 2**128 - 1))
        row = await table.renew(row, ended)
        assert [lease.mark for lease in (row, *await table.get([row.key]))] == [ended, ended]

    async def test_the_last_mark_of_a_hand_over_and_of_a_stop(self, table: LeaseTable) -> None:
        if not table.keeps_marks:
            return
        asked = await table.request(await table.take(NEW, A, Mark("1:0")), B)
        await table.release(asked, Mark("2:0"))
        [row] = await table.get([NEW.key])
        assert row.mark == Mark("2:0")
        free = await table.give(row, Mark("3:0"))
        assert free.mark == Mark("3:0")
        assert (await table.take(free, A)).mark == Mark("3:0")
