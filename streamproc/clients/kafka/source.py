"""Topics as an unbounded table, for every source that reads them: a shard is a partition, a position the offset of the last row
consumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import pyarrow.compute as pc
from pydantic import Field

from streamproc.batch import Chunk
from streamproc.clients.kafka.connection import EARLIEST_MS, LATEST_MS, KafkaConnection, TopicPartition
from streamproc.clients.kafka.fetcher import Feed, Fetcher
from streamproc.clients.kafka.records import Fetched, Unpacked, Unpacking, unpack
from streamproc.clock import SystemClock
from streamproc.errors import BadRecord
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.source import Reader, Shard, Source
from streamproc.world import World

ANSWER_S = 1.0
REPLAY_GRACE_S = 10.0
"""After a change of leader the end may seem lower for a moment than what was already read."""


class ReadingOptions(SourceOptions):
    """How records are read, whoever says which."""

    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    group: str | None = Field(default=None, description="consumer group where committed offsets are mirrored for other tools")
    on_data_loss: Literal["fail", "earliest"] = Field(default="fail", description="when rows are gone before they were read")
    tombstones: Literal["skip", "row"] = Field(default="skip", description="records whose value is null")


class KafkaSource(Source):
    """Reads with raw fetch requests; rows are Arrow from the record batches on.

    `topics`: one name (shards are then `0`, `1`, …), several (`topic-0`), or a pattern that whole names match.
    """

    optional_columns = frozenset({"_headers"})

    def __init__(
        self,
        connection: KafkaConnection,
        topics: str | Sequence[str] | re.Pattern[str],
        options: ReadingOptions,
        world: World,
        name: str,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._options = options
        self._world = world
        self._name = name
        self._committed = options.isolation == "read_committed"
        self._fetcher = Fetcher(connection, committed=self._committed)

    async def shards(self) -> Sequence[Shard]:
        return [Shard(self._id(at)) for at in await self._partitions()]

    async def position(self, shard: Shard, start: Start) -> Position:
        """Of `latest` and of a time after the newest row: the end now, so that rows that come later are read."""
        at = self._at(shard.id)
        offset = None
        if start.kind == "earliest":
            offset = await self._connection.offset(at, EARLIEST_MS)
        elif start.kind == "timestamp":
            at_ms = -(-(start.at_us or 0) // 1000)  # the broker's times are milliseconds: the first at or after
            offset = await self._connection.offset(at, at_ms, committed=self._committed)
        if offset is None:
            offset = await self._connection.offset(at, LATEST_MS, committed=self._committed)
        return str((offset or 0) - 1)

    async def open(self, shard: Shard, after: Position) -> Reader:
        how = Unpacking(self.wanted, self._options.tombstones == "row", self._committed)
        return KafkaReader(self, shard.id, Feed(self._at(shard.id), int(after) + 1), how)

    async def tell(self, ends: Mapping[str, Position]) -> None:
        if self._options.group is not None and ends:
            offsets = {self._at(shard): int(end) + 1 for shard, end in ends.items()}
            await self._connection.commit(self._options.group, offsets)

    async def close(self) -> None:
        await self._fetcher.close()
        await self._connection.close()

    async def bounds(self, at: TopicPartition) -> tuple[int, int]:
        """First offset of the partition and the one after its last."""
        first = await self._connection.offset(at, EARLIEST_MS)
        stop = await self._connection.offset(at, LATEST_MS)
        return first or 0, stop or 0

    def count_lost(self, rows: int) -> None:
        self._world.metrics.add("streamproc_lost_rows_total", rows, source=self._name)

    def fails_on_data_loss(self) -> bool:
        return self._options.on_data_loss == "fail"

    @property
    def fetcher(self) -> Fetcher:
        return self._fetcher

    @property
    def world(self) -> World:
        return self._world

    async def _partitions(self) -> list[TopicPartition]:
        topics = self._topics
        if isinstance(topics, re.Pattern):
            return await self._connection.matching(topics.pattern)
        return await self._connection.partitions([topics] if isinstance(topics, str) else list(topics))

    def _id(self, at: TopicPartition) -> str:
        return str(at.partition) if isinstance(self._topics, str) else str(at)

    def _at(self, shard: str) -> TopicPartition:
        topic, _, number = shard.rpartition("-")
        return TopicPartition(self._topics if isinstance(self._topics, str) else topic, int(number))

    def __repr__(self) -> str:
        topics = self._topics.pattern if isinstance(self._topics, re.Pattern) else self._topics
        return f"<{type(self).__name__} {self._name}: {topics} of {self._connection}>"


class KafkaReader(Reader):
    """One partition from a position on. `_position` is the offset after what was handed out."""

    def __init__(self, source: KafkaSource, shard: str, feed: Feed, how: Unpacking) -> None:
        self._source = source
        self._shard = shard
        self._feed = feed
        self._how = how
        self._position = feed.position
        self._pieces: Pieces | None = None
        self._rest: Unpacked | None = None
        self._fresh = False
        """What is handed out was asked for during this read: only then can the broker's end be ours."""
        self._short_since_s: float | None = None
        source.fetcher.attach(feed)

    async def read(self, until: Position | None = None) -> Chunk:
        """The next piece; rows of a fetch response come in pieces of bounded size."""
        stop = None if until is None else int(until) + 1
        self._feed.begin()
        self._fresh = False
        if stop is not None and self._position >= stop:
            return self._chunk(Unpacked(self._how.empty(), self._position))
        piece = self._rest or await self._next(stop)
        self._rest = None
        if stop is not None and piece.next > stop:
            piece, self._rest = _cut(piece, stop)
        self._position = piece.next
        return self._chunk(piece)

    async def close(self) -> None:
        self._source.fetcher.detach(self._feed)

    def _chunk(self, piece: Unpacked) -> Chunk:
        end = self._feed.end
        return Chunk(
            self._shard,
            piece.rows,
            str(piece.next - 1),
            at_end=end is not None and self._position >= end and self._fresh,
            lag=None if end is None else max(0, end - self._position),
        )

    async def _next(self, stop: int | None) -> Unpacked:
        """The next piece; without rows if none came within a second."""
        if self._pieces is None:
            if not self._feed.parts:
                await self._wait(stop)
            part = self._feed.pop()
            if part is None:
                self._fresh = self._feed.answered
                return Unpacked(self._how.empty(), self._position)
            self._pieces = Pieces(part, self._how, self._feed.at)
            self._source.fetcher.run()  # there is room again
        piece = await self._pieces.next()
        self._fresh = self._pieces.turn == self._feed.turn
        if piece.next >= self._pieces.stop:
            self._pieces = None
        return piece

    async def _wait(self, stop: int | None) -> None:
        """Until the feed has rows, for a second at most; raises what is in the way."""
        await self._raise_trouble(stop)
        await self._source.fetcher.find(self._feed)
        self._source.fetcher.run()
        await self._feed.wait(ANSWER_S)
        if not self._feed.parts:
            await self._raise_trouble(stop)
            self._check_replay(stop)

    async def _raise_trouble(self, stop: int | None) -> None:
        error, self._feed.error = self._feed.error, None
        if error is not None:
            raise error
        if self._feed.out_of_range:
            await self._go_on(replaying=stop is not None)

    async def _go_on(self, *, replaying: bool) -> None:
        """The broker has no such offset: go on where the job allows it."""
        at, position = self._feed.at, self._position
        first, end = await self._source.bounds(at)
        holds = f"it now holds {first} to {end - 1}" if end > first else f"it is empty and goes on at {end}"
        if position > end:
            raise BadRecord(
                f"{at} was truncated or made anew: read up to offset {position - 1}, but {holds}. What was read cannot be taken "
                "back: begin with a new checkpoint, or roll back to a time before"
            )
        if position < first and (replaying or self._source.fails_on_data_loss()):
            raise BadRecord(
                f"{at}: rows {position} to {first - 1} are gone (retention), {holds}. "
                + (
                    "An epoch that was begun needs them: roll back to a time before, or begin with a new checkpoint"
                    if replaying
                    else "Write on_data_loss: earliest to go on without them"
                )
            )
        if position < first:
            self._source.count_lost(first - position)
            self._position = first
        self._feed.restart(self._position)

    def _check_replay(self, stop: int | None) -> None:
        """Rows that a replay needs but that the log does not hold any more (its end was cut off) never come."""
        if stop is None or not (self._feed.at_end and self._feed.answered):
            self._short_since_s = None
            return
        now_s = self._source.world.clock.monotonic_s()
        if self._short_since_s is None:
            self._short_since_s = now_s
        if now_s - self._short_since_s >= REPLAY_GRACE_S:
            raise BadRecord(
                f"{self._feed.at} ends at offset {self._position - 1}, but an epoch has read it up to {stop - 1}: it was truncated. "
                "Roll back to a time before, or begin with a new checkpoint"
            )

    def __repr__(self) -> str:
        return f"<KafkaReader {self._feed.at} at {self._position}>"


