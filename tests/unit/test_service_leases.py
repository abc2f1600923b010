"""`streamproc leases` on a table that a job has, and as lines for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamproc.checkpoint.root import open_root
from streamproc.cli import cli
from streamproc.lease.lease import Lease, Listing, Mark
from streamproc.lease.sqlite import SqliteLeases
from streamproc.leases import lines
from streamproc.stores import open_store
from streamproc.world import World

JOB = """
sources: {{clicks: {{type: generator, rows: 1}}}}
sinks: {{out: {{type: console, query: SELECT page FROM clicks}}}}
checkpoint: {folder}/checkpoint
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    file = tmp_path / "views.yaml"
    file.write_text(JOB.format(folder=tmp_path))
    return file


def leases(job: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["leases", str(job), *arguments])


async def held(folder: Path) -> tuple[Lease, SqliteLeases]:
    store = open_store(str(folder / "checkpoint"), World())
    await open_root(store, World())
    table = SqliteLeases(folder / "checkpoint" / "leases.sqlite")
    await table.beat("streamproc:h:2:b")
    lease = await table.take(Lease("views/all", None, 0), "streamproc:h:1:a")
    return lease, table


async def run_aside(job: Path, *arguments: str) -> Result:
    """The command has an event loop of its own."""
    return await asyncio.to_thread(leases, job, *arguments)


async def test_rows_and_workers(job: Path) -> None:
    lease, table = await held(job.parent)
    shown = json.loads((await run_aside(job, "--json")).stdout)
    row = {"lease": "views/all", "owner": "streamproc:h:1:a", "counter": lease.counter, "checkpoint_owner": None}
    assert shown["leases"] == [row | {"position": None, "throughput_kbps": None, "foreign": False}]
    assert shown["workers"].keys() >= {"streamproc:h:2:b"}
    said = (await run_aside(job)).stdout.splitlines()
    assert [line.split() for line in said[:2]] == [["lease", "owner", "counter"], ["views/all", "streamproc:h:1:a", str(lease.counter)]]
    assert "standing by: streamproc:h:2:b" in said
    await table.close()


def test_a_job_that_has_not_run_exits_2_and_leaves_nothing_behind(job: Path) -> None:
    result = leases(job)
    assert result.exit_code == 2
    assert result.stderr == f"{job}:1: there is no checkpoint at {job.parent}/checkpoint: the job has not run yet\n"
    assert [path.name for path in job.parent.iterdir()] == ["views.yaml"]


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (Listing(), ["no leases"]),
        (Listing((Lease("j/all", None, 7),)), ["lease  owner  counter", "j/all  -      7"]),
        (
            Listing((Lease("shard-0", "streamproc:a", 7, "kcl-1", Mark("495", ours=False)), Lease("shard-1", "kcl-1", 12)), {"w2": 3}),
            [
                "lease    owner         counter  handed over by  position",
                "shard-0  streamproc:a  7        kcl-1           495",
                "shard-1  kcl-1         12       -               -",
                "standing by: w2",
            ],
        ),
    ],
)
def test_lines(listing: Listing, said: Sequence[str]) -> None:
    assert list(lines(listing)) == said
