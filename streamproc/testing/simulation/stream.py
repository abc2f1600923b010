"""The input of a run: a stream whose shards split, merge or grow while rows are put in the order of their times."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5
from typing import Literal

from streamproc.batch import Chunk
from streamproc.clock import Clock
from streamproc.offset import Position, Start
from streamproc.source import Reader, Shard, Source
from streamproc.testing.memory_source import MemorySource
from streamproc.testing.simulation.servers import Server, at_once

HASHES = 2**128
LONG_POLL_S = 0.9
KEYS = tuple("abcdefgh")


@dataclass(frozen=True, slots=True)
class InputRow:
    """One record as it was put. `at` is its number among all, and its `id`."""

    at: int
    key: str
    amount: int
    ts_us: int
    shard: str

    def payload(self) -> bytes:
        return json.dumps({"id": self.at, "key": self.key, "amount": self.amount, "ts": self.ts_us}).encode()


class Stream:
    """Shards as Kinesis cuts them (by the MD5 of the key) or partitions as Kafka numbers them, and every row put so far.

    `ends` is the number of rows by shard. Keys move when partitions are added, from the next row on.
    """

    def __init__(self, kind: Literal["kinesis", "kafka"], shards: int, clock: Clock, chance: random.Random) -> None:
        self.kind = kind
        self.memory = MemorySource(clock=clock)
        self.rows: list[InputRow] = []
        self.parents: dict[str, tuple[str, ...]] = {}
        self.ends: dict[str, int] = {}
        self._open: dict[str, tuple[int, int] | None] = {}
        self._clock, self._chance = clock, chance
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        for i in range(shards):
            self._add((i * HASHES // shards, (i + 1) * HASHES // shards - 1) if kind == "kinesis" else None)

    @property
    def open_shards(self) -> list[str]:
        return list(self._open)

    def put(self, count: int) -> None:
        """Rows of this moment, each into the shard of its key."""
        by_shard: dict[str, list[InputRow]] = {}
        for _ in range(count):
            key = self._chance.choice(KEYS)
            row = InputRow(len(self.rows), key, self._chance.randrange(100), self._clock.now_us(), self.shard_of(key))
            self.rows.append(row)
            by_shard.setdefault(row.shard, []).append(row)
        for shard, rows in by_shard.items():
            self.memory.put(shard, [row.payload() for row in rows], keys=[row.key.encode() for row in rows])
            self.ends[shard] += len(rows)
            self._tell(shard)

    def shard_of(self, key: str) -> str:
        hashed = int.from_bytes(md5(key.encode()).digest())
        if self.kind == "kafka":
            return self.open_shards[hashed % len(self._open)]
        return next(shard for shard, held in self._open.items() if held and held[0] <= hashed <= held[1])

    def reshard(self) -> str:
        """Split or merge at random (Kafka: add a partition); says what was done."""
        if self.kind == "kafka":
            return f"partition {self._add(None)} was added"
        ordered = sorted(self._open, key=lambda shard: self._open[shard] or (0, 0))
        at = self._chance.randrange(len(ordered))
        if len(ordered) > 1 and self._chance.random() < len(ordered) / 6:
            at = min(at, len(ordered) - 2)
            return self._merge(ordered[at], ordered[at + 1])
        return self._split(ordered[at])

    async def news(self, shard: str, count: int) -> None:
        """Until the shard has more than `count` rows or is closed; not longer than a long poll."""
        if self.ends[shard] > count or shard not in self._open:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(shard, []).append(future)
        with suppress(TimeoutError):
            async with asyncio.timeout(LONG_POLL_S):
                await future

    def _split(self, shard: str) -> str:
        first, last = self._closed(shard)
        middle = (first + last) // 2
        left, right = self._add((first, middle), (shard,)), self._add((middle + 1, last), (shard,))
        return f"{shard} was split into {left} and {right}"

    def _merge(self, left: str, right: str) -> str:
        child = self._add((self._closed(left)[0], self._closed(right)[1]), (left, right))
        return f"{left} and {right} were merged into {child}"

    def _closed(self, shard: str) -> tuple[int, int]:
        held = self._open.pop(shard)
        assert held is not None
        self.memory.end(shard)
        self._tell(shard)
        return held

    def _add(self, held: tuple[int, int] | None, parents: tuple[str, ...] = ()) -> str:
        shard = f"s{len(self.ends)}" if self.kind == "kinesis" else str(len(self.ends))
        self.memory.add_shard(shard, parents, held)
        self._open[shard], self.parents[shard], self.ends[shard] = held, parents, 0
        return shard

    def _tell(self, shard: str) -> None:
        for future in self._waiting.pop(shard, []):
            if not future.done():
                future.set_result(None)

    def __repr__(self) -> str:
        return f"<Stream {self.kind} {', '.join(self._open)}: {len(self.rows)} rows>"


class SimSource(Source):
    """The stream as one worker reads it: through the server, waiting at its end as a long poll does. `opened` is told what is read."""

    discovery_interval_s = 2.0

    def __init__(self, stream: Stream, server: Server, opened: Callable[[str], None]) -> None:
        self.stream, self.server, self._opened = stream, server, opened

    async def shards(self) -> Sequence[Shard]:
        return await self.server.ask("lists shards", lambda: at_once(self.stream.memory.shards()))

    async def position(self, shard: Shard, start: Start) -> Position:
        return await self.server.ask(f"{shard.id} position", lambda: at_once(self.stream.memory.position(shard, start)))

    async def open(self, shard: Shard, after: Position) -> Reader:
        await self.server.ask(f"{shard.id} opened after {after}", lambda: self._opened(shard.id))
        return _SimReader(self, shard, after)

    async def tell(self, ends: Mapping[str, Position]) -> None:
        await self.server.ask("told", lambda: None)

    def __repr__(self) -> str:
        return f"<SimSource {self.stream!r}>"


class _SimReader(Reader):
    """The server keeps nothing of it: an answer that is lost loses no row."""

    def __init__(self, source: SimSource, shard: Shard, after: Position) -> None:
        self._source, self._shard, self._after = source, shard, after

    async def read(self, until: Position | None = None) -> Chunk:
        if until is None:
            await self._source.stream.news(self._shard.id, int(self._after) + 1)
        chunk = await self._source.server.ask(f"{self._shard.id} read after {self._after}", lambda: at_once(self._read(until)))
        self._after = chunk.end
        return chunk

    async def _read(self, until: Position | None) -> Chunk:
        reader = await self._source.stream.memory.open(self._shard, self._after)
        return await reader.read(until)

    def __repr__(self) -> str:
        return f"<_SimReader {self._shard.id} after {self._after}>"
