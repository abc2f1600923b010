"""Arrow rows to the bytes of a file: Parquet, JSON (an object a line) or CSV (with a header).

JSON: NULL is written as null, timestamps as `2026-01-01T00:00:00Z` (with six digits of fraction if there is any; without `Z`
for TIMESTAMP_NTZ), BINARY as base64, DECIMAL as a number with all its digits, NaN and infinities as Spark's strings. CSV: the same texts,
NULL is empty and an empty string `""`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa

FileFormat = Literal["parquet", "json", "csv"]
Compression = Literal["snappy", "gzip", "zstd", "none"]
ROW_GROUP_ROWS = 250_000
ROW_GROUP_BYTES = 64 * 2**20
TEXT_ROWS = 50_000
_ENDINGS: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst", "none": "", "snappy": ""}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is written; `snappy` is Parquet's alone."""

    format: FileFormat
    compression: Compression

    @property
    def extension(self) -> str:
        """`parquet`, `json`, `csv.gz`, …: what readers tell the format by."""
        return self.format if self.format == "parquet" else f"{self.format}{_ENDINGS[self.compression]}"

    def refuses(self, schema: pa.Schema) -> str | None:
        """Why rows of this schema cannot be written so, or None."""
        for field in schema:
            if pa.types.is_interval(field.type) or pa.types.is_duration(field.type):
                return f"column {field.name} is an INTERVAL, which no file format holds; write it as a number of seconds"
            if self.format == "csv" and pa.types.is_nested(field.type):
                return f"column {field.name} is nested, which CSV cannot hold; select its fields or use json or parquet"
        return None

    def write(self, file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch], metadata: dict[str, str]) -> None:
        """Write all rows, holding one row group (Parquet) or 50,000 rows at a time. `metadata` goes into a Parquet footer.

        Blocking; the same rows give the same bytes, however they are cut into batches (as long as a row group is below 64 MB).
        """
        if self.format == "parquet":
            self._write_parquet(file, schema, batches, metadata)
        else:
            write = _write_json if self.format == "json" else _write_csv
            with _compressed(file, self.compression) as stream:
                write(stream, schema, _tables(schema, batches, TEXT_ROWS))

    def _write_parquet(self, file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch], metadata: dict[str, str]) -> None:
        import pyarrow.parquet as pq

        schema = schema.with_metadata({**(schema.metadata or {}), **{key.encode(): text.encode() for key, text in metadata.items()}})
        with pq.ParquetWriter(file, schema, compression=self.compression) as writer:
            for table in _tables(schema, batches, ROW_GROUP_ROWS):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                del table  # or two row groups are held


def _tables(schema: pa.Schema, batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each, less where they are wide."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            head, batch = batch.slice(0, rows - count), batch.slice(rows - count)
            held.append(head)
            count += head.num_rows
            if count == rows or sum(part.nbytes for part in held) > ROW_GROUP_BYTES:
                yield pa.Table.from_batches(held).cast(schema)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held).cast(schema)


class _Kept(io.RawIOBase):
    """A file that stays open when Arrow's stream over it is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)


def _compressed(file: BinaryIO, compression: Compression) -> Any:
    stream = pa.PythonFile(_Kept(file), mode="w")
    return stream if compression == "none" else pa.CompressedOutputStream(stream, compression)


def _write_json(stream: Any, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    fields = ", ".join(f"{_literal(field.name)}: {_json_value(_name(field.name), field.type)}" for field in schema)
    query = f"SELECT to_json({{{fields}}})::VARCHAR || chr(10) AS line FROM rows"
    for lines in _texts(query, tables):
        for chunk in lines.column(0).chunks:
            stream.write(_bytes_of(chunk))


def _write_csv(stream: Any, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    from pyarrow import csv

    columns = ", ".join(f"{_csv_value(_name(field.name), field.type)} AS {_name(field.name)}" for field in schema)
    header = pa.schema([pa.field(name, pa.string()) for name in schema.names]).empty_table()
    csv.write_csv(header, stream)
    for texts in _texts(f"SELECT {columns} FROM rows", tables):
        csv.write_csv(texts, stream, csv.WriteOptions(include_header=False))


@functools.cache
def _database() -> Any:
    """One for all: to open one takes longer than to write a small file. One thread: rows keep their order."""
    import duckdb

    return duckdb.connect(config={"threads": 1})


def _texts(query: str, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    with closing(_database().cursor()) as database:
        for table in tables:
            database.register("rows", table)
            yield database.sql(query).to_arrow_table()
            database.unregister("rows")


def _bytes_of(strings: pa.Array) -> pa.Buffer:
    """The text of a string array, one after another: its data buffer, without a copy."""
    offsets, data = strings.cast(pa.large_string()).buffers()[1:]
    bounds = memoryview(offsets).cast("q")
    return data.slice(bounds[strings.offset], bounds[strings.offset + len(strings)] - bounds[strings.offset])


def _json_value(value: str, kind: pa.DataType) -> str:
    """SQL of a value as to_json shall see it."""
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{_literal(f.name)}: {_json_value(f'{value}.{_name(f.name)}', f.type)}" for f in kind)
        return f"CASE WHEN {value} IS NULL THEN NULL ELSE {{{fields}}} END"
    if pa.types.is_map(kind):
        entry = f"{{'k': entry.key, 'v': {_json_value('entry.value', kind.item_type)}}}"
        return f"map_from_entries(list_transform(map_entries({value}), lambda entry: {entry}))"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list_transform({value}, lambda item: {_json_value('item', kind.value_type)})"
    if pa.types.is_decimal(kind):
        return f"{value}::DECIMAL(38, {kind.scale})"  # narrow ones lose their zeros; as JSON inside JSON it would become a DOUBLE
    if pa.types.is_floating(kind):
        odd = f"CASE WHEN isnan({value}) THEN 'NaN' WHEN {value} > 0 THEN 'Infinity' ELSE '-Infinity' END"
        return f"CASE WHEN isfinite({value}) THEN {_json_float(value, kind)} WHEN {value} IS NOT NULL THEN to_json({odd}) END"
    return _csv_value(value, kind)


def _json_float(value: str, kind: pa.DataType) -> str:
    """A FLOAT by its shortest digits: as a DOUBLE it would show the digits of its error."""
    return f"to_json({value})" if pa.types.is_float64(kind) else f"{value}::VARCHAR::JSON"


def _csv_value(value: str, kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        instant, zone = f"make_timestamp(epoch_us({value}))", "Z" if kind.tz else ""
        whole, exact = (f"strftime({instant}, '%Y-%m-%dT%H:%M:%S{fraction}{zone}')" for fraction in ("", ".%f"))
        return f"CASE WHEN epoch_us({value}) % 1000000 = 0 THEN {whole} ELSE {exact} END"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return f"base64({value})"
    return value


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
