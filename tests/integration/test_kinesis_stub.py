"""What the emulators get wrong about Kinesis, on a stub server over HTTP: closed shards and parents before children, expired
iterators, throttling, empty pages of a shard that is behind, retention, paged ListShards, KPL aggregates, errors.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from aws_kinesis_agg.aggregator import RecordAggregator

from sources.kinesis import Kinesis
from streamproc.clients.kpl import hash_of
from streamproc.errors import BadRecord, InvalidJob, Unavailable
from streamproc.offset import EARLIEST, Start
from streamproc.source import Reader, Source
from streamproc.testing.kinesis_stub import HASHES, Stub
from streamproc.testing.manual_clock import START_US, ManualClock
from streamproc.testing.ministack import CREDENTIALS
from streamproc.testing.source_suite import SourceConformance, SourceHarness, answer, drain, offsets, replay, values
from streamproc.world import World

DAY_S = 86_400


class Quick(ManualClock):
    """Sleeps take no time, so that paces and back-offs are seen and not waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
            self.advance(round(seconds * 1e6))
        await asyncio.sleep(0)


class StubHarness(SourceHarness):
    def __init__(self) -> None:
        self.clock = Quick()
        self.world = World(clock=self.clock)
        self.stub = Stub(self.clock)
        self.numbers = itertools.count()

    def kinesis(self, **keys: Any) -> Kinesis:
        keys = {"stream": "clicks", "endpoint_url": self.stub.endpoint_url} | keys
        return Kinesis(Kinesis.Options(**keys), self.world, "clicks")

    async def source(self) -> Source:
        return self.kinesis()

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"row %d" % next(self.numbers) for _ in range(count)]
        for data in payloads:
            self.stub.put(shard, data)
        self.clock.advance(1000)
        return payloads

    async def add_shard(self) -> str:
        return self.stub.add(0, 0)

    async def split(self, shard: str) -> Sequence[str]:
        return self.stub.split(shard)

    async def end(self, shard: str) -> None:
        self.stub.shards[shard].closed = True

    async def trim(self, shard: str, rows: int) -> None:
        self.clock.advance(DAY_S * 10**6)
        self.stub.shards[shard].first = rows

    async def now_us(self) -> int:
        self.clock.advance(2000)
        return self.clock.now_us() - 1000

    async def start(self) -> None:
        await self.stub.start()

    async def stop(self) -> None:
        await self.stub.stop()


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubHarness]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    harness = StubHarness()
    await harness.start()
    yield harness
    await harness.stop()


@pytest.fixture
def stub(harness: StubHarness) -> Stub:
    return harness.stub


@pytest.fixture
async def kinesis(harness: StubHarness) -> AsyncIterator[Kinesis]:
    source = harness.kinesis()
    yield source
    await source.close()


class TestKinesisStub(SourceConformance):
    @pytest.fixture
    async def harness(self, harness: StubHarness) -> StubHarness:
        return harness


async def opened(source: Source, after: str | None = None, shard: int = 0) -> Reader:
    found = (await source.shards())[shard]
    return await source.open(found, after or await source.position(found, EARLIEST))


async def test_list_shards_is_paged(stub: Stub, kinesis: Kinesis) -> None:
    stub.page = 2
    for _ in range(3):
        stub.add(0, 0)
    assert [shard.id for shard in await kinesis.shards()] == [f"shardId-{i:012d}" for i in range(5)]
    assert stub.calls == ["ListShards"] * 3


async def test_a_merged_shard_has_two_parents_while_they_are_there(stub: Stub, kinesis: Kinesis) -> None:
    first, second = stub.shards
    child = stub.add(0, HASHES - 1, [first, second])
    assert (await kinesis.shards())[2].parents == (first, second)
    del stub.shards[first]
    assert {s.id: s.parents for s in await kinesis.shards()}[child] == (second,)


