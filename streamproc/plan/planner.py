"""Spark SQL of a job → `Plan`: every view and query as written, all faults at once.

A SELECT goes through `RULES`, a query's root through `modes.finish`; then every scan gets the columns that anything reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa
from sqlglot import exp

from streamproc.batch import EXTRA_COLUMNS
from streamproc.plan import modes, zone
from streamproc.plan.aliases import resolve_aliases
from streamproc.plan.apply import NO_APPLIES, ApplyInfo, applied
from streamproc.plan.checked import Checker
from streamproc.plan.dedup import distinct_rows, drop_duplicates, is_dedup
from streamproc.plan.dialect import parse_query
from streamproc.plan.faults import CircleError, DependsOnFaultyViewError, LocatedError, PlanFaults, RefusedError, SqlFault, nearest
from streamproc.plan.grouped_windows import group_before_over
from streamproc.plan.grouping import group_rows
from streamproc.plan.joins import join_rows
from streamproc.plan.maintain import over_rows
from streamproc.plan.modes import SinkQuery
from streamproc.plan.plan import Operation, OutputMode, Plan, Query, Scan, Step, Table, Watermark
from streamproc.plan.python_functions import NO_FUNCTIONS, FunctionInfo, evaluate_conditions, evaluate_laterals, evaluate_results
from streamproc.plan.ranking import bound_ranks
from streamproc.plan.relation import Column, Relation, Time, hidden_name
from streamproc.plan.select import Draft, Rule, explode_laterals, filter_rows, order_and_limit, project_rows, read_from, refuse_clauses
from streamproc.plan.tasks import with_tasks
from streamproc.plan.types import quote, text_literal
from streamproc.plan.unions import union

T = TypeVar("T")
RULES: tuple[Rule, ...] = (
    refuse_clauses, bound_ranks, read_from, join_rows, evaluate_laterals, explode_laterals, resolve_aliases, group_before_over,
    evaluate_conditions, filter_rows, evaluate_results, project_rows, group_rows, over_rows, distinct_rows, order_and_limit,
)  # fmt: skip
"""What a SELECT goes through, in this order."""
NO_TABLES: Mapping[str, BoundedInfo] = MappingProxyType({})


@dataclass(frozen=True)
class TableInfo:
    """An unbounded table: declared columns (format raw: `value`), extra columns it has (of `batch.EXTRA_COLUMNS`), and the column
    that its producer has promised to be the partition key.
    """

    schema: pa.Schema
    extra: pa.Schema = EXTRA_COLUMNS
    watermark: Watermark | None = None
    partitioned_by: str | None = None


@dataclass(frozen=True)
class BoundedInfo:
    """A bounded table to join with. `versioned`: its key column and the column that says from when on a row is valid."""

    schema: pa.Schema
    versioned: tuple[str, str] | None = None


def plan_job(
    tables: Mapping[str, TableInfo],
    views: Mapping[str, str],
    sinks: Mapping[str, SinkQuery],
    *,
    bounded: Mapping[str, BoundedInfo] = NO_TABLES,
    functions: Mapping[str, FunctionInfo] = NO_FUNCTIONS,
    applies: Mapping[str, ApplyInfo] = NO_APPLIES,
    time_zone: str = "UTC",
) -> Plan:
    """The plan of a job; PlanFaults with everything that is wrong in its SQL."""
    zone.SESSION.set(time_zone)
    job = Job(tables, views, bounded, functions, applies)
    for name in views:
        job.attempt(f"views.{name}", views[name], partial(job.view, name, origin=False, mode=None))
    for name in applies:
        job.attempt(f"views.{name}", "", partial(job.view, name, origin=False, mode=None))
    queries: dict[str, Query] = {}
    for name, sink in sinks.items():
        query = job.attempt(f"sinks.{name}.query", sink.query, partial(job.query, name, sink))
        if query is not None:
            queries[name] = query
    job.stop_if_faulty()
    scans = {name: Scan(name, job.scan_schema(name)) for name in tables}
    queries = {name: replace(q, root=completed(q.root, scans)) for name, q in queries.items()}
    watermarks = {name: t.watermark for name, t in tables.items() if t.watermark}
    read = {name: job.table_schema(name) for name in bounded if name in job.read}
    checker = Checker(time_zone, read)
    for name, query in queries.items():
        job.attempt(f"sinks.{name}.query", sinks[name].query, partial(checker.check, query))
    checker.close()
    job.stop_if_faulty()
    plan = Plan(scans, queries, watermarks, time_zone, read, modes.notes(queries))
    return with_tasks(plan, {name: table.partitioned_by for name, table in tables.items() if table.partitioned_by})


def completed(root: Step, scans: Mapping[str, Scan]) -> Step:
    """The tree with every scan replaced by the final one of its source, and operators told apart by their ids."""
    ids: Counter[str] = Counter()

    def complete(step: Step) -> Step:
        if isinstance(step, Scan):
            return scans[step.source]
        step = step.over(*(complete(below) for below in step.inputs))
        if isinstance(step, Operation):
            ids[step.id] += 1
            step = step.named(f"{step.id}{ids[step.id]}" if ids[step.id] > 1 else step.id)
        return step

    return complete(root)


@dataclass
class Job:
    """The names of a job while it is planned, the columns read so far and the faults found."""

    tables: Mapping[str, TableInfo]
    views: Mapping[str, str]
    bounded: Mapping[str, BoundedInfo] = field(default_factory=dict)
    functions: Mapping[str, FunctionInfo] = field(default_factory=dict)
    applies: Mapping[str, ApplyInfo] = field(default_factory=dict)
    read: dict[str, set[str]] = field(default_factory=dict)
    faults: list[SqlFault] = field(default_factory=list)
    parsed: dict[str, exp.Query] = field(default_factory=dict)
    planned: dict[tuple[str, bool, OutputMode | None], Relation] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def attempt(self, place: str, text: str, work: Callable[[], T]) -> T | None:
        """`work`'s result; a fault is noted with its line and gives None."""
        try:
            return work()
        except LocatedError as error:
            first = len(text) - len(text.lstrip())
            line = text.count("\n", 0, first) if isinstance(error, RefusedError) else error.line or 0
            self.faults.append(SqlFault(place, line, str(error)))
        except DependsOnFaultyViewError:
            pass
        except RecursionError:
            self.faults.append(SqlFault(place, 0, "the query is nested too deeply; divide it into views"))
        return None

    def stop_if_faulty(self) -> None:
        if self.faults:
            raise PlanFaults(self.faults)

    def query(self, name: str, sink: SinkQuery) -> Query:
        node, late = parse_query(sink.query), sink.late
        relation = Names(self, late, sink.mode).plan(node)
        if not late and _reads_twice(relation.step):  # one row may be refused in two places, and counts once
            relation, late = Names(self, True, sink.mode).plan(node), True
        for step in relation.step.walk():
            if isinstance(step, Table):
                raise RefusedError(f"{step.name} is a bounded table; a query reads a source and joins the table to it")
        return modes.finish(name, replace(sink, late=late), relation)

    def view(self, name: str, origin: bool, mode: OutputMode | None) -> Relation:
        if name in self.open:
            cycle = " -> ".join([*self.open[self.open.index(name) :], name])
            raise CircleError(f"views read each other in a circle: {cycle}; one of them must read a source", line=0)
        key = (name, origin, mode)
        if key not in self.planned:
            self.open.append(name)
            try:
                self.planned[key] = self._planned(name, Names(self, origin, mode))
            finally:
                self.open.pop()
        return self.planned[key]

    def _planned(self, name: str, env: Names) -> Relation:
        if name not in self.applies:
            return env.plan(self.parsed_view(name))
        info = self.applies[name]
        return applied(env, name, info, env.relation(exp.Table(this=exp.to_identifier(info.input))))

    def parsed_view(self, name: str) -> exp.Query:
        if name not in self.parsed:
            self.parsed[name] = parse_query(self.views[name])
        return self.parsed[name]

    def table(self, name: str) -> Relation:
        """A source as a relation; what is read of it is noted."""
        info = self.tables[name]
        event = info.watermark.column if info.watermark else None
        read = self.read.setdefault(name, {event} if event else set())

        def body(hidden: Sequence[str]) -> str:
            origin = {"_source": text_literal(name)}
            return f"(SELECT *{''.join(f', {origin.get(h, h)} AS {hidden_name(h)}' for h in hidden)} FROM input)" if hidden else "input"

        time = {event: Time()}
        columns = tuple(Column(f.name, f.type, time.get(f.name)) for f in info.schema)
        extras = tuple(Column(f.name, _extra_type(f), time.get(f.name)) for f in info.extra)
        return Relation(columns, Scan(name, pa.schema([])), body, name, extras, read.add, (name,), event is not None)

    def bounded_table(self, name: str) -> Relation:
        info = self.bounded[name]
        columns = tuple(Column(f.name, f.type) for f in info.schema)
        read = self.read.setdefault(name, set())
        return Relation(columns, Table(name, info.schema, info.versioned), lambda _: quote(f"table:{name}"), name, mark=read.add)

    def table_schema(self, name: str) -> pa.Schema:
        """Columns of a bounded table that something reads, in their order; the first if only its rows are counted."""
        declared = self.bounded[name].schema
        return pa.schema([f for f in declared if f.name in self.read[name]] or [declared.field(0)])

    def scan_schema(self, name: str) -> pa.Schema:
        """Declared columns that something reads, in their order, then the extra ones; `_shard` if nothing is."""
        info = self.tables[name]
        watermark = {info.watermark.column} if info.watermark else set()
        read = self.read.get(name, set()) | watermark
        extra = [pa.field(f.name, _extra_type(f)) for f in info.extra if f.name in read]
        columns = [*(pa.field(f.name, f.type) for f in info.schema if f.name in read), *extra]
        return pa.schema(columns or [pa.field("_shard", pa.string())])


