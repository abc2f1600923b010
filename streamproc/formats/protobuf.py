"""Protobuf payloads: the fields of a message to the declared columns, by name.

All records of a batch are read side by side (see cursors.py), in a third of the time that messages of upb and getattr take,
and mostly without the interpreter lock.
Source of the format: https://protobuf.dev/programming-guides/encoding/.

As in Spark's from_protobuf an absent field is NULL, also one without presence (unless `emit_default_values`), and a
proto2 default counts. Enums are STRING (their name) or a number, Timestamp is TIMESTAMP, wrappers are what they wrap where
a scalar is declared, repeated fields are ARRAY, never NULL. Groups are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from streamproc.formats.cursors import Cursors, Ints, over, placed, unzigzag
from streamproc.formats.decoder import table_of
from streamproc.formats.fit import Fit, fitting
from streamproc.formats.moment import FIRST_US, LAST_US, MomentFormat
from streamproc.formats.scalar import Misfit
from streamproc.schema import ddl_type

MALFORMED = "malformed_protobuf"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_F = FieldDescriptor
Numbers = npt.NDArray[np.generic]
_VARINTS: dict[int, Callable[[npt.NDArray[np.uint64]], Numbers]] = {
    _F.TYPE_INT32: lambda raw: raw.astype(np.uint32).view(np.int32),
    _F.TYPE_ENUM: lambda raw: raw.astype(np.uint32).view(np.int32),
    _F.TYPE_INT64: lambda raw: raw.view(np.int64),
    _F.TYPE_UINT32: lambda raw: raw.astype(np.uint32),
    _F.TYPE_UINT64: lambda raw: raw,
    _F.TYPE_SINT32: lambda raw: unzigzag(raw.astype(np.uint32).astype(np.uint64)).astype(np.int32),
    _F.TYPE_SINT64: unzigzag,
    _F.TYPE_BOOL: lambda raw: raw != 0,
}
_FIXED: dict[int, npt.DTypeLike] = {
    _F.TYPE_FIXED32: np.uint32, _F.TYPE_SFIXED32: np.int32, _F.TYPE_FLOAT: np.float32,
    _F.TYPE_FIXED64: np.uint64, _F.TYPE_SFIXED64: np.int64, _F.TYPE_DOUBLE: np.float64,
}  # fmt: skip
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value" for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_TIMESTAMP = "google.protobuf.Timestamp"


@dataclass(frozen=True)
class ProtobufReader:
    """Reads messages of `message` as `schema`. `moments` say how columns write their times, by name."""

    schema: pa.Schema
    message: Descriptor
    moments: Mapping[str, MomentFormat]
    defaults: bool = False

    @staticmethod
    def fields(message: Descriptor) -> pa.Schema:
        """A message's fields as columns; those that have no type here (recursive messages, Any) are left out."""
        found = [(part.name, _arrow_type(part, (message,))) for part in message.fields]
        return pa.schema([(name, kind) for name, kind in found if kind is not None])

    @cached_property
    def _reader(self) -> _MessageReader:
        return _message_reader(self.message, list(self.schema), "", self.defaults, lambda name: self.moments.get(name, MomentFormat()))

    def read(self, values: pa.BinaryArray, skip: int = 0) -> tuple[pa.Table, Mapping[int, Misfit]]:
        """A row for each payload (none NULL) without its first `skip` bytes, and why some are bad, by place; the rows of
        those hold nothing of worth.
        """
        cursors = over(values, MALFORMED, skip)
        columns = self._reader.read(cursors)
        return table_of(columns, self.schema, len(values)), cursors.payloads.bad


@dataclass(frozen=True, slots=True)
class _Occurrences:
    """Where a field was met: the rows (ascending in the end) with what was read: integers, or starts and lengths of data."""

    rows: list[Ints] = field(default_factory=list)
    values: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    lengths: list[Ints] = field(default_factory=list)

    def ordered(self) -> tuple[Ints, npt.NDArray[np.uint64], Ints]:
        """By row, each row's in the order in which they were met."""
        if not self.rows:
            return np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
        rows, values = np.concatenate(self.rows), np.concatenate(self.values)
        lengths = np.concatenate(self.lengths) if self.lengths else np.empty(0, np.int64)
        if len(self.rows) > 1:
            order = np.argsort(rows, kind="stable")
            rows, values, lengths = rows[order], values[order], lengths[order] if lengths.size else lengths
        return rows, values, lengths


