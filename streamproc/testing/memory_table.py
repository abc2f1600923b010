"""A bounded table in memory: rows as a test writes them, encoded and decoded in the table's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa

from streamproc.bounded import BoundedTable, Snapshot, TableOptions
from streamproc.errors import BadRecord
from streamproc.formats import make_decoder
from streamproc.job import TableSpec
from streamproc.options import CsvOptions
from streamproc.testing.rows import Row, encoded


@dataclass(frozen=True)
class _Encoding:
    """A table's format; one without a format, and Parquet, is written as JSON."""

    format: str
    csv: CsvOptions
    timestamps: Mapping[str, str]

    @classmethod
    def of(cls, options: TableOptions) -> _Encoding:
        kind = getattr(options, "format", "json")
        return cls("csv" if kind == "csv" else "json", getattr(options, "csv", CsvOptions()), getattr(options, "timestamps", {}))


class MemoryTable(BoundedTable):
    """`rows` is asked at every read."""

    def __init__(self, spec: TableSpec, schema: pa.Schema, time_zone: str, rows: Callable[[], Sequence[Row]]) -> None:
        self._spec = spec
        self._rows = rows
        self._encoding = _Encoding.of(spec.options)
        self._decoder = make_decoder(
            self._encoding.format, schema, csv=self._encoding.csv, timestamps=self._encoding.timestamps, time_zone=time_zone,
            declared=spec.schema,
        )  # fmt: skip

    async def read(self, known: str | None = None) -> Snapshot | None:
        payloads = [encoded(row, self._encoding, self._spec.schema.names) for row in self._rows()]
        version = blake2b(json.dumps([p.decode() for p in payloads]).encode(), digest_size=8).hexdigest()
        if version == known:
            return None
        decoded = self._decoder.decode(pa.array(payloads, pa.binary()))
        if decoded.bad.num_rows:
            first = decoded.bad.slice(0, 1).to_pylist()[0]
            raise BadRecord(f"table {self._spec.name}, row {first['index'] + 1}: {first['reason']}: {first['error']}")
        return Snapshot(version, decoded.rows)

    def __repr__(self) -> str:
        return f"<MemoryTable {self._spec.name}>"
