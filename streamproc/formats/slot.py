"""A table that DuckDB reads by a name which stays registered while the table changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa


class TableSlot:
    """What a connection knows as `name`; empty except inside `holding` or after `keep`.

    Registering each table anew would make DuckDB bind a prepared statement again (2 ms) and load pyarrow.dataset.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
        self._name = name
        self._empty = self._table = schema.empty_table()
        connection.register(name, self)

    @contextmanager
    def holding(self, table: pa.Table) -> Iterator[None]:
        """Let statements read `table`. One prepared before needs the columns it was prepared with."""
        self._table = table
        try:
            yield
        finally:
            self._table = self._empty

    def keep(self, table: pa.Table) -> None:
        """Let statements read `table` from now on."""
        self._empty = self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self._table.schema.__arrow_c_schema__()

    def __repr__(self) -> str:
        return f"<TableSlot {self._name}: {self._table.num_rows} rows>"
