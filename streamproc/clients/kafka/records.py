"""Record batches of a fetch response → Arrow.

aiokafka's C parsers check, decompress and walk the batches; what is kept of a record is only what was asked for.
Formats: kafka.apache.org/documentation, "Message Format" (magic 2) and "Old Message Format" (magic 0 and 1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import HEADERS, TIMESTAMP

ARRAY_ROWS = 1024
"""Values become an Arrow array this often: their bytes objects are then reused while they are in the CPU's cache (2 x)."""
SLICE_ROWS = 8192
PIECE_ROWS = 65_536
PIECE_BYTES = 8 << 20
_HEADER = struct.Struct(">qiibIhi")  # base offset, length, leader epoch, magic, CRC, attributes, last offset delta
_COUNT = struct.Struct(">i")
_COUNT_AT = 57
_BATCH_OVERHEAD = 61  # what a batch has before its records
_CHECKED_AT = 21  # the checksum is of all from the attributes on
_LOG_OVERHEAD = 12  # base offset and length
_VALUE = attrgetter("value")

_CRC32C: Callable[[pa.Buffer], int] | None
try:
    import google_crc32c

    _CRC32C = google_crc32c.value if google_crc32c.implementation == "c" else None
except ImportError:
    _CRC32C = None
"""The processor's own CRC, 0.01 µs a record; without it aiokafka's table takes 0.12."""


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What a batch, bytes `at` to `stop`, says of itself before it is decompressed. Old formats never say that they are dense."""

    at: int
    stop: int
    next: int
    dense: bool = False
    old: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """One partition's part of a fetch response, still bytes: whole batches that hold offsets from `start` up to `next`
    (exclusive). `end` is where the broker said the readable rows end; `aborted` are (producer id, first offset).
    `turn` is the read (counted by the reader) during which it was asked for.
    """

    data: bytes | memoryview
    start: int
    next: int
    end: int
    aborted: tuple[tuple[int, int], ...] = ()
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Rows of consecutive offsets below `next`; some offsets may have no row."""

    rows: pa.RecordBatch
    next: int


@dataclass(frozen=True, slots=True)
class Unpacking:
    """What to make of records: the extra columns, whether null values are rows, whether aborted rows are left out."""

    columns: frozenset[str]
    tombstones: bool = False
    committed: bool = True

    @property
    def schema(self) -> pa.Schema:
        wanted = {"_value", *self.columns}
        return pa.schema([("_offset", pa.int64()), *((name, kind) for name, (kind, _) in _COLUMNS.items() if name in wanted)])

    def empty(self) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([], self.schema)


