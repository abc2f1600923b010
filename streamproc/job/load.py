"""A job file's text → a frozen `Job`, or `InvalidJob` with every fault that can be found."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa

from streamproc import registry, user_code
from streamproc.batch import EXTRA_COLUMNS
from streamproc.bounded import TableOptions
from streamproc.errors import Fault, InvalidJob
from streamproc.job.applied import read_apply
from streamproc.job.document import Document, Path, read_document
from streamproc.job.faults import NOT_YET, Faults, nearest, not_yet
from streamproc.job.keys import FunctionKeys, JobKeys
from streamproc.job.model import (
    ApplySpec,
    Asap,
    AvailableNow,
    FunctionSpec,
    Interval,
    Job,
    SinkSpec,
    SourceSpec,
    TableSpec,
    TestCase,
    Trigger,
)
from streamproc.job.planning import builtin_names, misfit, plan_parts
from streamproc.job.steps import TestReader
from streamproc.options import SinkOptions, SourceOptions, duration_us
from streamproc.plan.plan import Plan
from streamproc.schema import ddl
from streamproc.sink import DEAD_LETTER_SCHEMA

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_TIMES = ("epoch_s", "epoch_ms", "epoch_us")
Place = Literal["source", "table", "sink"]
Role = Literal["sink", "late", "dead_letter"]


def load_job(
    path: str | FilePath,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
) -> Job:
    """The job of a file (or of `text`, as if it stood in that file). `overrides` are `a.b=c`, as `--set` takes them.

    Raises InvalidJob with every fault of the file and, where the file itself is right, of its SQL.
    """
    loaded = read_job(path, overrides=overrides, environment=environment, text=text)
    if loaded.job is None:
        raise InvalidJob(loaded.faults)
    return loaded.job


@dataclass(frozen=True)
class Loaded:
    """What became of a job file: `job` is None if there are faults. `document` knows the lines of its texts."""

    job: Job | None
    faults: tuple[Fault, ...]
    document: Document


def read_job(
    path: str | FilePath,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
) -> Loaded:
    """As `load_job`, with the faults as a value."""
    file = str(path)
    if text is None:
        try:
            text = FilePath(path).read_bytes().decode("utf-8")
        except OSError as error:
            return Loaded(None, (Fault(file, 1, f"cannot be read: {error.strerror or error}"),), Document(""))
        except UnicodeDecodeError as error:
            return Loaded(None, (Fault(file, error.object.count(b"\n", 0, error.start) + 1, "is not UTF-8"),), Document(""))
    document = read_document(text, os.environ if environment is None else environment, overrides)
    faults = Faults(file, document)
    job = _JobReader(file, document, faults, tuple(overrides)).read()
    return Loaded(None if faults.found else job, tuple(faults.found), document)


def is_remote(path: str) -> bool:
    """Whether a path names an object store and not a folder of this machine."""
    return "://" in path and not path.startswith("file://")


class _JobReader:
    def __init__(self, file: str, document: Document, faults: Faults, overrides: tuple[str, ...]) -> None:
        self._file = file
        self._document = document
        self._faults = faults
        self._overrides = overrides
        self._raw: dict[str, Any] = document.value if isinstance(document.value, dict) else {}

    def read(self) -> Job | None:
        if self._document.value is None:
            if not self._faults.found:
                self._faults.at_line(1, "the file is empty; write at least sources and sinks")
            return None
        if not isinstance(self._document.value, dict):
            self._faults.at_line(1, "a job file is a mapping: name, sources, sinks, …")
            return None
        keys = self._faults.validate(JobKeys, self._raw, (), "job")
        self._names()
        sources = {name: self._source(name) for name in self._section("sources")}
        tables = {name: self._table(name) for name in self._section("tables")}
        functions = {name: self._function(name) for name in self._section("functions")}
        views, applies = self._views()
        sinks = {name: self._sink(("sinks", name), "sink") for name in self._section("sinks")}
        dead = self._dead_letter()
        tests = self._tests(sources, tables, sinks)
        trigger = self._trigger(sinks.values())
        self._leases(keys)
        zone = self._zone()
        name = self._name()
        planned = self._plan(sources, tables, functions, views, applies, sinks, zone)
        if self._faults.found or keys is None or planned is None:
            return None
        text = self._document.text
        return Job(
            name=name,
            file=self._file,
            text=text,
            hash=hashlib.sha256("\0".join([text, *self._overrides]).encode("utf-8", "surrogatepass")).hexdigest(),
            overrides=self._overrides,
            sources=_present(sources),
            tables=_present(tables),
            functions=_present(functions),
            views=views,
            applies=_present(applies),
            sinks=_present(sinks),
            trigger=trigger,
            checkpoint=keys.checkpoint or f"./checkpoints/{name}",
            leases=keys.leases,
            dead_letter=dead,
            metrics=keys.metrics,
            time_zone=zone or "UTC",
            tests=tests,
            folder=FilePath(self._file).parent,
            planned=planned,
        )

    # -- names -------------------------------------------------------------------------------------------------

    def _section(self, key: str) -> dict[str, Any]:
        value = self._raw.get(key)
        return value if isinstance(value, dict) else {}

    def _name(self) -> str:
        name = self._raw.get("name")
        if isinstance(name, str):
            return str(name)
        stem = FilePath(self._file).stem
        if name is None and not _JOB_NAME.fullmatch(stem):
            self._faults.at_line(1, f"the file's name {stem!r} cannot be the job's; write name: (letters, digits, '.', '_', '-')")
        return stem

    def _names(self) -> None:
        """Sources, tables and views are one namespace; names do not differ by upper and lower case alone (as in Spark)."""
        seen: dict[str, str] = {}
        for section in ("sources", "tables", "views", "sinks", "functions"):
            for name in self._section(section):
                if not _NAME.fullmatch(name):
                    self._faults.add((section, name), f"{name!r} is no name: letters, digits, '_' and '-', not a digit first")
                key = f"{section}.{name.lower()}" if section in ("sinks", "functions") else name.lower()
                if key in seen:
                    self._faults.add((section, name), f"the name {name!r} is taken by {seen[key]}")
                seen.setdefault(key, f"{section}.{name}")

    # -- sources -----------------------------------------------------------------------------------------------

    def _source(self, name: str) -> SourceSpec | None:
        path = ("sources", name)
        options = self._connector(path, "source", registry.SOURCES, registry.source_options, {})
        if not isinstance(options, SourceOptions):
            return None
        try:
            schema = options.schema_ if options.schema_ is not None else options.default_schema()
        except ValueError as error:
            self._faults.add(path, str(error))
            return None
        if schema is None:
            self._faults.add(path, "missing key 'schema' (Spark DDL column list, such as: user STRING, ts TIMESTAMP)")
            return None
        before = len(self._faults.found)
        self._column_names((*path, "schema"), schema)
        if len(self._faults.found) > before:
            return None
        self._columns(path, options, schema)
        if len(self._faults.found) == before:
            self._decodable(path, options, schema)
        if options.schema_ is None and options.schema_from_code:
            self._overrides += (f"sources.{name}.schema={ddl(schema)}",)  # an epoch that was begun is finished with the columns it had
            options = options.model_copy(update={"schema_": schema})
        if options.bad_records == "dead_letter" and self._raw.get("dead_letter") is None:
            self._faults.add((*path, "bad_records"), "bad_records: dead_letter needs a dead_letter: sink in the job, or write skip or fail")
        return SourceSpec(name, options.type, options, schema, self._document.line(path))

    def _table(self, name: str) -> TableSpec | None:
        path = ("tables", name)
        options = self._connector(path, "table", registry.TABLES, registry.table_options, {})
        if not isinstance(options, TableOptions):
            return None
        if options.schema_ is None:
            self._faults.add(path, "missing key 'schema' (Spark DDL column list, such as: user STRING, country STRING)")
            return None
        before = len(self._faults.found)
        self._column_names((*path, "schema"), options.schema_)
        for column, form in getattr(options, "timestamps", {}).items():
            self._time_column((*path, "timestamps", column), column, options.schema_)
            self._time_format((*path, "timestamps", column), form)
        if options.versioned is not None:
            self._column((*path, "versioned", "key"), options.versioned.key, options.schema_)
            self._time_column((*path, "versioned", "time"), options.versioned.time, options.schema_)
        if len(self._faults.found) == before:
            self._decodable(path, options, options.schema_)
        return TableSpec(name, options.type, options, options.schema_, self._document.line(path))

    def _function(self, name: str) -> FunctionSpec | None:
        """The author's module is imported, since only it knows whether it has the function."""
        path = ("functions", name)
        given = self._value(path)
        if not isinstance(given, dict):
            self._faults.add(path, f"function {name!r} should be a mapping: {{function: 'package.module:name', returns: STRING}}")
            return None
        if name.lower() in builtin_names():
            self._faults.add(path, f"Spark has a function of that name, {name!r}: give yours another")
        keys = self._faults.validate(FunctionKeys, given, path)
        if keys is None:
            return None
        try:
            user_code.load_callable(keys.function, FilePath(self._file).parent)
        except ValueError as error:
            self._faults.add((*path, "function"), str(error))
        return FunctionSpec(name, keys.function, keys.returns, keys.deterministic, self._document.line(path))

    def _columns(self, path: Path, options: SourceOptions, schema: pa.Schema) -> None:
        for column in options.timestamps:
            self._time_column((*path, "timestamps", column), column, schema)
            self._time_format((*path, "timestamps", column), options.timestamps[column])
        if options.watermark is not None:
            times = pa.schema([*schema, *(field for field in EXTRA_COLUMNS if field.name == "_timestamp")])
            self._time_column((*path, "watermark", "column"), options.watermark.column, times)
        promised = options.partitioned_by
        if promised is not None:
            self._column((*path, "partitioned_by"), promised, schema)

    def _column(self, path: Path, column: str, schema: pa.Schema) -> None:
        if column not in schema.names:
            self._faults.add(path, f"column {column!r} is not in the schema{nearest(column, schema.names)}")

    def _column_names(self, path: Path, schema: pa.Schema) -> None:
        """Spark's names do not know upper from lower case; those of the extra columns are taken."""
        seen: set[str] = set()
        for field in schema:
            if field.name.lower() in seen:
                self._faults.add(path, f"two columns are called {field.name!r} (upper and lower case are one)")
            if field.name.lower() in EXTRA_COLUMNS.names:
                self._faults.add(path, f"column {field.name!r} is there without a declaration: remove it")
            if field.name == "_rescued" and not pa.types.is_string(field.type):
                self._faults.add(path, "column '_rescued' holds JSON text: declare it STRING")
            seen.add(field.name.lower())

    def _decodable(self, path: Path, options: Any, schema: pa.Schema) -> None:
        """The decoder itself says which types and patterns it reads."""
        from streamproc.formats import make_decoder, source_decoder  # with DuckDB

        if options.format == "parquet":
            return
        try:
            if isinstance(options, SourceOptions):
                source_decoder(options, schema, declared=schema)
            else:
                make_decoder(options.format, schema, csv=options.csv, timestamps=options.timestamps)
        except ValueError as error:
            named = {"pattern": "timestamps", "schema_file": "avro", "descriptor_set": "protobuf", "package": "format"}
            key = next((key for word, key in named.items() if word in str(error)), "schema")
            self._faults.add((*path, key), str(error))

    def _time_column(self, path: Path, column: str, schema: pa.Schema) -> None:
        if column not in schema.names:
            self._faults.add(path, f"column {column!r} is not in the schema{nearest(column, schema.names)}")
        elif not pa.types.is_timestamp(schema.field(column).type):
            self._faults.add(
                path,
                f"column {column!r} must be declared TIMESTAMP; numbers are read into one by timestamps: {{{column}: epoch_ms}}",
            )

    def _time_format(self, path: Path, form: str) -> None:
        if form.startswith("epoch") and form not in _TIMES:
            self._faults.add(path, f"{form!r} is unknown{nearest(form, _TIMES)} (or a Spark datetime pattern)")

    # -- views and sinks ---------------------------------------------------------------------------------------

    def _views(self) -> tuple[dict[str, str], dict[str, ApplySpec | None]]:
        """Views in SQL, and those in Python."""
        views: dict[str, str] = {}
        applies: dict[str, ApplySpec | None] = {}
        for name, value in self._section("views").items():
            path = ("views", name)
            if isinstance(value, str) and value.strip():
                views[name] = value
            elif isinstance(value, dict) and "apply" in value:
                applies[name] = read_apply(self._faults, self._document, path, value, FilePath(self._file).parent)
            elif isinstance(value, dict) and (unsupported := sorted(NOT_YET["view"] & value.keys())):
                self._faults.add((*path, unsupported[0]), not_yet(repr(unsupported[0])) + ": write the view in SQL")
            else:
                self._faults.add(path, f"view {name!r} should be SQL: SELECT … FROM …")
        return views, applies

    def _sink(self, path: Path, role: Role) -> SinkSpec | None:
        defaults = {} if role == "sink" else {"format": "json"}
        options = self._connector(path, "sink", registry.SINKS, registry.sink_options, defaults)
        given = self._value(path)
        late = None
        if role != "sink":
            self._refuse_keys(path, role)
        elif isinstance(given, dict):
            self._require_query(path, given)
            late = self._late(path, given.get("late"))
        if not isinstance(options, SinkOptions):
            return None
        query = options.query or ""
        line = self._document.line(path)
        query_line = self._document.line_in((*path, "query"), 0) if query else line
        return SinkSpec(str(path[-1]), options.type, options, query, options.mode, late, line, query_line)

    def _dead_letter(self) -> SinkSpec | None:
        if not isinstance(self._raw.get("dead_letter"), dict):
            return None
        sink = self._sink(("dead_letter",), "dead_letter")
        for path, message in misfit(("dead_letter",), sink, DEAD_LETTER_SCHEMA) if sink else ():
            self._faults.add(path, message)
        return sink

    def _require_query(self, path: Path, given: Mapping[str, Any]) -> None:
        query = given.get("query", "")
        if query is None or (isinstance(query, str) and not query.strip()):
            self._faults.add(path, f"sink {str(path[-1])!r}: missing key 'query' (Spark SQL whose rows it gets)")

    def _refuse_keys(self, path: Path, role: Role) -> None:
        what = "rows that were late" if role == "late" else "records that could not be used"
        given = self._value(path)
        for key in ("query", "mode", "late", "changes"):
            if isinstance(given, dict) and given.get(key) is not None:
                self._faults.add((*path, key), f"{'late' if role == 'late' else 'dead_letter'} gets {what} and takes no {key!r}: remove it")

    def _late(self, path: Path, value: object) -> SinkSpec | None:
        if value is None:
            return None
        if isinstance(value, dict):
            return self._sink((*path, "late"), "late")
        self._faults.add((*path, "late"), "late is a sink, such as {type: files, path: ./late/}")
        return None

    # -- connectors --------------------------------------------------------------------------------------------

    def _value(self, path: Path) -> Any:
        value: Any = self._raw
        for part in path:
            value = value[part]
        return value

    def _connector(
        self,
        path: Path,
        place: Place,
        known: Mapping[str, str],
        options_of: Callable[[str], Any],
        defaults: Mapping[str, Any],
    ) -> SourceOptions | TableOptions | SinkOptions | None:
        given = self._value(path)
        if not isinstance(given, dict):
            self._faults.add(path, f"{place} {str(path[-1])!r} should be a mapping with a type: {', '.join(sorted(known))}")
            return None
        model = self._model(path, given.get("type"), place, known, options_of)
        if model is None:
            return None
        fitting = {key: value for key, value in defaults.items() if key in model.model_fields}
        options = self._faults.validate(model, {**fitting, **given}, path, place)
        if (
            options is not None
            and "://" in (where := str(getattr(options, "path", "")))
            and not where.startswith(("s3://", "gs://", "az://"))
        ):
            self._faults.add((*path, "path"), "a path is a local folder, s3://…, gs://… or az://…")
        return options

    def _model(
        self, path: Path, kind: object, place: str, known: Mapping[str, str], options_of: Callable[[str], Any]
    ) -> type[SourceOptions | TableOptions | SinkOptions] | None:
        if not isinstance(kind, str):
            self._faults.add(path, f"{place} {str(path[-1])!r}: missing key 'type'; write one of {', '.join(sorted(known))}")
        elif kind not in known:
            self._faults.add((*path, "type"), f"unknown {place} type {kind!r}{nearest(kind, known)}")
        else:
            try:
                return options_of(kind)  # type: ignore[no-any-return]  # the connectors' convention
            except ImportError as error:
                self._faults.add(
                    (*path, "type"), f"type {kind!r} needs a package that is missing ({error}): pip install 'streamproc[{kind}]'"
                )
        return None

    # -- the rest ----------------------------------------------------------------------------------------------

    def _trigger(self, sinks: Iterable[SinkSpec | None]) -> Trigger:
        text = self._raw.get("trigger")
        if text is None:
            places = [
                str(self._raw.get("checkpoint", "")),
                *(str(getattr(s.options, "path", "")) for s in sinks if s and s.type == "files"),
            ]
            return Interval(1_000_000) if any(map(is_remote, places)) else Asap()
        if text in ("asap", "available_now"):
            return Asap() if text == "asap" else AvailableNow()
        try:
            us = duration_us(text) if isinstance(text, str) else 1
        except ValueError:
            self._faults.add(("trigger",), f"trigger should be asap, available_now or an interval such as 10 seconds, not {text!r}")
            return Asap()
        if us <= 0:
            self._faults.add(("trigger",), "the trigger's interval must be longer than nothing; asap means without a pause")
        return Interval(us)

    def _leases(self, keys: JobKeys | None) -> None:
        leases = keys.leases if keys else None
        if leases and leases.type == "sqlite" and leases.path is None and is_remote(str(self._raw.get("checkpoint", ""))):
            self._faults.add(("leases",), "leases of type sqlite need a path where the checkpoint is remote; or write type: object")

    def _zone(self) -> str | None:
        zone = self._raw.get("timezone") or "UTC"
        try:
            if zone == "localtime":
                raise ValueError("a job must mean the same on every machine")
            return ZoneInfo(str(zone)).key
        except (OSError, ValueError, KeyError):
            close = difflib.get_close_matches(str(zone)[:100], available_timezones(), n=1, cutoff=0.8) or ["Europe/Berlin"]
            self._faults.add(("timezone",), f"timezone {zone!r} is unknown; write for example UTC or {close[0]}")
            return None

    def _tests(
        self, sources: Mapping[str, SourceSpec | None], tables: Mapping[str, TableSpec | None], sinks: Mapping[str, SinkSpec | None]
    ) -> tuple[TestCase, ...]:
        reader = TestReader(self._faults, sources, tables, sinks)
        tests = self._raw.get("tests")
        if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
            return ()
        return reader.read(tests, self._document.line)

    def _plan(
        self,
        sources: Mapping[str, SourceSpec | None],
        tables: Mapping[str, TableSpec | None],
        functions: Mapping[str, FunctionSpec | None],
        views: Mapping[str, str],
        applies: Mapping[str, ApplySpec | None],
        sinks: Mapping[str, SinkSpec | None],
        zone: str | None,
    ) -> Plan | None:
        """The plan, also of a file with faults elsewhere, as long as every table and view is known."""
        declared = [*sources.values(), *tables.values(), *functions.values(), *applies.values()]
        if zone is None or not sources or None in declared or len(views) + len(applies) < len(self._section("views")):
            return None
        asked = {name: sink for name, sink in sinks.items() if sink is not None and sink.query.strip()}
        read, joined, known, stateful = (_present(specs) for specs in (sources, tables, functions, applies))
        return plan_parts(self._faults, self._document, read, joined, known, views, stateful, asked, zone)


def _present(specs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spec for name, spec in specs.items() if spec is not None}
