"""Hive's layout of partitions: `day=2026-01-01/country=DE/…`, escaped as Hive and Spark do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

NULL = "__HIVE_DEFAULT_PARTITION__"
"""Folder of NULL and of the empty string."""
_ESCAPED = re.compile(r"""[\x00-\x1f"#%'*/:=?\\\x7f{\[\]^]""")
_LONGEST_BYTES = 255


def refuses(schema: pa.Schema, columns: Sequence[str]) -> str | None:
    """Why rows of this schema cannot be laid out by these columns, or None."""
    for name in columns:
        if name not in schema.names:
            return f"partition_by names {name}, which is not a column of the query; its columns are {', '.join(schema.names)}"
        kind = schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return f"partition_by: column {name} has no text to name a folder by; use a string, number, boolean, date or timestamp"
    if len(set(columns)) == len(schema.names):
        return "partition_by names every column, so that files would have none"
    return None


def partitions(table: pa.Table, columns: Sequence[str]) -> list[tuple[str, pa.Table]]:
    """Folder (`a=1/b=x`) and rows of each partition without its columns, in folder order; rows keep their order.

    ValueError if a folder's name would be longer than file systems allow (255 bytes).
    """
    folders, rank = [""], pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
    for name in columns:
        inner, inner_rank = _ranked(table.column(name), name)
        folders = [f"{outer}/{folder}".lstrip("/") for outer in folders for folder in inner]
        rank = pc.add(pc.multiply(rank, len(inner)), inner_rank)
        folders, rank = _only_used(folders, rank)
    order = pc.sort_indices(rank)  # stable
    rows = table.drop_columns(list(columns)).take(order)
    runs = pc.run_end_encode(rank.take(order))
    ends = runs.run_ends.to_pylist()
    starts = [0, *ends][:-1]
    return [(folders[at], rows.slice(start, end - start)) for at, start, end in zip(runs.values.to_pylist(), starts, ends, strict=True)]


def _ranked(column: pa.ChunkedArray, name: str) -> tuple[list[str], pa.Array]:
    """The folders of one column in order, and each row's place among them. Python touches distinct values only."""
    encoded = pc.dictionary_encode(_one(column), null_encoding="encode")
    texts = [f"{_escape(name)}={_folder(value)}" for value in encoded.dictionary.to_pylist()]
    too_long = next((text for text in texts if len(text.encode()) > _LONGEST_BYTES), None)
    if too_long is not None:
        raise ValueError(f"partition_by: the folder {too_long[:60]}… is longer than {_LONGEST_BYTES} bytes")
    folders = sorted(set(texts))
    places = {folder: place for place, folder in enumerate(folders)}
    return folders, pa.array([places[text] for text in texts], pa.int64()).take(encoded.indices)


def _only_used(folders: list[str], rank: pa.Array) -> tuple[list[str], pa.Array]:
    """The folders that have rows, still in order, so that several columns do not multiply."""
    used = pc.unique(rank).sort()
    return [folders[at] for at in used.to_pylist()], pc.index_in(rank, used).cast(pa.int64())


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return pa.concat_arrays(chunks.chunks) if isinstance(chunks, pa.ChunkedArray) else chunks


def _folder(value: object) -> str:
    text = _text(value)
    return _escape(text) if text else NULL


def _text(value: object) -> str:
    """A value as Spark casts it to a string (times in UTC)."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            fraction = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
            return f"{value:%Y-%m-%d %H:%M:%S}{fraction}"
        case Decimal():
            return f"{value:f}"
    return str(value)


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)
