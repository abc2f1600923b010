"""A job with everything it needs to run: connected once in a worker, and for every task a runtime that its steps are handed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

import duckdb
import pyarrow as pa

from streamproc import user_code
from streamproc.batch import EXTRA_COLUMNS
from streamproc.bounded import BoundedTable
from streamproc.checkpoint.log import EpochLog, Line
from streamproc.checkpoint.records import ShardEnd
from streamproc.engine.bounded import BoundedTables, Joined
from streamproc.engine.feed import Decoding
from streamproc.engine.unbounded import Table
from streamproc.errors import LeaseLost
from streamproc.formats import source_decoder
from streamproc.job import Job, SinkSpec, SourceSpec, TableSpec
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochOutput, Output
from streamproc.operators.written import for_sink
from streamproc.plan.plan import Plan
from streamproc.registry import sink_class, source_class, table_class
from streamproc.sink import Sink
from streamproc.source import Source
from streamproc.state import files
from streamproc.state.runs import Run, RunRef
from streamproc.world import World

DEAD_LETTER = "dead_letter"
VERSIONS = {"streamproc": version("streamproc"), "duckdb": duckdb.__version__, "pyarrow": pa.__version__}


class Connectors(Protocol):
    """Makes sources, bounded tables and sinks from their specs: the registry's, or a test's."""

    def source(self, spec: SourceSpec, world: World) -> Source: ...

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        """`schema`: the declared columns that something reads."""
        ...

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink: ...


class Registered:
    """The connectors that the job file names."""

    def source(self, spec: SourceSpec, world: World) -> Source:
        source: Source = source_class(spec.type)(spec.options, world, spec.name)
        return source

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        table: BoundedTable = table_class(spec.type)(spec.options, schema, world, spec.name, time_zone)
        return table

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        sink: Sink = sink_class(spec.type)(spec.options, world, name)
        return sink


class Held(Protocol):
    """The part of a lease that the steps look at."""

    @property
    def held(self) -> bool: ...


def check_held(lease: Held, job_name: str) -> None:
    """LeaseLost once the lease is not ours any more."""
    if not lease.held:
        raise LeaseLost(f"the lease of job {job_name} is not held any more")


Boundary = Callable[[str], Awaitable[None]]
"""Awaited between the steps of an epoch with the name of what was just done."""


async def nothing_happens(boundary: str) -> None:
    """The default at a step's boundary; tests crash here."""
    del boundary


Marking = Callable[[Mapping[str, Mapping[str, ShardEnd]]], None]
"""Told where the shards stand after every commit, by source and shard; does not wait."""


def nothing_is_marked(ends: Mapping[str, Mapping[str, ShardEnd]]) -> None:
    """For lease tables that nobody else reads."""
    del ends


class Turns(Protocol):
    """Who may compute next, where several jobs share a process."""

    def turn(self, job_name: str) -> AbstractAsyncContextManager[None]: ...


class AtOnce:
    """A job that has the process to itself."""

    def turn(self, job_name: str) -> AbstractAsyncContextManager[None]:
        del job_name
        return nullcontext()


@dataclass
class Connected:
    """One job text, planned and connected: what all its tasks in this worker share. `offloaded`: records are decoded in threads."""

    job: Job
    plan: Plan
    tables: Mapping[str, Table]
    joined: Mapping[str, Joined]
    sinks: Mapping[str, Sink]
    executor: Executor
    world: World
    turns: Turns = field(default_factory=AtOnce)
    decoding: Decoding = field(default_factory=Decoding)

    async def close(self) -> None:
        for sink in self.sinks.values():
            await sink.close()
        for table in self.tables.values():
            await table.source.close()
        for joined in self.joined.values():
            await joined.table.close()
        await self.executor.close()
        self.decoding.close()

    def __repr__(self) -> str:
        return f"<Connected {self.job.name} {self.job.hash[:8]}: {', '.join(self.tables)} -> {', '.join(self.sinks)}>"


