"""What a Kafka cluster can do to a reader: on noida-db always, on Apache Kafka with `-m kafka`."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from sources.kafka import Kafka, KafkaOptions
from streamproc.clients.kafka import connection, fetcher
from streamproc.errors import BadRecord, InvalidJob, Unavailable
from streamproc.offset import EARLIEST, Start
from streamproc.source import Shard
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.noida import NoidaBroker
from streamproc.world import World

APACHE = pytest.param("apache_kafka", marks=pytest.mark.kafka)


class Cluster:
    """A broker, a fresh topic on it, and what tests do with it."""

    topics = 0

    def __init__(self, broker):
        Cluster.topics += 1
        self.broker = broker
        self.topic = f"t{Cluster.topics}-{time.time_ns()}"
        self.opened = []

    async def admin(self, call):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        await admin.start()
        try:
            return await call(admin)
        finally:
            await admin.close()

    async def create(self, topic=None, partitions=1, **configs):
        configs = {key.replace("_", "."): value for key, value in configs.items()}
        new = NewTopic(topic or self.topic, partitions, 1, topic_configs=configs)
        await self.admin(lambda admin: admin.create_topics([new]))
        source = self.source(topic=topic or self.topic, group="ready")
        for number in range(partitions):  # a real cluster takes a moment to elect leaders
            await patiently(lambda number=number: source.position(Shard(str(number)), EARLIEST))

    async def delete(self):
        await self.admin(lambda admin: admin.delete_topics([self.topic]))

    @contextlib.asynccontextmanager
    async def producer(self, **settings):
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap_servers, acks="all", **settings)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def put(self, *values, partition=0, topic=None, **settings):
        async with self.producer(**settings) as producer:
            for value in values:
                await producer.send_and_wait(topic or self.topic, value, key=b"k", partition=partition)

    def source(self, clock=None, **keys):
        keys = {"bootstrap_servers": self.broker.bootstrap_servers} | keys
        keys = keys if "topic_pattern" in keys else {"topic": self.topic} | keys
        source = Kafka(KafkaOptions(type="kafka", **keys), World(clock=clock) if clock else World(), "clicks")
        self.opened.append(source)
        return source

    async def trim(self, before):
        await self.admin(lambda admin: admin.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(before)}))


@pytest.fixture(scope="module")
def noida():
    with NoidaBroker() as broker:
        yield broker


@pytest.fixture(params=["noida", APACHE])
async def cluster(request):
    cluster = Cluster(request.getfixturevalue(request.param))
    yield cluster
    for source in cluster.opened:
        await source.close()


@pytest.fixture
async def apache(apache_kafka):
    cluster = Cluster(apache_kafka)
    yield cluster
    for source in cluster.opened:
        await source.close()


async def opened(source, shard="0", after="-1"):
    return await source.open(Shard(shard), after)


async def patiently(call):
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def drain(reader, rows=0, timeout_s=20):
    """Values until the reader is at its end and has given `rows`."""
    got, chunk = [], None
    async with asyncio.timeout(timeout_s):
        while chunk is None or not chunk.at_end or len(got) < rows:
            chunk = await reader.read()
            got += chunk.rows["_value"].to_pylist()
    return got


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_all_compressions(cluster, codec):
    await cluster.create()
    values = [b'{"n": %d, "pad": "xxxxxxxxxxxxxxxxxxxxxxxxxx"}' % i for i in range(100)]
    async with cluster.producer(compression_type=codec, linger_ms=5) as producer:
        await asyncio.gather(*[await producer.send(cluster.topic, value, partition=0) for value in values])
    assert await drain(await opened(cluster.source()), 100) == values


async def test_transactions(cluster):
    """Committed rows, no aborted ones, and nothing from an open transaction on; the end is the last stable offset."""
    await cluster.create()
    for value, commit in [(b"a", True), (b"no", False), (b"b", True)]:  # noida-db names an aborted producer for ever: three of them
        async with cluster.producer(transactional_id=f"{cluster.topic}-{value}") as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(cluster.topic, value, partition=0)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    async with cluster.producer(transactional_id=cluster.topic) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(cluster.topic, b"open", partition=0)
        await cluster.put(b"after")
        source, dirty = cluster.source(), cluster.source(isolation="read_uncommitted")
        latest = await source.position(Shard("0"), Start("latest"))
        reader = await opened(source)
        assert await drain(reader, 2) == [b"a", b"b"]
        assert await drain(await opened(dirty), 5) == [b"a", b"no", b"b", b"open", b"after"]
        chunk = await reader.read()
        assert (chunk.rows.num_rows, chunk.at_end) == (0, True)
        await producer.commit_transaction()
    assert await drain(reader, 2) == [b"open", b"after"]
    assert await drain(await opened(source, after=latest), 2) == [b"open", b"after"]


async def test_a_replay_ends_at_until_also_where_no_row_is(cluster):
    """`until` on a transaction's marker: the same rows, then exactly that end."""
    await cluster.create()
    async with cluster.producer(transactional_id=cluster.topic) as producer:
        for value in (b"a", b"b"):
            async with producer.transaction():
                await producer.send_and_wait(cluster.topic, value, partition=0)
    reader = await opened(cluster.source())
    chunk = await reader.read("1")
    while chunk.end != "1":
        chunk = await reader.read("1")
    assert await drain(reader, 1) == [b"b"]


