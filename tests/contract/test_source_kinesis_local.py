"""The Kinesis source keeps the promises of sources over kinesis-local: shards that are split and closed, polled over HTTP/1.1 and
pushed over HTTP/2 with TLS.
"""

import asyncio
import runpy
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session
from kinesis_harness import NUMBERS, SHARDS, GatedHarness

from sources.kinesis import Kinesis
from streamproc.clients.kinesis import KinesisStream
from streamproc.hash_ranges import holes, leaves, overlaps
from streamproc.source import Source
from streamproc.testing.gate import Gate
from streamproc.testing.ministack import CREDENTIALS
from streamproc.testing.source_suite import SourceConformance, SourceHarness, drain, values
from streamproc.world import World

pytestmark = pytest.mark.npm
POLL_S = 0.02


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    module = runpy.run_path(str(Path(__file__).parents[1] / "servers" / "kinesis" / "kinesis_local.py"))
    try:
        server = module["KinesisLocal"](tmp_path_factory.mktemp("kinesis"))
    except module["Unobtainable"] as error:
        pytest.skip(str(error))
    with server:
        yield server


class LocalHarness(GatedHarness):
    def __init__(self, client: Any, gate: Gate, scheme: str, read: str) -> None:
        super().__init__(client, gate, "local")
        self.keys: dict[str, Any] = {"endpoint_url": f"{scheme}://127.0.0.1:{gate.port}", "read": read}

    async def source(self) -> Source:
        consumer = f"job-{next(NUMBERS)}" if self.keys["read"] == "fan_out" else None
        self.read = Kinesis(Kinesis.Options(stream=self.stream, consumer=consumer, **self.keys), World(), "clicks")
        return self.read

    async def listed(self) -> dict[str, Any]:
        return {shard["ShardId"]: shard for shard in (await self.client.list_shards(StreamName=self.stream))["Shards"]}

    async def active(self) -> None:
        async with asyncio.timeout(10):
            while (await self.summary())["StreamStatus"] != "ACTIVE":
                await asyncio.sleep(POLL_S)

    async def summary(self) -> dict[str, Any]:
        answer = await self.client.describe_stream_summary(StreamName=self.stream)
        return dict(answer["StreamDescriptionSummary"])

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"row %d" % next(NUMBERS) for _ in range(count)]
        place = (await self.listed())[shard]["HashKeyRange"]["StartingHashKey"]
        for data in payloads:  # records of one call may lie in the wrong order
            await self.client.put_record(StreamName=self.stream, Data=data, PartitionKey="k", ExplicitHashKey=place)
        await asyncio.sleep(0.002)  # arrival times are in milliseconds
        return payloads

    async def split(self, shard: str) -> Sequence[str]:
        before = await self.listed()
        low, high = (int(before[shard]["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        await self.client.split_shard(StreamName=self.stream, ShardToSplit=shard, NewStartingHashKey=str((low + high) // 2 + 1))
        await self.active()
        await self.read.shards()  # as an engine does every few seconds: a pushed shard's end is looked for once it is listed as closed
        return sorted(set(await self.listed()) - set(before))

    async def end(self, shard: str) -> None:
        await self.split(shard)


class Local(SourceConformance):
    """How it is read says the subclass."""

    scheme = "http"
    read = "polling"

    @pytest.fixture
    async def harness(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SourceHarness]:
        for name, value in (CREDENTIALS | {"AWS_CA_BUNDLE": str(server.authority)}).items():
            monkeypatch.setenv(name, value)
        gate = await Gate(server.tls_port if self.scheme == "https" else server.port).open()
        async with get_session().create_client("kinesis", region_name="us-east-1", endpoint_url=server.endpoint_url) as client:
            harness = LocalHarness(client, gate, self.scheme, self.read)
            await client.create_stream(StreamName=harness.stream, ShardCount=SHARDS)
            await harness.active()
            yield harness
            await client.delete_stream(StreamName=harness.stream, EnforceConsumerDeletion=True)
        await gate.shut()

    async def test_children_are_named_at_the_end_and_leave_no_hole(self, harness: LocalHarness, source: Source) -> None:
        first, second = await source.shards()
        left, right = await harness.split(first.id)
        await harness.client.merge_shards(StreamName=harness.stream, ShardToMerge=right, AdjacentShardToMerge=second.id)
        await harness.active()
        shards = {shard.id: shard for shard in await source.shards()}
        (merged,) = set(shards) - {first.id, second.id, left, right}
        children = {}
        for shard in (first.id, second.id, right):
            children[shard] = (await drain(await source.open(shards[shard], "TRIM_HORIZON")))[-1].children
        assert {shard: {child.id for child in found} for shard, found in children.items()} == {
            first.id: {left, right},
            second.id: {merged},
            right: {merged},
        }
        assert children[first.id] == (shards[left], shards[right])
        ranges = [shards[leaf].hash_range for leaf in leaves((s.id, s.parents) for s in shards.values())]
        assert (holes(r for r in ranges if r), overlaps(r for r in ranges if r)) == ([], [])


class TestKinesisLocalPolling(Local):
    pass


class TestKinesisLocalFanOut(Local):
    scheme = "https"
    read = "fan_out"

    async def test_events_come_over_http_2(self, harness: LocalHarness) -> None:
        put = await harness.put("shardId-000000000000", 2)
        stream = KinesisStream("clicks", harness.stream, None, None, harness.keys["endpoint_url"])
        await stream.register("job")
        async with asyncio.timeout(10):
            while (consumer := await stream.consumer("job")) is None or consumer.status != "ACTIVE":
                await asyncio.sleep(POLL_S)
            events = await stream.subscribe(consumer.arn, "shardId-000000000000", {"Type": "TRIM_HORIZON"})
            assert "HTTP/2" in repr(events)
            got: list[bytes] = []
            while len(got) < 2:
                answer = await stream.pushed(events, bare=False)
                assert answer is not None
                got += [record.Data for record in answer.Records]
        assert got == list(put)
        await events.close()
        await stream.close()

    async def test_rows_are_pushed(self, harness: LocalHarness, source: Source) -> None:
        shard = (await source.shards())[0]
        put = list(await harness.put(shard.id, 3))
        reader = await source.open(shard, "TRIM_HORIZON")
        chunks = await drain(reader, 3)
        async with asyncio.timeout(20):
            while "subscribed" not in repr(reader):
                chunks.append(await reader.read())
        for _ in range(3):
            put += await harness.put(shard.id, 2)
            chunks += await drain(reader, 2)
        assert "subscribed" in repr(reader)
        await reader.close()
        assert values(chunks) == put
