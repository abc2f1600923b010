"""The job as the engine sees it: frozen values, every default filled in, every name resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa

from streamproc.bounded import TableOptions
from streamproc.job.keys import MetricsOptions
from streamproc.lease.options import LeaseOptions
from streamproc.options import SinkOptions, SourceOptions
from streamproc.plan.plan import OutputMode, Plan


@dataclass(frozen=True)
class SourceSpec:
    """A source of the job. `options` is an instance of the connector's own `Options`; `schema` are the declared columns
    (raw without a declaration: `value BINARY`). `line` is the line of its name in the file.
    """

    name: str
    type: str
    options: SourceOptions
    schema: pa.Schema
    line: int


@dataclass(frozen=True)
class TableSpec:
    """A bounded table of the job. `options` is an instance of the connector's own `Options`; `line` is the line of its name."""

    name: str
    type: str
    options: TableOptions
    schema: pa.Schema
    line: int


@dataclass(frozen=True)
class FunctionSpec:
    """A Python function that SQL may call: `function` is `package.module:name`, found from the job's folder first. It takes
    Arrow arrays, all rows of a slice at once, and returns one of `returns`. Not `deterministic`: what it returned is kept with the epoch.
    """

    name: str
    function: str
    returns: pa.DataType
    deterministic: bool
    line: int


@dataclass(frozen=True)
class ApplySpec:
    """A view that is a stateful function: `function` is `package.module:Class`, a `StatefulFunction`, over the rows of `input`."""

    name: str
    function: str
    input: str
    key: tuple[str, ...]
    schema: pa.Schema
    time: Literal["event", "processing"]
    ttl_us: int | None
    deterministic: bool
    line: int


@dataclass(frozen=True)
class SinkSpec:
    """A sink of the job, or one for late rows or dead letters (then `query` is empty). Lines are 1-based lines of the file."""

    name: str
    type: str
    options: SinkOptions
    query: str
    mode: OutputMode
    late: SinkSpec | None
    line: int
    query_line: int


@dataclass(frozen=True)
class Interval:
    """An epoch begins every `us` microseconds; at once when the last one took longer."""

    us: int


@dataclass(frozen=True)
class Asap:
    """An epoch begins as soon as there are rows."""


@dataclass(frozen=True)
class AvailableNow:
    """What was there at the start is read, then the job ends."""


Trigger = Interval | Asap | AvailableNow


@dataclass(frozen=True)
class Added:
    """What one `add` step puts into one shard: `rows` to be encoded in the source's format, then `raw` payloads as they are."""

    shard: str
    rows: tuple[Mapping[str, object], ...] = ()
    raw: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Reshard:
    """How a source's shards change. split: one of `shards` into two of `into`; merge: two into one; add: `into` are new."""

    kind: Literal["split", "merge", "add"]
    shards: tuple[str, ...]
    into: tuple[str, ...]


StepKind = Literal["add", "expect", "watermark", "state_rows", "late", "dead", "reshard", "crash", "tick", "restart", "fails"]
Rows = tuple[Mapping[str, object], ...]
StepPayload = (
    Mapping[str, Added] | Mapping[str, Rows] | Mapping[str, int | None] | Mapping[str, int] | Mapping[str, Reshard] | int | str | None
)


@dataclass(frozen=True)
class TestStep:
    """One step of a test. `payload` by `kind`:

    add: source → Added. expect: sink → rows. watermark: source → µs since 1970 UTC or None. state_rows, late: sink → count.
    dead: count. reshard: source → Reshard. crash: `after_begin`, `before_commit` or `after_commit`. tick: µs. restart: None.
    fails: text that the message of the stopped job contains (only as the last step).
    """

    __test__: ClassVar[bool] = False  # not for pytest
    kind: StepKind
    line: int
    payload: StepPayload


@dataclass(frozen=True)
class TestCase:
    """One test of the job file; `clock_us` is when it begins, µs since 1970 UTC; `tables` are rows of bounded tables."""

    __test__: ClassVar[bool] = False
    name: str
    line: int
    clock_us: int
    tables: Mapping[str, Rows]
    steps: tuple[TestStep, ...]


@dataclass(frozen=True)
class Job:
    """A valid job. `file` is the path as it was given, `text` the file's text, `hash` the SHA-256 (hex) of text and overrides."""

    name: str
    file: str
    text: str = field(repr=False)
    hash: str
    overrides: tuple[str, ...]
    sources: Mapping[str, SourceSpec] = field(repr=False)
    tables: Mapping[str, TableSpec] = field(repr=False)
    functions: Mapping[str, FunctionSpec] = field(repr=False)
    views: Mapping[str, str] = field(repr=False)
    applies: Mapping[str, ApplySpec] = field(repr=False)
    sinks: Mapping[str, SinkSpec] = field(repr=False)
    trigger: Trigger
    checkpoint: str
    leases: LeaseOptions | None
    dead_letter: SinkSpec | None = field(repr=False)
    metrics: MetricsOptions | None
    time_zone: str
    tests: tuple[TestCase, ...] = field(repr=False)
    folder: Path
    planned: Plan = field(repr=False, compare=False)