Build = Callable[[Cursors, dict[int, _Occurrences]], pa.Array]


@dataclass(frozen=True)
class _MessageReader:
    """`tags` of all fields of a message, in order; `builds` make the columns out of the occurrences of `wanted` tags."""

    tags: tuple[int, ...]
    wanted: frozenset[int]
    builds: tuple[Build, ...]

    def read(self, cursors: Cursors) -> list[pa.Array]:
        """A column each, a value for each row."""
        found = {tag: _Occurrences() for tag in self.wanted}
        tag = np.zeros(len(cursors), np.uint64)
        left = _next(cursors, np.arange(len(cursors)), tag)
        known = np.array(self.tags, np.uint64)
        while left.size:
            # writers keep the order of the field numbers, so that one sweep over the fields reads nearly everything
            for one in self.tags:
                rows = left[tag[left] == one]
                while rows.size:
                    _take(cursors, rows, one & 7, found.get(one))
                    rows = _next(cursors, rows, tag)
                    rows = rows[tag[rows] == one]
            left = left[tag[left] != 0]
            strange = left[~np.isin(tag[left], known)]
            wires = tag[strange] & np.uint64(7)  # as they are now: the next tags may be known ones
            for wire in np.unique(wires).tolist():
                rows = strange[wires == wire]
                _take(cursors, rows, wire, None)
                _next(cursors, rows, tag)
            left = left[tag[left] != 0]
        return [build(cursors, found) for build in self.builds]


def _next(cursors: Cursors, rows: Ints, tag: npt.NDArray[np.uint64]) -> Ints:
    """Reads the next tag of each row (0 at its end); gives the rows that have one."""
    tag[rows] = 0
    more = rows[cursors.at[rows] < cursors.end[rows]]
    tag[more] = cursors.varint(more)
    wrong = more[(tag[more] < 8) | (tag[more] >= 1 << 32)]
    if wrong.size:
        cursors.refuse(wrong, MALFORMED, "a field has no number")
        tag[wrong] = 0
        more = more[tag[more] != 0]
    return more


def _take(cursors: Cursors, rows: Ints, wire: int, found: _Occurrences | None) -> None:
    """Passes over one value of each row, and notes it."""
    lengths = None
    if wire == _VARINT:
        values = cursors.varint(rows)
    elif wire == _LENGTH:
        size = cursors.varint(rows)
        starts, lengths = cursors.span(rows, np.where(size < 1 << 31, size, 1 << 31).astype(np.int64))
        values = starts.astype(np.uint64)
    elif wire in (_FIXED32, _FIXED64):
        values = cursors.fixed(rows, np.uint32 if wire == _FIXED32 else np.uint64).astype(np.uint64)
    else:
        cursors.refuse(rows, MALFORMED, "groups are not supported" if wire in (3, 4) else f"wire type {wire} does not exist")
        return
    if found is not None:
        found.rows.append(rows)
        found.values.append(values)
        if lengths is not None:
            found.lengths.append(lengths)


# ---- fields


def _wire(kind: int) -> int:
    if kind in _VARINTS:
        return _VARINT
    if kind in _FIXED:
        return _FIXED32 if np.dtype(_FIXED[kind]).itemsize == 4 else _FIXED64
    return _LENGTH


def _tags(part: FieldDescriptor) -> tuple[int, ...]:
    """How the field may be written: repeated numbers one by one or packed."""
    wire = _wire(part.type)
    one = part.number << 3 | wire
    return (one, part.number << 3 | _LENGTH) if part.is_repeated and wire != _LENGTH else (one,)


def _message_reader(
    message: Descriptor, columns: list[pa.Field], prefix: str, defaults: bool, moments: Callable[[str], MomentFormat]
) -> _MessageReader:
    parts = {part.name: part for part in message.fields}
    every = sorted(tag for part in parts.values() for tag in _tags(part))
    read = [parts.get(column.name) for column in columns]
    builds = [
        _field_build(part, column.type, prefix + column.name, defaults, moments(column.name)) if part else _absent(column.type)
        for part, column in zip(read, columns, strict=True)
    ]
    return _MessageReader(tuple(every), frozenset(tag for part in read if part for tag in _tags(part)), tuple(builds))


def _absent(kind: pa.DataType) -> Build:
    return lambda cursors, _found: pa.nulls(len(cursors), kind)