async def test_a_replay_of_rows_that_were_cut_off_the_end_is_refused(cluster):
    """Rows up to 9 were read once, but the log ends at 2: after a moment of grace that is data loss, not waiting."""
    await cluster.create()
    await cluster.put(b"a", b"b", b"c")
    clock = ManualClock()
    reader = await opened(cluster.source(clock))
    got = []
    while len(got) < 3:
        got += (await reader.read("9")).rows["_value"].to_pylist()
    for _ in range(2):
        assert (await reader.read("9")).rows.num_rows == 0
    clock.advance(10_000_000)
    with pytest.raises(BadRecord, match="ends at offset 2, but an epoch has read it up to 9"):
        await reader.read("9")


async def test_a_closed_source_reads_on(cluster):
    await cluster.create()
    await cluster.put(b"a")
    source = cluster.source()
    reader = await opened(source)
    assert await drain(reader, 1) == [b"a"]
    await source.close()
    await cluster.put(b"b")
    assert await patiently(lambda: drain(reader, 1)) == [b"b"]


async def test_topics_by_pattern_are_found_while_running(cluster):
    one, two, other = (f"{cluster.topic}-{name}" for name in ("x1", "x2", "y"))
    await cluster.create(one, partitions=11)
    await cluster.create(other)
    source = cluster.source(topic_pattern=f"{cluster.topic}-x.")
    assert [shard.id for shard in await source.shards()] == [f"{one}-{n}" for n in range(11)]
    await cluster.create(two)
    assert [shard.id for shard in await source.shards()][-1] == f"{two}-0"
    await cluster.put(b"v", topic=two)
    assert await drain(await opened(source, f"{two}-0"), 1) == [b"v"]


async def test_a_list_of_topics_names_the_topic_in_the_shard(cluster):
    await cluster.create()
    source = cluster.source(topic=[cluster.topic])
    await cluster.put(b"v")
    (shard,) = await source.shards()
    assert shard.id == f"{cluster.topic}-0"
    assert await drain(await opened(source, shard.id), 1) == [b"v"]


async def test_an_unknown_topic_is_a_fault_and_is_not_created(cluster):
    clock = ManualClock()
    source = cluster.source(clock, topic="nowhere")
    with pytest.raises(Unavailable, match="'nowhere' does not exist"):
        await source.shards()
    clock.advance(round(connection.MISSING_TOPIC_S * 1e6))
    with pytest.raises(InvalidJob, match="create it, or correct `topic`"):
        await source.shards()
    assert "nowhere" not in await cluster.admin(lambda admin: admin.list_topics())


async def test_a_deleted_topic_is_a_fault(cluster):
    await cluster.create()
    await cluster.put(b"v")
    clock = ManualClock()
    reader = await opened(cluster.source(clock))
    assert await drain(reader, 1) == [b"v"]
    await cluster.delete()
    async with asyncio.timeout(20):
        with pytest.raises(InvalidJob, match="does not exist"):
            while True:
                with contextlib.suppress(Unavailable):
                    await reader.read()
                clock.advance(1_000_000)