def _reads_twice(root: Step) -> bool:
    sources = [step.source for step in root.walk() if isinstance(step, Scan)]
    return len(set(sources)) < len(sources)


def _extra_type(column: pa.Field) -> pa.DataType:
    return pa.string() if column.name == "_offset" else column.type


@dataclass
class Names:
    """What one query sees: CTEs before it, then views and sources. Names are matched without case."""

    job: Job
    origin: bool
    mode: OutputMode | None
    ctes: dict[str, Relation] = field(default_factory=dict)
    queries: dict[str, exp.Query] = field(default_factory=dict)

    @property
    def functions(self) -> Mapping[str, FunctionInfo]:
        return self.job.functions

    def plan(self, node: exp.Expr) -> Relation:
        """Relation of a SELECT, a UNION ALL, or either in parentheses."""
        inner = self._with_ctes(node)
        if isinstance(node, exp.Subquery):
            return inner.plan(node.this)
        if isinstance(node, exp.SetOperation):
            return union(self, node, inner.plan(node.left), inner.plan(node.right))
        if not isinstance(node, exp.Select):
            raise RefusedError("only SELECT and UNION ALL can stand here")
        draft = Draft(node, inner)
        for rule in RULES:
            rule(draft)
        assert draft.result is not None
        return draft.result

    def _with_ctes(self, node: exp.Expr) -> Names:
        clause = node.args.get("with_")
        if clause is None:
            return self
        if clause.args.get("recursive"):
            raise RefusedError("WITH RECURSIVE is not supported on a stream")
        inner = replace(self, ctes=dict(self.ctes), queries=dict(self.queries))
        for cte in clause.expressions:
            inner.ctes[cte.alias.lower()] = _renamed(_untailed(inner.plan(cte.this)), cte)
            inner.queries[cte.alias.lower()] = cte.this
        return inner

    def relation(self, node: exp.Expr) -> Relation:
        return _renamed(self._relation(node), node)

    def _relation(self, node: exp.Expr) -> Relation:
        if isinstance(node, exp.Subquery):
            return _untailed(self.plan(node.this)).named(node.alias)
        if is_dedup(node):
            return drop_duplicates(self, node).named(node.alias or node.this.expressions[0].name)
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise RefusedError(_not_a_table(node))
        return self._named(node).named(node.alias or node.name)

    def definition(self, node: exp.Expr) -> exp.Query | None:
        """The query of a view, or of WITH, that is named alone."""
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            return None
        if node.name.lower() in self.ctes:
            return self.queries[node.name.lower()]
        view = next((known for known in self.job.views if known.lower() == node.name.lower()), None)
        return None if view is None else self.job.parsed_view(view)

    def delay_us(self, sources: Sequence[str]) -> int:
        watermarks = (self.job.tables[source].watermark for source in sources)
        return max((watermark.delay_us for watermark in watermarks if watermark), default=0)

    def read_origin(self, sources: Sequence[str], columns: Sequence[str]) -> None:
        for source in sources:
            self.job.read[source].update(columns)

    def _named(self, node: exp.Table) -> Relation:
        name = node.name.lower()
        if node.catalog or node.db.lower() not in ("", "default"):
            written = ".".join(part.name for part in node.parts)
            raise LocatedError(f"there is no source or view {written!r}: their names have one part", node)
        if name in self.ctes and not node.db:
            return self.ctes[name]
        for known in (*self.job.views, *self.job.applies):
            if known.lower() == name:
                return _untailed(self._view(known))
        for known in self.job.tables:
            if known.lower() == name:
                return self.job.table(known)
        for known in self.job.bounded:
            if known.lower() == name:
                return self.job.bounded_table(known)
        known_names = [*self.ctes, *self.job.views, *self.job.tables, *self.job.bounded]
        hint = nearest(node.name, known_names) or f"; there are {', '.join(known_names)}"
        raise LocatedError(f"there is no source or view {node.name!r}{hint}", node)

    def _view(self, name: str) -> Relation:
        """A fault inside the view is reported there."""
        try:
            return self.job.view(name, self.origin, self.mode)
        except LocatedError as error:
            if isinstance(error, CircleError) and self.job.open:
                raise
            raise DependsOnFaultyViewError from error


