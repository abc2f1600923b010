"""Three real workers with a task a partition are replaced one by one while rows flow."""

from __future__ import annotations

import sys
from pathlib import Path

from streamproc.testing.noida import NoidaBroker

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from bench_hand_over import SharedJob, restarted


async def test_a_rolling_restart_under_load_reads_no_row_twice_and_loses_none(tmp_path: Path, noida_broker: NoidaBroker) -> None:
    async with SharedJob(tmp_path, noida_broker.bootstrap_servers, rate=600, ttl_s=5).running() as job:
        rows, twice, lost, _ = await restarted(job)
    assert rows > 1000
    assert (twice, lost) == (0, 0)
    logs = [path.read_text() for path in tmp_path.glob("worker-*.log")]
    assert len(logs) == 6
    begun = [line for log in logs for line in log.splitlines() if "finishing an epoch that was begun" in line]
    assert begun == [], "an epoch was left begun, and its rows were read twice"
