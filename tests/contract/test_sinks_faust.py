"""The sink contract over a topic of a Faust app, in a process that does not run the app: at least once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sinks.faust import Faust, FaustOptions
from sources.faust import Faust as FaustSource
from sources.faust import FaustOptions as FaustSourceOptions
from streamproc.errors import BadRecord, InvalidJob, Unavailable
from streamproc.offset import EARLIEST
from streamproc.sink import Sink
from streamproc.testing.gate import Gate
from streamproc.testing.noida import NoidaBroker
from streamproc.testing.sink_suite import FIRST, Place, Row, SinkConformance, reader, rows_of
from streamproc.world import World

APP = """
import faust

app = faust.App("conformance", broker="kafka://{servers}", web_enabled=False)

class Visit(faust.Record):
    k: int
    page: str

class Picky(faust.Record):
    k: int
    page: str

    def __post_init__(self):
        if self.k == 3:
            raise ValueError("three is too much")

topic = app.topic("{topic}", value_type=Visit)
picky = app.topic("picky", value_type=Picky)
channel = app.channel(value_type=Visit)
"""


class TopicPlace(Place):
    """A topic of one partition, read by a plain consumer."""

    topics = 0

    def __init__(self, folder: Path, broker: NoidaBroker) -> None:
        TopicPlace.topics += 1
        self.topic = f"sink-{TopicPlace.topics}"
        self.module = f"faust_app_{TopicPlace.topics}"
        self.folder = folder
        self.broker = broker
        self.sinks: list[Sink] = []

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic(self.topic, 1, 1)])
        await admin.close()
        self.write_app(self.broker.bootstrap_servers)

    def write_app(self, servers: str) -> None:
        (self.folder / f"{self.module}.py").write_text(APP.format(servers=servers, topic=self.topic))

    def sink(self, **keys: Any) -> Sink:
        given = {"type": "faust", "app": f"{self.module}:app", **(keys or {"topic": self.topic, "key": "page"})}
        options = FaustOptions.model_validate(given, context={"folder": self.folder})
        self.sinks.append(Faust(options, World(), "t"))
        return self.sinks[-1]

    def source(self) -> FaustSource:
        given = {"type": "faust", "app": f"{self.module}:app", "topic": self.topic}
        return FaustSource(FaustSourceOptions.model_validate(given, context={"folder": self.folder}), World(), "t")

    async def read(self) -> list[Row]:
        return [json.loads(value) for _, value in await self.records()]

    async def records(self) -> list[tuple[bytes, bytes]]:
        consumer = AIOKafkaConsumer(self.topic, bootstrap_servers=self.broker.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found = []
            while any([await consumer.position(at) < end for at, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(record.key, record.value) for record in batch]
            return found
        finally:
            await consumer.stop()


@pytest.fixture(scope="module")
def noida() -> Any:
    with NoidaBroker() as broker:
        yield broker


@pytest.fixture
async def place(tmp_path: Path, noida: NoidaBroker) -> AsyncIterator[TopicPlace]:
    place = TopicPlace(tmp_path, noida)
    await place.create()
    yield place
    for sink in place.sinks:
        await sink.close()
    sys.modules.pop(place.module, None)


class TestFaustTopic(SinkConformance):
    many_rows = 10_000
    streams = False  # so few are no measure of memory; a thousand are on their way at a time
    test_the_same_id_again_writes_nothing = None  # at least once
    test_a_crash_anywhere_in_write_is_finished_by_the_next_try = None
    test_every_type_comes_back = None  # Faust's JSON writes decimals and bytes as it likes

    @pytest.fixture
    def place(self, place: TopicPlace) -> TopicPlace:
        return place

    async def test_a_server_that_is_away_is_unavailable_and_the_same_call_works_later(self, place: TopicPlace, monkeypatch) -> None:
        monkeypatch.setattr("streamproc.clients.faust.sending.SEND_TIMEOUT_S", 1.0)
        gate = await Gate(place.broker.port).open()
        place.write_app(f"127.0.0.1:{gate.port}")
        await gate.shut()
        sink = place.sink()
        with pytest.raises(Unavailable, match=f"topic {place.topic} of Faust app conformance"):
            await sink.write(FIRST, reader(rows_of(0, 5)), "append")
        await gate.open()
        await sink.write(FIRST, reader(rows_of(0, 5)), "append")
        assert [row["k"] for row in await place.read()] == [0, 1, 2, 3, 4]
        await gate.shut()


SECURE = """
import faust

credentials = faust.SASLCredentials(username="alice", password="{password}", mechanism="SCRAM-SHA-256")
app = faust.App("secure", broker="kafka://{servers}", broker_credentials=credentials, web_enabled=False)
topic = app.topic("{topic}", value_type=bytes, value_serializer="raw")
"""


@pytest.mark.kafka
@pytest.mark.parametrize("password", ["alice-secret", "wrong"])
async def test_the_apps_credentials_are_used(tmp_path: Path, apache_kafka: Any, password: str) -> None:
    place = TopicPlace(tmp_path, apache_kafka)
    await place.create()
    text = SECURE.format(servers=apache_kafka.address("sasl"), password=password, topic=place.topic)
    (tmp_path / f"{place.module}.py").write_text(text)
    sink, source = place.sink(topic=place.topic), place.source()
    rows = reader(pa.table({"value": [b"a", b"b"]}))
    try:
        if password == "wrong":
            with pytest.raises(Unavailable, match="Unable to bootstrap"):
                await sink.write(FIRST, rows, "append")
            with pytest.raises(Unavailable, match="uthentication"):
                await source.shards()
        else:
            await sink.write(FIRST, rows, "append")
            (shard,) = await source.shards()
            chunk = await (await source.open(shard, await source.position(shard, EARLIEST))).read()
            assert chunk.rows["_value"].to_pylist() == [b"a", b"b"]
    finally:
        await sink.close()
        await source.close()


async def test_keys_and_values_are_the_apps(place: TopicPlace) -> None:
    await place.sink().write(FIRST, reader(rows_of(0, 2)), "append")
    assert [key for key, _ in await place.records()] == [b"/0", b"/1"]
    assert [json.loads(value)["__faust"]["ns"].rpartition(".")[2] for _, value in await place.records()] == ["Visit", "Visit"]


async def test_a_row_that_the_record_refuses_is_named_and_nothing_of_its_batch_is_sent(place: TopicPlace) -> None:
    sink = place.sink(topic="picky")
    with pytest.raises(BadRecord, match=r"sinks\.t: .*three is too much"):
        await sink.write(FIRST, reader(rows_of(0, 5)), "append")


async def test_a_channel_needs_the_app_in_this_process(place: TopicPlace) -> None:
    with pytest.raises(InvalidJob, match=r"streamproc\.faust\.attach"):
        await place.sink(channel="channel").write(FIRST, reader(rows_of(0, 1)), "append")


async def test_a_timeout_within_a_write_leaves_the_sink_usable(place: TopicPlace) -> None:
    sink = place.sink()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sink.write(FIRST, reader(rows_of(0, 5000)), "append"), 0.01)
    await sink.write(FIRST, reader(rows_of(0, 10)), "append")
    assert {row["k"] for row in await place.read()} >= set(range(10))
