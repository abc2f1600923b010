"""A job whose lease table in DynamoDB is faulty: ministack behind microburst, which refuses, fails and hangs, behind a gate that shuts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from botocore.session import Session
from faulty_aws import Faults, faulty

from streamproc.engine.job_worker import JobWorker
from streamproc.engine.progress import Progress
from streamproc.engine.worker import keeping_of, trigger_of
from streamproc.formats.clicks import clicks
from streamproc.job import load_job
from streamproc.lease.dynamodb import TASKS
from streamproc.lease.lease import OUR_WORKERS
from streamproc.stores import open_store
from streamproc.testing.gate import Gate
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.world import World

pytestmark = pytest.mark.slow

TTL_S, SHARDS, RATE = 2.0, 3, 300
STEP_US = SHARDS * 1_000_000 // RATE
JOB = """
name: faulty
sources: {{clicks: {{type: generator, format: raw, shards: {shards}, rows_per_second: {rate}}}}}
sinks: {{out: {{type: files, path: "{folder}/out", query: "SELECT value FROM clicks"}}}}
leases: {{type: dynamodb, table: {table}, region: us-east-1, endpoint_url: "{url}", lease_ttl: 2 seconds}}
checkpoint: {folder}/checkpoint
trigger: 100 milliseconds
"""


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


@pytest.fixture(scope="module")
def microburst(ministack: Ministack) -> Iterator[Faults]:
    with faulty(ministack.endpoint_url, "dynamodb") as faults:
        yield faults


@pytest.fixture
def dynamodb(ministack: Ministack) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return Session().create_client("dynamodb", endpoint_url=ministack.endpoint_url, region_name="us-east-1", **keys)


class Running:
    """A job that runs in this process until its input is cut off and read."""

    def __init__(self, worker: JobWorker, gate: Gate, table: str, folder: Path, ends: asyncio.Future[None]) -> None:
        self.worker, self.gate, self.table, self.folder = worker, gate, table, folder
        self.ends = ends
        self.progress = Progress(worker)

    def check_runs(self) -> None:
        if self.ends.done():
            self.ends.result()
            raise AssertionError("the job ended")

    @property
    def held(self) -> int:
        keeping = self.worker._keeping  # None before the job has begun
        return sum(hold.held for hold in list(keeping.keeper.holds.values())) if keeping else 0

    @property
    def epochs(self) -> float:
        return self.worker.world.metrics.get("streamproc_epochs_total")

    def failures(self, *calls: str) -> float:
        self.progress.status()
        return sum(self.worker.world.metrics.get("streamproc_lease_failures_total", call=call) for call in calls)

    def changes(self, change: str) -> int:
        return self.worker.lease_counts.get(("changes", change), 0)

    async def goes_on(self) -> None:
        """Every shard's task runs under its lease, and epochs are committed."""
        self.check_runs()
        await until(lambda: self.held == SHARDS and len(self.worker.running) == SHARDS)
        before = self.epochs
        await until(lambda: self.epochs >= before + 2 * SHARDS)

    def check_rows(self) -> None:
        """What was written is, of each shard, its first rows, each once."""
        made = {row: (shard, i) for shard in map(str, range(SHARDS)) for i, row in enumerate(_made(shard))}
        written = Counter(made[row] for row in ds.dataset(self.folder / "out").to_table()["value"].to_pylist())
        assert set(written.values()) == {1}
        counts = Counter(shard for shard, _ in written)
        assert len(counts) == SHARDS
        assert set(written) == {(shard, i) for shard, count in counts.items() for i in range(count)}


def _made(shard: str) -> list[bytes]:
    made: list[bytes] = clicks(0, shard, 0, 60 * RATE, step_us=STEP_US).to_pylist()
    return made


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


@pytest.fixture
async def running(
    ministack: Ministack, microburst: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Running]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    gate = await Gate(microburst.port).open()
    table = f"app-{request.node.name[5:40]}"
    text = JOB.format(shards=SHARDS, rate=RATE, folder=tmp_path, table=table, url=gate.endpoint_url)
    job = load_job("faulty.yaml", text=text)
    world = World()
    store = open_store(job.checkpoint, world)
    worker = JobWorker(job, store, world, keeping_of(job, store, world, f"{OUR_WORKERS}w1"), trigger=trigger_of(job))
    stop = asyncio.Event()
    ends = asyncio.ensure_future(worker.run(stop))
    try:
        run = Running(worker, gate, f"{table}{TASKS}", tmp_path, ends)
        await run.goes_on()
        yield run
        await run.goes_on()
        stop.set()
        await asyncio.wait_for(ends, 20)
        run.check_rows()
    finally:
        microburst.are()
        ends.cancel()
        await asyncio.gather(ends, return_exceptions=True)
        await store.close()
        await gate.shut()


THROTTLED = [{"error": {"code": "ProvisionedThroughputExceededException"}}, {"error": {"code": "ThrottlingException"}}]
FAILING = [{"error": {"code": "InternalServerError", "status": 500}}, {"error": {"code": "ServiceUnavailable", "status": 503}}]
PASSING = [("ExpiredTokenException", 400), ("RequestTimeTooSkewed", 403), ("RequestExpired", 400), ("LimitExceededException", 400)]
CUT = [{"reset": True}, {"timeout_ms": 3000}]


@pytest.mark.parametrize("kinds", [THROTTLED, FAILING, CUT], ids=["throttled", "failing", "cut"])
async def test_leases_stay_held_while_some_renewals_get_through(running: Running, microburst: Faults, kinds: list[dict[str, Any]]) -> None:
    """Each second call fails: a quarter in the first way, a third of the others in the second."""
    first, second = kinds
    microburst.are(first | {"probability": 0.25}, second | {"probability": 0.33})
    before, until_s = running.failures("renew", "look"), time.monotonic() + 1.5 * TTL_S
    missing = 0
    while time.monotonic() < until_s or running.failures("renew", "look") == before:
        running.check_runs()
        missing += running.held < SHARDS
        await asyncio.sleep(0.02)
    assert missing == 0 or kinds is CUT  # each answer that does not come costs a third of a ttl
    assert running.changes("lost") == 0
    await running.goes_on()


async def test_while_the_table_is_away_the_tasks_stop_in_time_and_go_on_afterwards(running: Running) -> None:
    await running.gate.shut()
    shut_s = time.monotonic()
    await until(lambda: not running.held)
    assert time.monotonic() < shut_s + TTL_S + 0.1, "somebody else may have taken them"
    await until(lambda: not running.worker.running, 2)
    stopped = running.epochs
    await asyncio.sleep(1)
    assert running.epochs == stopped
    running.check_runs()
    assert running.failures("look") > 0
    assert running.failures("renew") > 0
    await running.gate.open()
    await running.goes_on()


async def test_a_table_that_is_deleted_is_made_again(running: Running, dynamodb: Any) -> None:
    dynamodb.delete_table(TableName=running.table)
    await until(lambda: running.table in dynamodb.list_tables()["TableNames"])
    await until(lambda: sum("leaseOwner" in item for item in dynamodb.scan(TableName=running.table)["Items"]) == SHARDS)
    await running.goes_on()


@pytest.mark.parametrize(("code", "status"), PASSING)
async def test_what_passes_by_itself_costs_no_lease(running: Running, microburst: Faults, code: str, status: int) -> None:
    microburst.are({"error": {"code": code, "status": status}, "times": 12})
    before = running.failures("renew", "look")
    await until(lambda: running.failures("renew", "look") > before)
    await running.goes_on()
    assert running.changes("lost") == 0
