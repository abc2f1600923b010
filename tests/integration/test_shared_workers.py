"""Three `streamproc worker` processes share jobs on one stream: killed, put to sleep, their shards changed (in tests/soak for long)."""

from pathlib import Path

import pytest
from shared_trials import Faults, stream_on, trial

MOST = {"asleep_s": 4.0, "lease_ttl_s": 2.0}
SERVERS = [
    pytest.param("ministack", Faults(1, 1, **MOST), id="ministack", marks=pytest.mark.slow),
    pytest.param("kinesis-local", Faults(3, 1, splits=1, merges=1, **MOST), id="kinesis-local", marks=pytest.mark.npm),
    pytest.param("kafka", Faults(3, 1, growths=1, **MOST), id="kafka", marks=pytest.mark.kafka),
]


@pytest.mark.parametrize(("server", "faults"), SERVERS)
async def test_every_row_comes_out_once_whatever_happens_to_workers_and_shards(tmp_path: Path, server: str, faults: Faults) -> None:
    (servers := tmp_path / "servers").mkdir()
    (folder := tmp_path / "job").mkdir()
    try:
        with stream_on(server, servers) as (stream, leases):
            done = await trial(folder, stream, leases, faults, rate=60 if server == "kinesis-local" else 400, shards=2, seed=1)
    except Exception as error:
        if type(error).__name__ != "Unobtainable":
            raise
        pytest.skip(str(error))
    assert done.outcome.equal, f"{done.outcome}: {done.outcome.examples}"
    assert done.fleet.done["kills"] == faults.kills
