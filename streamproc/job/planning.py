"""A job's SQL, planned: the planner's faults at their lines of the job file, and what the plan says about the rest of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from streamproc import registry
from streamproc.batch import EXTRA_COLUMNS
from streamproc.errors import Fault
from streamproc.job.document import Document, Path
from streamproc.job.faults import Faults, nearest
from streamproc.job.model import ApplySpec, FunctionSpec, Job, SinkSpec, SourceSpec, TableSpec
from streamproc.plan.faults import PlanFaults
from streamproc.plan.plan import Plan, Watermark

if TYPE_CHECKING:
    from streamproc.plan.modes import SinkQuery

WRITTEN = ("_op", "_epoch", "_replay")
"""Columns that the engine may add to what a query yields."""
OPTIONAL_COLUMNS = frozenset({"_partition_key", "_sub_sequence", "_headers"})


def plan(job: Job) -> Plan:
    """The plan of a job: made when the job was read, since a job whose SQL cannot be planned is no valid job."""
    return job.planned


def plan_parts(
    faults: Faults,
    document: Document,
    sources: Mapping[str, SourceSpec],
    bounded: Mapping[str, TableSpec],
    functions: Mapping[str, FunctionSpec],
    views: Mapping[str, str],
    applies: Mapping[str, ApplySpec],
    sinks: Mapping[str, SinkSpec],
    time_zone: str,
) -> Plan | None:
    """The plan, or None with the faults noted in `faults`."""
    from streamproc.plan.apply import ApplyInfo
    from streamproc.plan.planner import BoundedInfo, TableInfo, plan_job  # DuckDB is not needed to find faults of the file
    from streamproc.plan.python_functions import FunctionInfo

    tables = {
        name: TableInfo(source.schema, extra_columns(source), watermark_of(source), source.options.partitioned_by)
        for name, source in sources.items()
    }
    joined = {name: BoundedInfo(table.schema, versioned_of(table)) for name, table in bounded.items()}
    known = {name: FunctionInfo(function.returns, function.deterministic) for name, function in functions.items()}
    stateful = {n: ApplyInfo(a.input, a.key, a.schema, a.time, a.ttl_us, a.deterministic) for n, a in applies.items()}
    queries = {name: _sink_query(sink) for name, sink in sinks.items()}
    try:
        made = plan_job(tables, views, queries, bounded=joined, functions=known, applies=stateful, time_zone=time_zone)
    except PlanFaults as error:
        for fault in error.faults:
            note_sql_fault(faults, document, fault.place, fault.line, fault.message)
        return None
    before = len(faults.found)
    for path, message in misfits(made, sinks):
        faults.add(path, message)
    return made if len(faults.found) == before else None


def _sink_query(sink: SinkSpec) -> SinkQuery:
    from streamproc.plan.modes import SinkQuery  # as above

    keys = _listed(getattr(sink.options, "keys", None))
    return SinkQuery(sink.query, sink.mode, sink.late is not None, sink.options.changes, tuple(keys) or None)


def builtin_names() -> frozenset[str]:
    """Functions of SQL that a job cannot redefine, in lower case."""
    from streamproc.plan.aggregates import AGGREGATES  # as above
    from streamproc.plan.functions import FUNCTIONS

    return frozenset({*FUNCTIONS, *AGGREGATES, *registry.WINDOWS})


def note_sql_fault(faults: Faults, document: Document, place: str, line: int, message: str) -> None:
    """A fault in line `line` (from 0) of the SQL at `place` (`views.NAME`, `sinks.NAME.query`)."""
    section, _, name = place.partition(".")
    path: Path = (section, name.removesuffix(".query"), "query") if section == "sinks" else (section, name)
    option = document.option(path)
    faults.at_line(document.line_in(path, line), f"{option}: {message}" if option else message)


def extra_columns(source: SourceSpec) -> pa.Schema:
    """The columns that a source has beside its schema."""
    lacks = OPTIONAL_COLUMNS - registry.source_class(source.type).optional_columns
    return pa.schema([field for field in EXTRA_COLUMNS if field.name not in lacks])


def watermark_of(source: SourceSpec) -> Watermark | None:
    options = source.options.watermark
    return Watermark(options.column, options.delay, options.idle, options.max_ahead) if options is not None else None


def versioned_of(table: TableSpec) -> tuple[str, str] | None:
    options = table.options.versioned
    return (options.key, options.time) if options is not None else None


def misfits(made: Plan, sinks: Mapping[str, SinkSpec]) -> Iterator[tuple[Path, str]]:
    """Queries whose rows their sinks cannot write, with the nearest key to blame."""
    for name, sink in sinks.items():
        yield from misfit(("sinks", name), sink, made.queries[name].schema)


def misfit(path: Path, sink: SinkSpec, schema: pa.Schema) -> Iterator[tuple[Path, str]]:
    """Why a sink cannot write rows of a schema, if it cannot."""
    named = [(key, i, column) for key in ("partition_by", "keys") for i, column in enumerate(_listed(getattr(sink.options, key, None)))]
    unknown = [(key, i, column) for key, i, column in named if column not in schema.names]
    for key, i, column in unknown:
        yield (*path, key, i), f"there is no column {column!r} in the rows{nearest(column, schema.names)}"
    made = registry.sink_class(sink.type)
    if sink.options.changes and not made.appends_only:
        yield (*path, "changes"), f"{sink.type} overwrites rows by key and deletes what is gone; changes is for sinks that only append"
    refused = None if unknown else made.refuses(sink.options, schema)
    if refused is not None:
        yield (*path, "partition_by" if refused.startswith("partition_by") else "type"), refused


def unexpected(job: Job, document: Document) -> list[Fault]:
    """Columns that the job's tests expect and its queries do not yield."""
    return [
        fault
        for t, test in enumerate(job.tests)
        for s, step in enumerate(test.steps)
        if step.kind == "expect" and isinstance(step.payload, Mapping)
        for sink, rows in step.payload.items()
        for fault in _unexpected(job, document, sink, rows, ("tests", t, "steps", s, "expect", sink))
    ]


def _unexpected(job: Job, document: Document, sink: str, rows: object, path: Path) -> Iterator[Fault]:
    known = [*job.planned.queries[sink].schema.names, *WRITTEN]
    for row, column in _unknown(rows, known):
        message = f"the query of sink {sink!r} yields no column {column!r}{nearest(column, known)}"
        yield Fault(job.file, document.line((*path, row, column)), message)


def _unknown(rows: object, known: list[str]) -> Iterator[tuple[int, str]]:
    for i, row in enumerate(rows if isinstance(rows, tuple) else ()):
        yield from ((i, column) for column in row if column not in known)


def _listed(value: object) -> Iterable[str]:
    return value if isinstance(value, list | tuple) else ()
