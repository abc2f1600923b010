"""Avro payloads (binary encoding): the schema that they were written with is resolved to the declared columns, by name.

All records of a batch are read side by side (see cursors.py): 0.3 µs a record of 8 fields, where fastavro, which makes a
dict of each, takes ten times that. Long arrays are the worst case: their items are read one of each record at a time.

A field that the writer has not is NULL, one that is not declared is passed over. Unions are taken branch by branch: a
record is bad only where its own branch does not fit. Enums are STRING, uuid is STRING, records STRUCT, timestamps TIMESTAMP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from streamproc.formats.avro_schema import AvroType
from streamproc.formats.cursors import Cursors, Ints, grouped, over, placed
from streamproc.formats.decoder import table_of
from streamproc.formats.fit import fitting
from streamproc.formats.moment import MomentFormat
from streamproc.formats.scalar import Misfit
from streamproc.schema import ddl_type

MALFORMED = "malformed_avro"
_DEPTH = 100
Read = Callable[[Cursors, Ints], pa.Array]
Skip = Callable[[Cursors, Ints], None]


@dataclass(frozen=True)
class AvroReader:
    """Reads records of `writer` as `schema`. `moments` say how columns write their times, by name."""

    schema: pa.Schema
    writer: AvroType
    moments: Mapping[str, MomentFormat]
    _read: Read = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.writer.kind != "record":
            raise ValueError(f"the Avro schema is a {self.writer}; a payload should be a record")
        kind = pa.struct(list(self.schema))
        object.__setattr__(self, "_read", _record_reader(self.writer, kind, "", lambda name: self.moments.get(name, MomentFormat())))

    def read(self, values: pa.BinaryArray, skip: int = 0) -> tuple[pa.Table, Mapping[int, Misfit]]:
        """A row for each payload (none NULL) without its first `skip` bytes, and why some are bad, by place; the rows of
        those hold nothing of worth.
        """
        cursors = over(values, MALFORMED, skip)
        rows = np.arange(len(values))
        found = self._read(cursors, rows)
        left = cursors.good(rows)
        left = left[cursors.at[left] != cursors.end[left]]
        cursors.refuse(left, MALFORMED, "bytes are left behind the record")
        return table_of(found.flatten(), self.schema, len(values)), cursors.payloads.bad


Moments = Callable[[str], MomentFormat]


def _reader(writer: AvroType, kind: pa.DataType, path: str, moment: MomentFormat) -> Read:
    """Reads one value of `writer` as `kind`."""
    if writer.kind == "union":
        return _union_reader(writer, kind, path, moment)
    if writer.kind == "null":
        return lambda _cursors, rows: pa.nulls(len(rows), kind)
    if writer.kind == "record" and pa.types.is_struct(kind):
        return _record_reader(writer, kind, f"{path}.", lambda _name: moment)
    if writer.kind == "array" and pa.types.is_list(kind):
        return _array_reader(_reader(writer.parts[0], kind.value_type, f"{path}.element", moment), kind)
    if writer.kind == "map" and pa.types.is_map(kind) and pa.types.is_string(kind.key_type):
        return _map_reader(_reader(writer.parts[0], kind.item_type, f"{path}.value", moment), kind, path)
    natural = _natural(writer, path)
    fit = fitting(natural[0], kind, moment) if natural else None
    if natural is None or fit is None:
        return _misfit_reader(writer, kind, path)
    read, fits = natural[1], fit
    return lambda cursors, rows: cursors.fitted(rows, read(cursors, rows), fits, kind, path)


def _misfit_reader(writer: AvroType, kind: pa.DataType, path: str) -> Read:
    skip = _skipper(writer)
    text = f"column {path!r}: expected {ddl_type(kind)}, found Avro's {writer}"

    def read(cursors: Cursors, rows: Ints) -> pa.Array:
        skip(cursors, rows)
        cursors.refuse(cursors.good(rows), "wrong_type", text)
        return pa.nulls(len(rows), kind)

    return read


def _record_reader(writer: AvroType, kind: pa.StructType, prefix: str, moments: Moments) -> Read:
    steps: list[Read | Skip] = []
    for name, part in zip(writer.names, writer.parts, strict=True):
        at = kind.get_field_index(name)
        steps.append(_reader(part, kind.field(at).type, prefix + name, moments(name)) if at >= 0 else _skipper(part))
    names = set(writer.names)

    def read(cursors: Cursors, rows: Ints) -> pa.Array:
        found = {name: step(cursors, rows) for name, step in zip(writer.names, steps, strict=True)}
        columns = [found[f.name] if f.name in names else pa.nulls(len(rows), f.type) for f in kind]
        if not columns:
            return pa.array([{}] * len(rows), kind)
        return pa.StructArray.from_arrays(columns, fields=[f.with_nullable(True) for f in kind])

    return read


def _union_reader(writer: AvroType, kind: pa.DataType, path: str, moment: MomentFormat) -> Read:
    readers = [None if branch.kind == "null" else _reader(branch, kind, path, moment) for branch in writer.parts]

    def read(cursors: Cursors, rows: Ints) -> pa.Array:
        branch = _branch(cursors, rows, len(readers))
        parts, places = [], []
        for i, reader in enumerate(readers):
            at = np.flatnonzero(branch == i) if reader else None
            if reader and at is not None and at.size:
                parts.append(reader(cursors, rows[at]))
                places.append(at)
        return placed(parts, places, len(rows), kind)

    return read


def _branch(cursors: Cursors, rows: Ints, count: int) -> Ints:
    """Which branch each union has, or symbol each enum; -1 where that record is bad."""
    branch = cursors.zigzag(rows)
    wrong = (branch < 0) | (branch >= count)
    if wrong.any():
        cursors.refuse(rows[wrong], MALFORMED, lambda i: f"there is no branch or symbol {branch[wrong][i]}, only {count}")
    return np.where(wrong | cursors.payloads.is_bad[cursors.record[rows]], -1, branch)


def _blocks(cursors: Cursors, rows: Ints, item: Callable[[Ints], None]) -> None:
    """Calls `item` with the places (in `rows`) of arrays or maps that have one more item."""
    live = np.arange(len(rows))
    while live.size:
        count = cursors.zigzag(rows[live])
        sized = np.flatnonzero(count < 0)
        cursors.zigzag(rows[live[sized]])  # the block's bytes, for those who skip it
        count[sized] = -count[sized]
        at = rows[live]
        wrong = (count < 0) | (count > np.maximum(cursors.end[at] - cursors.at[at], 0))  # items of no bytes would never end
        cursors.refuse(at[wrong], MALFORMED, "an array has more items than its record has bytes")
        more = (count > 0) & ~wrong
        live = left_live = live[more]
        left = count[more]
        while left_live.size:
            item(left_live)
            left = left - 1
            more = (left > 0) & ~cursors.payloads.is_bad[cursors.record[rows[left_live]]]
            left_live, left = left_live[more], left[more]


def _array_reader(item: Read, kind: pa.ListType) -> Read:
    def read(cursors: Cursors, rows: Ints) -> pa.Array:
        parts: list[pa.Array] = []
        owners: list[Ints] = []

        def one(places: Ints) -> None:
            parts.append(item(cursors, rows[places]))
            owners.append(places)

        _blocks(cursors, rows, one)
        return pa.ListArray.from_arrays(*grouped(parts, owners, len(rows), kind.value_type), type=kind)

    return read


def _map_reader(item: Read, kind: pa.MapType, path: str) -> Read:
    def read(cursors: Cursors, rows: Ints) -> pa.Array:
        keys: list[pa.Array] = []
        items: list[pa.Array] = []
        owners: list[Ints] = []

        def one(places: Ints) -> None:
            keys.append(cursors.text(rows[places], _bytes(cursors, rows[places]), path))
            items.append(item(cursors, rows[places]))
            owners.append(places)

        _blocks(cursors, rows, one)
        offsets, ordered = grouped(keys, owners, len(rows), kind.key_type)
        ordered = ordered.fill_null("")  # of bad records
        return pa.MapArray.from_arrays(offsets, ordered, grouped(items, owners, len(rows), kind.item_type)[1], kind)

    return read


def _bytes(cursors: Cursors, rows: Ints) -> pa.Array:
    return cursors.bytes_of(*cursors.span(rows, cursors.zigzag(rows)))


# ---- values of Avro's types as Arrow has them

_TIMES = {"timestamp-millis": 1000, "timestamp-micros": 1, "timestamp-nanos": 0}


def _natural(writer: AvroType, path: str) -> tuple[pa.DataType, Read] | None:
    """The Arrow type of a scalar and what reads it; None for types that are no scalar."""
    kind, logical = writer.kind, writer.logical
    if logical == "decimal" and kind in ("bytes", "fixed"):
        found = pa.decimal128(38, writer.scale)
        return found, lambda cursors, rows: _decimals(cursors, rows, _lengths(writer, cursors, rows), found)
    if kind == "fixed":
        if logical == "uuid" and writer.size == 16:
            return pa.string(), lambda cursors, rows: _uuids(cursors.bytes_of(*cursors.span(rows, _lengths(writer, cursors, rows))))
        return pa.binary(), lambda cursors, rows: cursors.bytes_of(*cursors.span(rows, _lengths(writer, cursors, rows)))
    if kind == "enum":
        symbols = pa.array(writer.names, pa.string())
        return pa.string(), lambda cursors, rows: symbols.take(_index(_branch(cursors, rows, len(writer.names))))
    if kind in ("int", "long"):
        return _integers(writer)
    if kind == "string":
        return pa.string(), lambda cursors, rows: cursors.text(rows, _bytes(cursors, rows), path)
    return _PLAIN.get(kind)


def _integers(writer: AvroType) -> tuple[pa.DataType, Read]:
    logical = writer.logical.removeprefix("local-")
    if logical == "date" and writer.kind == "int":
        return pa.date32(), lambda cursors, rows: pa.array(cursors.zigzag(rows)).cast(pa.int32(), safe=False).cast(pa.date32())
    if logical in _TIMES and writer.kind == "long":
        kind = pa.timestamp("us", None if writer.logical != logical else "UTC")
        return kind, lambda cursors, rows: _times(cursors.zigzag(rows), _TIMES[logical]).cast(kind)
    return pa.int64(), lambda cursors, rows: pa.array(cursors.zigzag(rows))


def _times(found: Ints, unit_us: int) -> pa.Array:
    """Microseconds; what overflows is put where it is refused as a time."""
    if not unit_us:
        return pa.array(found // 1000)  # towards the past, as finer fractions are cut elsewhere
    limit = np.iinfo(np.int64).max // unit_us
    return pa.array(np.clip(found, -limit, limit) * unit_us)


_PLAIN: dict[str, tuple[pa.DataType, Read]] = {
    "boolean": (pa.bool_(), lambda cursors, rows: pa.array(cursors.fixed(rows, np.uint8) != 0)),
    "float": (pa.float32(), lambda cursors, rows: pa.array(cursors.fixed(rows, np.float32))),
    "double": (pa.float64(), lambda cursors, rows: pa.array(cursors.fixed(rows, np.float64))),
    "bytes": (pa.binary(), _bytes),
}


def _index(branch: Ints) -> pa.Array:
    return pa.array(branch, mask=branch < 0)


def _lengths(writer: AvroType, cursors: Cursors, rows: Ints) -> Ints:
    return np.full(len(rows), writer.size) if writer.kind == "fixed" else cursors.zigzag(rows)


def _decimals(cursors: Cursors, rows: Ints, lengths: Ints, kind: pa.DataType) -> pa.Array:
    """Big-endian two's complement of up to 16 bytes."""
    starts, lengths = cursors.span(rows, lengths)
    wide = lengths > 16
    cursors.refuse(rows[wide], "out_of_range", "a decimal has more than 16 bytes")
    lengths = np.where(wide, 0, lengths)
    places = np.arange(16)  # of the bytes from the low end
    inside = places < lengths[:, None]
    found = cursors.payloads.data[np.where(inside, (starts + lengths - 1)[:, None] - places, 0)]
    sign = np.where((lengths > 0) & (cursors.payloads.data[starts] >= 0x80), 0xFF, 0).astype(np.uint8)
    little = np.where(inside, found, sign[:, None]).astype(np.uint8)
    return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(np.ascontiguousarray(little))])