async def test_a_closed_shard_ends_with_its_last_page(stub: Stub, kinesis: Kinesis) -> None:
    stub.limit = 2
    shard = next(iter(stub.shards))
    for i in range(3):
        stub.put(shard, b"%d" % i)
    stub.shards[shard].closed = True
    reader = await opened(kinesis)
    chunks = [await answer(reader), await answer(reader)]
    assert [(c.rows.num_rows, c.at_end, c.ended) for c in chunks] == [(2, False, False), (1, True, True)]


async def test_the_end_of_a_closed_shard_names_its_children(stub: Stub, kinesis: Kinesis) -> None:
    first, second = stub.shards
    stub.put(first, b"last")
    left, _ = stub.split(first)
    merged = stub.add(0, HASHES - 1, [left, second])
    stub.shards[second].closed = True
    listed = {s.id: s for s in await kinesis.shards()}
    ends = [(await drain(await opened(kinesis, shard=i)))[-1] for i in (0, 1)]
    assert [[child.id for child in end.children] for end in ends] == [["shardId-000000000002", "shardId-000000000003"], [merged]]
    assert all(child == listed[child.id] for end in ends for child in end.children)


async def test_an_expired_iterator_is_renewed_where_the_reader_stands(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    put = list(await harness.put(shard, 3))
    reader = await opened(kinesis)
    chunks = await drain(reader, 3)
    harness.stub.expired_before = len(harness.stub.iterators)
    put += await harness.put(shard, 2)
    chunks += await drain(reader, 2)
    assert values(chunks) == put


async def test_an_iterator_that_expires_before_any_row_begins_at_the_same_start(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0]
    await harness.put(shard.id, 3)
    reader = await kinesis.open(shard, await kinesis.position(shard, Start("latest")))
    assert (await answer(reader)).rows.num_rows == 0
    harness.stub.expired_before = len(harness.stub.iterators)
    put = await harness.put(shard.id, 2)
    assert values(await drain(reader, 2)) == list(put)


async def test_a_quiet_shard_is_asked_less_often_and_keeps_its_position(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    await harness.put(shard, 1)
    reader = await opened(kinesis)
    (first,) = await drain(reader, 1)
    ends = [(await answer(reader)).end for _ in range(5)]
    assert ends == [first.end] * 5
    assert harness.clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])


async def test_a_shard_that_is_behind_is_read_without_a_pause(harness: StubHarness, kinesis: Kinesis) -> None:
    harness.stub.limit = 2
    shard = (await kinesis.shards())[0].id
    await harness.put(shard, 6)
    await drain(await opened(kinesis), 6)
    assert harness.clock.slept == []


