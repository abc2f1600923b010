"""The Kinesis source keeps the promises of sources, over ministack.

Not run here: closed shards and parents (ministack deletes a shard that is split or merged, with its unread records, and never
ends an iterator) and trimming (it keeps records for 24 hours at least). test_kinesis_stub.py runs those on a stub server.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from aiobotocore.session import get_session
from kinesis_harness import SHARDS, MinistackHarness

from sources.kinesis import Kinesis
from streamproc.source import Source
from streamproc.testing.gate import Gate
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.testing.source_suite import SourceConformance, SourceHarness
from streamproc.world import World


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


class KinesisHarness(MinistackHarness):
    async def source(self) -> Source:
        options = Kinesis.Options(stream=self.stream, endpoint_url=self.gate.endpoint_url)
        return Kinesis(options, World(), "clicks")


class TestKinesis(SourceConformance):
    @pytest.fixture
    async def harness(self, ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SourceHarness]:
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        gate = await Gate(ministack.port).open()
        async with get_session().create_client("kinesis", region_name="us-east-1", endpoint_url=ministack.endpoint_url) as client:
            harness = KinesisHarness(client, gate, "stream")
            await client.create_stream(StreamName=harness.stream, ShardCount=SHARDS)
            yield harness
        await gate.shut()
