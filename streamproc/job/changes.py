"""What an edit of a job means for the checkpoint it already has.

The rules are those of Spark Structured Streaming for a restart: limits, triggers, delays, filters and projections may change;
the inputs, what is kept in state (keys, aggregates, windows, output mode) and where a `files` sink writes may not.
Unlike there, sinks have names: new ones begin with the next epoch, removed ones end with their state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
from sqlglot import exp, parse_one

from streamproc.job.document import read_document
from streamproc.job.model import Job, SinkSpec
from streamproc.options import Options, WatermarkOptions
from streamproc.plan.plan import Aggregate, Batch, Limit, Operation, Plan, Query, StateColumn, Step
from streamproc.schema import ddl_type

INPUT_KEYS = frozenset({"type", "stream", "stream_arn", "region", "topic", "topic_pattern", "path", "kind", "shards", "seed"})
"""Keys of sources that say which rows there are: positions in a checkpoint mean nothing in other rows."""
FOLDER_KEYS = frozenset({"path", "format", "partition_by"})
"""Keys of `files` sinks that a reader of the folder relies on."""
NEW_CHECKPOINT = "write another checkpoint: to begin anew, or take the change back"
NEW_SINK = "give the sink another name, so that it begins with empty state beside the old one, or take the change back"


@dataclass(frozen=True)
class Change:
    """One difference between the job a checkpoint was written by and the job now. `path` as in the file; `before` and `after` as
    written there (variables not replaced), None where there was nothing. Compatible: the job goes on with its checkpoint.
    """

    path: str
    before: object
    after: object
    compatible: bool
    advice: str

    def __str__(self) -> str:
        if self.before is None:
            what = f"{self.path} is new ({self.after})"
        elif self.after is None:
            what = f"{self.path} is gone (it was {self.before})"
        else:
            what = f"{self.path} changed from {self.before} to {self.after}"
        return f"{what}: {self.advice}"


def changes(old: Job, new: Job, old_plan: Plan, new_plan: Plan) -> list[Change]:
    """Everything that changed, in the order of the file; `compatible` says what stops the job from going on."""
    return list(_Comparison(old, new, old_plan, new_plan).changes())


class _Comparison:
    def __init__(self, old: Job, new: Job, old_plan: Plan, new_plan: Plan) -> None:
        self._old, self._new = old, new
        self._old_plan, self._new_plan = old_plan, new_plan
        self._written = [read_document(job.text, None, job.overrides).value for job in (old, new)]
        self._stateful = any(_state(query) for query in old_plan.queries.values())

    def changes(self) -> Iterator[Change]:
        yield from self._sources()
        yield from self._beside("tables", self._old.tables, self._new.tables)
        yield from self._beside("functions", self._old.functions, self._new.functions)
        yield from self._views()
        yield from self._sinks()
        yield from self._single_sink("dead_letter", self._old.dead_letter, self._new.dead_letter)
        yield from self._top()

    def _change(self, path: str, compatible: bool, advice: str, before: object = None, after: object = None) -> Change:
        """A change as it is written in both files; `before` and `after` stand in where the file says nothing (a default)."""
        written = [_at(value, path.split(".")) for value in self._written]
        return Change(path, _brief(written[0], before), _brief(written[1], after), compatible, advice)

    # -- inputs

    def _sources(self) -> Iterator[Change]:
        for name in {**self._old.sources, **self._new.sources}:
            path = f"sources.{name}"
            if name not in self._new.sources:
                yield Change(path, self._old.sources[name].type, None, False, f"its positions are in the checkpoint; {NEW_CHECKPOINT}")
            elif name not in self._old.sources:
                yield Change(path, None, self._new.sources[name].type, False, f"a checkpoint's inputs are fixed; {NEW_CHECKPOINT}")
            else:
                yield from self._source(path, self._old.sources[name].options, self._new.sources[name].options)

    def _source(self, path: str, old: Options, new: Options) -> Iterator[Change]:
        for key, before, after in _differing(old, new):
            if key == "watermark":
                yield from self._watermark(f"{path}.watermark", before, after)
            elif key in INPUT_KEYS:
                yield self._change(
                    f"{path}.{key}", False, f"positions in the checkpoint are of the old input; {NEW_CHECKPOINT}", before, after
                )
            elif key == "start":
                yield self._change(f"{path}.start", True, "no effect: the job goes on where its checkpoint stands", before, after)
            else:
                yield self._change(f"{path}.{key}", True, "from the next epoch on", before, after)

    def _watermark(self, path: str, old: WatermarkOptions | None, new: WatermarkOptions | None) -> Iterator[Change]:
        if old is None or new is None or old.column != new.column:
            advice = f"windows in the state are of the old event time; {NEW_CHECKPOINT}" if self._stateful else "from the next epoch on"
            yield self._change(path, not self._stateful, advice, old and old.column, new and new.column)
            return
        for key, before, after in _differing(old, new):
            yield self._change(f"{path}.{key}", True, "from the next epoch on", before, after)

    def _beside(self, section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        """Bounded tables and functions: an epoch uses what its own job says."""
        for name in {**old, **new}:
            before, after = ({**vars(specs[name]), "line": 0} if name in specs else None for specs in (old, new))
            if before != after:
                yield self._change(f"{section}.{name}", True, "from the next epoch on", *(name if s else None for s in (before, after)))

    # -- queries and outputs

    def _views(self) -> Iterator[Change]:
        for name in {**self._old.views, **self._new.views}:
            before, after = self._old.views.get(name), self._new.views.get(name)
            if before != after:
                yield self._change(
                    f"views.{name}", True, "rows of the next epochs go through it; what is in the state stays", before, after
                )

    def _sinks(self) -> Iterator[Change]:
        for name in {**self._old.sinks, **self._new.sinks}:
            path, old, new = f"sinks.{name}", self._old.sinks.get(name), self._new.sinks.get(name)
            if old is None or new is None:
                yield from self._single_sink(path, old, new)
                continue
            yield from self._query(path, old, new)
            yield from self._options(path, old, new)
            yield from self._single_sink(f"{path}.late", old.late, new.late)

    def _single_sink(self, path: str, old: SinkSpec | None, new: SinkSpec | None) -> Iterator[Change]:
        if old is not None and new is not None:
            yield from self._options(path, old, new)
        elif new is not None:
            yield Change(path, None, new.type, True, "it gets rows from the next epoch on")
        elif old is not None:
            yield Change(path, old.type, None, True, "it gets no more rows, and what its query kept in state is given up")

    def _options(self, path: str, old: SinkSpec, new: SinkSpec) -> Iterator[Change]:
        if old.type != new.type:
            fits = new.type != "files"
            yield self._change(f"{path}.type", fits, "rows from the next epoch on go there" if fits else NEW_SINK)
            return
        for key, before, after in _differing(old.options, new.options):
            if key in ("query", "late", "mode"):
                continue
            fits = old.type != "files" or key not in FOLDER_KEYS
            advice = "from the next epoch on" if fits else f"a reader of the folder would get half of the rows; {NEW_SINK}"
            yield self._change(f"{path}.{key}", fits, advice, before, after)

    def _query(self, path: str, old: SinkSpec, new: SinkSpec) -> Iterator[Change]:
        before, after = (plan.queries[old.name] for plan in (self._old_plan, self._new_plan))
        kept, asked = _state(before), _state(after)
        if kept != asked:
            yield from self._state_changes(path, kept, asked)
        elif old.query != new.query:
            yield self._change(f"{path}.query", True, "the state keeps its shape: from the next epoch on")
        if old.mode != new.mode:
            fits = not kept and not asked
            yield self._change(
                f"{path}.mode", fits, "from the next epoch on" if fits else f"the state is of the old mode; {NEW_SINK}", old.mode, new.mode
            )
        if new.type == "files":
            yield from _retyped(path, before.schema, after.schema)

    def _state_changes(self, path: str, kept: Mapping[str, object], asked: Mapping[str, object]) -> Iterator[Change]:
        for part in {**kept, **asked}:
            if kept.get(part) != asked.get(part):
                advice = f"the state in the checkpoint was kept by the old one; {NEW_SINK}"
                yield Change(f"{path}.query ({part})", kept.get(part), asked.get(part), False, advice)

    # -- the rest

    def _top(self) -> Iterator[Change]:
        for key, before, after in (
            ("trigger", self._old.trigger, self._new.trigger),
            ("leases", self._old.leases, self._new.leases),
            ("metrics", self._old.metrics, self._new.metrics),
        ):
            if before != after:
                yield self._change(key, True, "from now on", before, after)
        if self._old.time_zone != self._new.time_zone:
            advice = f"days and casts in the state are of the old zone; {NEW_CHECKPOINT}" if self._stateful else "from the next epoch on"
            yield self._change("timezone", not self._stateful, advice, self._old.time_zone, self._new.time_zone)


def _differing(old: Options, new: Options) -> Iterator[tuple[str, Any, Any]]:
    """Keys, as written, whose typed values differ."""
    for name in {**type(old).model_fields, **type(new).model_fields}:
        before, after = getattr(old, name, None), getattr(new, name, None)
        if before != after:
            yield (type(new).model_fields.get(name) or type(old).model_fields[name]).alias or name, before, after


def _state(query: Query) -> dict[str, object]:
    """What a query keeps between epochs, by part; empty for a stateless one. What does not appear here may change: filters,
    what is computed from finished groups, their order.
    """
    parts: dict[str, object] = {}
    for step in query.root.walk():
        if isinstance(step, Aggregate):
            parts |= _aggregate_state(step)
        elif isinstance(step, Limit):
            parts[step.id] = f"LIMIT {step.rows}"
        elif isinstance(step, Operation) and not isinstance(step, Batch):
            parts |= _operation_state(step)
    return parts


def _operation_state(step: Operation) -> dict[str, object]:
    """All that is said of an operation but its inputs and what it makes of its results."""
    said = {field.name: getattr(step, field.name) for field in fields(step) if field.name not in ("id", "schema", "post", "branches")}  # type: ignore[arg-type]
    return {f"{step.id} {name}": str(value) for name, value in said.items() if not isinstance(value, Step)}


def _aggregate_state(step: Aggregate) -> dict[str, object]:
    written = _prepared(step)
    return {
        f"{step.id} keys": ", ".join(written[key] for key in step.keys) or "none",
        f"{step.id} values": ", ".join(_state_written(state, written) for state in step.states) or "none",
        f"{step.id} window": f"{step.window or 'none'} over {written.get('_t', 'no time')}",
    }


def _state_written(state: StateColumn, written: Mapping[str, str]) -> str:
    called = f"{state.function}({', '.join([*(written[arg] for arg in state.args), *state.constants])})"
    ordered = f" order by {state.order}" if state.order else ""
    return called + ordered + (f" where {written[state.filter]}" if state.filter else "")


def _prepared(step: Aggregate) -> dict[str, str]:
    """Output columns of the aggregate's preparation as SQL over its input's columns, each with its type."""
    select = parse_one(step.prepare, dialect="duckdb", into=exp.Select)
    types = {field.name: ddl_type(field.type) for field in step.input.schema}
    return {item.alias_or_name: _typed(item.unalias(), types) for item in select.selects}


def _typed(expression: exp.Expr, types: Mapping[str, str]) -> str:
    columns = sorted({column.name for column in expression.find_all(exp.Column)})
    named = [f"{name} {types[name]}" for name in columns if name in types]
    return expression.sql("duckdb") + (f" [{', '.join(named)}]" if named else "")


def _retyped(path: str, old: pa.Schema, new: pa.Schema) -> Iterator[Change]:
    for field in new:
        if field.name in old.names and old.field(field.name).type != field.type:
            before, after = ddl_type(old.field(field.name).type), ddl_type(field.type)
            advice = f"a reader of the folder cannot have both; {NEW_SINK}"
            yield Change(f"{path}.query (column {field.name})", before, after, False, advice)


def _at(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _brief(written: object, otherwise: object) -> str | None:
    if written is None and otherwise is None:
        return None
    shown = " ".join(str(written if written is not None else otherwise).split())
    return shown if len(shown) <= 100 else shown[:97] + "..."
