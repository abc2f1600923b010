"""What has changed between two results."""

from __future__ import annotations

import pyarrow as pa

from streamproc.plan.plan import WEIGHT
from streamproc.plan.types import is_orderable, quote


def difference_sql(schema: pa.Schema) -> str:
    """Rows of the table `after` with weight 1 and of `before` with -1, both of `schema`; nothing where they are equal. In the
    order of the rows, what went before what came.
    """
    weight = quote(WEIGHT)
    names = ", ".join(quote(name) for name in schema.names)
    both = f"SELECT {names}, 1 AS {weight} FROM after UNION ALL SELECT {names}, -1 AS {weight} FROM before"
    order = [f"{quote(field.name)} NULLS FIRST" for field in schema if is_orderable(field.type)]
    folded = f"SELECT {names}, sum({weight})::BIGINT AS {weight} FROM ({both}) GROUP BY ALL HAVING sum({weight}) <> 0"
    return f"{folded} ORDER BY {', '.join([*order, weight])}"
