"""`ORDER BY … LIMIT` over a whole result (complete)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.operators.operator import Epoch, Finished, Operator
from streamproc.plan.plan import Order, Query
from streamproc.state.runs import Run


class OrderOperator(Operator):
    """One `Order` step of a query. It remembers nothing: `complete` hands it the whole result each time."""

    def __init__(self, step: Order, query: Query, rows_sql: str) -> None:
        self.id = f"{query.sink}/order"
        self._step, self._rows_sql = step, rows_sql

    def slice_sql(self) -> str:
        return self._rows_sql

    def finish(self, epoch: Epoch, parts: Sequence[pa.Table], state: Sequence[Run]) -> Finished:
        del state
        return Finished(epoch.duck.query(self._step.sql, input=pa.concat_tables(parts)).cast(self._step.schema))

    def __repr__(self) -> str:
        return f"<OrderOperator {self.id}>"
