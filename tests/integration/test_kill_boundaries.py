"""A worker dies between every two steps of an epoch, on real stores: each run finds what the one before it left, and says so."""

import asyncio
import json
import os
import sys
from pathlib import Path

import die_at_boundary
import pytest
from loaded_job import LoadedJob, on_kafka

from streamproc.testing.crash import BOUNDARIES
from streamproc.testing.noida import NoidaBroker

BEGUN = ("after_begin", "after_run", "after_write", "before_commit")
"""Deaths that leave an epoch begun and not committed."""
ROWS_PER_EPOCH = 2000


async def run(loaded: LoadedJob, *command: str) -> tuple[int, str]:
    """Exit code and log of a process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=os.environ | loaded.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def dies_everywhere(loaded: LoadedJob) -> None:
    """One checkpoint, a death at every boundary in turn, each at the second time that its process comes there."""
    async with loaded:
        await loaded.stop_producing()
        left: tuple[int, bool] | None = None
        for boundary in BOUNDARIES:
            code, log = await run(loaded, die_at_boundary.__file__, str(loaded.job), boundary, "2")
            assert code == die_at_boundary.CODE, log
            assert left is None or found(log.splitlines()) == left
            left = await asyncio.to_thread(loaded.epochs)
            assert left[1] == (boundary in BEGUN)
        compared = await loaded.drain()
        assert found(loaded.workers[-1].log.read_text().splitlines()) == left
    assert compared.equal, f"{compared}: {compared.examples}"
    assert compared.windows > 100


def found(log: list[str]) -> tuple[int, bool]:
    """What a worker's log says it found in the checkpoint, and that it finished what was begun."""
    lines = [json.loads(line) for line in log if line.startswith("{")]
    read = next(line for line in lines if line["event"] == "the log was read")
    finished = [line["epoch"] for line in lines if line["event"] == "finishing an epoch that was begun"]
    assert (read["epoch"] + 1 in finished) == read["begun"]
    return read["epoch"], read["begun"]


def on_s3(folder: Path, broker: NoidaBroker, environment: dict[str, str]) -> LoadedJob:
    lease = "leases: {type: object, lease_ttl: 2 seconds}"
    return on_kafka(folder, broker.bootstrap_servers, environment, bucket_url="s3://lake", rows_per_epoch=ROWS_PER_EPOCH, more=lease)


async def test_on_local_disk(tmp_path: Path, noida_broker: NoidaBroker) -> None:
    await dies_everywhere(on_kafka(tmp_path, noida_broker.bootstrap_servers, rows_per_epoch=ROWS_PER_EPOCH))


@pytest.mark.s3
async def test_on_strict_s3(tmp_path: Path, noida_broker: NoidaBroker, strict_s3: dict[str, str]) -> None:
    await dies_everywhere(on_s3(tmp_path, noida_broker, strict_s3))
