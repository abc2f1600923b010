"""The Kinesis source keeps the promises of sources, over ministack.

Not run here: closed shards and parents (ministack deletes a shard that is split or merged, with its unread records, and never
ends an iterator) and trimming (it keeps records for 24 hours at least). test_kinesis_stub.py runs those on a stub server.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from aiobotocore.session import get_session

from sources.kinesis import Kinesis
from streamproc.clock import SystemClock
from streamproc.source import Source
from streamproc.testing.gate import Gate
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.testing.source_suite import SourceConformance, SourceHarness
from streamproc.world import World

NUMBERS = itertools.count()
SHARDS = 2


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


class KinesisHarness(SourceHarness):
    def __init__(self, client: Any, gate: Gate) -> None:
        self.client = client
        self.gate = gate
        self.stream = f"stream-{next(NUMBERS)}"

    async def source(self) -> Source:
        options = Kinesis.Options(stream=self.stream, endpoint_url=self.gate.endpoint_url)
        return Kinesis(options, World(), "clicks")

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"row %d" % next(NUMBERS) for _ in range(count)]
        place = str(int(shard.removeprefix("shardId-")) * 2**128 // SHARDS)
        records = [{"Data": data, "PartitionKey": "k", "ExplicitHashKey": place} for data in payloads]
        await self.client.put_records(StreamName=self.stream, Records=records)
        await asyncio.sleep(0.002)  # arrival times are in milliseconds
        return payloads

    async def stop(self) -> None:
        await self.gate.shut()

    async def start(self) -> None:
        await self.gate.open()

    async def now_us(self) -> int:
        now_us = SystemClock().now_us()
        await asyncio.sleep(0.002)
        return now_us


class TestKinesis(SourceConformance):
    @pytest.fixture
    async def harness(self, ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SourceHarness]:
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        gate = await Gate(ministack.port).open()
        async with get_session().create_client("kinesis", region_name="us-east-1", endpoint_url=ministack.endpoint_url) as client:
            harness = KinesisHarness(client, gate)
            await client.create_stream(StreamName=harness.stream, ShardCount=SHARDS)
            yield harness
        await gate.shut()
