"""The Kinesis source with `read: fan_out` keeps the promises of sources: pushed by a stub, and over ministack.

ministack has one subscription a consumer and shard, as AWS has: of several readers of one shard all but one poll.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from aiobotocore.session import get_session
from kinesis_harness import NUMBERS, SHARDS, MinistackHarness

from sources.kinesis import Kinesis
from streamproc.source import Source
from streamproc.testing.gate import Gate
from streamproc.testing.kinesis_stub import Stub
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.testing.source_suite import SourceConformance, SourceHarness
from streamproc.world import World

DAY_S = 86_400


class Hurried(ManualClock):
    """A second takes 20 ms."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0) / 50)
        self.advance(round(max(seconds, 0) * 1e6))


class PushHarness(SourceHarness):
    """Every row comes by a subscription: the stub lets a shard have many, and readers that ask for rows again poll."""

    def __init__(self) -> None:
        self.world = World(clock=Hurried())
        self.stub = Stub(self.world.clock, beat_s=0.02)
        self.stub.exclusive = False
        self.stub.consumers["job"] = 0

    async def source(self) -> Source:
        options = Kinesis.Options(stream="clicks", endpoint_url=self.stub.endpoint_url, read="fan_out", consumer="job")
        return Kinesis(options, self.world, "clicks")

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"row %d" % next(NUMBERS) for _ in range(count)]
        for data in payloads:
            self.stub.put(shard, data)
        self.world.clock.advance(1000)  # type: ignore[attr-defined]  # a ManualClock
        return payloads

    async def add_shard(self) -> str:
        return self.stub.add(0, 0)

    async def split(self, shard: str) -> Sequence[str]:
        return self.stub.split(shard)

    async def end(self, shard: str) -> None:
        self.stub.split(shard)

    async def trim(self, shard: str, rows: int) -> None:
        self.world.clock.advance(DAY_S * 10**6)  # type: ignore[attr-defined]
        self.stub.shards[shard].first = rows

    async def now_us(self) -> int:
        self.world.clock.advance(2000)  # type: ignore[attr-defined]
        return self.world.clock.now_us() - 1000

    async def start(self) -> None:
        await self.stub.start()

    async def stop(self) -> None:
        await self.stub.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


class TestKinesisPush(SourceConformance):
    @pytest.fixture
    async def harness(self, credentials: None) -> AsyncIterator[SourceHarness]:
        harness = PushHarness()
        await harness.start()
        yield harness
        await harness.stop()


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


class FanOutHarness(MinistackHarness):
    async def source(self) -> Source:
        options = Kinesis.Options(stream=self.stream, endpoint_url=self.gate.endpoint_url, read="fan_out", consumer=f"job-{next(NUMBERS)}")
        return Kinesis(options, World(), "clicks")


class TestKinesisFanOut(SourceConformance):
    @pytest.fixture
    async def harness(self, ministack: Ministack, credentials: None) -> AsyncIterator[SourceHarness]:
        gate = await Gate(ministack.port).open()
        async with get_session().create_client("kinesis", region_name="us-east-1", endpoint_url=ministack.endpoint_url) as client:
            harness = FanOutHarness(client, gate, "pushed")
            await client.create_stream(StreamName=harness.stream, ShardCount=SHARDS)
            yield harness
        await gate.shut()
