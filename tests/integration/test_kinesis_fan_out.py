"""Enhanced fan-out on a stub of Kinesis: renewals, subscriptions that break, other owners, consumers that cannot be had."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from sources.kinesis import Kinesis
from streamproc.errors import BadRecord
from streamproc.offset import EARLIEST, Start
from streamproc.source import Reader
from streamproc.testing.kinesis_stub import Stub
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.ministack import CREDENTIALS
from streamproc.testing.source_suite import answer, drain, replay, values
from streamproc.world import World

SHARD = "shardId-000000000000"
HURRY = 20


class Hurried(ManualClock):
    """A second takes 50 ms."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0) / HURRY)
        self.advance(round(max(seconds, 0) * 1e6))


class Pushed:
    """A stub whose times are hurried too, and sources on it."""

    def __init__(self, **keys: Any) -> None:
        self.world = World(clock=Hurried())
        self.stub = Stub(self.world.clock, **{"beat_s": 5 / HURRY, "taken_s": 5 / HURRY, "subscription_s": 300 / HURRY} | keys)
        self.stub.consumers["job"] = 0
        self.numbers = itertools.count()
        self.sources: list[Kinesis] = []

    def source(self) -> Kinesis:
        options = Kinesis.Options(stream="clicks", endpoint_url=self.stub.endpoint_url, read="fan_out", consumer="job")
        self.sources.append(Kinesis(options, self.world, "clicks"))
        return self.sources[-1]

    async def reader(self, start: Start = EARLIEST, tries: int = 20) -> Reader:
        source = self.source()
        shard = (await source.shards())[0]
        for _ in range(tries):  # each waits for a hurried second until the consumer is found
            await source.open(shard, "TRIM_HORIZON")
        return await source.open(shard, await source.position(shard, start))

    def put(self, count: int = 1) -> list[bytes]:
        payloads = [b"row %d" % next(self.numbers) for _ in range(count)]
        for data in payloads:
            self.stub.put(SHARD, data)
        return payloads

    def polled(self) -> int:
        return self.stub.calls.count("GetRecords")

    def metric(self, name: str, **labels: str) -> float:
        return self.world.metrics.get(name, **labels)


@pytest.fixture
async def pushed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pushed]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    pushed = Pushed()
    await pushed.stub.start()
    yield pushed
    for source in pushed.sources:
        await source.close()
    await pushed.stub.stop()


async def test_rows_are_pushed_and_nothing_is_polled(pushed: Pushed) -> None:
    put = pushed.put(3)
    reader = await pushed.reader()
    chunks = await drain(reader, 3)
    put += pushed.put(2)
    chunks += await drain(reader, 2)
    await reader.close()
    assert values(chunks) == put
    assert chunks[-1].lag == 0
    assert (pushed.polled(), len(pushed.stub.subscriptions)) == (0, 1)


async def test_a_subscription_is_renewed_where_it_ended(pushed: Pushed) -> None:
    """The continuation number is the start even if no row ever came: it names no record."""
    pushed.stub.subscription_s = 0.15
    reader = await pushed.reader(Start("latest"))
    while len(pushed.stub.subscriptions) < 3:
        assert (await answer(reader)).rows.num_rows == 0
    put = pushed.put(2)
    chunks = await drain(reader, 2)
    await reader.close()
    assert values(chunks) == put
    first, second, *_ = (asked["StartingPosition"] for asked in pushed.stub.subscriptions)
    assert first["Type"] == "AT_TIMESTAMP"
    assert second["Type"] == "AFTER_SEQUENCE_NUMBER"
    assert second["SequenceNumber"] not in {record["SequenceNumber"] for record in pushed.stub.shards[SHARD].records}
    assert chunks[-1].end == pushed.stub.shards[SHARD].records[-1]["SequenceNumber"]


async def test_every_row_comes_once_through_many_renewals_and_breaks(pushed: Pushed) -> None:
    pushed.stub.subscription_s = 0.4
    pushed.stub.limit = 7
    reader = await pushed.reader()
    breaks = itertools.cycle(["", "InternalFailureException", "ResourceInUseException", "KMSThrottlingException", "", "Unknown"])
    put: list[bytes] = []
    read: list[bytes] = []
    async with asyncio.timeout(30):
        while len(pushed.stub.subscriptions) < 10:
            put += pushed.put(3)
            if len(put) % 90 == 0 and not pushed.stub.breaks:
                pushed.stub.breaks.append(next(breaks))
            read += values([await answer(reader)])
    pushed.stub.breaks.clear()
    read += values(await drain(reader, len(put) - len(read)))
    await reader.close()
    assert read == put
    assert pushed.stub.pushed > 100
    assert pushed.metric("streamproc_retries_total", what="source clicks") > 3


