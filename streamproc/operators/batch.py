"""Batch SQL over whole results (complete)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamproc.operators.duck import Duck, empty_input
from streamproc.operators.operator import Epoch, Finished, Input, Operator
from streamproc.operators.results import surviving
from streamproc.plan.plan import Batch, Query
from streamproc.state.runs import Run


class BatchOperator(Operator):
    """One `Batch` step of a query. It remembers nothing: `complete` hands it the whole results below each time."""

    def __init__(self, step: Batch, query: Query, duck: Duck) -> None:
        self.id = f"{query.sink}/{step.id}"
        self._step = step
        kept = [duck.query(keep, input=empty_input(below.schema)) for keep, below in zip(step.keep, step.inputs, strict=True)]
        duck.query(step.post, input=duck.query(step.sql, **tables_of(kept)))  # whatever does not bind shows now

    def slice_sql(self, port: int = 0) -> str:
        return self._step.keep[port]

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        return (self._step.keep[port],)

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        del state
        whole = tables_of([pa.concat_tables([fed.part for fed in port]) for port in inputs])
        results = epoch.duck.query(self._step.sql, **whole)
        rows, failures = surviving(epoch.duck, self._step.post, results, epoch.source, {name: name for name in results.column_names})
        return Finished(rows.cast(self._step.schema), failures=failures)

    def __repr__(self) -> str:
        return f"<BatchOperator {self.id}>"


def tables_of(tables: Sequence[pa.Table]) -> Mapping[str, pa.Table]:
    """An operator's inputs by the names that its SQL has for them."""
    return {f"input{port or ''}": table for port, table in enumerate(tables)}
