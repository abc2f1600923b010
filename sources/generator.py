"""Made-up events: as many as wanted, the same ones each time. A row is a function of seed, shard and its number.

Positions are row numbers. Rows appear at `rows_per_second` from the moment the source is made, without a rate as quickly as
they are read. Event times begin at 2026-01-01T00:00:00Z. Those of clicks run at the rate, 1,000 rows a second without one;
those of Nexmark always at `events_per_second`, so that sources of the three kinds fit together whatever their pace.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import ClassVar, Literal, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from streamproc.batch import Chunk
from streamproc.formats.clicks import SCHEMA, SINCE_US, clicks, times
from streamproc.formats.nexmark import CYCLE, EVENTS_PER_SECOND, SLOTS, Nexmark, NexmarkKind
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.schema import parse_ddl
from streamproc.source import Reader, Shard, Source
from streamproc.world import World

CHUNK_ROWS = 10_000
CHUNK_EVENTS = 1000 * CYCLE
"""Of Nexmark's three kinds together: read side by side they stay together in event time."""
WAIT_S = (0.05, 1.0)
"""How long a read waits for the next row, at least and at most: rows come in handfuls, not one by one."""

Kind = Literal["clicks", "nexmark.person", "nexmark.auction", "nexmark.bid"]


class GeneratorOptions(SourceOptions):
    """Keys of a `generator` source."""

    type: Literal["generator"] = "generator"
    kind: Kind = Field(
        "clicks", description=f"clicks: {SCHEMA}; nexmark.…: the benchmark's columns. They are the schema unless another is given"
    )
    rows_per_second: float | None = Field(None, gt=0, description="over all shards; as quickly as they are read unless given")
    rows: int | None = Field(None, ge=0, description="over all shards, then they end; endless unless given")
    shards: int = Field(1, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**32)
    events_per_second: int = Field(
        EVENTS_PER_SECOND, ge=1, le=1_000_000, description="Nexmark: how many events of all kinds happen in a second of event time"
    )

    @model_validator(mode="before")
    @classmethod
    def _columns_by_default(cls, given: object) -> object:
        """Nexmark's rows come as columns (the engine's word for that is parquet) unless payloads are asked for."""
        if isinstance(given, dict) and str(given.get("kind")).startswith("nexmark"):
            return {"format": "parquet"} | given
        return given

    @model_validator(mode="after")
    def _format_fits(self) -> GeneratorOptions:
        allowed = ("json", "raw") if self.kind == "clicks" else ("parquet", "json", "raw")
        if self.format not in allowed:
            raise ValueError(f"format: {self.format} does not fit; generated {self.kind} rows come as {', '.join(allowed)}")
        return self

    def default_schema(self) -> pa.Schema | None:
        """Columns of the kind, where the payload is not raw."""
        if self.format == "raw":
            return super().default_schema()
        return parse_ddl(SCHEMA) if self.kind == "clicks" else self.nexmark().schema

    def nexmark(self) -> Nexmark:
        """The rows of a Nexmark kind."""
        return Nexmark(cast("NexmarkKind", self.kind.removeprefix("nexmark.")), self.seed, self.events_per_second)


class Rows(Protocol):
    """What a kind's rows are; `first` and `count` are numbers within one shard. `chunk_rows`: in one read at most."""

    chunk_rows: int

    def columns(self, shard: str, first: int, count: int, wanted: Container[str]) -> dict[str, pa.Array]: ...

    def row_at(self, shard: str, at_us: int) -> int: ...


