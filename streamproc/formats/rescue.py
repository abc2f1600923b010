"""The column `_rescued` of typed formats: what a record has beside the declared columns, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from streamproc.formats.binary import RecordReader, Records
from streamproc.formats.decoder import table_of
from streamproc.formats.json_sql import RESCUED


@dataclass(frozen=True)
class RescuingReader:
    """Reads `schema`, whose column `_rescued` is made of the struct that `inner` reads in its place."""

    schema: pa.Schema
    inner: RecordReader

    @classmethod
    def around(
        cls, schema: pa.Schema, declared: pa.Schema, fields: pa.Schema, reader_of: Callable[[pa.Schema], RecordReader]
    ) -> RecordReader:
        """A reader of `schema` out of records that have `fields`; plain where `_rescued` is not among the columns."""
        if RESCUED not in schema.names:
            return reader_of(schema)
        known = set(declared.names)
        others = [f for f in fields if f.name not in known]
        columns = [f for f in schema if f.name != RESCUED]
        return cls(schema, reader_of(pa.schema([*columns, *(f.with_name(f.name) for f in others)])))

    def read(self, values: pa.BinaryArray, skip: int = 0) -> Records:
        """As `inner`, and the fields that are not NULL and not declared as one JSON object, NULL where there is none."""
        table, bad = self.inner.read(values, skip)
        others = [name for name in table.column_names if name not in self.schema.names]
        rescued = _json(table.select(others)) if others else pa.nulls(table.num_rows, pa.string())
        columns = [rescued if name == RESCUED else table.column(name) for name in self.schema.names]
        return table_of(columns, pa.schema([f.with_nullable(True) for f in self.schema]), table.num_rows), bad


def _json(others: pa.Table) -> pa.Array:
    """A JSON object a row, without what is NULL (a merge with nothing leaves that out, RFC 7396)."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("others", others)
        text = "json_merge_patch('{}', to_json(others))::VARCHAR"
        found = connection.sql(f"SELECT CASE WHEN {text} <> '{{}}' THEN {text} END AS j FROM others").to_arrow_table()
    return found.column("j").combine_chunks().cast(pa.string())
