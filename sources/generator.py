"""Made-up events: as many as wanted, the same ones each time. A row is a function of seed, shard and its number.

Positions are row numbers. Rows appear at `rows_per_second` from the moment the source is made, event times run at the same rate
from 2026-01-01T00:00:00Z on; without a rate they appear as quickly as they are read and event time runs at 1,000 rows a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from streamproc.batch import Chunk
from streamproc.formats.clicks import SCHEMA, SINCE_US, clicks, times
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.source import Reader, Shard, Source
from streamproc.world import World

CHUNK_ROWS = 10_000
WAIT_S = (0.05, 1.0)
"""How long a read waits for the next row, at least and at most: rows come in handfuls, not one by one."""

Kind = Literal["clicks", "nexmark.person", "nexmark.auction", "nexmark.bid"]


class GeneratorOptions(SourceOptions):
    """Keys of a `generator` source."""

    type: Literal["generator"] = "generator"
    kind: Kind = Field("clicks", description=f"clicks: {SCHEMA}, the schema unless another is given")
    rows_per_second: float | None = Field(None, gt=0, description="over all shards; as quickly as they are read unless given")
    rows: int | None = Field(None, ge=0, description="over all shards, then they end; endless unless given")
    shards: int = Field(1, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("kind")
    @classmethod
    def _built(cls, value: str) -> str:
        if value != "clicks":
            raise ValueError(f"kind: {value} is not built yet; use clicks")
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_schema(cls, given: Any) -> Any:
        return {"schema": SCHEMA} | given if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _payloads_are_json(self) -> GeneratorOptions:
        if self.format not in ("json", "raw"):
            raise ValueError(f"format: {self.format} does not fit; generated payloads are json (or raw)")
        return self


class Generator(Source):
    """Shards "0", "1", …; each is paced on its own at an equal part of the rate."""

    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions

    def __init__(self, options: GeneratorOptions, world: World, name: str) -> None:
        self._options = options
        self._clock = world.clock
        self._name = name
        self._began_s = world.clock.monotonic_s()
        self._rate = None if options.rows_per_second is None else options.rows_per_second / options.shards
        self._ahead: dict[str, int] = {}

    async def shards(self) -> Sequence[Shard]:
        return [Shard(str(i)) for i in range(self._options.shards)]

    async def position(self, shard: Shard, start: Start) -> Position:
        if start.kind == "timestamp":
            return str(self._limited(shard.id, -(-((start.at_us or 0) - SINCE_US) // self._step_us())) - 1)
        return str((self._made(shard.id) if start.kind == "latest" and self._rate else 0) - 1)

    async def open(self, shard: Shard, after: Position) -> Reader:
        first = int(after) + 1
        if self._rate is not None and self._made(shard.id) < first:  # a restart: what was read once has been made
            self._ahead[shard.id] = self._ahead.get(shard.id, 0) + first - self._made(shard.id)
        return _GeneratorReader(self, shard.id, first)

    def _step_us(self) -> int:
        return max(1, round(1e6 / (self._rate or 1000)))

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

    def _rows(self, shard: str, first: int, count: int) -> pa.RecordBatch:
        step_us = self._step_us()
        columns = {
            "_offset": pa.arange(first, first + count),
            "_value": clicks(self._options.seed, shard, first, count, step_us=step_us),
        }
        if "_timestamp" in self.wanted:
            columns["_timestamp"] = times(first, count, step_us=step_us)
        return pa.RecordBatch.from_pydict(columns)

    def _chunk(self, shard: str, first: int, until: Position | None) -> Chunk:
        end = self._end(shard)
        there = first + CHUNK_ROWS if self._rate is None or until is not None else self._made(shard)
        stop = min(self._limited(shard, there), first + CHUNK_ROWS, first + CHUNK_ROWS if until is None else int(until) + 1)
        ended = end is not None and stop >= end
        at_end = ended or (self._rate is not None and stop == self._made(shard))
        lag = None if self._rate is None else max(0, self._made(shard) - stop)
        return Chunk(shard, self._rows(shard, first, max(0, stop - first)), str(max(stop, first) - 1), at_end, ended, lag)

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
