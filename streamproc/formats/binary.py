"""Decoding of binary payloads: readers of one schema, or of the schema that each payload names in a registry.

Confluent's wire format: a zero byte, the schema's id (4 bytes, big-endian), for Protobuf the message's place in its file
(zigzag varints: how many, then each; a single 0 means the first message), then the record.
Source: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import BAD_SCHEMA, Decoded
from streamproc.formats.cursors import Ints, over, placed
from streamproc.formats.decoder import bad_table, flat, table_of
from streamproc.formats.scalar import Misfit

_HEADER_BYTES = 5
_REMEMBERED = 10_000

Records = tuple[pa.Table, Mapping[int, Misfit]]
"""A row for each payload, and why some are bad, by place."""


class RecordReader(Protocol):
    """Reads payloads of one schema, without their first `skip` bytes."""

    def read(self, values: pa.BinaryArray, skip: int = 0) -> Records: ...


@dataclass(frozen=True)
class BinaryDecoder:
    """A `Decoder` over a reader of binary payloads."""

    schema: pa.Schema
    reader: RecordReader

    def decode(self, values: pa.Array) -> Decoded:
        """Payloads (binary, NULL allowed: a row of NULLs) to rows; never raises for what a payload holds.

        Unavailable if a schema is to be had from a registry that does not answer.
        """
        values = flat(values)
        table, bad = self._rows(values)
        bad = self._missing(table, bad)
        if not bad:
            return Decoded(table, BAD_SCHEMA.empty_table())
        at = sorted(bad)
        raw = values.take(pa.array(at, pa.int64())).to_pylist()
        found = [(i, bad[i].reason, str(bad[i]), payload) for i, payload in zip(at, raw, strict=True)]
        good = np.ones(len(values), np.bool_)
        good[at] = False
        index = pa.array(np.flatnonzero(good))
        rows = table.take(index) if table.num_columns else table.slice(0, len(index))
        return Decoded(rows, bad_table(found), index)

    def _rows(self, values: pa.BinaryArray) -> Records:
        if not values.null_count:
            return self.reader.read(values)
        there = np.flatnonzero(np.asarray(values.is_valid()))
        table, bad = self.reader.read(values.drop_null())
        columns = [placed([c.combine_chunks()], [there], len(values), c.type) for c in table.columns]
        return table_of(columns, _nullable(self.schema), len(values)), {int(there[i]): misfit for i, misfit in bad.items()}

    def _missing(self, table: pa.Table, bad: Mapping[int, Misfit]) -> Mapping[int, Misfit]:
        for name in [f.name for f in self.schema if not f.nullable]:
            if table.column(name).null_count:
                empty = np.flatnonzero(np.asarray(table.column(name).is_null())).tolist()
                bad = dict.fromkeys(empty, Misfit("missing_not_null", f"column {name!r} is NOT NULL and has no value")) | dict(bad)
        return bad


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema])


class UnknownSchema(Exception):
    """A payload names a schema that there is not, or that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class RegisteredReader:
    """Reads payloads in Confluent's wire format. `reader_of` makes a reader for an id and a message's place in its file;
    UnknownSchema where there is none, Unavailable if it cannot tell now. Ids never change, so both answers are kept.
    """

    schema: pa.Schema
    reader_of: Callable[[int, tuple[int, ...]], RecordReader]
    indexed: bool = False
    _known: dict[bytes, RecordReader | Misfit] = field(default_factory=dict, repr=False)

    def read(self, values: pa.BinaryArray, skip: int = 0) -> Records:
        """The payloads of each schema together."""
        assert not skip  # the frame is the outermost
        encoded = pc.dictionary_encode(prefixes(values, indexed=self.indexed))
        distinct = encoded.dictionary.to_pylist()
        if len(distinct) == 1:
            return self._of_one(distinct[0], values)
        which = np.asarray(encoded.indices)
        tables: list[pa.Table] = []
        places: list[Ints] = []
        bad: dict[int, Misfit] = {}
        for i, prefix in enumerate(distinct):
            at = np.flatnonzero(which == i)
            table, wrong = self._of_one(prefix, values.take(pa.array(at)))
            tables.append(table)
            places.append(at)
            bad |= {int(at[place]): misfit for place, misfit in wrong.items()}
        return _merged(tables, places, self.schema, len(values)), bad

    def _of_one(self, prefix: bytes, values: pa.BinaryArray) -> Records:
        reader = self._reader(prefix)
        if isinstance(reader, Misfit):
            nothing = [pa.nulls(len(values), f.type) for f in self.schema]
            return table_of(nothing, _nullable(self.schema), len(values)), dict.fromkeys(range(len(values)), reader)
        return reader.read(values, len(prefix))

    def _reader(self, prefix: bytes) -> RecordReader | Misfit:
        if prefix not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[prefix] = self._found(prefix)
        return self._known[prefix]

    def _found(self, prefix: bytes) -> RecordReader | Misfit:
        if len(prefix) < _HEADER_BYTES + self.indexed or prefix[0] != 0:
            return Misfit("no_schema_id", f"expected a zero byte and a schema id first, found {prefix[:_HEADER_BYTES].hex() or 'nothing'}")
        try:
            return self.reader_of(*identified(prefix))
        except UnknownSchema as error:
            return Misfit("unknown_schema", str(error))


def prefixes(values: pa.BinaryArray, *, indexed: bool) -> pa.Array:
    """What stands before each record: zero byte, id, with `indexed` the message's place."""
    cursors = over(values, "no_schema_id")
    begin, sizes = cursors.at, cursors.end - cursors.at
    if not indexed:
        return cursors.bytes_of(begin, np.minimum(sizes, _HEADER_BYTES))
    rows = np.flatnonzero(cursors.end - cursors.at > _HEADER_BYTES)
    cursors.at[rows] += _HEADER_BYTES
    left = cursors.zigzag(rows)
    while rows.size:
        more = (left > 0) & (left < 100)
        rows, left = rows[more], left[more] - 1
        cursors.zigzag(rows)
    begin = cursors.payloads.begin
    return cursors.bytes_of(begin, np.minimum(np.maximum(cursors.at - begin, 0), sizes))


def identified(prefix: bytes) -> tuple[int, tuple[int, ...]]:
    """The schema's id and the message's place."""
    return int.from_bytes(prefix[1:_HEADER_BYTES]), _place(prefix[_HEADER_BYTES:])


def _place(indexes: bytes) -> tuple[int, ...]:
    """Of a message in its file: those around it first."""
    numbers, value, shift = [], 0, 0
    for byte in indexes:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value >> 1)
            value = shift = 0
    return tuple(numbers[1:]) or (0,)


def _merged(tables: list[pa.Table], places: list[Ints], schema: pa.Schema, count: int) -> pa.Table:
    columns = [placed([t.column(i).combine_chunks() for t in tables], places, count, f.type) for i, f in enumerate(schema)]
    return table_of(columns, _nullable(schema), count)
