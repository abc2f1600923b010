"""Results that fail: an expression over a group's aggregates that raises costs that group's row of the epoch, not its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck
from streamproc.operators.operator import Failure
from streamproc.operators.python_calls import Statement

TRIES_MAX = 4096
"""Runs that the halving may take: seconds."""


def surviving(
    duck: Duck, sql: Statement, rows: pa.Table, source: str, keys: Mapping[str, str] | Sequence[str]
) -> tuple[pa.Table, list[Failure]]:
    """`sql` (row by row) over the rows that do not fail in it, and those that do, named by their `keys`: columns, maybe with
    what they are called in the query.

    BadRecord: too many fail to find them by halving.
    """
    tries = iter(range(TRIES_MAX))
    results, failures, waiting = [], list[Failure](), [rows]
    while waiting:
        part = waiting.pop()
        try:
            results.append(duck.query(sql, input=part))
            continue
        except BadRecord as error:
            size = part.num_rows
            if next(tries, None) is None or not size:
                raise BadRecord(f"{len(failures)} results or more fail: {error}") from error
            if size == 1:
                failures.append(Failure(source, _shown(part, keys), str(error)))
                results.append(duck.query(sql, input=part.slice(0, 0)))
            else:
                waiting += [part.slice(size // 2), part.slice(0, size // 2)]
    return pa.concat_tables(results), failures


def _shown(row: pa.Table, keys: Mapping[str, str] | Sequence[str]) -> str:
    labels = keys if isinstance(keys, Mapping) else dict(zip(keys, keys, strict=True))
    values = {labels[name]: row.column(name) for name in labels if name in row.column_names}
    moment = labels.get("_ws")
    shown = {label: (column.cast(TIMESTAMP) if label == moment else column)[0].as_py() for label, column in values.items()}
    return str({label: value.isoformat() if isinstance(value, date) else value for label, value in shown.items()})