async def test_a_shard_that_another_has_had_within_five_seconds_is_polled_till_then(pushed: Pushed) -> None:
    first = await pushed.reader()
    put = pushed.put(2)
    await drain(first, 2)
    pushed.stub.taken_s = 10
    second = await pushed.reader()
    assert values(await drain(second, 2)) == put
    assert pushed.polled() > 0
    pushed.stub.taken_s = 0
    await first.close()
    subscriptions = len(pushed.stub.subscriptions)
    async with asyncio.timeout(10):
        while len(pushed.stub.subscriptions) == subscriptions:
            assert (await answer(second)).rows.num_rows == 0
        polled = pushed.polled()
        put = pushed.put(2)
        assert values(await drain(second, 2)) == put
    assert pushed.polled() == polled
    await second.close()


async def test_the_end_of_a_closed_shard_names_its_children(pushed: Pushed) -> None:
    put = pushed.put(3)
    children = pushed.stub.split(SHARD)
    reader = await pushed.reader()
    chunks = await drain(reader)
    await reader.close()
    assert values(chunks) == put
    assert [shard.id for shard in chunks[-1].children] == children
    assert (chunks[-1].ended, pushed.polled()) == (True, 0)


async def test_a_reader_that_stands_at_the_end_of_a_closed_shard_is_told_so(pushed: Pushed) -> None:
    pushed.put(3)
    reader = await pushed.reader()
    last = (await drain(reader, 3))[-1].end
    await reader.close()
    pushed.stub.taken_s = 0
    pushed.stub.split(SHARD)
    source = pushed.source()
    again = await source.open((await source.shards())[0], last)
    chunks = await drain(again)
    await again.close()
    assert (values(chunks), chunks[-1].ended, len(chunks[-1].children)) == ([], True, 2)


