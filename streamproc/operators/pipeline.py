"""A query as a tree of nodes: at most one operator each, with the stateless SQL that lies between it and what feeds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.operators.aggregate import AggregateOperator
from streamproc.operators.apply import ApplyOperator
from streamproc.operators.batch import BatchOperator
from streamproc.operators.dedup import DedupOperator
from streamproc.operators.duck import ALL_ROWS, Duck, empty_input, nested
from streamproc.operators.join import JoinOperator
from streamproc.operators.late import source_rows
from streamproc.operators.limit import LimitOperator
from streamproc.operators.linear import LinearOperator
from streamproc.operators.maintain import MaintainOperator
from streamproc.operators.operator import Epoch, EpochTime, Failure, Fed, Finished, Operator, Output
from streamproc.operators.python_calls import Called, Evaluated, Statement
from streamproc.operators.release import ReleaseOperator
from streamproc.operators.results import surviving
from streamproc.operators.session import SessionOperator
from streamproc.operators.written import with_ops
from streamproc.plan.plan import (
    Aggregate,
    Apply,
    Batch,
    Dedup,
    Evaluate,
    Join,
    Limit,
    LinearAggregate,
    Maintain,
    Project,
    Query,
    Release,
    Scan,
    SessionAggregate,
    Step,
    Union,
)
from streamproc.sink import Change
from streamproc.state.runs import Run

CHANGES: Mapping[str, Change] = {"append": "append", "update": "upsert", "complete": "replace"}
OPERATORS: Mapping[type[Step], Callable[[Any, Query, Duck], Operator]] = {
    Aggregate: AggregateOperator,
    SessionAggregate: SessionOperator,
    LinearAggregate: LinearOperator,
    Apply: ApplyOperator,
    Dedup: DedupOperator,
    Release: ReleaseOperator,
    Join: JoinOperator,
    Limit: LimitOperator,
    Batch: BatchOperator,
    Maintain: MaintainOperator,
}


@dataclass(frozen=True)
class Feed:
    """One way on which rows come to a node: from a source or from the node `below`. `sql` is run over its slices and ends
    with the operator's own statement; `rows_sql` is the part of it before that (after its last call of a function).
    `steps`: what of `sql` is row by row, where it calls none.
    """

    source: str
    below: Node | None
    sql: Statement
    rows_sql: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """`ports`: the feeds of every input of the operator; without an operator the rows of all are the result."""

    ports: tuple[tuple[Feed, ...], ...]
    schema: pa.Schema
    operator: Operator | None

    def walk(self) -> Iterator[Node]:
        """Every node of the tree, those that feed others first."""
        for feed in (feed for port in self.ports for feed in port):
            if feed.below:
                yield from feed.below.walk()
        yield self


Slices = Mapping[Statement, Sequence[tuple[pa.Table, pa.Table]]]
"""By statement over a source, for each slice: the rows before its SQL (after its last call of a function), and what it made of them."""


@dataclass(frozen=True)
class Work:
    """One run of a pipeline. `slices` by source."""

    duck: Duck
    time: EpochTime
    slices: Mapping[str, Slices]
    state: Mapping[str, Sequence[Run]]
    limits: Mapping[str, int]
    slice_rows: int
    merge_bytes_max: int
    answers: Mapping[str, pa.Table]
    finished: dict[str, Finished] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Pipeline:
    """A query's tree of nodes. `source`: one of its sources, which is blamed for results that fail."""

    query: Query
    source: str
    root: Node

    @classmethod
    def of(cls, query: Query, duck: Duck) -> Pipeline:
        """Bug: SQL of the query does not bind, or yields other columns than the plan says."""
        source = next(step.source for step in query.root.walk() if isinstance(step, Scan))
        return cls(query, source, _node(query.root, query, duck))

    @property
    def operators(self) -> list[Operator]:
        return [node.operator for node in self.root.walk() if node.operator]

    @property
    def leaves(self) -> list[Feed]:
        """The feeds that read a source."""
        return [feed for node in self.root.walk() for port in node.ports for feed in port if feed.below is None]

    def finish(self, work: Work) -> Output:
        """The query's output; what each operator did is in `work.finished`."""
        rows = self._rows(self.root, work)
        late = [done.late for done in work.finished.values() if done.late is not None]
        count = source_rows(late) + sum(done.late_rows for done in work.finished.values() if done.late is None)
        change = CHANGES[self.query.mode]
        refused = pa.concat_tables(late, promote_options="default") if late else None
        if self.query.root.changes:
            return Output(with_ops(work.duck, rows, self.query.key), change, refused, count, work.failures, has_ops=True)
        return Output(rows, change, refused, count, work.failures)

    def _rows(self, node: Node, work: Work) -> pa.Table:
        """What a node writes in the epoch."""
        inputs = [[fed for feed in port for fed in self._fed(feed, work)] for port in node.ports]
        if node.operator is None:
            return pa.concat_tables([fed.part.cast(node.schema) for port in inputs for fed in port])
        name = node.operator.id
        epoch = Epoch(work.duck, self.source, work.time, work.limits.get(name), work.merge_bytes_max, work.answers)
        done = node.operator.finish(epoch, inputs, work.state.get(name, ()))
        work.finished[name] = done
        work.failures.extend(done.failures)
        return done.rows

    def _fed(self, feed: Feed, work: Work) -> Iterator[Fed]:
        if feed.below is None:
            yield from (Fed(part, table, feed.rows_sql) for table, part in work.slices[feed.source][feed.sql])
            return
        for table in cut(self._rows(feed.below, work), work.slice_rows):
            table, part = self._survivors(feed.sql, table, work)
            yield Fed(part, table, feed.rows_sql)

    def _survivors(self, statement: Statement, table: pa.Table, work: Work) -> tuple[pa.Table, pa.Table]:
        """What lies before the statement's SQL, and what it makes of it; failures are noted."""
        if isinstance(statement, Evaluated):
            _, table = self._survivors(statement.called.input, table, work)
            table, failed = surviving(
                work.duck, Evaluated(Called(ALL_ROWS, statement.called.step), ALL_ROWS), table, self.source, table.column_names
            )
            work.failures.extend(failed)
        sql = statement.sql if isinstance(statement, Evaluated) else statement
        part, failed = surviving(work.duck, sql, table, self.source, table.column_names)
        work.failures.extend(failed)
        return table, part

    def __repr__(self) -> str:
        return f"<Pipeline {self.query.sink}: {len(self.operators)} operators over {len(self.leaves)} inputs>"


