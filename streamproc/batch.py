"""Rows on their way from the wire to the plan: always Arrow, never an object a row.

A **chunk** is what one read of one shard gave. Its `rows` have these columns (`WIRE_SCHEMA` gives the types),
in shard order; the first two always, the others where the source has them:

    _offset        string or int64   position after this row (see offset.py)
    _value         binary            the payload; absent where the source yields columns itself (parquet files)
    _timestamp     timestamp[us,UTC] the broker's time of the record
    _key           binary            the record's key (Kinesis: its partition key)
    _partition_key string            Kinesis
    _sub_sequence  int64             index inside a KPL aggregate, else 0
    _headers       list<struct<key string, value binary>>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from streamproc.offset import Position

TIMESTAMP = pa.timestamp("us", tz="UTC")
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
WIRE_SCHEMA = pa.schema(
    [
        ("_offset", pa.string()),
        ("_value", pa.binary()),
        ("_timestamp", TIMESTAMP),
        ("_key", pa.binary()),
        ("_partition_key", pa.string()),
        ("_sub_sequence", pa.int64()),
        ("_headers", HEADERS),
    ]
)
EXTRA_COLUMNS = pa.schema([f for f in WIRE_SCHEMA if f.name != "_value"] + [pa.field("_shard", pa.string())])
"""Columns that every table has beside its schema; read only if a query names them. `_offset` is a STRING in SQL."""

BAD_SCHEMA = pa.schema([("index", pa.int64()), ("reason", pa.string()), ("error", pa.string()), ("raw", pa.binary())])
"""Bad records of one decode: `index` of the row in the input (ascending), a short stable `reason`, the detail, the bytes."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One ordered part of a source. `parents` must be read to their end first (Kinesis); `hash_range` is
    inclusive at both ends (Kinesis), None where keys are not hashed to ranges.
    """

    id: str
    parents: tuple[str, ...] = ()
    hash_range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The answer of one read. Rows are in shard order and lie after `after`, up to `end` (which may lie
    beyond the last row: control records, compacted gaps). `at_end`: the server said there is nothing after
    `end` now. `ended`: the shard is closed and wholly read; no read follows; `children` are then the shards that
    go on in its place, as far as the server names them (`Source.shards` lists them in any case). `lag` is what is
    left to read, in the source's own unit (`Source.lag_unit`), None if unknown.
    """

    shard: str
    rows: pa.RecordBatch
    end: Position
    at_end: bool = False
    ended: bool = False
    lag: int | None = None
    children: tuple[Shard, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes)

    def __repr__(self) -> str:
        flags = " at_end" * self.at_end + " ended" * self.ended
        return f"<Chunk {self.shard} {self.rows.num_rows} rows to {self.end}{flags}>"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of payloads: `rows` are the good ones in input order; `index[i]` is the input row
    of `rows[i]` (None: every row was good); `bad` has BAD_SCHEMA.
    """

    rows: pa.Table
    bad: pa.Table
    index: pa.Array | None = None


class Decoder(Protocol):
    """Payloads to columns. Pure and thread-safe: the same bytes give the same rows, however they are cut.

    `schema` are the columns it yields. A value that does not fit costs its record, never the batch.
    """

    @property
    def schema(self) -> pa.Schema: ...

    def decode(self, values: pa.Array) -> Decoded: ...
