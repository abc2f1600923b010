"""The source contract over Kafka: noida-db always, Apache Kafka with `-m kafka`."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete

from sources.kafka import Kafka, KafkaOptions
from streamproc.errors import Unavailable
from streamproc.offset import EARLIEST
from streamproc.testing.noida import NoidaBroker
from streamproc.testing.source_suite import SourceConformance, SourceHarness
from streamproc.world import World


class KafkaHarness(SourceHarness):
    """A topic of two partitions on a broker with `start`, `stop` and `bootstrap_servers`."""

    topics = 0

    def __init__(self, broker):
        KafkaHarness.topics += 1
        self.broker = broker
        self.topic = f"conformance-{KafkaHarness.topics}"
        self.partitions = 2
        self.put_rows = 0

    async def admin(self, call):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        await admin.start()
        try:
            return await call(admin)
        finally:
            await admin.close()

    async def create(self):
        await self.admin(lambda admin: admin.create_topics([NewTopic(self.topic, 2, 1)]))
        await self.ready()

    async def ready(self):
        """A real cluster takes a moment: leaders of a new topic, the topic of committed offsets, a start."""
        source = await self.source()
        async with asyncio.timeout(30):
            while True:
                try:
                    shards = await source.shards()
                    for shard in shards:
                        await source.position(shard, EARLIEST)
                    await source.tell({shard.id: "-1" for shard in shards})
                    if len(shards) == self.partitions:
                        return await source.close()
                except Unavailable:
                    await asyncio.sleep(0.05)

    async def source(self):
        options = KafkaOptions(type="kafka", topic=self.topic, bootstrap_servers=self.broker.bootstrap_servers, group=self.topic)
        return Kafka(options, World(), "t")

    async def put(self, shard, count):
        values = [b'{"n": %d}' % (self.put_rows + i) for i in range(count)]
        self.put_rows += count
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap_servers, acks="all")
        await producer.start()
        for value in values:
            await producer.send_and_wait(self.topic, value, partition=int(shard))
        await producer.stop()
        return values

    async def add_shard(self):
        self.partitions += 1
        await self.admin(lambda admin: admin.create_partitions({self.topic: NewPartitions(self.partitions)}))
        await self.ready()
        return str(self.partitions - 1)

    async def stop(self):
        await asyncio.to_thread(self.broker.stop)

    async def start(self):
        await asyncio.to_thread(self.broker.start)
        await self.ready()

    async def now_us(self):
        await asyncio.sleep(0.01)
        now = time.time_ns() // 1000
        await asyncio.sleep(0.01)
        return now


@pytest.fixture(scope="module")
def noida():
    with NoidaBroker() as broker:
        yield broker


class TestKafkaOnNoida(SourceConformance):
    @pytest.fixture
    async def harness(self, noida):
        harness = KafkaHarness(noida)
        await harness.create()
        return harness


class ApacheHarness(KafkaHarness):
    async def trim(self, shard, rows):
        """Rows are put from offset 0."""
        at = TopicPartition(self.topic, int(shard))
        await self.admin(lambda admin: admin.delete_records({at: RecordsToDelete(rows)}))


@pytest.mark.kafka
class TestKafkaOnApache(SourceConformance):
    test_shards_lists_parents_while_they_hold_unread_rows = None  # partitions have no parents and no end
    test_children_share_the_hash_range_of_their_parent = None
    test_ended_is_the_last_chunk_of_a_closed_shard = None

    @pytest.fixture
    async def harness(self, apache_kafka):
        harness = ApacheHarness(apache_kafka)
        await harness.create()
        return harness