async def test_a_topic_made_anew_is_never_read_on(cluster):
    await cluster.create()
    await cluster.put(*b"abcde".split(b"|") * 5)
    await cluster.delete()
    await until_gone(cluster)
    await cluster.create()
    await cluster.put(b"new")
    for policy in ("fail", "earliest"):
        reader = await opened(cluster.source(on_data_loss=policy), after="4")
        with pytest.raises(BadRecord, match="truncated or made anew"):
            await drain(reader, 1)


async def until_gone(cluster):
    async with asyncio.timeout(20):
        while cluster.topic in await cluster.admin(lambda admin: admin.list_topics()):
            await asyncio.sleep(0.05)


async def test_rows_that_retention_removed(cluster):
    await cluster.create()
    await cluster.put(*(b"%d" % i for i in range(10)))
    await cluster.trim(5)
    source = cluster.source(on_data_loss="earliest")
    first = int(await source.position(Shard("0"), EARLIEST)) + 1
    assert first > 3
    with pytest.raises(BadRecord, match=rf"{cluster.topic}-0: rows 3 to {first - 1} are gone .*on_data_loss: earliest"):
        await drain(await opened(cluster.source(), after="2"))
    assert await drain(await opened(source, after="2")) == [b"%d" % i for i in range(first, 10)]
    assert source.world.metrics.get("streamproc_lost_rows_total", source="clicks") == first - 3
    with pytest.raises(BadRecord, match="roll back"):  # a replay needs them, whatever the policy
        await (await opened(source, after="2")).read("8")


async def test_tombstones(cluster):
    await cluster.create()
    await cluster.put(b"a", None, b"b")
    assert await drain(await opened(cluster.source()), 2) == [b"a", b"b"]
    assert await drain(await opened(cluster.source(tombstones="row")), 3) == [b"a", None, b"b"]


async def test_tell_mirrors_to_the_group(cluster):
    await cluster.create(partitions=2)
    source = cluster.source(group="mirror")
    await patiently(lambda: source.tell({"0": "41", "1": "-1"}))  # the first commit creates the broker's own topic
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.broker.bootstrap_servers, group_id="mirror", enable_auto_commit=False)
    consumer.assign([TopicPartition(cluster.topic, 0)])
    await consumer.start()
    assert await consumer.committed(TopicPartition(cluster.topic, 0)) == 42
    assert await consumer.committed(TopicPartition(cluster.topic, 1)) == 0
    await consumer.stop()


async def test_a_partition_at_its_end_does_not_hold_up_the_others(cluster, monkeypatch):
    """With one long poll for all, each of the 20 fetches would wait for 500 ms."""
    monkeypatch.setattr(fetcher, "PARTITION_BYTES", 100_000)
    monkeypatch.setattr(fetcher, "AHEAD_BYTES", 1)
    await cluster.create(partitions=2)
    source = cluster.source()
    idle = await opened(source, "1")
    assert await drain(idle) == []
    await cluster.put(*[os.urandom(90_000)] * 20)
    begin_s = time.monotonic()
    assert len(await drain(await opened(source, "0"), 20)) == 20
    assert time.monotonic() - begin_s < 5
    await idle.close()


async def test_what_waits_in_memory_is_bounded(cluster, monkeypatch):
    monkeypatch.setattr(fetcher, "PARTITION_BYTES", 100_000)
    monkeypatch.setattr(fetcher, "AHEAD_BYTES", 200_000)
    await cluster.create()
    source = cluster.source()
    reader = await opened(source)
    await drain(reader)
    for _ in range(20):
        await cluster.put(os.urandom(90_000))
    async with asyncio.timeout(10):
        while reader._feed.nbytes < 200_000:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    assert reader._feed.nbytes <= 200_000 + 20 * 90_200 * isinstance(cluster.broker, NoidaBroker) + 100_000
    assert not reader._feed.hungry
    assert len(await drain(reader, 20)) == 20


