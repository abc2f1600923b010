"""`ORDER BY … LIMIT` over a whole result (complete)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.operators.duck import Duck
from streamproc.operators.operator import Epoch, Finished, Input, Operator
from streamproc.plan.plan import Order, Query
from streamproc.state.runs import Run


class OrderOperator(Operator):
    """One `Order` step of a query. It remembers nothing: `complete` hands it the whole result each time."""

    def __init__(self, step: Order, query: Query, duck: Duck) -> None:
        del duck
        self.id = f"{query.sink}/{step.id}"
        self._step = step

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        del state
        rows = pa.concat_tables([fed.part for fed in inputs[0]])
        return Finished(epoch.duck.query(self._step.sql, input=rows).cast(self._step.schema))

    def __repr__(self) -> str:
        return f"<OrderOperator {self.id}>"
