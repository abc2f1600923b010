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
        extra = [pa.field(name, kind) for name, (kind, _) in _COLUMNS.items() if name in self.columns]
        return pa.schema([("_offset", pa.int64()), ("_value", pa.binary()), *extra])

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


def unpack(part: Fetched, how: Unpacking) -> Iterator[Unpacked]:
    """The rows from `part.start` on, in pieces of bounded size; the last piece's `next` is `part.next`.

    ValueError, or aiokafka's KafkaError, if a batch is corrupt. Control batches give no rows.
    """
    data, aborted, piece = memoryview(part.data), AbortedProducers(part.aborted), _Piece(part.start, how)
    for header in headers(data):
        batch = _batch(data, header)
        hidden = how.committed and aborted.hides(batch)
        if not (hidden or batch.is_control_batch):
            piece.add(batch, header)
        if piece.full and header.next < part.next:
            yield piece.take(header.next)
            piece = _Piece(part.start, how)
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
    offer no other way, and reading values only costs 0.16 µs a record (tests/benchmarks/bench_kafka_fetch.py).
    """

    def __init__(self, start: int, how: Unpacking) -> None:
        self._start = start
        self._how = how
        self._extra = [name for name in _COLUMNS if name in how.columns]
        self._ranges: list[list[int]] = []
        self._values: list[bytes | None] = []
        self._arrays: dict[str, list[pa.Array]] = {name: [] for name in ("_value", *self._extra)}
        self._nbytes = 0
        self._rows = 0

    def add(self, batch: Any, header: BatchHeader) -> None:
        if header.dense and not self._extra:
            self._values.extend(map(_VALUE, batch))
            self._add_range(batch.base_offset, header.next)
        else:
            self._add_records(list(batch), header)
        if len(self._values) >= ARRAY_ROWS:
            self._flush()

    @property
    def full(self) -> bool:
        return self._rows >= PIECE_ROWS or self._nbytes >= PIECE_BYTES

    def take(self, next_: int) -> Unpacked:
        """The rows so far, without those before the start and without tombstones unless they are rows."""
        self._flush()
        schema = self._how.schema
        offsets = _concat([pa.arange(first, stop) for first, stop in self._ranges], pa.int64())
        columns = [_concat(self._arrays[field.name], field.type) for field in list(schema)[1:]]
        rows = pa.RecordBatch.from_arrays([offsets, *columns], schema=schema)
        if self._ranges and self._ranges[0][0] < self._start:
            rows = rows.filter(pc.greater_equal(offsets, self._start))
        if not self._how.tombstones and rows["_value"].null_count:
            rows = rows.filter(rows["_value"].is_valid())
        return Unpacked(rows, next_)

    def _add_records(self, records: list[Any], header: BatchHeader) -> None:
        self._values.extend(map(_VALUE, records))
        for name in self._extra:
            self._arrays[name].append(pa.array(_COLUMNS[name][1](records), _WIRE[name]).cast(_COLUMNS[name][0]))
        if header.dense:
            self._add_range(header.next - len(records), header.next)
        else:
            for record in records:  # compacted: offsets have gaps
                self._add_range(record.offset, record.offset + 1)

    def _add_range(self, first: int, stop: int) -> None:
        if self._ranges and self._ranges[-1][1] == first:
            self._ranges[-1][1] = stop
        else:
            self._ranges.append([first, stop])

    def _flush(self) -> None:
        if self._values:
            array = pa.array(self._values, pa.binary())
            self._arrays["_value"].append(array)
            self._nbytes += array.nbytes
            self._rows += len(array)
            self._values = []


def _concat(arrays: list[pa.Array], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(arrays) if arrays else pa.array([], kind)


def _timestamps(records: list[Any]) -> list[int | None]:
    return [None if record.timestamp is None or record.timestamp < 0 else record.timestamp for record in records]


def _keys(records: list[Any]) -> list[bytes | None]:
    return [record.key for record in records]


def _headers(records: list[Any]) -> list[list[tuple[str, bytes | None]]]:
    return [record.headers for record in records]


_COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "_timestamp": (TIMESTAMP, _timestamps),
    "_key": (pa.binary(), _keys),
    "_headers": (HEADERS, _headers),
}
_WIRE = {"_timestamp": pa.timestamp("ms", tz="UTC"), "_key": pa.binary(), "_headers": HEADERS}
"""Types as the broker has them: its timestamps are milliseconds."""