def headers(data: bytes | memoryview) -> Iterator[BatchHeader]:
    """Headers of the whole batches in `data`; a batch that was cut off at the end is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        base, length, _, magic, _, _, last_delta = _HEADER.unpack_from(data, at)
        stop = at + _LOG_OVERHEAD + max(length, 0)  # a negative length is corrupt: no endless loop
        if stop > len(data):
            return
        if magic < 2:
            yield BatchHeader(at, stop, base + 1, old=True)
        else:
            count = _COUNT.unpack_from(data, at + _COUNT_AT)[0]
            yield BatchHeader(at, stop, base + last_delta + 1, count == last_delta + 1)
        at = stop


def next_offset(data: bytes | memoryview, start: int) -> int:
    """The offset to fetch after `data`; `start` if it holds no whole batch."""
    return max((header.next for header in headers(data)), default=start)


def unpack(part: Fetched, how: Unpacking) -> Iterator[Unpacked | None]:
    """The rows from `part.start` on, in pieces of bounded size; the last piece's `next` is `part.next`. None comes
    between, every few milliseconds of work, for an event loop to look after others.

    If a batch is corrupt: ValueError, or whatever aiokafka's C parsers raise then (KafkaError, SystemError, MemoryError, …).
    Control batches give no rows.
    """
    data, aborted, piece, begun = memoryview(part.data), AbortedProducers(part.aborted), _Piece(part.start, how), 0
    for header in headers(data):
        batch = _batch(data, header)
        hidden = how.committed and aborted.hides(batch)
        if not (hidden or batch.is_control_batch):
            begun += piece.add(batch, header)
        if piece.full and header.next < part.next:
            yield piece.take(header.next)
            piece, begun = _Piece(part.start, how), 0
        elif begun >= SLICE_ROWS:
            yield None
            begun = 0
    yield piece.take(part.next)


def _batch(data: memoryview, header: BatchHeader) -> Any:
    """The parser of a batch, whose checksum is right."""
    from aiokafka.record.default_records import DefaultRecordBatch
    from aiokafka.record.memory_records import MemoryRecords

    batch = data[header.at : header.stop]
    if not header.old and len(batch) < _BATCH_OVERHEAD:  # aiokafka would read past it
        raise ValueError(f"the batch that ends at offset {header.next - 1} is cut off")
    parser = MemoryRecords(bytes(batch)).next_batch() if header.old else DefaultRecordBatch(batch)
    if not (parser.validate_crc() if _CRC32C is None or header.old else _CRC32C(pa.py_buffer(batch[_CHECKED_AT:])) == parser.crc):
        raise ValueError(f"the batch that ends at offset {header.next - 1} has a wrong checksum")
    return parser


class AbortedProducers:
    """Which batches of one fetch response belong to aborted transactions (read_committed).

    A producer's batches are hidden from the first offset of its aborted transaction up to its abort marker.
    """

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._ahead = sorted(aborted, key=lambda pair: pair[1], reverse=True)
        self._producers: set[int] = set()

    def hides(self, batch: Any) -> bool:
        if batch.producer_id is None:  # old formats know no transactions
            return False
        while self._ahead and self._ahead[-1][1] <= batch.base_offset:
            self._producers.add(self._ahead.pop()[0])
        if batch.is_control_batch and _is_abort(batch):
            self._producers.discard(batch.producer_id)
        return bool(batch.is_transactional) and batch.producer_id in self._producers

    def __repr__(self) -> str:
        return f"<AbortedProducers {sorted(self._producers)}, {len(self._ahead)} ahead>"


def _is_abort(batch: Any) -> bool:
    from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

    return any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch)


class _Piece:
    """Collects batches into one `Unpacked`. A C object a record lives while it is read off the batch: the parsers
    offer no other way, and it costs 0.08 µs a record; values in Arrow then cost 0.19 µs (0.05 more for another column).
    """

    def __init__(self, start: int, how: Unpacking) -> None:
        self._start = start
        self._how = how
        self._names = how.schema.names[1:]
        self._offsets: list[pa.Array] = []
        self._lists: list[list[Any]] = [[] for _ in self._names]
        self._arrays: list[list[pa.Array]] = [[] for _ in self._names]
        self._nbytes = 0
        self._rows = 0

    def add(self, batch: Any, header: BatchHeader) -> int:
        """The number of rows added."""
        before = len(self._lists[0])
        if header.dense and len(self._names) == 1:
            self._lists[0].extend(map(_VALUE, batch))
        else:
            self._add_columns(batch, header)
        count = len(self._lists[0]) - before
        self._rows += count
        if header.dense:
            self._offsets.append(pa.arange(header.next - count, header.next))
        if len(self._lists[0]) >= ARRAY_ROWS:
            self._flush()
        return count

    @property
    def full(self) -> bool:
        return self._rows >= PIECE_ROWS or self._nbytes >= PIECE_BYTES

    def take(self, next_: int) -> Unpacked:
        """The rows so far, without those before the start and without tombstones unless they are rows."""
        self._flush()
        schema = self._how.schema
        columns = [_concat(arrays, kind) for arrays, kind in zip([self._offsets, *self._arrays], schema.types, strict=True)]
        rows = pa.RecordBatch.from_arrays(columns, schema=schema)
        if len(rows) and rows["_offset"][0].as_py() < self._start:
            rows = rows.filter(pc.greater_equal(rows["_offset"], self._start))
        if not self._how.tombstones and rows["_value"].null_count:
            rows = rows.filter(rows["_value"].is_valid())
        return Unpacked(rows, next_)

    def _add_columns(self, batch: Any, header: BatchHeader) -> None:
        """All asked for in one pass; offsets too of a batch with gaps (compacted)."""
        of_record = attrgetter("offset", *(name.removeprefix("_") for name in self._names))
        offsets, *columns = tuple(zip(*map(of_record, batch), strict=True)) or [()] * (1 + len(self._names))
        for values, column in zip(self._lists, columns, strict=True):
            values.extend(column)
        if not header.dense:
            self._offsets.append(pa.array(offsets, pa.int64()))

    def _flush(self) -> None:
        for name, values, arrays in zip(self._names, self._lists, self._arrays, strict=True):
            array = _COLUMNS[name][1](values)
            arrays.append(array)
            self._nbytes += array.nbytes
            values.clear()


def _concat(arrays: list[pa.Array], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(arrays) if arrays else pa.array([], kind)


def _binary(values: list[bytes | None]) -> pa.Array:
    return pa.array(values, pa.binary())


def _headers(values: list[list[tuple[str, bytes | None]]]) -> pa.Array:
    return pa.array(values, HEADERS)


def _timestamps(values: list[int | None]) -> pa.Array:
    """The broker's are milliseconds; below zero means none."""
    times = pa.array(values, pa.int64())
    return pc.if_else(pc.less(times, 0), None, times).cast(pa.timestamp("ms", tz="UTC")).cast(TIMESTAMP)


_COLUMNS: dict[str, tuple[pa.DataType, Callable[[list[Any]], pa.Array]]] = {
    "_value": (pa.binary(), _binary),
    "_timestamp": (TIMESTAMP, _timestamps),
    "_key": (pa.binary(), _binary),
    "_headers": (HEADERS, _headers),
}