def _field_build(part: FieldDescriptor, kind: pa.DataType, path: str, defaults: bool, moment: MomentFormat) -> Build:
    if part.is_repeated:
        return _map_build(part, kind, path, moment) if _is_map(part) else _list_build(part, kind, path, defaults, moment)
    values = _values(part, kind, path, defaults, moment)
    tag = _tags(part)[0]
    default = _default(part, kind, defaults, moment)

    def build(cursors: Cursors, found: dict[int, _Occurrences]) -> pa.Array:
        rows, raw, lengths = found[tag].ordered()
        if part.message_type is not None and rows.size:  # to merge two would need them side by side; writers write one
            twice = rows[1:][rows[1:] == rows[:-1]]
            cursors.refuse(twice, MALFORMED, f"the message {path!r} is there twice")
        made = placed([values(cursors, rows, raw, lengths)], [rows], len(cursors), kind)
        return made if default is None else made.fill_null(default)

    return build


def _is_map(part: FieldDescriptor) -> bool:
    return part.message_type is not None and bool(part.message_type.GetOptions().map_entry)


def _default(part: FieldDescriptor, kind: pa.DataType, defaults: bool, moment: MomentFormat) -> pa.Scalar | None:
    """What an absent field is, if not NULL."""
    if part.message_type is not None or not (part.has_default_value or (defaults and not part.has_presence)):
        return None
    value = part.default_value
    if part.enum_type is not None:
        name = part.enum_type.values_by_number[value].name
        return pa.scalar(name if pa.types.is_string(kind) else value, kind)
    natural = _natural_type(part)
    fit = fitting(natural, kind, moment)
    return fit(pa.array([value], natural)).values[0] if fit else None


def _list_build(part: FieldDescriptor, kind: pa.DataType, path: str, defaults: bool, moment: MomentFormat) -> Build:
    if not pa.types.is_list(kind):
        return _misfit_build(part, kind, path)
    values = _values(part, kind.value_type, f"{path}.element", defaults, moment)

    def build(cursors: Cursors, found: dict[int, _Occurrences]) -> pa.Array:
        rows, raw, lengths = _unpacked(cursors, part, found)
        return pa.ListArray.from_arrays(_offsets(rows, len(cursors)), values(cursors, rows, raw, lengths), kind)

    return build


def _map_build(part: FieldDescriptor, kind: pa.DataType, path: str, moment: MomentFormat) -> Build:
    if not pa.types.is_map(kind):
        return _misfit_build(part, kind, path)
    assert part.message_type is not None
    entry = [pa.field("key", kind.key_type), pa.field("value", kind.item_type)]
    reader = _message_reader(part.message_type, entry, f"{path}.", True, lambda _name: moment)  # absent parts of an entry are defaults
    tag = _tags(part)[0]

    def build(cursors: Cursors, found: dict[int, _Occurrences]) -> pa.Array:
        rows, starts, lengths = found[tag].ordered()
        keys, items = reader.read(cursors.within(rows, starts.astype(np.int64), lengths))
        if keys.null_count:  # of bad records
            keys = keys.fill_null(pa.scalar("" if pa.types.is_string(kind.key_type) else 0, kind.key_type))
        return pa.MapArray.from_arrays(_offsets(rows, len(cursors)), keys, items, kind)

    return build


def _offsets(rows: Ints, count: int) -> pa.Array:
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=count), out=offsets[1:])
    return pa.array(offsets)


def _misfit_build(part: FieldDescriptor, kind: pa.DataType, path: str) -> Build:
    """Every record that has the field is bad."""

    def build(cursors: Cursors, found: dict[int, _Occurrences]) -> pa.Array:
        for tag in _tags(part):
            _refuse_all(part, kind, path, cursors, found[tag].ordered()[0])
        return pa.nulls(len(cursors), kind)

    return build


def _refuse_all(part: FieldDescriptor, kind: pa.DataType, path: str, cursors: Cursors, rows: Ints) -> None:
    repeated = "map " if _is_map(part) else "repeated " if part.is_repeated else ""
    inner = part.message_type or part.enum_type
    found = inner.full_name if inner else next(n for n, v in vars(_F).items() if n.startswith("TYPE_") and v == part.type)[5:].lower()
    cursors.refuse(rows, "wrong_type", f"column {path!r}: expected {ddl_type(kind)}, found Protobuf's {repeated}{found}")