class ClickRows:
    """Payloads; each shard has its own events."""

    chunk_rows = CHUNK_ROWS

    def __init__(self, seed: int, rows_per_second: float | None) -> None:
        self._seed = seed
        self._step_us = max(1, round(1e6 / (rows_per_second or 1000)))

    def columns(self, shard: str, first: int, count: int, wanted: Container[str]) -> dict[str, pa.Array]:
        columns = {"_value": clicks(self._seed, shard, first, count, step_us=self._step_us)}
        if "_timestamp" in wanted:
            columns["_timestamp"] = times(first, count, step_us=self._step_us)
        return columns

    def row_at(self, shard: str, at_us: int) -> int:
        del shard
        return -(-(at_us - SINCE_US) // self._step_us)


class NexmarkRows:
    """Columns, or payloads of all of them; the shards take turns, so that together they hold every row once."""

    def __init__(self, options: GeneratorOptions) -> None:
        self._nexmark = options.nexmark()
        self._shards = options.shards
        self._payloads = options.format != "parquet"
        self.chunk_rows = CHUNK_EVENTS // CYCLE * SLOTS[self._nexmark.kind][1]

    def columns(self, shard: str, first: int, count: int, wanted: Container[str]) -> dict[str, pa.Array]:
        rows = pc.add(pc.multiply(pa.arange(first, first + count), self._shards), int(shard))
        if self._payloads:
            columns = {"_value": json_payloads(self._nexmark.columns(rows, self._nexmark.schema.names))}
        else:
            columns = self._nexmark.columns(rows, wanted)
        if "_timestamp" in wanted:
            columns["_timestamp"] = self._nexmark.times(rows)
        return columns

    def row_at(self, shard: str, at_us: int) -> int:
        return -(-(self._nexmark.row_at(at_us) - int(shard)) // self._shards)


def json_payloads(columns: dict[str, pa.Array]) -> pa.Array:
    """A JSON object a row (binary); strings must need no escapes, times are written without a zone."""
    parts: list[pa.Array | str] = []
    for name, values in columns.items():
        quote = "" if pa.types.is_integer(values.type) else '"'
        text = values.cast(pa.timestamp("us")) if pa.types.is_timestamp(values.type) else values
        parts += [f'{"," if parts else "{"}"{name}":{quote}', text.cast(pa.string()), quote]
    return pc.binary_join_element_wise(*parts, "}", "").cast(pa.binary())


class Generator(Source):
    """Shards "0", "1", …; each is paced on its own at an equal part of the rate."""

    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions

    def __init__(self, options: GeneratorOptions, world: World, name: str) -> None:
        self._options = options
        self._clock = world.clock
        self._name = name
        self._began_s = world.clock.monotonic_s()
        self._rate = None if options.rows_per_second is None else options.rows_per_second / options.shards
        self._rows: Rows = ClickRows(options.seed, self._rate) if options.kind == "clicks" else NexmarkRows(options)
        self._ahead: dict[str, int] = {}
        schema = options.schema_ or options.default_schema() or pa.schema([])
        self._declared = frozenset(schema.names)

    async def shards(self) -> Sequence[Shard]:
        return [Shard(str(i)) for i in range(self._options.shards)]

    async def position(self, shard: Shard, start: Start) -> Position:
        if start.kind == "timestamp":
            return str(self._limited(shard.id, self._rows.row_at(shard.id, start.at_us or 0)) - 1)
        return str((self._made(shard.id) if start.kind == "latest" and self._rate else 0) - 1)

    async def open(self, shard: Shard, after: Position) -> Reader:
        first = int(after) + 1
        if self._rate is not None and self._made(shard.id) < first:  # a restart: what was read once has been made
            self._ahead[shard.id] = self._ahead.get(shard.id, 0) + first - self._made(shard.id)
        return _GeneratorReader(self, shard.id, first)

    def _limited(self, shard: str, row: int) -> int:
        return max(0, row if self._end(shard) is None else min(row, self._end(shard) or 0))

    def _end(self, shard: str) -> int | None:
        """How many rows the shard gets in all."""
        if self._options.rows is None:
            return None
        whole, rest = divmod(self._options.rows, self._options.shards)
        return whole + (int(shard) < rest)

    def _made(self, shard: str) -> int:
        """How many rows of the shard exist by now (paced generators only)."""
        elapsed_s = self._clock.monotonic_s() - self._began_s
        return self._limited(shard, int(elapsed_s * (self._rate or 0)) + self._ahead.get(shard, 0))

    def _batch(self, shard: str, first: int, count: int) -> pa.RecordBatch:
        columns = self._rows.columns(shard, first, count, self.wanted | (self._declared if self.columns is None else self.columns))
        return pa.RecordBatch.from_pydict({"_offset": pa.arange(first, first + count)} | columns)

    def _chunk(self, shard: str, first: int, until: Position | None) -> Chunk:
        end = self._end(shard)
        most = first + self._rows.chunk_rows
        there = most if self._rate is None or until is not None else self._made(shard)
        stop = min(self._limited(shard, there), most, most if until is None else int(until) + 1)
        ended = end is not None and stop >= end
        at_end = ended or (self._rate is not None and stop == self._made(shard))
        lag = None if self._rate is None else max(0, self._made(shard) - stop)
        return Chunk(shard, self._batch(shard, first, max(0, stop - first)), str(max(stop, first) - 1), at_end, ended, lag)

    async def _wait(self, shard: str, first: int) -> None:
        """Until the next row is there, or about a second."""
        if self._rate is not None and self._made(shard) <= first and self._limited(shard, first + 1) > first:
            await self._clock.sleep(min(max((first + 1 - self._made(shard)) / self._rate, WAIT_S[0]), WAIT_S[1]))

    def __repr__(self) -> str:
        return f"<Generator {self._name} {self._options.kind} seed {self._options.seed}>"


class _GeneratorReader(Reader):
    def __init__(self, source: Generator, shard: str, first: int) -> None:
        self._source = source
        self._shard = shard
        self._first = first

    async def read(self, until: Position | None = None) -> Chunk:
        if until is None:
            await self._source._wait(self._shard, self._first)
        chunk = self._source._chunk(self._shard, self._first, until)
        self._first = int(chunk.end) + 1
        return chunk

    def __repr__(self) -> str:
        return f"<_GeneratorReader {self._shard} next {self._first}>"