def _uuids(found: pa.Array) -> pa.Array:
    """16 bytes as text; DuckDB and Arrow have no kernel for it, so hexadecimal by numpy."""
    data = np.frombuffer(found.buffers()[2] or b"", np.uint8)
    if len(data) != 16 * len(found):  # parked rows have no bytes; their records are bad
        data = np.zeros(16 * len(found), np.uint8)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.full((len(found), 36), ord("-"), np.uint8)
    places = [i for i in range(36) if i not in (8, 13, 18, 23)]
    text[:, places] = digits[np.stack([data >> 4, data & 15], axis=1).reshape(len(found), 32)]
    offsets = np.arange(0, 36 * len(found) + 1, 36, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(found), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


# ---- passing over what nobody reads


def _skipper(writer: AvroType) -> Skip:
    def skip(cursors: Cursors, rows: Ints) -> None:
        _skip(writer, cursors, rows, 0)

    return skip


def _skip(writer: AvroType, cursors: Cursors, rows: Ints, depth: int) -> None:
    rows = cursors.good(rows)
    if not rows.size:
        return
    if depth > _DEPTH:
        cursors.refuse(rows, "too_deep", f"nested in more than {_DEPTH} levels")
    elif writer.kind == "record":
        for part in writer.parts:
            _skip(part, cursors, rows, depth + 1)
    elif writer.kind == "union":
        branch = _branch(cursors, rows, len(writer.parts))
        for i, part in enumerate(writer.parts):
            _skip(part, cursors, rows[branch == i], depth + 1)
    elif writer.kind in ("array", "map"):
        _blocks(cursors, rows, lambda places: _skip_item(writer, cursors, rows[places], depth))
    else:
        _skip_scalar(writer, cursors, rows)


def _skip_item(writer: AvroType, cursors: Cursors, rows: Ints, depth: int) -> None:
    if writer.kind == "map":
        cursors.span(rows, cursors.zigzag(rows))
    _skip(writer.parts[0], cursors, rows, depth + 1)


_FIXED = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def _skip_scalar(writer: AvroType, cursors: Cursors, rows: Ints) -> None:
    if writer.kind in ("int", "long"):
        cursors.varint(rows)
    elif writer.kind == "enum":
        _branch(cursors, rows, len(writer.names))
    elif writer.kind in ("bytes", "string"):
        cursors.span(rows, cursors.zigzag(rows))
    else:
        cursors.span(rows, np.full(len(rows), writer.size or _FIXED.get(writer.kind, 0)))
