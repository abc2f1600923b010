"""`LIMIT n` in append: the first n rows of the job's life."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.operators.duck import Duck
from streamproc.operators.operator import Epoch, Finished, Input, Operator
from streamproc.plan.plan import Limit, Query
from streamproc.state.runs import Run


class LimitOperator(Operator):
    """One `Limit` step of a query. It keeps no runs: what is left is a number of the commit."""

    def __init__(self, step: Limit, query: Query, duck: Duck) -> None:
        del duck
        self.id = f"{query.sink}/{step.id}"
        self._step = step

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        del state
        left = self._step.rows if epoch.limit is None else epoch.limit
        rows = pa.concat_tables([fed.part for fed in inputs[0]]).slice(0, left).cast(self._step.schema)
        return Finished(rows, limit=left - rows.num_rows)

    def __repr__(self) -> str:
        return f"<LimitOperator {self.id} {self._step.rows}>"
