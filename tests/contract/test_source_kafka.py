"""The source contract over Kafka: noida-db always, Apache Kafka with `-m kafka`."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from sources.kafka import Kafka, KafkaOptions
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
        return str(self.partitions - 1)

    async def stop(self):
        await asyncio.to_thread(self.broker.stop)

    async def start(self):
        await asyncio.to_thread(self.broker.start)

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
