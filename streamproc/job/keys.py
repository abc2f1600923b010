"""The keys of a job file outside the connectors, as models: what they may hold, their defaults and their documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, WithJsonSchema
from pydantic_core import core_schema

from streamproc.lease.options import LeaseOptions
from streamproc.options import DdlSchema, Duration, Options, instant_us
from streamproc.schema import parse_ddl

TimeUs = Annotated[int, BeforeValidator(instant_us), WithJsonSchema({"type": "string", "examples": ["2026-01-01T00:00:00Z"]})]
"""An instant, held in µs since 1970 UTC."""
Count = Annotated[int, Field(ge=0)]


def _type(value: object) -> object:
    if not isinstance(value, str) or len(fields := parse_ddl(f"value {value}")) != 1:
        raise ValueError("a type is Spark's, such as STRING or STRUCT<country: STRING, city: STRING>")
    return fields.field(0).type


DdlType = Annotated[
    pa.DataType,
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(pa.DataType)),
    BeforeValidator(_type),
    WithJsonSchema({"type": "string", "examples": ["STRING", "DECIMAL(10,2)"]}),
]
"""A Spark DDL type, held as an Arrow type."""


class FunctionKeys(Options):
    """A Python function on Arrow arrays, one for each argument, that returns one of the same length. It sees NULLs."""

    function: str = Field(
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$", description="package.module:name; the job file's folder is first on the path"
    )
    returns: DdlType = Field(description="Spark type of what it returns")
    deterministic: bool = Field(False, description="equal arguments give equal results; otherwise what it returns is kept with the epoch")


class ApplyKeys(Options):
    """A stateful function over the rows of a view or source, called once an epoch with Arrow tables sorted by key."""

    function: str = Field(
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$", description="package.module:Class, a streamproc.stateful.StatefulFunction"
    )
    input: str = Field(description="the view or source whose rows it gets")
    key: list[str] = Field(min_length=1, description="columns whose values have state of their own")
    columns: DdlSchema = Field(alias="schema", description="Spark DDL of the rows that it writes")
    time: Literal["event", "processing"] = Field("event", description="what timers and ttl follow: the watermark, or the clock")
    ttl: Duration | None = Field(None, gt=0, description="a key's state is forgotten so long after its last call")
    deterministic: bool = Field(False, description="equal calls give equal results; otherwise what it returns is kept with the epoch")


class ApplyView(Options):
    """A view in Python."""

    apply: ApplyKeys


class MetricsOptions(Options):
    """Prometheus listener of `streamproc run`; without this key there is none."""

    host: str = "127.0.0.1"
    port: int = Field(9108, ge=0, le=65535, description="0 takes a free port")


def _added(value: object) -> object:
    return {"rows": value} if isinstance(value, list) else value


class AddKeys(Options):
    """Rows or raw payloads for one shard."""

    shard: str | Annotated[int, Field(ge=0)] = Field("0", description="a shard exists once it is named")
    rows: list[dict[str, Any]] = Field([], description="encoded in the source's format, then decoded as from the wire")
    raw: list[str | bytes] = Field([], description="payloads as they are; !!binary for bytes")


class ReshardKeys(Options):
    """Exactly one of split, merge and add."""

    split: str | None = Field(None, description="shard that ends; two begin")
    merge: list[str] | None = Field(None, min_length=2, max_length=2, description="two shards that end; one begins")
    add: str | None = Field(None, description="new shard (Kafka partition)")
    into: str | list[str] | None = Field(None, description="names of the new shards; default s-0 and s-1, or a+b")


Add = Annotated[AddKeys, BeforeValidator(_added)]


def _nothing(value: dict[str, Any]) -> dict[str, Any]:
    if value:
        raise ValueError("a restart takes no keys: write restart: {}")
    return value


class StepKeys(Options):
    """One step of a test: exactly one of these keys. After each step everything available is processed."""

    add: dict[str, Add] | None = Field(None, description="source → rows that arrive, all in one epoch")
    expect: dict[str, list[dict[str, Any]]] | None = Field(
        None, description="sink → rows written since its last expect, any order; only the named columns are compared"
    )
    watermark: dict[str, TimeUs | None] | None = Field(None, description="source → its watermark now")
    state_rows: dict[str, Count] | None = Field(None, description="sink → open groups, buffered rows or kept keys")
    late: dict[str, Count] | None = Field(None, description="sink → rows refused as late so far")
    dead: Count | None = Field(None, description="dead letters so far")
    reshard: dict[str, ReshardKeys] | None = Field(None, description="source → how its shards change")
    crash: Literal["after_begin", "before_commit", "after_commit"] | None = Field(
        None, description="the next epoch dies there, a new worker finishes the step"
    )
    tick: Annotated[Duration, Field(ge=0)] | None = Field(None, description="the clock moves, no rows come")
    restart: Annotated[dict[str, Any], AfterValidator(_nothing)] | None = Field(None, description="a clean stop and start; write {}")
    fails: str | None = Field(None, description="last step: the job stops and its message contains this text")


class TestKeys(Options):
    """A test of the job on memory source, sink and store with a manual clock."""

    __test__ = False
    name: str
    clock: TimeUs = Field(1_767_225_600_000_000, description="when the test begins; default 2026-01-01T00:00:00Z")
    tables: dict[str, list[dict[str, Any]]] = Field({}, description="rows of bounded tables")
    steps: list[dict[str, Any]] = Field(min_length=1, description="done one after the other")


class JobKeys(Options):
    """One YAML file is one job."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200, description="default: the file's name without its ending"
    )
    sources: dict[str, Any] = Field(min_length=1, description="unbounded tables")
    tables: dict[str, Any] = Field({}, description="bounded tables to join with")
    views: dict[str, Any] = Field({}, description="named SQL steps, in any order")
    sinks: dict[str, Any] = Field(min_length=1, description="where the rows of a query go; all of one read of the sources")
    trigger: str | None = Field(
        None,
        description="an interval, asap or available_now; default asap, 1 second where the checkpoint or a files sink is an object store",
    )
    checkpoint: str | None = Field(None, description="a folder or object-store URL; default ./checkpoints/<name>")
    leases: LeaseOptions | None = None
    functions: dict[str, Any] = Field({}, description="Python functions on Arrow arrays")
    dead_letter: dict[str, Any] | None = Field(None, description="a sink for records that cannot be used")
    metrics: MetricsOptions | None = None
    timezone: str = Field("UTC", description="of day windows, literals and casts")
    tests: list[dict[str, Any]] = Field([], description="run by `streamproc test`")