def cut(table: pa.Table, rows: int) -> list[pa.Table]:
    """Slices of a fixed number of rows; one empty slice for an empty table."""
    return [table.slice(start, rows) for start in range(0, max(table.num_rows, 1), rows)]


def _node(step: Step, query: Query, duck: Duck) -> Node:
    """The node that writes the step's rows."""
    make = OPERATORS.get(type(step))
    if make is None:
        return Node((tuple(_feeds(step, (), None, 0, query, duck)),), step.schema, None)
    operator = make(step, query, duck)
    ports = (tuple(_feeds(below, (), operator, port, query, duck)) for port, below in enumerate(step.inputs))
    return Node(tuple(ports), step.schema, operator)


def _feeds(step: Step, above: tuple[str, ...], operator: Operator | None, port: int, query: Query, duck: Duck) -> Iterator[Feed]:
    """What yields the step's rows, with the projections `above` it, to the operator's input."""
    if isinstance(step, Project):
        _check(step, query, duck)
        yield from _feeds(step.input, (step.sql, *above), operator, port, query, duck)
    elif isinstance(step, Union):
        for branch in step.branches:
            yield from _feeds(branch, above, operator, port, query, duck)
    elif isinstance(step, Evaluate):
        last_sql = ALL_ROWS if operator is None else operator.slice_sql(port)
        for feed in _feeds(step.input, (), None, 0, query, duck):
            evaluated = Evaluated(Called(feed.sql, step), nested(ALL_ROWS, *above, last_sql))
            yield replace(feed, sql=evaluated, rows_sql=nested(ALL_ROWS, *above), steps=())
    else:
        below = None if isinstance(step, Scan) else _node(step, query, duck)
        last = (ALL_ROWS, ()) if operator is None else (operator.slice_sql(port), operator.row_steps(port))
        sql = nested(ALL_ROWS, *above, last[0])
        yield Feed(step.source if isinstance(step, Scan) else "", below, sql, nested(ALL_ROWS, *above), (*above, *last[1]))


def _check(step: Project, query: Query, duck: Duck) -> None:
    yields = duck.query(step.sql, input=empty_input(step.input.schema)).schema
    if len(step.input.schema) and yields.names != step.schema.names:
        raise Bug(f"sink {query.sink}: a statement yields columns {yields.names}, the plan says {step.schema.names}")