async def test_a_closed_shard_whose_end_is_not_pushed_is_polled_for_it(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator forgets it where the shard was closed before the subscription."""
    put = pushed.put(3)
    pushed.stub.split(SHARD)
    event = pushed.stub.event
    monkeypatch.setattr(pushed.stub, "event", lambda *given: event(*given) | {"ChildShards": [], "ContinuationSequenceNumber": "10001"})
    reader = await pushed.reader()
    chunks = await drain(reader)
    await reader.close()
    assert (values(chunks), chunks[-1].ended, len(chunks[-1].children)) == (put, True, 2)
    assert [chunk.at_end for chunk in chunks[:-1]] == [False] * (len(chunks) - 1)


async def test_rows_are_read_again_by_polling(pushed: Pushed) -> None:
    put = pushed.put(5)
    reader = await pushed.reader()
    ends = [record["SequenceNumber"] for record in pushed.stub.shards[SHARD].records]
    assert values(await replay(reader, ends[2])) == put[:3]
    assert pushed.polled() == 1
    put += pushed.put(2)
    assert values(await drain(reader, 4)) == put[3:]
    await reader.close()


async def test_who_does_not_read_is_not_sent_more(pushed: Pushed) -> None:
    pushed.stub.limit = 1
    reader = await pushed.reader()
    for _ in range(120):
        pushed.stub.put(SHARD, bytes(200_000))
    count = 0
    while not count:
        count = (await answer(reader)).rows.num_rows
    await asyncio.sleep(0.5)
    assert pushed.stub.pushed < 90
    assert count + sum(c.rows.num_rows for c in await drain(reader, 120 - count)) == 120
    await reader.close()


async def test_silence_is_the_end_only_until_the_next_word_is_overdue(pushed: Pushed) -> None:
    put = pushed.put(1)
    reader = await pushed.reader()
    assert values(await drain(reader, 1)) == put
    pushed.stub.beat_s = 1000
    chunks = [await answer(reader) for _ in range(14)]
    await reader.close()
    assert [chunk.rows.num_rows for chunk in chunks] == [0] * 14
    assert chunks[0].at_end
    assert not chunks[-1].at_end


async def test_a_consumer_that_is_not_there_is_registered_and_polled_for_till_it_is_active(pushed: Pushed) -> None:
    pushed.stub.consumers.clear()
    pushed.stub.looks_till_active = 4
    reader = await pushed.reader(tries=0)
    put = pushed.put(2)
    assert values(await drain(reader, 2)) == put
    assert pushed.polled() > 0
    async with asyncio.timeout(10):
        while not pushed.stub.subscriptions:
            await answer(reader)
    assert list(pushed.stub.consumers) == ["job"]
    assert pushed.metric("streamproc_fan_out_fallback", source="clicks") == 0
    put = pushed.put(2)
    assert values(await drain(reader, 2)) == put
    await reader.close()


async def test_a_consumer_that_another_worker_has_just_registered_is_found(pushed: Pushed) -> None:
    pushed.stub.refusals = {
        "DescribeStreamConsumer": [("ResourceNotFoundException", 400), ("LimitExceededException", 400)],
        "RegisterStreamConsumer": [("ResourceInUseException", 400)],
    }
    reader = await pushed.reader()
    async with asyncio.timeout(10):
        while not pushed.stub.subscriptions:
            await answer(reader)
    await reader.close()


@pytest.mark.parametrize("why", ["RegisterStreamConsumer", "DescribeStreamConsumer", "SubscribeToShard", "full"])
async def test_without_a_right_or_room_the_shard_is_polled_with_a_warning(pushed: Pushed, why: str) -> None:
    if why == "RegisterStreamConsumer":
        pushed.stub.consumers.clear()
    if why == "full":
        pushed.stub.consumers = {f"other-{i}": 0 for i in range(20)}
    pushed.stub.refusals = {} if why == "full" else {why: [("AccessDeniedException", 400)] * 3}
    with capture_logs() as logs:
        reader = await pushed.reader()
        put = pushed.put(3)
        assert values(await drain(reader, 3)) == put
        async with asyncio.timeout(10):
            while not pushed.metric("streamproc_fan_out_fallback", source="clicks"):
                await answer(reader)
    assert [log["event"] for log in logs] == ["no enhanced fan-out, polling instead"]
    assert pushed.stub.pushed == 0
    pushed.stub.refusals.clear()
    pushed.stub.consumers = {"job": 0}
    pushed.world.clock.advance(400_000_000)  # type: ignore[attr-defined]  # a ManualClock
    async with asyncio.timeout(10):
        while pushed.metric("streamproc_fan_out_fallback", source="clicks") or not pushed.stub.subscribed:
            await answer(reader)
    put = pushed.put(3)
    assert values(await drain(reader, 3)) == put
    assert pushed.stub.pushed >= 3
    await reader.close()


async def test_a_consumer_that_is_removed_is_registered_again(pushed: Pushed) -> None:
    reader = await pushed.reader()
    put = pushed.put(2)
    assert values(await drain(reader, 2)) == put
    pushed.stub.consumers.clear()
    pushed.stub.breaks.append("ResourceNotFoundException")
    put = pushed.put(2)
    assert values(await drain(reader, 2)) == put
    async with asyncio.timeout(10):
        while len(pushed.stub.subscriptions) < 2:
            await answer(reader)
    assert list(pushed.stub.consumers) == ["job"]
    await reader.close()


async def test_subscriptions_that_never_succeed_end_in_a_fallback(pushed: Pushed) -> None:
    pushed.stub.refusals = {"SubscribeToShard": [("InternalFailure", 500)] * 10}
    reader = await pushed.reader()
    put = pushed.put(2)
    assert values(await drain(reader, 2)) == put
    async with asyncio.timeout(20):
        while not pushed.metric("streamproc_fan_out_fallback", source="clicks"):
            await answer(reader)
    assert pushed.stub.calls.count("SubscribeToShard") == 10
    await reader.close()


async def test_rows_behind_the_retention_stop_the_reader(pushed: Pushed) -> None:
    pushed.put(5)
    source = pushed.source()
    shard = (await source.shards())[0]
    pushed.world.clock.advance(86_400_000_000)  # type: ignore[attr-defined]
    pushed.stub.shards[SHARD].first = 3
    reader = await source.open(shard, pushed.stub.shards[SHARD].records[0]["SequenceNumber"])
    for _ in range(2):
        with pytest.raises(BadRecord, match=r"are gone.*retention"):
            await drain(reader, 1)
    await reader.close()


async def test_a_shard_that_is_gone_is_noticed(pushed: Pushed) -> None:
    source = pushed.source()
    shard = (await source.shards())[0]
    reader = await source.open(shard, "TRIM_HORIZON")
    del pushed.stub.shards[SHARD]
    with pytest.raises(BadRecord, match="no longer exists"):
        await drain(reader, 1)
    await reader.close()
