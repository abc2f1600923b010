"""Bounded tables beside the epochs: one version an epoch, in the checkpoint before it begins, read again on time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pyarrow as pa
import pytest

from streamproc.bounded import BoundedTable, Snapshot
from streamproc.checkpoint.records import Begin, Commit, decode
from streamproc.checkpoint.retention import TABLES_PREFIX, Collector
from streamproc.engine.task import Task
from streamproc.errors import Unavailable
from streamproc.job import Added, Job, TestStep, load_job
from streamproc.plan.plan import Plan, Project
from streamproc.testing.crash import Died
from streamproc.testing.job_runner import JobRun, Leased
from streamproc.testing.manual_clock import START_US, ManualClock
from streamproc.testing.memory_source import MemorySource
from streamproc.world import World

TEXT = """\
sources:
  clicks: {type: kafka, topic: t, bootstrap_servers: b, schema: 'user STRING'}
tables:
  users: {type: files, path: users.json, schema: 'user STRING, country STRING', REFRESH}
sinks:
  out: {type: console, query: SELECT user FROM clicks}
"""
JOINED = 'SELECT input.user, country FROM input LEFT JOIN "table:users" AS u ON input.user = u.user'
MINUTE_US = 60_000_000
DE, FR = [{"user": "a", "country": "DE"}], [{"user": "a", "country": "FR"}]


def job(refresh: str = "refresh: 10 minutes") -> Job:
    """The job with its query replaced by one that joins."""
    loaded = load_job("tables.yaml", text=TEXT.replace("REFRESH", refresh))
    schema = pa.schema([("user", pa.string()), ("country", pa.string())])
    plan = loaded.planned
    root = Project(plan.scans["clicks"], JOINED, schema)
    queries = {"out": replace(plan.queries["out"], root=root, schema=schema)}
    planned: Plan = replace(plan, queries=queries, tables={"users": loaded.tables["users"].schema})
    return replace(loaded, planned=planned)


async def add(run: JobRun, *users: str) -> None:
    step = TestStep("add", 1, {"clicks": Added("0", tuple({"user": user} for user in users))})
    assert await run.step(step) is None
    assert run.stopped is None, run.stopped


async def tick(run: JobRun, us: int) -> None:
    assert await run.step(TestStep("tick", 1, us)) is None


def written(run: JobRun) -> list[str]:
    return [row["country"] for row in run.sinks["out"].rows()]


async def objects(run: JobRun, prefix: str = TABLES_PREFIX) -> list[str]:
    return [entry.name async for entry in run.store.list(prefix)]


async def test_a_table_is_read_again_when_its_time_has_come() -> None:
    run = JobRun(job(), START_US, {"users": DE})
    await run.start()
    await add(run, "a")
    run.tables["users"] = FR
    await add(run, "a")
    await tick(run, 10 * MINUTE_US - 1)
    await add(run, "a")
    await tick(run, 1)
    await add(run, "a")
    assert written(run) == ["DE", "DE", "DE", "FR"]
    assert len(await objects(run)) == 2
    await run.close()


async def test_a_table_without_refresh_is_read_at_every_start() -> None:
    run = JobRun(job("format: json"), START_US, {"users": DE})
    await run.start()
    await add(run, "a")
    run.tables["users"] = FR
    await tick(run, 10_000 * MINUTE_US)
    await add(run, "a")
    await run.step(TestStep("restart", 1, None))
    await add(run, "a")
    assert written(run) == ["DE", "DE", "FR"]
    await run.close()


async def test_a_restart_goes_on_with_the_committed_version_until_its_refresh_is_due() -> None:
    run = JobRun(job(), START_US, {"users": DE})
    await run.start()
    await add(run, "a")
    run.tables["users"] = FR
    await tick(run, 9 * MINUTE_US)
    await run.step(TestStep("restart", 1, None))
    await add(run, "a")
    await tick(run, MINUTE_US)
    await add(run, "a")
    assert written(run) == ["DE", "DE", "FR"]
    await run.close()


async def test_unchanged_contents_are_not_copied_again() -> None:
    run = JobRun(job(), START_US, {"users": DE})
    await run.start()
    await add(run, "a")
    for _ in range(3):
        await tick(run, 10 * MINUTE_US)
        await add(run, "a")
    await tick(run, 20 * MINUTE_US)
    await run.step(TestStep("restart", 1, None))
    await add(run, "a")
    assert len(await objects(run)) == 1
    commit = await run._the_task()._log.read_commit(5)
    assert commit is not None
    assert commit.tables["users"].read_us == START_US + 50 * MINUTE_US
    await run.close()


@pytest.mark.parametrize("boundary", ["after_begin", "before_commit"])
async def test_who_finishes_an_epoch_joins_with_the_same_rows(boundary: str) -> None:
    run = JobRun(job("format: json"), START_US, {"users": DE})
    await run.start()
    run.crash.armed = boundary
    died: list[Died] = []
    die = run._die

    async def changed_meanwhile() -> None:
        run.tables["users"] = FR
        died.append(Died())
        await die()

    run._die = changed_meanwhile  # type: ignore[method-assign]
    await add(run, "a")
    assert died
    await add(run, "a")
    assert written(run) == ["DE", "FR"]
    await run.close()


async def test_rows_are_in_the_checkpoint_before_the_begin_that_names_them() -> None:
    run = JobRun(job(), START_US, {"users": DE})
    run.sources["clicks"] = MemorySource("0", clock=run.clock)
    await run.start()
    put, names = run.store.put, []

    async def noting(name: str, *args: object, **kwargs: object) -> str:
        names.append(name)
        return await put(name, *args, **kwargs)  # type: ignore[arg-type]

    run.store.put = noting  # type: ignore[method-assign]
    await add(run, "a")
    assert [name.partition("/")[0] for name in names[:3]] == ["tables", "g1", "g1"]
    begin = decode((await run.store.get(names[1])).data, Begin, "")
    assert begin.tables["users"].name == names[0]
    assert names[0].startswith("tables/clicks.0/1-1-users")
    await run.close()


async def test_versions_that_no_kept_epoch_names_are_collected() -> None:
    run = JobRun(job(), START_US, {"users": DE})
    await run.start()
    await add(run, "a")
    await tick(run, 10 * MINUTE_US)
    run.tables["users"] = FR
    await tick(run, 10 * MINUTE_US)
    await add(run, "a")
    await add(run, "a")
    (first,) = [name for name in await objects(run) if "/1-1-" in name]
    collector = Collector(run._the_task()._log, epochs_kept=1)
    await collector.collect(3, START_US + 48 * 60 * MINUTE_US)
    kept = await objects(run)
    assert first not in kept
    assert len(kept) == 1
    await add(run, "a")
    assert written(run)[-1] == "FR"
    await run.close()


class Flaky(BoundedTable):
    """Fails as often as it is told, then holds one row."""

    def __init__(self, failures: int) -> None:
        self.failures, self.reads, self.country = failures, 0, "DE"

    async def read(self, known: str | None = None) -> Snapshot | None:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        if known == self.country:
            return None
        return Snapshot(self.country, pa.table({"user": ["a"], "country": [self.country]}))


async def until(clock: ManualClock, condition: object) -> None:
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        clock.advance(1000)
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to pass")


async def test_failures_keep_the_old_rows_and_are_counted() -> None:
    run, table = JobRun(job(), START_US), Flaky(failures=2)
    run.table = lambda *args: table  # type: ignore[method-assign]
    run.sources["clicks"] = MemorySource("0", clock=run.clock)
    starting = asyncio.ensure_future(run.start())
    await until(run.clock, starting.done)
    assert table.reads == 3
    await add(run, "a")
    table.failures, table.country = 1, "FR"
    await tick(run, 10 * MINUTE_US)
    await add(run, "a")
    metrics = run.world.metrics
    assert metrics.get("streamproc_table_refresh_failures_total", table="users") == 1
    await tick(run, MINUTE_US // 2)
    await add(run, "a")
    assert written(run) == ["DE", "DE", "FR"]
    assert metrics.get("streamproc_table_rows", table="users") == 1
    await run.close()


async def test_refreshes_run_beside_the_epochs() -> None:
    run, table, world = JobRun(job(), START_US), Flaky(failures=0), World(clock=ManualClock(START_US))
    run.table = lambda *args: table  # type: ignore[method-assign]
    task = Task(run.job, run.store, world, Leased(), connectors=run)
    await task.start()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    clock.advance(10 * MINUTE_US)
    await until(clock, lambda: table.reads == 2)
    clock.advance(10 * MINUTE_US)
    await until(clock, lambda: table.reads == 3)
    await task.close()


def test_records_of_older_versions_have_no_tables() -> None:
    assert decode(b'{"writer":"w","job":"j","now_us":1,"shards":{}}', Commit, "x").tables == {}
