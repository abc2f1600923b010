"""A throttled stream: ministack behind microburst, which refuses most of the reads as Kinesis does."""

from collections.abc import Iterator

import pytest
from aiobotocore.session import get_session
from faulty_aws import faulty

from sources.kinesis import Kinesis
from streamproc.offset import EARLIEST
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.testing.source_suite import drain, values
from streamproc.world import World

RULE = {
    "operation": "GetRecords",
    "probability": 0.7,
    "error": {"code": "ProvisionedThroughputExceededException"},
}


@pytest.fixture
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


@pytest.fixture
def throttled(ministack: Ministack) -> Iterator[str]:
    """Endpoint of a proxy that throttles."""
    with faulty(ministack.endpoint_url, "kinesis") as faults:
        faults.are(RULE)
        yield faults.endpoint_url


async def test_every_row_is_read_once_though_most_reads_are_refused(
    ministack: Ministack, throttled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    put = [b"%d" % i for i in range(1000)]
    async with get_session().create_client("kinesis", region_name="us-east-1", endpoint_url=ministack.endpoint_url) as client:
        await client.create_stream(StreamName="clicks", ShardCount=1)
        for part in (put[:500], put[500:]):
            await client.put_records(StreamName="clicks", Records=[{"Data": data, "PartitionKey": "k"} for data in part])
    world = World()
    source = Kinesis(Kinesis.Options(stream="clicks", endpoint_url=throttled), world, "clicks")
    (shard,) = await source.shards()
    seen = 0.0
    for _ in range(20):
        reader = await source.open(shard, await source.position(shard, EARLIEST))
        assert values(await drain(reader, 1000)) == put
        seen = world.metrics.get("streamproc_retries_total", what="source clicks")
        if seen:
            break
    assert seen
    await source.close()
