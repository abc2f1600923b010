"""A worker dies between every two steps of an epoch, on real stores: each run finds what the one before it left, and says so."""

import asyncio
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
ROWS_PER_EPOCH = 5000


async def run(loaded: LoadedJob, *command: str) -> tuple[int, str]:
    """Exit code and log of a process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=os.environ | loaded.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def dies_everywhere(loaded: LoadedJob) -> None:
    """One checkpoint, a death at every boundary in turn, each in the second epoch of its process."""
    found: dict[str, bool] = {}
    async with loaded:
        await loaded.stop_producing()
        before = None
        for boundary in BOUNDARIES:
            code, log = await run(loaded, die_at_boundary.__file__, str(loaded.job), boundary, "2")
            assert code == die_at_boundary.CODE, log
            if before is not None:
                found[before] = "finishing an epoch that was begun" in log
            before = boundary
        compared = await loaded.drain()
        found[BOUNDARIES[-1]] = "finishing an epoch that was begun" in loaded.workers[-1].log.read_text()
    assert found == {boundary: boundary in BEGUN for boundary in BOUNDARIES}
    assert compared.equal, f"{compared}: {compared.examples}"
    assert compared.windows > 100


def on_s3(folder: Path, broker: NoidaBroker, environment: dict[str, str]) -> LoadedJob:
    lease = "leases: {type: object, lease_ttl: 500 milliseconds}"
    return on_kafka(folder, broker.bootstrap_servers, environment, bucket_url="s3://lake", rows_per_epoch=ROWS_PER_EPOCH, more=lease)


async def test_on_local_disk(tmp_path: Path, noida_broker: NoidaBroker) -> None:
    await dies_everywhere(on_kafka(tmp_path, noida_broker.bootstrap_servers, rows_per_epoch=ROWS_PER_EPOCH))


@pytest.mark.s3
async def test_on_strict_s3(tmp_path: Path, noida_broker: NoidaBroker, strict_s3: dict[str, str]) -> None:
    await dies_everywhere(on_s3(tmp_path, noida_broker, strict_s3))