async def test_throttling_is_answered_by_an_empty_chunk_that_is_not_at_the_end(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    put = await harness.put(shard, 2)
    reader = await opened(kinesis)
    harness.stub.errors = [("ProvisionedThroughputExceededException", 400)] * 6
    chunks = [await answer(reader) for _ in range(4)]
    assert [(c.rows.num_rows, c.at_end) for c in chunks] == [(0, False)] * 3 + [(2, True)]
    assert values(chunks) == list(put)
    assert len(harness.clock.slept) == 3
    assert all(0.2 <= wait <= 1 for wait in harness.clock.slept)
    assert harness.world.metrics.get("streamproc_retries_total", what="source clicks") == 3


async def test_empty_pages_of_a_shard_that_is_behind_are_not_its_end(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    put = await harness.put(shard, 2)
    harness.stub.empty_pages = 3
    reader = await opened(kinesis)
    chunks = [await answer(reader) for _ in range(4)]
    assert [(c.rows.num_rows, c.at_end) for c in chunks] == [(0, False)] * 3 + [(2, True)]
    assert values(chunks) == list(put)
    assert [c.lag for c in chunks] == [2000, 2000, 2000, 0]


async def test_rows_behind_the_retention_stop_the_reader(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    await harness.put(shard, 2)
    at = offsets(await drain(await opened(kinesis), 2))
    await harness.put(shard, 5)
    await harness.trim(shard, 4)
    reader = await opened(kinesis, at[1])
    for _ in range(2):
        with pytest.raises(BadRecord, match=f"source clicks, shard {shard}: rows after {at[1]} are gone.*retention"):
            await reader.read()


async def test_a_shard_that_was_quiet_for_longer_than_the_retention_goes_on(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    await harness.put(shard, 2)
    at = offsets(await drain(await opened(kinesis), 2))
    await harness.trim(shard, 2)
    put = await harness.put(shard, 2)
    assert values(await drain(await opened(kinesis, at[1]), 2)) == list(put)
    assert values(await replay(await opened(kinesis, at[1]), (await drain(await opened(kinesis, at[1]), 2))[-1].end)) == list(put)


async def test_a_replay_whose_last_row_is_gone_stops(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = (await kinesis.shards())[0].id
    await harness.put(shard, 3)
    at = offsets(await drain(await opened(kinesis), 3))
    del harness.stub.shards[shard].records[2:]
    reader = await opened(kinesis, at[0])
    for _ in range(2):
        with pytest.raises(BadRecord, match=f"{at[2]} was read before"):
            await reader.read(at[2])
    assert offsets([await answer(reader)]) == [at[1]]


async def test_a_clock_that_is_ahead_is_waited_for(harness: StubHarness, kinesis: Kinesis) -> None:
    (shard, _) = await kinesis.shards()
    ahead = Start("timestamp", harness.clock.now_us() + 5_000_000)
    reader = await kinesis.open(shard, await kinesis.position(shard, ahead))
    with pytest.raises(Unavailable, match="clock of this machine"):
        await reader.read()
    harness.clock.advance(6_000_000)
    put = await harness.put(shard.id, 1)
    assert values(await drain(reader, 1)) == list(put)


async def test_missing_credentials_are_a_fault_that_shows_none(harness: StubHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    source = harness.kinesis()
    with pytest.raises(InvalidJob, match=r"stream clicks.*credentials"):
        await source.shards()
    await source.close()


async def test_a_missing_region_is_a_fault(harness: StubHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    source = harness.kinesis()
    with pytest.raises(InvalidJob, match="region"):
        await source.shards()


async def test_a_stream_made_anew_is_noticed(harness: StubHarness, kinesis: Kinesis) -> None:
    with pytest.raises(BadRecord, match="made anew"):
        await (await opened(kinesis, "4957")).read()


async def test_a_stream_made_anew_is_noticed_by_where_its_shards_begin(harness: StubHarness, kinesis: Kinesis) -> None:
    shard = harness.stub.shards["shardId-000000000000"]
    harness.stub.put(shard.name, b"old")
    old = (await drain(await opened(kinesis), 1))[-1].end
    shard.records.clear()
    shard.begins = int(harness.stub.put(shard.name, b"new"))
    with pytest.raises(BadRecord, match=rf"rows after {old} are gone.*deleted and made anew"):
        await answer(await kinesis.open((await kinesis.shards())[0], old))


async def test_a_shard_that_is_gone_is_noticed(harness: StubHarness, kinesis: Kinesis) -> None:
    shards = await kinesis.shards()
    reader = await kinesis.open(shards[0], "TRIM_HORIZON")
    del harness.stub.shards[shards[0].id]
    with pytest.raises(BadRecord, match="no longer exists"):
        await reader.read()


def aggregate(stub: Stub, shard: str, records: Sequence[tuple[str, bytes]]) -> None:
    aggregator = RecordAggregator()
    for key, data in records:
        aggregator.add_user_record(key, data)
    packed = aggregator.clear_and_get()
    assert packed is not None
    stub.put(shard, bytes(packed.get_contents()[2]), "a")


def mixed(stub: Stub, shard: str) -> list[bytes]:
    """A plain record, an aggregate of five, a plain record; the keys hash into the shard."""
    home = stub.shards[shard]
    inside = [key for key in map(str, range(100)) if home.low <= hash_of(key) <= home.high]
    stub.put(shard, b"first", inside[0])
    aggregate(stub, shard, [(key, b"user " + key.encode()) for key in inside[:5]])
    stub.put(shard, b"last", inside[1])
    return [b"first", *(b"user " + key.encode() for key in inside[:5]), b"last"]


async def test_aggregates_are_unpacked_with_keys_and_sub_sequence_numbers(stub: Stub, kinesis: Kinesis) -> None:
    shard = next(iter(stub.shards))
    expected = mixed(stub, shard)
    (chunk,) = await drain(await opened(kinesis), 7)
    assert values([chunk]) == expected
    rows = chunk.rows
    assert rows["_sub_sequence"].to_pylist() == [0, 0, 1, 2, 3, 4, 0]
    assert [key.decode() for key in rows["_key"].to_pylist()] == rows["_partition_key"].to_pylist()
    assert rows["_partition_key"].to_pylist()[1] == expected[1].removeprefix(b"user ").decode()
    sequences = [record["SequenceNumber"] for record in stub.shards[shard].records]
    subs = [f"{sequences[1]}:{i}" for i in range(5)]
    assert rows["_offset"].to_pylist() == [sequences[0], *subs, sequences[2]]
    assert rows["_timestamp"].cast("int64").to_pylist() == [START_US] * 7


async def test_an_epoch_may_be_cut_inside_an_aggregate(stub: Stub, kinesis: Kinesis) -> None:
    expected = mixed(stub, next(iter(stub.shards)))
    at = offsets(await drain(await opened(kinesis), 7))
    for i, offset in enumerate(at):
        assert values(await replay(await opened(kinesis), offset)) == expected[: i + 1]
        assert values(await drain(await opened(kinesis, offset), 6 - i)) == expected[i + 1 :]
        for j in range(i, 7):
            assert values(await replay(await opened(kinesis, offset), at[j])) == expected[i + 1 : j + 1]


async def test_a_sequence_number_alone_means_the_whole_aggregate(stub: Stub, kinesis: Kinesis) -> None:
    expected = mixed(stub, next(iter(stub.shards)))
    whole = stub.shards["shardId-000000000000"].records[1]["SequenceNumber"]
    assert values(await drain(await opened(kinesis, whole), 1)) == expected[6:]
    assert values(await replay(await opened(kinesis), whole)) == expected[:6]


async def test_a_position_of_kcl_is_exact(stub: Stub, kinesis: Kinesis) -> None:
    """KCL's checkpoints are (sequence number, sub-sequence number), the latter 0 for what is no aggregate."""
    expected = mixed(stub, next(iter(stub.shards)))
    chunks = await drain(await opened(kinesis), 7)
    rows = chunks[0].rows
    for i, (offset, sub) in enumerate(zip(rows["_offset"].to_pylist(), rows["_sub_sequence"].to_pylist(), strict=True)):
        checkpoint = f"{offset.partition(':')[0]}:{sub}"
        assert values(await drain(await opened(kinesis, checkpoint), 6 - i)) == expected[i + 1 :]
        assert values(await replay(await opened(kinesis), checkpoint)) == expected[: i + 1]


async def test_a_chunk_ends_with_the_last_user_record_of_an_aggregate(stub: Stub, kinesis: Kinesis) -> None:
    shard = next(iter(stub.shards))
    reader = await opened(kinesis)
    plain = stub.put(shard, b"plain")
    assert (await drain(reader, 1))[-1].end == plain
    aggregate(stub, shard, [(str(i), b"%d" % i) for i in range(3)])
    packed = stub.shards[shard].records[-1]["SequenceNumber"]
    assert (await drain(reader, 3))[-1].end == f"{packed}:2"
    for whole in (packed, f"{packed}:2"):
        assert values(await replay(await opened(kinesis), whole)) == [b"plain", b"0", b"1", b"2"]
        assert values([await answer(await opened(kinesis, whole))]) == []


@pytest.mark.parametrize("choice", ["keep", "drop"])
async def test_user_records_outside_the_shard_are_counted(harness: StubHarness, choice: str) -> None:
    source = harness.kinesis(outside_hash_range=choice)
    shard = harness.stub.shards["shardId-000000000000"]
    keys = [str(i) for i in range(20)]
    inside = [key for key in keys if shard.low <= hash_of(key) <= shard.high]
    aggregate(harness.stub, shard.name, [(key, key.encode()) for key in keys])
    chunks = await drain(await opened(source))
    assert values(chunks) == [key.encode() for key in (keys if choice == "keep" else inside)]
    assert harness.world.metrics.get("streamproc_outside_hash_range_total", source="clicks") == len(keys) - len(inside) > 0
    assert chunks[-1].end == shard.records[0]["SequenceNumber"] + ":19"
    assert values(await replay(await opened(source), chunks[-1].end)) == values(chunks)
    await source.close()


async def test_only_the_columns_that_are_wanted_are_made(stub: Stub, kinesis: Kinesis) -> None:
    mixed(stub, next(iter(stub.shards)))
    for wanted in (frozenset(), frozenset({"_timestamp"}), frozenset({"_key", "_sub_sequence"})):
        kinesis.wanted = wanted
        reader = await opened(kinesis)
        for chunk in (*await drain(reader, 7), await answer(reader)):
            assert not chunk.rows.num_rows or set(chunk.rows.schema.names) == {"_offset", "_value", *wanted}


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InternalFailure", 500, Unavailable),
        ("ServiceUnavailable", 503, Unavailable),
        ("ExpiredTokenException", 400, Unavailable),
        ("AccessDeniedException", 400, InvalidJob),
        ("UnrecognizedClientException", 400, InvalidJob),
        ("KMSAccessDeniedException", 400, InvalidJob),
    ],
)
async def test_errors_have_the_kind_of_what_helps(stub: Stub, kinesis: Kinesis, code: str, status: int, kind: type[Exception]) -> None:
    reader = await opened(kinesis)
    stub.errors = [(code, status)] * 3
    with pytest.raises(kind, match=rf"clicks.*{code}"):
        await reader.read()


async def test_an_answer_that_is_cut_is_an_outage(harness: StubHarness, kinesis: Kinesis) -> None:
    reader = await opened(kinesis)
    harness.stub.error = lambda *_: web.Response(body=b'{"Records": [')  # type: ignore[method-assign]
    harness.stub.errors = [("cut", 200)]
    with pytest.raises(Unavailable, match="not what it should be"):
        await reader.read()
    put = await harness.put("shardId-000000000000", 1)
    assert values(await drain(reader, 1)) == list(put)


async def test_a_stream_that_does_not_exist_is_a_fault_of_the_job(harness: StubHarness) -> None:
    source = harness.kinesis(stream="clocks")
    with pytest.raises(InvalidJob, match=r"stream clocks.*there is no such stream"):
        await source.shards()
    await source.close()


async def test_a_stream_may_be_named_by_its_arn(harness: StubHarness) -> None:
    source = harness.kinesis(stream=None, stream_arn="arn:aws:kinesis:eu-west-1:123456789012:stream/clicks")
    assert len(await source.shards()) == 2
    await source.close()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "stream or stream_arn"),
        ({"stream": "a", "stream_arn": "b"}, "stream or stream_arn"),
        ({"stream": "a", "read": "fan_out"}, "consumer: NAME"),
        ({"stream": "a", "consumer": "c"}, "consumer: NAME"),
        ({"stream": "a", "format": "parquet"}, "parquet"),
        ({"stream": "a", "partitioned_by": "user", "outside_hash_range": "keep"}, "use drop"),
    ],
)
def test_options_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Kinesis.Options(**keys)
