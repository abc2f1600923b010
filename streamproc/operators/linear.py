"""Grouped aggregate over changes, kept as sums of weighted values (plan/linear.py). A group is there while it has rows; the state of
one that has none leaves when its runs are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from streamproc.operators.aggregate import AggregateOperator
from streamproc.operators.duck import Duck, nested
from streamproc.operators.operator import Epoch, Finished, Input
from streamproc.operators.states import combine_sql, is_nonzero_sql
from streamproc.plan.linear import WeightedSums
from streamproc.plan.plan import WEIGHT, LinearAggregate, Query
from streamproc.plan.types import quote
from streamproc.state.runs import Run, split_final


class LinearOperator(AggregateOperator):
    """One `LinearAggregate` step of a query."""

    row_count = f"CAST(sum({quote(WEIGHT)}){{}} AS BIGINT)"

    def __init__(self, step: LinearAggregate, query: Query, duck: Duck) -> None:
        sums, self._values = WeightedSums.of(step.states)
        super().__init__(replace(step, states=sums), query, duck)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        done = super().finish(epoch, inputs, state)
        return replace(done, state=[run for run in done.state if run.length])  # what came and went leaves nothing

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Groups that have rows and are not final at the watermark."""
        tables = [run.table for run in split_final(state, self._behind(watermark_us))[1]]
        return int(duck.query(self._combine_sql, input=pa.concat_tables(tables)).num_rows) if tables else 0

    def _combine(self) -> str:
        """One run may have what only an older one lacks, so a group leaves when all its sums are 0."""
        if self._step.global_group:
            return super()._combine()
        some = " OR ".join(is_nonzero_sql(state) for state in self._step.states)
        return f"{self._placed(f'{self._grouped(combine_sql)} HAVING {some}')} ORDER BY _we NULLS LAST, _h"

    def _results(self) -> str:
        sums = ", ".join(state.name for state in self._step.states)
        there = "" if self._step.global_group else " WHERE w0 > 0"
        return nested(super()._results(), f"SELECT * EXCLUDE ({sums}){self._values and f', {self._values}'} FROM input{there}")