@dataclass
class Runtime:
    """A connected job over one line of the log. `boundary` is called between the steps with the name of what was just
    done, `mark` with where the shards stand after a commit; `steps` holds the last epoch's seconds by step.
    """

    connected: Connected
    bounded: BoundedTables
    log: EpochLog
    lease: Held
    boundary: Boundary = nothing_happens
    mark: Marking = nothing_is_marked
    versions: dict[str, str] = field(default_factory=lambda: VERSIONS)
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def job(self) -> Job:
        return self.connected.job

    @property
    def plan(self) -> Plan:
        return self.connected.plan

    @property
    def tables(self) -> Mapping[str, Table]:
        return self.connected.tables

    @property
    def sinks(self) -> Mapping[str, Sink]:
        return self.connected.sinks

    @property
    def executor(self) -> Executor:
        return self.connected.executor

    @property
    def world(self) -> World:
        return self.connected.world

    @property
    def job_name(self) -> str:
        return self.job.name

    @property
    def job_hash(self) -> str:
        return self.job.hash

    @property
    def line(self) -> Line:
        return self.log.line

    @property
    def writer(self) -> str:
        return self.log.writer

    @property
    def has_dead_letters(self) -> bool:
        return DEAD_LETTER in self.sinks

    @property
    def strict(self) -> frozenset[str]:
        """Sources of which a row that cannot be used stops the job."""
        return frozenset(name for name, table in self.tables.items() if table.bad_records == "fail")

    def check_lease(self) -> None:
        check_held(self.lease, self.job_name)

    def addressed(self, output: EpochOutput, letters: pa.Table | None, epoch: int) -> dict[str, Output]:
        """Everything the epoch writes, by sink: results, late rows, dead letters."""
        outputs: dict[str, Output] = {}
        for name, out in output.sinks.items():
            outputs[name] = for_sink(out, self.sinks[name].appends_only, self.job.sinks[name].options.changes, epoch)
            if out.late is not None and f"{name}.late" in self.sinks:
                outputs[f"{name}.late"] = Output(out.late, "append")
        if letters is not None:
            outputs[DEAD_LETTER] = Output(letters, "append")
        return outputs

    async def save(self, state: Mapping[str, Sequence[Run]], prefix: str) -> Mapping[str, Sequence[Run]]:
        """State with every run named: new ones are written to the checkpoint's store."""
        return await files.save(state, self.log.store, lambda: prefix + self.world.new_id())

    async def load(self, references: Mapping[str, Sequence[RunRef]]) -> Mapping[str, Sequence[Run]]:
        return await files.load(references, self.log.store, self.executor.state_schemas)

    @property
    def state_prefix(self) -> str:
        """Names of state runs and table versions begin with the task's own, so that no other task's collector takes them for dead."""
        return f"{self.line.task}/{self.line.generation}-"

    def __repr__(self) -> str:
        return f"<Runtime {self.job_name} {self.job_hash[:8]}: {', '.join(self.tables)} -> {', '.join(self.sinks)}>"


def connect(job: Job, plan: Plan, world: World, connectors: Connectors, turns: Turns | None = None, *, offloaded: bool = True) -> Connected:
    """Connectors, decoders and the executor of a planned job. Nothing is opened yet."""
    tables = {name: _table(job, spec, plan, connectors, world) for name, spec in job.sources.items() if name in plan.scans}
    joined = {name: _joined(job, job.tables[name], schema, connectors, world) for name, schema in plan.tables.items()}
    functions = {name: user_code.load_callable(spec.function, job.folder) for name, spec in job.functions.items()}
    stateful = {name: user_code.load(spec.function, job.folder)() for name, spec in job.applies.items()}
    executor = Executor(plan, functions, stateful)
    sinks = _sinks(job, connectors, world)
    return Connected(job, plan, tables, joined, sinks, executor, world, turns or AtOnce(), Decoding(offloaded=offloaded))


def runtime_of(connected: Connected, log: EpochLog, lease: Held, boundary: Boundary, mark: Marking) -> Runtime:
    """What one task needs."""
    return Runtime(connected, BoundedTables(connected.joined, log.store, connected.world), log, lease, boundary, mark)


def _table(job: Job, spec: SourceSpec, plan: Plan, connectors: Connectors, world: World) -> Table:
    source = connectors.source(spec, world)
    scan, options = plan.scans[spec.name].schema, spec.options
    promised = options.partitioned_by
    source.wanted = frozenset(n for n in EXTRA_COLUMNS.names if n in scan.names) | {"_offset", "_sub_sequence"}
    if promised is not None:
        source.wanted |= {"_key"}
    declared = pa.schema([f for f in spec.schema if f.name in scan.names or f.name == promised])
    source.columns = frozenset(declared.names)
    decoder = None
    if options.format != "parquet":
        decoder = source_decoder(options, declared, declared=spec.schema, time_zone=job.time_zone)
    return Table(
        name=spec.name,
        source=source,
        schema=scan if len(scan) else pa.schema([("_", pa.bool_())]),
        decoder=decoder,
        watermark=plan.watermarks.get(spec.name),
        bad_records=options.bad_records,
        max_bad_ratio=options.max_bad_ratio,
        rows_max=options.max_rows_per_epoch,
        nbytes_max=options.max_bytes_per_epoch,
        keeps_payloads=job.dead_letter is not None,
        partitioned_by=promised,
    )


def _joined(job: Job, spec: TableSpec, schema: pa.Schema, connectors: Connectors, world: World) -> Joined:
    return Joined(connectors.table(spec, schema, job.time_zone, world), spec.options.refresh)


def _sinks(job: Job, connectors: Connectors, world: World) -> dict[str, Sink]:
    sinks: dict[str, Sink] = {}
    for name, spec in job.sinks.items():
        sinks[name] = connectors.sink(spec, name, world)
        if spec.late is not None:
            sinks[f"{name}.late"] = connectors.sink(spec.late, f"{name}.late", world)
    if job.dead_letter is not None:
        sinks[DEAD_LETTER] = connectors.sink(job.dead_letter, DEAD_LETTER, world)
    return sinks