class Pieces:
    """The pieces of one answer. A cancelled `next` loses nothing.

    They are unpacked on the event loop, in slices of some milliseconds: the parsers hold the GIL, so a thread would
    keep the loop waiting as long, and costs 0.05 µs a record more in switches between the two.
    """

    def __init__(self, part: Fetched, how: Unpacking, at: TopicPartition) -> None:
        self.stop = part.next
        self.turn = part.turn
        self._part = part
        self._at = at
        self._unpacked = unpack(part, how)
        self._error: BadRecord | None = None
        self._clock = SystemClock()  # others have their turn also beside a clock that a test moves

    async def next(self) -> Unpacked:
        """BadRecord, again and again, if a batch is corrupt."""
        while self._error is None:
            piece = self._work()
            if piece is not None:
                return piece
            await self._clock.sleep(0)
        raise self._error

    def _work(self) -> Unpacked | None:
        try:
            return next(self._unpacked)
        except Exception as error:  # aiokafka's C parsers raise anything on corrupt bytes, SystemError and MemoryError included
            reason = f"{self._at}: records between offsets {self._part.start} and {self._part.next - 1} cannot be read: {error}"
            self._error = BadRecord(reason)
            self._error.__cause__ = error
            return None

    def __repr__(self) -> str:
        return f"<Pieces of {self._at} to {self.stop}>"


def _cut(piece: Unpacked, stop: int) -> tuple[Unpacked, Unpacked]:
    """Rows below `stop`, and the others."""
    count = pc.sum(pc.less(piece.rows["_offset"], stop)).as_py() or 0
    return Unpacked(piece.rows.slice(0, count), stop), Unpacked(piece.rows.slice(count), piece.next)