def _untailed(relation: Relation) -> Relation:
    if relation.tail is not None:
        raise RefusedError("ORDER BY and LIMIT can stand only in a sink's own query")
    return relation


def _renamed(relation: Relation, node: exp.Expr) -> Relation:
    """`t AS x (a, b)`: its columns under new names."""
    alias = node.args.get("alias")
    if not isinstance(alias, exp.TableAlias) or not alias.args.get("columns"):
        return relation
    names = [name.name for name in alias.args["columns"]]
    if len(names) != len(relation.columns):
        raise LocatedError(f"{len(names)} names are given to {len(relation.columns)} columns of {alias.name!r}; name all of them", node)
    new = {c.name: name for c, name in zip(relation.columns, names, strict=True)}
    columns = tuple(replace(c, name=new[c.name], ref=c.ref or c.name) for c in relation.columns)
    return replace(relation, columns=columns, key=relation.key and tuple(new[name] for name in relation.key))


def _not_a_table(node: exp.Expr) -> str:
    name = node.this.name.lower() if isinstance(node, exp.Table) and isinstance(node.this, exp.Anonymous) else ""
    if name:
        return f"table function {name}() is not supported; read a source or a view"
    if isinstance(node, exp.Values):
        return "VALUES cannot stand here; write the rows into a file and read it as a table of `tables:`, or write CASE"
    return "FROM takes a source, a view or a subquery"
