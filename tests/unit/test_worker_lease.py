"""A worker goes on until it is stopped or done, whatever happens to its lease."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streamproc.engine import worker
from streamproc.job import load_job
from streamproc.lease.lease import Lease, Mark
from streamproc.testing import MemoryLeases

JOB = """\
name: copy
sources:
  t: {{type: files, path: {folder}/in, schema: 'n INT'}}
sinks:
  out: {{type: files, path: {folder}/out, format: json, query: SELECT n FROM t}}
leases: {{type: sqlite, lease_ttl: 200 milliseconds}}
checkpoint: {folder}/checkpoint
"""


class SlowLeases(MemoryLeases):
    """Its first answer comes when the lease has expired already."""

    taken = 0

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        self.taken += 1
        lease = await super().take(lease, owner, mark)
        if self.taken == 1:
            await asyncio.sleep(0.3)
        return lease


async def test_a_lease_whose_answer_came_too_late_is_found_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SlowLeases()

    def open_leases(*_: Any) -> SlowLeases:
        return table

    monkeypatch.setattr(worker, "open_leases", open_leases)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text('{"n": 1}\n')
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(folder=tmp_path))
    async with asyncio.timeout(20):
        assert await worker.run_job(load_job(job), available_now=True) == 0
    assert [path.read_text() for path in (tmp_path / "out").glob("part-*")] == ['{"n":1}\n']
