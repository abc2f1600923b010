"""kill -9 of workers at random moments under load, thinned; tests/soak/run does it fifty times. Rows equal a batch query."""

from pathlib import Path

import pytest
from loaded_job import LoadedJob, on_kafka, on_kinesis

from streamproc.testing.noida import NoidaBroker

KILLS = 3
SHORT_LEASE = "leases: {type: object, lease_ttl: 2 seconds}"
"""How long the next worker waits where nobody can see that the owner is dead."""


async def nothing_is_lost_twice_or_wrong(loaded: LoadedJob) -> None:
    async with loaded:
        await loaded.kill_workers(KILLS)
        compared = await loaded.drain()
    assert compared.equal, f"{compared}: {compared.examples}"
    assert compared.windows > 100
    assert compared.dead > 0


async def test_kafka_to_files(tmp_path: Path, noida_broker: NoidaBroker) -> None:
    await nothing_is_lost_twice_or_wrong(on_kafka(tmp_path, noida_broker.bootstrap_servers))


async def test_kinesis_to_files(tmp_path: Path, kinesis: dict[str, str]) -> None:
    await nothing_is_lost_twice_or_wrong(on_kinesis(tmp_path, kinesis))


async def test_kinesis_to_s3_with_the_checkpoint_there_too(tmp_path: Path, kinesis: dict[str, str], s3: dict[str, str]) -> None:
    await nothing_is_lost_twice_or_wrong(on_kinesis(tmp_path, kinesis, s3, bucket_url="s3://lake", more=SHORT_LEASE))


@pytest.mark.s3
async def test_kafka_to_strict_s3(tmp_path: Path, noida_broker: NoidaBroker, strict_s3: dict[str, str]) -> None:
    loaded = on_kafka(tmp_path, noida_broker.bootstrap_servers, strict_s3, bucket_url="s3://lake", more=SHORT_LEASE)
    await nothing_is_lost_twice_or_wrong(loaded)


@pytest.mark.kafka
async def test_apache_kafka_to_files(tmp_path: Path, apache_kafka) -> None:
    await nothing_is_lost_twice_or_wrong(on_kafka(tmp_path, apache_kafka.bootstrap_servers))


@pytest.mark.kafka
async def test_the_broker_is_killed_under_load(tmp_path: Path, apache_kafka) -> None:
    async with on_kafka(tmp_path, apache_kafka.bootstrap_servers) as loaded:
        worker = loaded.start_worker()
        await loaded.recovered(worker)
        await loaded.kill_broker(apache_kafka, away_s=2)
        assert await worker.stop() == 0
        compared = await loaded.drain()
    assert compared.equal, f"{compared}: {compared.examples}"
    assert compared.windows > 100
