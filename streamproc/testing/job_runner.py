"""Runs the `tests:` of a job file: memory source, sink and store, a manual clock, and the engine as it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import structs

from streamproc.bounded import BoundedTable
from streamproc.checkpoint.log import Line
from streamproc.checkpoint.records import Commit
from streamproc.checkpoint.root import open_root, write_root
from streamproc.checkpoint.tasks import ALL, TaskRegister, TaskScope
from streamproc.engine.first_commit import Beginning
from streamproc.engine.retry import retried
from streamproc.engine.runtime import DEAD_LETTER, Connected, connect
from streamproc.engine.task import Task
from streamproc.engine.task_set import must_join, parents_of, runnable, scopes_of
from streamproc.errors import StreamprocError
from streamproc.job import Added, Job, Reshard, SinkSpec, SourceSpec, TableSpec, TestCase, TestStep, load_job
from streamproc.job.planning import plan
from streamproc.options import instant_us
from streamproc.registry import sink_class
from streamproc.sink import EpochId, Sink
from streamproc.source import Source
from streamproc.state.watermark import inherited
from streamproc.testing.crash import Crash, Died
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_source import MemorySource
from streamproc.testing.memory_store import MemoryStore
from streamproc.testing.memory_table import MemoryTable
from streamproc.testing.rows import Row, differences, encoded
from streamproc.world import World

EPOCHS_MAX = 10_000
"""A step that needs more epochs than this does not come to rest."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of one test; `failure` is None if it passed, else lines for a reader; `line` is where it went wrong."""

    __test__ = False
    name: str
    line: int
    failure: str | None = None


def run_job_tests(path: str | Path, overrides: Sequence[str] = ()) -> list[TestResult]:
    """Run every test of a job file, in order. InvalidJob if the file is wrong."""
    job = load_job(path, overrides=overrides)
    return [asyncio.run(run_test(job, case)) for case in job.tests]


async def run_test(job: Job, case: TestCase) -> TestResult:
    """One test, from its first step to the first that fails."""
    run = JobRun(job, case.clock_us, case.tables)
    line = case.line
    try:
        await run.begin()
        for step in case.steps:
            line = step.line
            failure = await run.step(step)
            if failure is not None:
                return TestResult(case.name, line, failure)
        return TestResult(case.name, case.line, None if run.stopped is None or run.excused else f"the job stopped: {run.stopped}")
    finally:
        await run.close()


class Leased:
    """The only worker there is."""

    held = True


@dataclass(frozen=True)
class Ready:
    """What is decided by create-if-absent needs no lease."""

    world: World

    def check_lease(self) -> None:
        return