def _unpacked(cursors: Cursors, part: FieldDescriptor, found: dict[int, _Occurrences]) -> tuple[Ints, npt.NDArray[np.uint64], Ints]:
    """Occurrences of a repeated field, those that are packed one by one."""
    rows, raw, lengths = found[_tags(part)[0]].ordered()
    if len(_tags(part)) == 1:
        return rows, raw, lengths
    owners, starts, sizes = found[_tags(part)[1]].ordered()
    if not owners.size:
        return rows, raw, lengths
    size = np.dtype(_FIXED[part.type]).itemsize if part.type in _FIXED else 0
    at, values = _packed_fixed(cursors, owners, starts, sizes, size) if size else _packed_varints(cursors, owners, starts, sizes)
    if not rows.size:
        return at, values, lengths
    order = np.argsort(both := np.concatenate([rows, at]), kind="stable")  # a writer uses one of the two ways
    return both[order], np.concatenate([raw, values])[order], lengths


def _packed_fixed(
    cursors: Cursors, owners: Ints, starts: npt.NDArray[np.uint64], sizes: Ints, size: int
) -> tuple[Ints, npt.NDArray[np.uint64]]:
    wrong = sizes % size != 0
    cursors.refuse(owners[wrong], MALFORMED, "a packed field ends in the middle of a number")
    counts = np.where(wrong, 0, sizes // size)
    first = np.repeat(starts.astype(np.int64) - size * (np.cumsum(counts) - counts), counts)
    at = first + size * np.arange(counts.sum())
    kind = np.uint32 if size == 4 else np.uint64
    found = cursors.payloads.data[at[:, None] + np.arange(size)].view(kind).reshape(len(at))
    return np.repeat(owners, counts), found.astype(np.uint64)


def _packed_varints(cursors: Cursors, owners: Ints, starts: npt.NDArray[np.uint64], sizes: Ints) -> tuple[Ints, npt.NDArray[np.uint64]]:
    """One of each owner at a time, in the order of the owners in the end."""
    inner = cursors.within(owners, starts.astype(np.int64), sizes)
    found = _Occurrences()
    live = np.flatnonzero(sizes > 0)
    while live.size:
        found.values.append(inner.varint(live))
        found.rows.append(live)
        live = live[inner.at[live] < inner.end[live]]
    at, values, _ = found.ordered()
    return owners[at], values


# ---- values

Values = Callable[[Cursors, Ints, npt.NDArray[np.uint64], Ints], pa.Array]


def _values(part: FieldDescriptor, kind: pa.DataType, path: str, defaults: bool, moment: MomentFormat) -> Values:
    """Occurrences (rows, what was read, lengths) to an array of `kind`."""
    if part.message_type is not None:
        return _message_values(part, kind, path, defaults, moment)
    if part.enum_type is not None and pa.types.is_string(kind):
        return _enum_values(part.enum_type)
    fit = fitting(_natural_type(part), kind, moment)
    if fit is None:
        return _misfit_values(part, kind, path)
    return _scalar_values(part, kind, path, fit)


def _misfit_values(part: FieldDescriptor, kind: pa.DataType, path: str) -> Values:
    def values(cursors: Cursors, rows: Ints, raw: npt.NDArray[np.uint64], lengths: Ints) -> pa.Array:
        del raw, lengths
        _refuse_all(part, kind, path, cursors, rows)
        return pa.nulls(len(rows), kind)

    return values


def _natural_type(part: FieldDescriptor) -> pa.DataType:
    if part.type in (_F.TYPE_STRING, _F.TYPE_BYTES):
        return pa.string() if part.type == _F.TYPE_STRING else pa.binary()
    if part.type == _F.TYPE_BOOL:
        return pa.bool_()
    kind = _FIXED[part.type] if part.type in _FIXED else _VARINTS[part.type](np.empty(0, np.uint64)).dtype
    return pa.from_numpy_dtype(kind)


def _scalar_values(part: FieldDescriptor, kind: pa.DataType, path: str, fit: Fit) -> Values:
    def values(cursors: Cursors, rows: Ints, raw: npt.NDArray[np.uint64], lengths: Ints) -> pa.Array:
        if part.type in (_F.TYPE_STRING, _F.TYPE_BYTES):
            found = cursors.bytes_of(raw.astype(np.int64), lengths)
            found = cursors.text(rows, found, path) if part.type == _F.TYPE_STRING else found
        elif part.type in _VARINTS:
            found = pa.array(_VARINTS[part.type](raw))
        else:
            width = raw.astype(np.uint32) if np.dtype(_FIXED[part.type]).itemsize == 4 else raw
            found = pa.array(width.view(_FIXED[part.type]))
        return cursors.fitted(rows, found, fit, kind, path)

    return values


def _enum_values(enum: EnumDescriptor) -> Values:
    """Names; a number without one (of a newer schema) is its text."""
    numbers = np.array(sorted(enum.values_by_number), np.int32)
    names = pa.array([enum.values_by_number[n].name for n in numbers.tolist()], pa.string())

    def values(cursors: Cursors, rows: Ints, raw: npt.NDArray[np.uint64], lengths: Ints) -> pa.Array:
        del cursors, rows, lengths
        found = raw.astype(np.uint32).view(np.int32)
        at = np.minimum(np.searchsorted(numbers, found), len(numbers) - 1)
        unknown = numbers[at] != found
        text = names.take(pa.array(at))
        return pa.compute.if_else(pa.array(unknown), pa.array(found).cast(pa.string()), text) if unknown.any() else text

    return values


def _message_values(part: FieldDescriptor, kind: pa.DataType, path: str, defaults: bool, moment: MomentFormat) -> Values:
    message = part.message_type
    assert message is not None
    if pa.types.is_struct(kind):
        reader = _message_reader(message, list(kind), f"{path}.", defaults, lambda _name: moment)
        return _within(reader, lambda columns, _cursors: pa.StructArray.from_arrays(columns, fields=list(kind)))
    if message.full_name == _TIMESTAMP and kind == pa.timestamp("us", "UTC"):
        parts = [pa.field("seconds", pa.int64()), pa.field("nanos", pa.int32())]
        return _within(_message_reader(message, parts, f"{path}.", True, lambda _name: moment), _instants(path))
    if message.full_name in _WRAPPERS:
        reader = _message_reader(message, [pa.field("value", kind)], f"{path}.", True, lambda _name: moment)
        return _within(reader, lambda columns, _cursors: columns[0])
    return _misfit_values(part, kind, path)


def _within(reader: _MessageReader, made: Callable[[list[pa.Array], Cursors], pa.Array]) -> Values:
    def values(cursors: Cursors, rows: Ints, raw: npt.NDArray[np.uint64], lengths: Ints) -> pa.Array:
        inner = cursors.within(rows, raw.astype(np.int64), lengths)
        return made(reader.read(inner), inner)

    return values


def _instants(path: str) -> Callable[[list[pa.Array], Cursors], pa.Array]:
    def made(columns: list[pa.Array], cursors: Cursors) -> pa.Array:
        seconds, nanos = (np.asarray(column.fill_null(0)).astype(np.int64) for column in columns)
        us = np.clip(seconds, -(10**12), 10**12) * 1_000_000 + nanos // 1000
        wrong = np.flatnonzero((us < FIRST_US) | (us > LAST_US))
        cursors.refuse(wrong, "bad_timestamp", lambda i: f"column {path!r}: {seconds[wrong[i]]} seconds are outside the years 1 to 9999")
        return pa.array(us).cast(pa.timestamp("us", "UTC"))

    return made


# ---- columns that take every value of a field


def _arrow_type(part: FieldDescriptor, within: tuple[Descriptor, ...]) -> pa.DataType | None:
    if _is_map(part) and part.message_type is not None:
        key, value = (_arrow_type(entry, within) for entry in part.message_type.fields)
        return pa.map_(key, value) if key and value else None
    kind = _arrow_single(part, within)
    return pa.list_(kind) if part.is_repeated and kind else kind


def _arrow_single(part: FieldDescriptor, within: tuple[Descriptor, ...]) -> pa.DataType | None:
    message = part.message_type
    if message is None:
        return pa.string() if part.enum_type else _SIGNED.get(_natural_type(part), _natural_type(part))
    if message.full_name == _TIMESTAMP:
        return pa.timestamp("us", "UTC")
    if message in within or message.full_name == "google.protobuf.Any":
        return None
    if message.full_name in _WRAPPERS:
        return _arrow_single(message.fields_by_name["value"], within)
    inner = [(one.name, _arrow_type(one, (*within, message))) for one in message.fields]
    named = [(name, kind) for name, kind in inner if kind]
    return pa.struct(named) if named else None


_SIGNED = {pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}
