"""A query as stages: from a source's slices up, each stage is stateless SQL and at most one operator on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.operators.aggregate import AggregateOperator
from streamproc.operators.duck import ALL_ROWS, Duck, empty_input, nested
from streamproc.operators.limit import LimitOperator
from streamproc.operators.operator import Epoch, EpochTime, Failure, Finished, Operator, Output
from streamproc.operators.order import OrderOperator
from streamproc.operators.results import surviving
from streamproc.plan.plan import Aggregate, Limit, Project, Query, Scan, Step
from streamproc.sink import Change
from streamproc.state.runs import Run

CHANGES: Mapping[str, Change] = {"append": "append", "update": "upsert", "complete": "replace"}


@dataclass(frozen=True)
class Stage:
    """`sql` is the statement over slices of the stage's input; without an operator its rows are the result. `rows` are
    the steps of it that are row by row, each a SELECT over the one before.
    """

    sql: str
    rows: tuple[str, ...]
    schema: pa.Schema
    operator: Operator | None


@dataclass(frozen=True)
class Pipeline:
    """A query's stages from the bottom up. The lowest reads `source`, the others what the one below wrote."""

    query: Query
    source: str
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, query: Query, duck: Duck) -> Pipeline:
        """Bug: SQL of the query does not bind, or yields other columns than the plan says."""
        source, stages = _stages(query.root, query, duck)
        return cls(query, source, tuple(stages))

    @property
    def operators(self) -> list[Operator]:
        return [stage.operator for stage in self.stages if stage.operator]

    def finish(
        self, duck: Duck, time: EpochTime, slices: Sequence[pa.Table], parts: Sequence[pa.Table],
        state: Mapping[str, Sequence[Run]], limits: Mapping[str, int], slice_rows: int, merge_bytes_max: int,
    ) -> tuple[Output, dict[str, Finished]]:  # fmt: skip
        """The query's output and each operator's, from what the lowest stage's statement gave for every slice."""
        finished: dict[str, Finished] = {}
        failures: list[Failure] = []
        rows = pa.table({})
        for stage in self.stages:
            if stage is not self.stages[0]:
                slices = cut(rows, slice_rows)
                done = [surviving(duck, stage.sql, part, self.source, part.column_names) for part in slices]
                parts = [part for part, _ in done]
                failures += [failure for _, failed in done for failure in failed]
            if stage.operator is None:
                rows = pa.concat_tables(parts).cast(stage.schema)
                continue
            name = stage.operator.id
            epoch = Epoch(duck, self.source, time, slices, limits.get(name), merge_bytes_max)
            finished[name] = stage.operator.finish(epoch, parts, state.get(name, ()))
            rows = finished[name].rows
            failures += finished[name].failures
        late = [done.late for done in finished.values() if done.late is not None]
        count = sum(done.late_rows for done in finished.values())
        output = Output(rows, CHANGES[self.query.mode], pa.concat_tables(late) if late else None, count, failures)
        return output, finished


def cut(table: pa.Table, rows: int) -> list[pa.Table]:
    """Slices of a fixed number of rows; one empty slice for an empty table."""
    return [table.slice(start, rows) for start in range(0, max(table.num_rows, 1), rows)]


def _stages(step: Step, query: Query, duck: Duck) -> tuple[str, list[Stage]]:
    projects: list[str] = []
    top = step
    while isinstance(step, Project):
        projects.insert(0, step.sql)
        step = step.input
    if isinstance(step, Scan):
        sql = nested(ALL_ROWS, *projects)
        _check(sql, step.schema, top.schema, query, duck)
        return step.source, [Stage(sql, tuple(projects), top.schema, None)]
    source, stages = _stages(step.input, query, duck)
    below = stages.pop() if stages[-1].operator is None else Stage(ALL_ROWS, (), step.input.schema, None)
    operator = _operator(step, query, below.sql, duck)
    stages.append(Stage(operator.slice_sql(), (*below.rows, *operator.row_steps()), step.schema, operator))
    if projects:
        _check(nested(*projects), step.schema, top.schema, query, duck)
        stages.append(Stage(nested(*projects), tuple(projects), top.schema, None))
    return source, stages


def _check(sql: str, schema: pa.Schema, expected: pa.Schema, query: Query, duck: Duck) -> None:
    yields = duck.query(sql, input=empty_input(schema)).schema
    if len(schema) and yields.names != expected.names:
        raise Bug(f"sink {query.sink}: a statement yields columns {yields.names}, the plan says {expected.names}")


def _operator(step: Step, query: Query, rows_sql: str, duck: Duck) -> Operator:
    if isinstance(step, Aggregate):
        return AggregateOperator(step, query, rows_sql, duck)
    if isinstance(step, Limit):
        return LimitOperator(step, query, rows_sql)
    assert not isinstance(step, Scan | Project)
    return OrderOperator(step, query, rows_sql)
