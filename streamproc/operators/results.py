"""Results that fail: an expression over a group's aggregates that raises costs that group's row of the epoch, not its state."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck
from streamproc.operators.operator import Failure
from streamproc.operators.python_calls import Statement

TRIES_MAX = 4096
"""Runs that the halving may take: seconds."""


def surviving(duck: Duck, sql: Statement, rows: pa.Table, source: str, keys: Sequence[str]) -> tuple[pa.Table, list[Failure]]:
    """`sql` (row by row) over the rows that do not fail in it, and those that do, named by their `keys`.

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
                failures.append(Failure(source, str(part.select(list(keys)).to_pylist()[0]), str(error)))
                results.append(duck.query(sql, input=part.slice(0, 0)))
            else:
                waiting += [part.slice(size // 2), part.slice(0, size // 2)]
    return pa.concat_tables(results), failures
