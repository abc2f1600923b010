"""Records of a whole file, in blocks: lines of text, or rows of Parquet. Blocking: meant for a thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.formats.parquet import conform

BLOCK_BYTES = 4 * 2**20
_CODECS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}

Block = tuple[pa.RecordBatch, pa.Array]
"""Columns (`_value`, or those of the schema) and each record's number in the file, from 1."""


def lines(
    file: BinaryIO, name: str, *, skip: int = 0, header: bool = False, blank: bool = False, rows_max: int = 65_536
) -> Iterator[Block]:
    """Lines after the first `skip`, without their line ends, CRLF or LF; compressed ones by the name's suffix (gzip, zstd, bz2).

    `header`: the first line is no record. Blank lines are none either unless `blank`; they count in the numbers.
    OSError or ValueError if a compressed file is broken.
    """
    stream = pa.PythonFile(file, "r")
    codec = next((codec for suffix, codec in _CODECS.items() if name.endswith(suffix)), None)
    if codec is not None:
        stream = pa.CompressedInputStream(stream, codec)
    number, first = 0, max(skip, int(header))
    for found in _split(stream):
        start = max(0, first - number)
        for at in range(start, len(found), rows_max):
            part = found.slice(at, min(rows_max, len(found) - at))
            yield _records(part, number + at, blank)
        number += len(found)


def _split(stream: pa.NativeFile) -> Iterator[pa.Array]:
    """Whole lines, a block's worth at a time; the last one needs no newline."""
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            yield pc.split_pattern(pa.array([rest + whole], pa.binary()), pattern=b"\n").values
            rest = tail
        else:
            rest += block
    if rest:
        yield pa.array([rest], pa.binary())


def _records(found: pa.Array, before: int, blank: bool) -> Block:
    ends = pc.ends_with(found, pattern=b"\r")
    if pc.any(ends).as_py():
        found = pc.if_else(ends, pc.binary_slice(found, 0, -1), found)
    numbers = pa.arange(before + 1, before + len(found) + 1)
    if not blank:
        filled = pc.greater(pc.binary_length(found), 0)
        found, numbers = found.filter(filled), numbers.filter(filled)
    return pa.RecordBatch.from_arrays([found], ["_value"]), numbers


def parquet(file: BinaryIO, schema: pa.Schema | None, *, skip: int = 0, rows_max: int = 65_536) -> Iterator[Block]:
    """Rows of a Parquet file after the first `skip`, brought to `schema` (None: as they are). ValueError if they do not fit."""
    import pyarrow.parquet as pq

    read = pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False)
    names = None if schema is None else [name for name in schema.names if name in read.schema_arrow.names]
    number = 0
    for batch in read.iter_batches(batch_size=rows_max, columns=names, use_threads=False):
        start, number = number, number + batch.num_rows
        if number > skip:
            kept = batch.slice(max(0, skip - start))
            yield _conformed(kept, schema), pa.arange(number - kept.num_rows + 1, number + 1)


def _conformed(batch: pa.RecordBatch, schema: pa.Schema | None) -> pa.RecordBatch:
    if schema is None:
        return batch
    return conform(pa.Table.from_batches([batch]), schema).combine_chunks().to_batches()[0]
