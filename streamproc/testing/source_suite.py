"""The conformance suite of sources: one test a promise of `streamproc.source`, over any implementation.

    class TestMySource(SourceConformance):
        @pytest.fixture
        async def harness(self) -> AsyncIterator[SourceHarness]:
            yield MyHarness()

A harness offers what its server can do; tests that need more than that are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pyarrow as pa
import pytest

from streamproc.batch import WIRE_SCHEMA, Chunk
from streamproc.clock import SystemClock
from streamproc.errors import BadRecord, Unavailable
from streamproc.offset import EARLIEST, Position, Start
from streamproc.source import Reader, Shard, Source

LATEST = Start("latest")
ANSWER_S = 3.0
"""A read answers within about a second; machines of tests are slow."""
DEADLINE_S = 30.0


class SourceHarness:
    """What a source's tests provide. Each test gets a fresh one, with two readable shards that hold no rows.

    Methods that raise NotImplementedError here are optional: a server that cannot do it leaves them out.
    """

    async def source(self) -> Source:
        """A new source over the same data, as another process would make it."""
        raise NotImplementedError

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        """Make `count` further rows readable in a shard; their payloads (`_value`) in shard order."""
        raise NotImplementedError

    async def add_shard(self) -> str:
        """A new shard beside the others; its id."""
        raise NotImplementedError

    async def split(self, shard: str) -> Sequence[str]:
        """Close a shard, children go on; their ids."""
        raise NotImplementedError

    async def end(self, shard: str) -> None:
        """Close a shard: no rows come any more."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Take the server away, rows kept."""
        raise NotImplementedError

    async def start(self) -> None:
        """Bring the server back."""
        raise NotImplementedError

    async def trim(self, shard: str, rows: int) -> None:
        """Remove the first `rows` rows of a shard, as retention does."""
        raise NotImplementedError

    async def now_us(self) -> int:
        """A time after all rows put so far and before all that come: for sources that can start at a time."""
        raise NotImplementedError


async def optional(harness: SourceHarness, method: str, *arguments: object) -> object:
    """Call a harness method, or skip the test where the server cannot do it."""
    if getattr(type(harness), method) is getattr(SourceHarness, method):
        pytest.skip(f"{type(harness).__name__} has no {method}")
    return await getattr(harness, method)(*arguments)


def values(chunks: Sequence[Chunk]) -> list[bytes]:
    return [value for chunk in chunks for value in chunk.rows["_value"].to_pylist()]


def offsets(chunks: Sequence[Chunk]) -> list[str]:
    return [str(offset) for chunk in chunks for offset in chunk.rows["_offset"].to_pylist()]


async def answer(reader: Reader, until: Position | None = None) -> Chunk:
    async with asyncio.timeout(ANSWER_S):
        return await reader.read(until)


async def drain(reader: Reader, rows: int = 0) -> list[Chunk]:
    """Read until the reader is at its end and has given at least `rows` rows."""
    chunks: list[Chunk] = []
    async with asyncio.timeout(DEADLINE_S):
        while not chunks or not (chunks[-1].ended or (chunks[-1].at_end and sum(c.rows.num_rows for c in chunks) >= rows)):
            chunks.append(await answer(reader))
    return chunks


async def replay(reader: Reader, until: Position) -> list[Chunk]:
    """Read up to exactly `until`."""
    chunks = [await answer(reader, until)]
    async with asyncio.timeout(DEADLINE_S):
        while chunks[-1].end != until:
            chunks.append(await answer(reader, until))
    return chunks


async def outlasting(reader: Reader) -> None:
    """Read until it raises: without rows it may answer a few times before it notices that the server is away."""
    async with asyncio.timeout(DEADLINE_S):
        while not (await reader.read()).rows.num_rows:
            pass


