"""Runs a plan, epoch by epoch: Arrow in, Arrow out, state as runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial

import pyarrow as pa

from streamproc.operators.duck import EMPTY, Duck, DuckPool
from streamproc.operators.operator import EpochOutput, EpochTime, Finished, Output, Poison
from streamproc.operators.pipeline import Pipeline, Slices, Work
from streamproc.operators.poison import SliceResult, Statements, run_slice, slices_of
from streamproc.operators.python_calls import NO_FUNCTIONS, NO_STATEFUL, Called, Evaluated, Function, Functions, Statement, calls_in
from streamproc.plan.plan import Apply, Plan
from streamproc.state.runs import Run
from streamproc.stateful import StatefulFunction


class Executor:
    """All queries of a plan over one read of the sources.

    Slices of `slice_rows` rows run side by side in `threads` threads; the number of threads changes no result, the
    number of rows in a slice may (the last bits of sums of doubles), so it is fixed for the life of a checkpoint.
    An epoch merges about `merge_bytes_max` bytes of each query's runs at most.
    ValueError: the plan holds an aggregate that is not allowed. Bug: SQL of the plan does not bind.
    """

    def __init__(
        self, plan: Plan, functions: Mapping[str, Function] = NO_FUNCTIONS, stateful: Mapping[str, StatefulFunction] = NO_STATEFUL, *,
        threads: int = 2, slice_rows: int = 131_072, merge_bytes_max: int = 16 << 20,
    ) -> None:  # fmt: skip
        self._plan, self._slice_rows, self._merge_bytes_max = plan, slice_rows, merge_bytes_max
        python = Functions(functions, stateful)
        self._duck = Duck(plan.time_zone, python)
        self._duck_lock = threading.Lock()
        self._duck.at(0, {name: schema.empty_table() for name, schema in plan.tables.items()})
        self._pool = DuckPool(threads, plan.time_zone, python)
        self._pipelines = [Pipeline.of(query, self._duck) for query in plan.queries.values()]
        self._operators = {operator.id: operator for pipeline in self._pipelines for operator in pipeline.operators}
        # one read of a slice serves all queries of its source; equal statements run once
        leaves = [leaf for pipeline in self._pipelines for leaf in pipeline.leaves]
        lowest = {source: {leaf.sql: leaf.steps for leaf in leaves if leaf.source == source} for source in plan.scans}
        self._statements = {source: Statements(list(stages), list(stages.values())) for source, stages in lowest.items()}

        self._kept = {source: list(_kept(statements)) for source, statements in self._statements.items()}

    @property
    def keeps_answers(self) -> bool:
        """Whether something is called whose results must be kept with the epoch."""
        applied = (step for query in self._plan.queries.values() for step in query.root.walk() if isinstance(step, Apply))
        return any(self._kept.values()) or any(not step.deterministic for step in applied)

    @property
    def state_schemas(self) -> Mapping[str, pa.Schema]:
        """Columns of the runs of every operator that keeps some, by operator id."""
        return {name: operator.state_schema for name, operator in self._operators.items() if operator.state_schema is not None}

    async def run(
        self, inputs: Mapping[str, pa.Table], time: EpochTime, state: Mapping[str, Sequence[Run]], *,
        limits: Mapping[str, int], poison: Sequence[Poison] = (), first_only: Set[str] = frozenset(),
        tables: Mapping[str, pa.Table] = EMPTY, answers: Mapping[str, pa.Table] = EMPTY,
    ) -> EpochOutput:  # fmt: skip
        """One epoch. `inputs` has a table of the scan's schema for every source, rows in (shard, offset) order;
        `tables` the epoch's version of every bounded table of the plan; `answers` those of the epoch's first run, if any;
        rows in `poison` are left out, rows that fail now are left out and returned as the output's `poison`.
        A failing row of a source in `first_only` ends the epoch: the output has nothing but such rows, each source's
        first one first.

        BadRecord: a group's result failed, rows fail only together, or too many fail in SQL that cannot be probed.
        """
        sliced = await asyncio.gather(
            *(self._slices(source, inputs[source], time, tables, answers, poison, source in first_only) for source in self._plan.scans)
        )
        found = [row for results in sliced for result in results for row in result.poison]
        if ending := [row for row in found if row.source in first_only]:
            return EpochOutput({}, {}, {}, ending)
        slices = {source: self._by_statement(source, results) for source, results in zip(self._plan.scans, sliced, strict=True)}
        done = await asyncio.gather(*(self._finish(pipeline, slices, time, tables, state, limits, answers) for pipeline in self._pipelines))
        finished = {name: one for _, operators in done for name, one in operators.items()}
        output = self._output([output for output, _ in done], finished, found)
        called = self._answers(dict(zip(self._plan.scans, sliced, strict=True)))
        return replace(output, answers=called | {name: table for done in finished.values() for name, table in done.answers.items()})

    def state_rows(self, sink: str, state: Mapping[str, Sequence[Run]], watermark_us: int | None) -> int:
        """Open groups, buffered rows and kept keys of the sink's operators. Counted anew at every call."""
        with self._duck_lock:
            operators = (self._operators[name] for name in state if name.startswith(f"{sink}/"))
            return sum(operator.state_rows(self._duck, state[operator.id], watermark_us) for operator in operators)

    def timer_us(self, state: Mapping[str, Sequence[Run]]) -> int | None:
        """The smallest watermark at which something that waits becomes final and is written; None if nothing waits."""
        timers = (self._operators[name].timer_us(runs) for name, runs in state.items())
        return min((timer for timer in timers if timer is not None), default=None)

    def wake_us(self, state: Mapping[str, Sequence[Run]]) -> int | None:
        """The smallest `now` at which a timer of a stateful function is due; None if there is none."""
        timers = (self._operators[name].wake_us(runs) for name, runs in state.items())
        return min((timer for timer in timers if timer is not None), default=None)

    async def close(self) -> None:
        await self._pool.close()
        self._duck.close()

    async def _slices(
        self, source: str, table: pa.Table, time: EpochTime, tables: Mapping[str, pa.Table], answers: Mapping[str, pa.Table],
        poison: Sequence[Poison], first_only: bool,
    ) -> list[SliceResult]:  # fmt: skip
        statements = replace(self._statements[source], first_only=first_only)
        parts = slices_of(source, table, self._slice_rows, poison)
        known = [self._known(source, answers, at) for at in range(len(parts))]
        runs = [partial(run_slice, part=part, statements=statements, answers=known[at]) for at, part in enumerate(parts)]
        return await asyncio.gather(*(self._pool.run(run, time.now_us, tables, time.watermark_start_us, time.floors) for run in runs))

    def _known(self, source: str, answers: Mapping[str, pa.Table], part: int) -> dict[Called, pa.Table]:
        names = {called: _answer(source, at, part) for at, called in enumerate(self._kept[source])}
        return {called: answers[name] for called, name in names.items() if name in answers}

    def _answers(self, sliced: Mapping[str, Sequence[SliceResult]]) -> dict[str, pa.Table]:
        return {
            _answer(source, at, part): result.memo.answers[called]
            for source, results in sliced.items()
            for part, result in enumerate(results)
            for at, called in enumerate(self._kept[source])
        }

    def _by_statement(self, source: str, results: Sequence[SliceResult]) -> Slices:
        """What the statements made of a source's slices."""
        statements = list(enumerate(self._statements[source].sql))
        return {sql: [(_before(sql, result), result.results[at]) for result in results] for at, sql in statements}

    async def _finish(
        self, pipeline: Pipeline, slices: Mapping[str, Slices], time: EpochTime, tables: Mapping[str, pa.Table],
        state: Mapping[str, Sequence[Run]], limits: Mapping[str, int], answers: Mapping[str, pa.Table],
    ) -> tuple[Output, dict[str, Finished]]:  # fmt: skip
        def finish(duck: Duck) -> tuple[Output, dict[str, Finished]]:
            work = Work(duck, time, slices, state, limits, self._slice_rows, self._merge_bytes_max, answers)
            return pipeline.finish(work), work.finished

        return await self._pool.run(finish, time.now_us, tables, time.watermark_start_us, time.floors)

    def _output(self, outputs: Iterable[Output], finished: Mapping[str, Finished], poison: Sequence[Poison]) -> EpochOutput:
        sinks = dict(zip((pipeline.query.sink for pipeline in self._pipelines), outputs, strict=True))
        state = {name: list(finished[name].state) for name in self.state_schemas}
        limits = {name: done.limit for name, done in finished.items() if done.limit is not None}
        return EpochOutput(sinks, state, limits, poison, self.timer_us(state))

    def __repr__(self) -> str:
        return f"<Executor {len(self._pipelines)} queries, {self._pool!r}>"


def _kept(statements: Statements) -> Iterator[Called]:
    """Calls whose results are kept with the epoch, each once, in an order that the job's text decides."""
    yield from dict.fromkeys(called for sql in statements.sql for called in calls_in(sql) if called.kept)


def _before(sql: Statement, result: SliceResult) -> pa.Table:
    return result.memo.rows[sql.called] if isinstance(sql, Evaluated) else result.rows.table


def _answer(source: str, call: int, part: int) -> str:
    return f"{source}/{call}/{part}"
