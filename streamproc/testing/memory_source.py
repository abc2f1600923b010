"""A source whose rows the test puts in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import WIRE_SCHEMA, Chunk
from streamproc.clock import Clock
from streamproc.errors import BadRecord, Unavailable
from streamproc.offset import Position, Start
from streamproc.source import Reader, Shard, Source
from streamproc.state.hash_range import WHOLE
from streamproc.testing.manual_clock import ManualClock

Headers = Sequence[tuple[str, bytes]]


@dataclass
class _Rows:
    """One shard's rows: a batch a put, `starts[i]` is the index of the first row of `batches[i]`."""

    shard: Shard
    batches: list[pa.RecordBatch] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    end: int = 0
    trimmed: int = 0
    closed: bool = False

    def append(self, batch: pa.RecordBatch) -> None:
        self.starts.append(self.end)
        self.batches.append(batch)
        self.end += batch.num_rows

    def read(self, first: int, stop: int) -> pa.RecordBatch:
        """What is left of one put from row `first` on, short of row `stop`; empty if nothing is."""
        if first >= min(stop, self.end):
            return pa.RecordBatch.from_pylist([], schema=WIRE_SCHEMA)
        at = bisect_right(self.starts, first) - 1
        return self.batches[at].slice(first - self.starts[at], stop - first)


class MemorySource(Source):
    """Shards of rows in memory, the offsets of each "0", "1", …; reads never wait. The rows of one `put` come as one
    chunk. `fail` makes every call raise `Unavailable` until `recover`.

    A shard exists once it is named (here, or by `add_shard` or `put`); `split` and `merge` close parents as Kinesis does.
    """

    def __init__(self, *shards: str, clock: Clock | None = None) -> None:
        self.told: dict[str, Position] = {}
        self._clock = clock or ManualClock()
        self._shards: dict[str, _Rows] = {}
        self._failing = False
        for shard in shards:
            self.add_shard(shard)

    def put(
        self,
        shard: str,
        payloads: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps: Sequence[int] | None = None,
        partition_keys: Sequence[str | None] | None = None,
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        """Append rows to a shard. `timestamps` are microseconds since 1970 (the clock's time if not given)."""
        rows = self._shards.get(shard) or self.add_shard(shard)
        if rows.closed:
            raise ValueError(f"shard {shard} is closed")
        if payloads:
            count = len(payloads)
            nothing = [None] * count
            columns = {
                "_offset": [str(i) for i in range(rows.end, rows.end + count)],
                "_value": payloads,
                "_timestamp": timestamps or [self._clock.now_us()] * count,
                "_key": keys or nothing,
                "_partition_key": partition_keys or nothing,
                "_sub_sequence": [0] * count,
                "_headers": [h if h is None else [{"key": k, "value": v} for k, v in h] for h in headers or nothing],
            }
            rows.append(pa.RecordBatch.from_pydict(columns, schema=WIRE_SCHEMA))

    def add_shard(self, shard: str, parents: Sequence[str] = (), hash_range: tuple[int, int] | None = None) -> _Rows:
        """A new, empty shard; ids are never used again."""
        if shard in self._shards:
            raise ValueError(f"shard {shard} exists already")
        rows = self._shards[shard] = _Rows(Shard(shard, tuple(parents), hash_range))
        return rows

    def split(self, shard: str, into: Sequence[str]) -> None:
        """Close a shard; its hash range (all hashes, where it has none) is halved between two children."""
        self.end(shard)
        first, last = self._shards[shard].shard.hash_range or WHOLE
        middle = (first + last) // 2
        for child, hash_range in zip(into, ((first, middle), (middle + 1, last)), strict=True):
            self.add_shard(child, [shard], hash_range)

    def merge(self, shards: Sequence[str], into: str) -> None:
        """Close shards; the child's hash range joins theirs."""
        for shard in shards:
            self.end(shard)
        ranges = [self._shards[shard].shard.hash_range for shard in shards]
        known = [r for r in ranges if r is not None]
        joined = (min(r[0] for r in known), max(r[1] for r in known)) if known else None
        self.add_shard(into, shards, joined)

    def end(self, shard: str) -> None:
        """Close a shard: no further rows come."""
        self._shards[shard].closed = True

    def trim(self, shard: str, before: int) -> None:
        """Retention: the rows below index `before` are gone."""
        self._shards[shard].trimmed = before

    def fail(self) -> None:
        self._failing = True

    def recover(self) -> None:
        self._failing = False

    async def shards(self) -> Sequence[Shard]:
        self._answer()
        return [rows.shard for rows in self._shards.values() if not (rows.closed and 0 < rows.end <= rows.trimmed)]

    async def position(self, shard: Shard, start: Start) -> Position:
        rows = self._rows(shard.id)
        if start.kind == "earliest":
            return str(rows.trimmed - 1)
        return str((rows.end if start.kind == "latest" else self._first_at(rows, start.at_us or 0)) - 1)

    async def open(self, shard: Shard, after: Position) -> Reader:
        self._rows(shard.id)
        return _MemoryReader(self, shard.id, int(after) + 1)

    async def tell(self, ends: Mapping[str, Position]) -> None:
        self._answer()
        self.told = dict(ends)

    def _first_at(self, rows: _Rows, at_us: int) -> int:
        for start, batch in zip(rows.starts, rows.batches, strict=True):
            hits = pc.greater_equal(batch["_timestamp"].cast(pa.int64()), at_us)
            first = hits.index(True).as_py()
            if first >= 0:
                return max(start + int(first), rows.trimmed)
        return rows.end

    def _answer(self) -> None:
        if self._failing:
            raise Unavailable("the memory source was told to fail")

    def _rows(self, shard: str) -> _Rows:
        self._answer()
        return self._shards[shard]

    def _read(self, shard: str, first: int, until: Position | None) -> Chunk:
        rows = self._rows(shard)
        if first < rows.trimmed:
            raise BadRecord(f"shard {shard}: rows {first} to {rows.trimmed - 1} are gone (trimmed); the next one left is {rows.trimmed}")
        batch = rows.read(first, rows.end if until is None else int(until) + 1)
        stop = first + batch.num_rows
        at_end = stop == rows.end
        ended = at_end and rows.closed
        children = tuple(child.shard for child in self._shards.values() if ended and shard in child.shard.parents)
        return Chunk(shard, batch, str(stop - 1), at_end=at_end, ended=ended, lag=rows.end - stop, children=children)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {rows.end}{' closed' * rows.closed}" for name, rows in self._shards.items())
        return f"<MemorySource {counts}{' failing' * self._failing}>"


class _MemoryReader(Reader):
    def __init__(self, source: MemorySource, shard: str, first: int) -> None:
        self._source = source
        self._shard = shard
        self._first = first

    async def read(self, until: Position | None = None) -> Chunk:
        await self._source._clock.sleep(0)
        chunk = self._source._read(self._shard, self._first, until)
        self._first = int(chunk.end) + 1
        return chunk

    def __repr__(self) -> str:
        return f"<_MemoryReader {self._shard} next {self._first}>"