class JobRun:
    """A job in memory that goes on step by step; after each step everything available is processed.

    `tables` are the rows of bounded tables as they are read next (absent: empty). `stopped` is the error that ended the job,
    `excused` once a `fails` step has asked for it.
    """

    def __init__(self, job: Job, clock_us: int, tables: Mapping[str, Sequence[Row]] | None = None) -> None:
        self.job = job
        self.tables = dict(tables or {})
        self.clock = ManualClock(clock_us)
        self.world = World(clock=self.clock, random=random.Random(0))
        self.store = MemoryStore(self.world)
        self.sources: dict[str, MemorySource] = {}
        self.sinks: dict[str, MemorySink] = {}
        self.crash = Crash()
        self.stopped: StreamprocError | None = None
        self.excused = False
        self._tasks: dict[str, Task] = {}
        self._ended: dict[str, Commit] = {}
        self._connected: Connected | None = None
        self._expected: dict[str, set[EpochId]] = {}

    def source(self, spec: SourceSpec, world: World) -> Source:
        del world
        return self.sources.setdefault(spec.name, MemorySource(clock=self.clock))

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        del world
        return MemoryTable(spec, schema, time_zone, lambda: self.tables.get(spec.name, ()))

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        del world
        return self.sinks.setdefault(name, MemorySink(appends_only=sink_class(spec.type).appends_only))

    async def start(self) -> None:
        """A new worker on what the store holds."""
        self._job = replace(self.job, sources={n: replace(s, options=_in_memory(s)) for n, s in self.job.sources.items()})
        planned = plan(self._job)
        if self._connected is not None:
            await self._connected.close()
        self._connected = connect(self._job, planned, self.world, self, offloaded=False)
        self._root = (await retried(Ready(self.world), "checkpoint", lambda: open_root(self.store, self.world, planned.tasks.kind))).root
        self._register = TaskRegister(self.store, self._root.generation)
        await self._start_tasks()

    async def _start_tasks(self) -> None:
        """Tasks that may run and do not yet: those of shards that came, or whose parents have ended."""
        assert self._connected is not None
        if self._root.tasks == "all":
            await self._start_task(TaskScope(), ())
            return
        listed = {name: await table.source.shards() for name, table in self._connected.tables.items()}
        known = await retried(Ready(self.world), "checkpoint", self._register.read)
        scopes = scopes_of(listed, known)
        if await self._must_join(scopes):
            await self._join([scope for name, scope in scopes.items() if name in self._tasks])
            return
        for scope in runnable(scopes, known.over | set(self._ended)):
            await self._start_task(scope, parents_of(scope, scopes))

    async def _start_task(self, scope: TaskScope, parents: Sequence[TaskScope]) -> None:
        if scope.name not in self._tasks:
            task = Task(
                self._job, self.store, self.world, Leased(), connectors=self, boundary=self.crash, stepwise=True,
                scope=scope, parents=parents, connected=self._connected,
            )  # fmt: skip
            self._tasks[scope.name] = task
            await task.start()

    def _beginning(self) -> Beginning:
        assert self._connected is not None
        return Beginning(self._connected, self.store, Line(self._root.checkpoint, self._root.generation, ALL), self.world.new_id())

    async def _must_join(self, scopes: Mapping[str, TaskScope]) -> bool:
        assert self._connected is not None
        split = self._connected.plan.tasks
        began = await self._beginning().log_of(ALL).read_commit(0) if split.key else None
        return must_join(split, scopes, began.shards if began else {})

    async def _join(self, scopes: Sequence[TaskScope]) -> None:
        """The tasks go on as one."""
        for scope in scopes:
            await self._tasks[scope.name].close_log()
            await self._tasks.pop(scope.name).close()
        await self._beginning().joined(Ready(self.world), scopes)
        opened = await open_root(self.store, self.world)
        self._root = (await write_root(self.store, structs.replace(opened.root, tasks="all"), opened.etag)).root
        await self._start_task(TaskScope(), ())

    async def begin(self) -> None:
        """The first worker; what stops it at once is what stopped the job."""
        try:
            await self.start()
        except StreamprocError as error:
            self.stopped = error

    async def step(self, step: TestStep) -> str | None:
        """Do a step, process what it made available; None, or what is not as the step says."""
        if step.kind == "fails":
            return self._fails(str(step.payload))
        if self.stopped is not None:
            return f"the job stopped: {self.stopped}"
        failure = await getattr(self, f"_{step.kind}")(step.payload)
        await self.process()
        return failure if failure is None or isinstance(failure, str) else str(failure)

    async def process(self) -> None:
        """Epochs until nothing is left to do; a worker that dies is followed by another."""
        for _ in range(EPOCHS_MAX):
            try:
                if not await self._any_epoch():
                    return
            except Died:
                await self._die()
            except StreamprocError as error:
                self.stopped = error
                return
        raise AssertionError(f"the job did not come to rest within {EPOCHS_MAX} epochs")

    async def _any_epoch(self) -> bool:
        """One step of every task; whether one of them had something to do."""
        if not self._tasks:
            await self.start()
        else:
            await self._start_tasks()
        busy = False
        for name, task in list(self._tasks.items()):
            await task.settle()
            action = (await task.step()).action
            busy |= action == "begin"
            if task.over:
                await self._register.end(name)
                self._ended[name] = task.standing.commit
                await self._tasks.pop(name).close()
                busy = True
        return busy

    async def _die(self) -> None:
        """A dead worker closes nothing; only its coroutines are taken away."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            await task.abandon()

    async def close(self) -> None:
        for task in self._tasks.values():
            await task.close()
        self._tasks = {}
        if self._connected is not None:
            await self._connected.close()
            self._connected = None

    def _the_task(self) -> Task:
        """The only one, or the first of those over single shards."""
        return next(iter(self._tasks.values()))

    def _commits(self) -> list[Commit]:
        """The newest of every task, ended ones too."""
        return [*(task.standing.commit for task in self._tasks.values()), *self._ended.values()]

    async def _add(self, payload: Mapping[str, Added]) -> None:
        for name, added in payload.items():
            spec = self.job.sources[name]
            columns = [f.name for f in spec.schema]
            data = [{k: v for k, v in row.items() if k in columns} for row in added.rows]
            payloads = [*(encoded(row, spec.options, columns) for row in data), *added.raw]
            self.sources[name].put(added.shard, payloads, **self._extras(added, spec.options.partitioned_by))

    def _extras(self, added: Added, partitioned_by: str | None) -> dict[str, Any]:
        """`_key`, `_timestamp`, … where a row names them (the key as `partitioned_by` promises it); raw payloads have none."""
        rows: list[Row] = [*added.rows, *({} for _ in added.raw)]
        if partitioned_by is not None:
            rows = [{"_key": row.get("_partition_key", row.get(partitioned_by)), **row} for row in rows]
        return {
            "keys": [_bytes(row.get("_key", row.get("_partition_key"))) for row in rows],
            "partition_keys": [row.get("_partition_key") for row in rows],
            "timestamps": [instant_us(row.get("_timestamp", self.clock.now_us())) for row in rows],
            "headers": [_headers(row.get("_headers")) for row in rows],
        }

    async def _expect(self, payload: Mapping[str, Sequence[Row]]) -> str | None:
        failures = []
        for name, rows in payload.items():
            lines = differences(rows, self._written(name))
            if lines:
                failures.append("\n".join([f"{name}: expected and written rows differ", *lines]))
        return "\n".join(failures) or None

    def _written(self, name: str) -> list[Row]:
        """Rows written since the sink's last `expect`; in complete mode the table after the last epoch."""
        sink, seen = self.sinks[name], self._expected.setdefault(name, set())
        if self.job.sinks[name].mode == "complete":
            return list(sink.rows())
        new = {epoch: table for epoch, table in sink.epochs.items() if epoch not in seen}
        seen.update(new)
        return [row for table in new.values() for row in _pylist(table)]

    async def _watermark(self, payload: Mapping[str, int | None]) -> str | None:
        found = {n: inherited([task.watermark_us(n) for task in self._tasks.values() if task.scope.source in (None, n)]) for n in payload}
        return _unequal({n: (want, found[n]) for n, want in payload.items()}, "watermark", _iso)

    async def _state_rows(self, payload: Mapping[str, int]) -> str | None:
        rows = {n: sum(self._state_rows_of(task, n) for task in self._tasks.values()) for n in payload}
        return _unequal({n: (want, rows[n]) for n, want in payload.items()}, "state_rows", str)

    def _state_rows_of(self, task: Task, sink: str) -> int:
        standing = task.standing
        return task.runtime.executor.state_rows(sink, standing.state, standing.commit.watermark_us)

    async def _late(self, payload: Mapping[str, int]) -> str | None:
        late = {n: sum(commit.late.get(n, 0) for commit in self._commits()) for n in payload}
        return _unequal({n: (want, late[n]) for n, want in payload.items()}, "late", str)

    async def _dead(self, payload: int) -> str | None:
        return _unequal({DEAD_LETTER: (payload, sum(commit.dead for commit in self._commits()))}, "dead", str)

    async def _reshard(self, payload: Mapping[str, Reshard]) -> None:
        for name, change in payload.items():
            source = self.sources[name]
            if change.kind == "split":
                source.split(change.shards[0], change.into)
            elif change.kind == "merge":
                source.merge(change.shards, change.into[0])
            else:
                for shard in change.into:
                    source.add_shard(shard)

    async def _crash(self, payload: str) -> None:
        self.crash.armed = payload

    async def _tick(self, payload: int) -> None:
        self.clock.advance(payload)

    async def _restart(self, payload: object) -> None:
        del payload
        for task in self._tasks.values():
            await task.keep_idle_time()
        await self.close()
        await self.start()

    def _fails(self, text: str) -> str | None:
        self.excused = True
        if self.stopped is None:
            return f"the job goes on, but should have stopped with: {text}"
        return None if text in str(self.stopped) else f"the job stopped, but not with {text!r}: {self.stopped}"

    def __repr__(self) -> str:
        return f"<JobRun {self.job.name} {', '.join(self._tasks) or 'no task'}>"


def _in_memory(spec: SourceSpec) -> Any:
    """The source's options as the memory source carries its rows: JSON for what needs a file or a registry, uncompressed."""
    stand_in = {"format": "json"} if spec.options.format in ("parquet", "avro", "protobuf") else {}
    return spec.options.model_copy(update={**stand_in, "compression": None})


def _pylist(table: pa.Table) -> list[Row]:
    rows: list[Row] = table.to_pylist(maps_as_pydicts="lossy")
    return rows


def _unequal(values: Mapping[str, tuple[Any, Any]], what: str, show: Any) -> str | None:
    wrong = [f"{what} of {n}: expected {show(want)}, is {show(got)}" for n, (want, got) in values.items() if want != got]
    return "\n".join(wrong) or None


def _iso(us: int | None) -> str:
    return "none" if us is None else datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def _headers(value: Any) -> list[tuple[str, bytes]] | None:
    if value is None:
        return None
    pairs = value.items() if isinstance(value, Mapping) else [(h["key"], h["value"]) for h in value]
    return [(key, _bytes(item) or b"") for key, item in pairs]