class SourceConformance:
    """Subclass it, with a fixture `harness`."""

    @pytest.fixture
    async def source(self, harness: SourceHarness) -> AsyncIterator[Source]:
        source = await harness.source()
        yield source
        await source.close()

    async def first(self, source: Source) -> Shard:
        return (await source.shards())[0]

    async def opened(self, source: Source, shard: Shard, start: Start = EARLIEST) -> Reader:
        return await source.open(shard, await source.position(shard, start))

    # Source

    async def test_shards_lists_what_can_be_read(self, harness: SourceHarness, source: Source) -> None:
        shards = await source.shards()
        assert shards
        for shard in shards:
            put = await harness.put(shard.id, 2)
            assert values(await drain(await self.opened(source, shard), 2)) == list(put)

    async def test_shard_ids_never_change_meaning(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 3)
        again = await harness.source()
        assert [s.id for s in await again.shards()] == [s.id for s in await source.shards()]
        assert values(await drain(await self.opened(again, shard), 3)) == list(put)
        await again.close()

    async def test_shards_lists_new_shards(self, harness: SourceHarness, source: Source) -> None:
        before = {s.id for s in await source.shards()}
        new = await optional(harness, "add_shard")
        shards = {s.id: s for s in await source.shards()}
        assert set(shards) == before | {new}
        put = await harness.put(str(new), 2)
        assert values(await drain(await self.opened(source, shards[str(new)]), 2)) == list(put)

    async def test_shards_lists_parents_while_they_hold_unread_rows(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 2)
        children = await optional(harness, "split", shard.id)
        shards = {s.id: s for s in await source.shards()}
        assert isinstance(children, Sequence)
        assert [shards[child].parents for child in children] == [(shard.id,)] * len(children)
        chunks = await drain(await self.opened(source, shards[shard.id]))
        assert values(chunks) == list(put)
        assert chunks[-1].ended

    async def test_children_share_the_hash_range_of_their_parent(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        children = await optional(harness, "split", shard.id)
        if shard.hash_range is None:
            pytest.skip("keys are not hashed to ranges")
        assert isinstance(children, Sequence)
        low, high = sorted(s.hash_range for s in await source.shards() if s.id in children and s.hash_range)
        assert (low[0], high[1]) == shard.hash_range
        assert low[1] + 1 == high[0]

    async def test_position_resolves_a_start_to_a_fixed_position(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        old = await harness.put(shard.id, 3)
        earliest, latest = await source.position(shard, EARLIEST), await source.position(shard, LATEST)
        new = await harness.put(shard.id, 2)
        for _ in range(2):
            assert values(await drain(await source.open(shard, earliest), 5)) == [*old, *new]
            assert values(await drain(await source.open(shard, latest), 2)) == list(new)

    async def test_position_of_an_empty_shard_is_before_its_first_row(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        positions = [await source.position(shard, start) for start in (EARLIEST, LATEST)]
        put = await harness.put(shard.id, 2)
        for position in positions:
            assert values(await drain(await source.open(shard, position), 2)) == list(put)

    async def test_position_at_a_time(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 2)
        now_us = await optional(harness, "now_us")
        new = await harness.put(shard.id, 2)
        assert isinstance(now_us, int)
        position = await source.position(shard, Start("timestamp", now_us))
        assert values(await drain(await source.open(shard, position), 2)) == list(new)

    async def test_open_reads_the_rows_strictly_after_once_and_in_order(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = [*await harness.put(shard.id, 4), *await harness.put(shard.id, 3)]
        chunks = await drain(await self.opened(source, shard), 7)
        assert values(chunks) == put
        at = offsets(chunks)
        assert len(set(at)) == 7
        for i, offset in enumerate(at):
            assert values(await drain(await source.open(shard, offset), 6 - i)) == put[i + 1 :]

    async def test_the_end_of_a_chunk_is_a_position(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 3)
        chunks = await drain(await self.opened(source, shard), 3)
        new = await harness.put(shard.id, 2)
        assert values(await drain(await source.open(shard, chunks[-1].end), 2)) == list(new)

    async def test_rows_have_the_columns_of_the_wire(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 2)
        for chunk in await drain(await self.opened(source, shard), 2):
            assert chunk.shard == shard.id
            assert {"_offset", "_value"} <= set(chunk.rows.schema.names)
            for field in chunk.rows.schema:
                assert field.type == WIRE_SCHEMA.field(field.name).type or (field.name, field.type) == ("_offset", pa.int64())

    async def test_only_wanted_columns_need_be_made(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 2)
        source.wanted = frozenset()
        chunks = await drain(await self.opened(source, shard), 2)
        assert values(chunks) == list(put)
        assert len(offsets(chunks)) == 2

    async def test_many_readers_may_be_open_at_once(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        readers = [await self.opened(source, shard) for _ in range(3)]
        put = await harness.put(shard.id, 3)
        drained = await asyncio.gather(*(drain(reader, 3) for reader in readers))
        assert [values(chunks) for chunks in drained] == [list(put)] * 3

    async def test_one_slow_reader_does_not_stop_the_others(self, harness: SourceHarness, source: Source) -> None:
        slow, *others = await source.shards()
        await harness.put(slow.id, 3)
        idle = await self.opened(source, slow)
        for shard in others or [slow]:
            put = await harness.put(shard.id, 3)
            assert values(await drain(await self.opened(source, shard), 3))[-3:] == list(put)
        await idle.close()

    async def test_a_server_that_is_away_raises_unavailable(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 2)
        await optional(harness, "stop")
        away = await harness.source()
        for some in (away, source):
            with pytest.raises(Unavailable):
                await some.shards()
            with pytest.raises(Unavailable):
                await (await self.opened(some, shard, LATEST)).read()
        await harness.start()
        assert values(await drain(await self.opened(away, (await away.shards())[0]), 2)) == list(put)
        assert [s.id for s in await source.shards()] == [s.id for s in await away.shards()]
        await away.close()

    async def test_tell_may_be_called_at_any_time(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 2)
        chunks = await drain(await self.opened(source, shard), 2)
        await source.tell({shard.id: chunks[-1].end})
        assert values(await drain(await self.opened(source, shard), 2)) == list(put)

    async def test_a_closed_source_may_be_used_again(self, harness: SourceHarness, source: Source) -> None:
        await source.shards()
        await source.close()
        shard = await self.first(source)
        put = await harness.put(shard.id, 2)
        assert values(await drain(await self.opened(source, shard), 2)) == list(put)

    # Reader

    async def test_read_answers_soon_with_an_empty_chunk_if_there_is_nothing(self, source: Source) -> None:
        shard = await self.first(source)
        reader = await self.opened(source, shard)
        for _ in range(2):
            chunk = await answer(reader)
            assert chunk.rows.num_rows == 0
            assert {"_offset", "_value"} <= set(chunk.rows.schema.names)

    async def test_read_until_never_goes_beyond_and_repeats_the_same_rows(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = [*await harness.put(shard.id, 3), *await harness.put(shard.id, 3)]
        start = await source.position(shard, EARLIEST)
        at = offsets(await drain(await source.open(shard, start), 6))
        for i, until in enumerate(at):
            assert values(await replay(await source.open(shard, start), until)) == put[: i + 1]

    async def test_read_goes_on_after_until(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 5)
        at = offsets(await drain(await self.opened(source, shard), 5))
        reader = await self.opened(source, shard)
        first = await replay(reader, at[1])
        assert values(first) + values(await drain(reader, 3)) == list(put)

    async def test_read_until_where_the_reader_stands_gives_no_row(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 3)
        at = offsets(await drain(await self.opened(source, shard), 3))
        chunk = await answer(await source.open(shard, at[1]), at[1])
        assert (chunk.rows.num_rows, chunk.end) == (0, at[1])

    async def test_rows_that_are_gone_raise_bad_record(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 6)
        start = await source.position(shard, EARLIEST)
        at = offsets(await drain(await source.open(shard, start), 6))
        await optional(harness, "trim", shard.id, 4)
        with pytest.raises(BadRecord, match=shard.id):
            await replay(await source.open(shard, at[1]), at[4])
        with pytest.raises(BadRecord, match=shard.id):
            await drain(await source.open(shard, at[1]), 4)

    async def test_read_goes_on_where_the_last_chunk_ended_after_unavailable(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = list(await harness.put(shard.id, 2))
        reader = await self.opened(source, shard)
        read = values(await drain(reader, 2))
        await optional(harness, "stop")
        with pytest.raises(Unavailable):
            await outlasting(reader)
        await harness.start()
        put += await harness.put(shard.id, 2)
        assert read + values(await drain(reader, 2)) == put

    async def test_at_end_only_when_the_server_said_so(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        reader = await self.opened(source, shard)
        for count in (3, 2):
            put = await harness.put(shard.id, count)
            chunks = await drain(reader, count)
            assert values(chunks) == list(put)
            seen = 0
            for chunk in chunks:
                seen += chunk.rows.num_rows
                assert not chunk.at_end or seen in (0, count)

    async def test_ended_is_the_last_chunk_of_a_closed_shard(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        put = await harness.put(shard.id, 3)
        await optional(harness, "end", shard.id)
        chunks = await drain(await self.opened(source, shard))
        assert values(chunks) == list(put)
        assert [chunk.ended for chunk in chunks] == [False] * (len(chunks) - 1) + [True]

    async def test_the_last_chunk_of_a_closed_shard_names_its_children_or_nobody(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        await harness.put(shard.id, 3)
        children = await optional(harness, "split", shard.id)
        assert isinstance(children, Sequence)
        chunks = await drain(await self.opened(source, shard))
        listed = tuple(s for s in await source.shards() if s.id in children)
        assert [chunk.children for chunk in chunks[:-1]] == [()] * (len(chunks) - 1)
        assert chunks[-1].children in ((), listed)

    async def test_cancelling_a_read_loses_nothing(self, harness: SourceHarness, source: Source) -> None:
        shard = await self.first(source)
        reader = await self.opened(source, shard)
        put: list[bytes] = []
        read: list[bytes] = []
        for pause_s in (0, 0.001, 0.01, 0.05):
            put += await harness.put(shard.id, 2)
            reading = asyncio.ensure_future(reader.read())
            await SystemClock().sleep(pause_s)
            if not reading.cancel():
                read += values([await reading])
            await asyncio.wait([reading])
        assert read + values(await drain(reader, len(put) - len(read))) == put