async def test_a_broker_that_hangs_is_unavailable_not_a_stall(noida, monkeypatch):
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT_S", 1.5)
    cluster = Cluster(noida)
    await cluster.create()
    await cluster.put(b"a")
    source = cluster.source()
    reader = await opened(source)
    assert await drain(reader, 1) == [b"a"]
    os.kill(noida.pid, signal.SIGSTOP)
    try:
        begin_s = time.monotonic()
        with pytest.raises(Unavailable):
            while True:
                chunk = await reader.read()
        assert not chunk.at_end
        assert time.monotonic() - begin_s < 10
    finally:
        os.kill(noida.pid, signal.SIGCONT)
    await cluster.put(b"b")
    async with asyncio.timeout(20):
        assert await drain_through(reader, 1) == [b"b"]
    await source.close()


async def drain_through(reader, rows):
    """Values, asking again while the broker is away, as the engine does."""
    got = []
    while len(got) < rows:
        try:
            got += (await reader.read()).rows["_value"].to_pylist()
        except Unavailable:
            await asyncio.sleep(0.1)
    return got


@pytest.mark.kafka
async def test_a_compacted_topic(apache):
    """Half of the offsets are gone: the rows that are left, each once, from every start."""
    settings = {"cleanup_policy": "compact", "segment_ms": "100", "min_cleanable_dirty_ratio": "0.01", "delete_retention_ms": "0"}
    await apache.create(**settings)
    async with apache.producer() as producer:
        for i in range(200):
            await producer.send_and_wait(apache.topic, b"%d" % i, key=b"%d" % (i % 50 if i % 2 else i), partition=0)
        async with asyncio.timeout(60):
            while len(await log_of_consumer(apache)) >= 200:
                await asyncio.sleep(0.5)
                await producer.send_and_wait(apache.topic, b"roll", key=b"roll", partition=0)
    await asyncio.sleep(1)
    left = [offset for offset, _ in await log_of_consumer(apache)]
    source = apache.source()
    for after in (-1, 0, 57, 120, 149):
        reader, chunk, got = await opened(source, after=str(after)), None, []
        while chunk is None or not chunk.at_end:
            chunk = await reader.read()
            got += chunk.rows["_offset"].to_pylist()
        assert got == [offset for offset in left if offset > after]


async def log_of_consumer(cluster, partition=0):
    """(offset, value) of all rows, as aiokafka's own consumer reads them."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.broker.bootstrap_servers, auto_offset_reset="earliest")
    at = TopicPartition(cluster.topic, partition)
    consumer.assign([at])
    await consumer.start()
    end, got = (await consumer.end_offsets([at]))[at], []
    while await consumer.position(at) < end:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            got += [(record.offset, record.value) for record in records]
    await consumer.stop()
    return got


@pytest.mark.kafka
async def test_a_broker_killed_and_restarted_under_load(apache):
    """kill -9 in the middle: whatever was acknowledged is read, each once, in order; a new leader epoch is no trouble."""
    await apache.create(partitions=2)
    source = apache.source()
    sent = {0: [], 1: []}
    stop = asyncio.Event()

    async def produce(partition):
        async with apache.producer(enable_idempotence=True, request_timeout_ms=60_000) as producer:
            while not stop.is_set():
                value = b"%d-%d" % (partition, len(sent[partition]))
                await producer.send_and_wait(apache.topic, value, partition=partition)
                sent[partition].append(value)

    read = {0: [], 1: []}
    failures = []

    async def consume(partition):
        reader = await opened(source, str(partition))
        while True:
            written = all(producer.done() for producer in producers)
            try:
                chunk = await reader.read()
            except Unavailable as error:
                failures.append(error)
                await asyncio.sleep(0.1)
                continue
            read[partition] += chunk.rows["_value"].to_pylist()
            if written and chunk.at_end:
                return

    async with asyncio.timeout(100):
        producers = [asyncio.create_task(produce(n)) for n in (0, 1)]
        consumers = [asyncio.create_task(consume(n)) for n in (0, 1)]
        await asyncio.sleep(1.5)
        for _ in range(2):
            await asyncio.to_thread(apache.broker.stop, kill=True)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(apache.broker.start)
            before = len(sent[0])
            while len(sent[0]) < before + 20:
                await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*producers, *consumers)
    for partition in (0, 1):
        assert read[partition] == [value for _, value in await log_of_consumer(apache, partition)]
        assert set(sent[partition]) == set(read[partition])  # aiokafka's producer may write one twice across a kill
    assert failures
