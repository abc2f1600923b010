"""A feed reads one shard ahead of the epochs: read, decode in a thread, queue; back-pressured by bytes.

It also counts the shard's idle time: only between answers in which the reader says it is at its end. A server that is
away, a throttle or a full queue lets it stand still, so an outage never turns a backlog into late rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import Chunk
from streamproc.errors import Bug, StreamprocError, Unavailable
from streamproc.offset import Position
from streamproc.race import first_of
from streamproc.source import Reader, Shard, Source
from streamproc.world import World

QUIET_READ_S = 0.1
"""A reader that answers "nothing" at once is asked again after this time."""
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
BUDGET_NBYTES = 16 * 1024 * 1024
DECODE_THREADS = 2
MERGED_ROWS = 32_768
"""Small answers that wait are decoded together up to so many rows: a statement costs the same for one row."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Decoded rows of one shard in shard order. `rows` are the good ones (the scan's columns), `index[i]` is the place
    of `rows[i]` among all `count` records; `offsets`, `sub_offsets` and `payloads` (kept only for dead letters) belong to
    the records; `bad` has BAD_SCHEMA. `event_us` is the newest event time (of `time_column`) among the good rows.
    """

    shard: str
    rows: pa.Table
    bad: pa.Table
    offsets: pa.Array
    end: Position
    index: pa.Array | None = None
    sub_offsets: pa.Array | None = None
    payloads: pa.Array | None = None
    time_column: str | None = None
    event_us: int | None = None
    nbytes: int = 0

    @property
    def count(self) -> int:
        return len(self.offsets)

    def head(self, records: int) -> Piece:
        """The first `records` (fewer than `count`): what an epoch's limit lets through."""
        return self._cut(0, records, str(self.offsets[records - 1].as_py()))

    def tail(self, records: int) -> Piece:
        """What `head(records)` leaves."""
        return self._cut(records, self.count, self.end)

    def _cut(self, start: int, stop: int, end: Position) -> Piece:
        inside = _between(self.bad.column("index"), start, stop)
        bad = self.bad.filter(inside)
        index = self.index if self.index is not None else pa.array(range(self.count), pa.int64())
        good = _between(index, start, stop)
        rows = self.rows.filter(good)
        return replace(
            self,
            rows=rows,
            event_us=newest_event(rows, self.time_column),
            bad=bad.set_column(0, "index", pc.subtract(bad.column("index"), start)),
            offsets=self.offsets.slice(start, stop - start),
            sub_offsets=None if self.sub_offsets is None else self.sub_offsets.slice(start, stop - start),
            payloads=None if self.payloads is None else self.payloads.slice(start, stop - start),
            index=pc.subtract(index.filter(good), start),
            end=end,
            nbytes=self.nbytes * (stop - start) // self.count,
        )


def newest_event(rows: pa.Table, time_column: str | None) -> int | None:
    """Newest time in µs, None without a time column, rows or times."""
    if time_column is None or not rows.num_rows:
        return None
    newest = pc.max(rows.column(time_column))
    return int(newest.value) if newest.is_valid else None


def _between(values: pa.Array | pa.ChunkedArray, start: int, stop: int) -> pa.Array | pa.ChunkedArray:
    return pc.and_(pc.greater_equal(values, start), pc.less(values, stop))


class Budget:
    """Bytes that all feeds together may hold ahead of the epochs. One piece may always be held, however large."""

    def __init__(self, nbytes_max: int) -> None:
        self.nbytes_max = nbytes_max
        self.nbytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def hold(self, nbytes: int) -> None:
        self.nbytes += nbytes
        if self.nbytes >= self.nbytes_max:
            self._room.clear()

    def release(self, nbytes: int) -> None:
        self.nbytes -= nbytes
        if self.nbytes < self.nbytes_max:
            self._room.set()

    async def room(self) -> None:
        await self._room.wait()


class Decoding:
    """What the feeds of a job in one worker share: threads that decode (None: the event loop does it), and a budget of bytes."""

    def __init__(self, *, offloaded: bool = True) -> None:
        self.threads = ThreadPoolExecutor(DECODE_THREADS, "decode") if offloaded else None
        self.budget = Budget(BUDGET_NBYTES)

    def close(self) -> None:
        if self.threads is not None:
            self.threads.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"<Decoding {self.budget.nbytes} bytes held, {'in threads' if self.threads else 'in the loop'}>"


class Feed:
    """One shard being read. `queue` holds decoded pieces after `end`; `news` is called after every answer.

    `exhausted`: nothing more is read (the shard ended, or `once` and its end was reached).
    `answers` counts reads that the source answered, `read_nbytes` their bytes; `children`: those the shard's end names; `failure` is
    the last `Unavailable` while the source is away, or the error that ended this feed for good (`broken`). `idle_us` is
    how long it has been at its end, `idle_before_us` how long it had been when the first row now queued came. `lag` is
    the reader's last word on what is left.
    """

    def __init__(
        self,
        source_name: str,
        source: Source,
        shard: Shard,
        after: Position,
        decode: Callable[[Chunk], Piece],
        decoding: Decoding,
        world: World,
        news: Callable[[], None],
        idle_us: int = 0,
        once: bool = False,
    ) -> None:
        self.source_name, self.source, self.shard = source_name, source, shard
        self.queue: deque[Piece] = deque()
        self.idle_us = self.idle_before_us = idle_us
        self.at_end = self.ended = False
        self.children: tuple[Shard, ...] = ()
        self.lag: int | None = None
        self.answers = 0
        self.read_nbytes = 0
        self.failure: StreamprocError | None = None
        self.broken = False
        self._decode, self._budget, self._threads = decode, decoding.budget, decoding.threads
        self._world, self._news, self._once = world, news, once
        self.exhausted = False
        self._at_end_since_s: float | None = None
        self._poked = asyncio.Event()
        self._raw: deque[Chunk] = deque()
        self._decoding: asyncio.Task[None] | None = None
        self.read_to = after

    @property
    def rows(self) -> int:
        return sum(piece.count for piece in self.queue)

    @property
    def settled(self) -> bool:
        """Everything read is decoded and queued."""
        return not self._raw

    @property
    def taken_to(self) -> Position | None:
        """The position read to once the queue has been taken: it may lie beyond the last row (control records, gaps)."""
        return self.read_to if self.settled and not self.queue else None

    def drop(self) -> None:
        """Let go of what was read ahead."""
        if self._decoding is not None:
            self._decoding.cancel()
        self._budget.release(sum(chunk.nbytes for chunk in self._raw) + sum(piece.nbytes for piece in self.queue))
        self._raw.clear()
        self.queue.clear()

    def poke(self) -> None:
        """Read again now instead of after a quiet answer's pause."""
        self._poked.set()

    async def run(self) -> None:
        """Read until the shard has ended (`once`: is at its end) or cancelled. Outages are waited out; other errors end the feed."""
        reader: Reader | None = None
        tries = 0
        try:
            while not self.exhausted and not self.broken:
                await self._budget.room()
                try:
                    reader = reader or await self.source.open(self.shard, self.read_to)
                    started_s = self._world.clock.monotonic_s()
                    self._take(await reader.read())
                    tries = 0
                    await self._pause(started_s)
                except Unavailable as error:
                    self._away(error)
                    await self._world.clock.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * (0.5 + self._world.random.random()))
                    tries += 1
                except StreamprocError as error:
                    self._break(error)
        finally:
            if reader is not None:
                await reader.close()

    def _take(self, chunk: Chunk) -> None:
        self.failure = None
        self.read_to, self.lag, self.at_end = chunk.end, chunk.lag, chunk.at_end
        self._count_idle(chunk)
        self.read_nbytes += chunk.nbytes
        if chunk.rows.num_rows or chunk.ended:
            self._budget.hold(chunk.nbytes)
            self._raw.append(chunk)
            if self._decoding is None or self._decoding.done():
                self._decoding = asyncio.ensure_future(self._decode_waiting())
        self.ended, self.children = chunk.ended, chunk.children
        self.exhausted = chunk.ended or (self._once and chunk.at_end)
        self.answers += 1
        self._news()

    def _count_idle(self, chunk: Chunk) -> None:
        now_s = self._world.clock.monotonic_s()
        if chunk.rows.num_rows:
            if not self.queue and not self._raw:
                self.idle_before_us = self.idle_us
            self.idle_us = 0
        elif chunk.at_end and self._at_end_since_s is not None and not self._raw:
            self.idle_us += round((now_s - self._at_end_since_s) * 1e6)
        self._at_end_since_s = now_s if chunk.at_end else None

    async def _decode_waiting(self) -> None:
        """Decode what has been read, small answers together, in order."""
        try:
            while self._raw:
                chunk, taken = merged(self._raw)
                piece = await self._decoded_at_last(chunk)
                held = sum(self._raw.popleft().nbytes for _ in range(taken))
                self._budget.hold(piece.nbytes - held) if piece.nbytes > held else self._budget.release(held - piece.nbytes)
                self.queue.append(piece)
                self._news()
        except StreamprocError as error:
            self._break(error)
        except Exception as error:  # whatever a decoder does, a shard must not stall in silence
            self._break(Bug(f"{self.source_name}/{self.shard.id} after {self.read_to}: {type(error).__name__}: {error}"))

    async def _decoded_at_last(self, chunk: Chunk) -> Piece:
        """Waits while a schema registry is away: what has been read stays, and time stands still."""
        tries = 0
        while True:
            try:
                return await self._decoded(chunk)
            except Unavailable as error:
                self._away(error)
                await self._world.clock.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * (0.5 + self._world.random.random()))
                tries += 1

    async def _decoded(self, chunk: Chunk) -> Piece:
        if self._threads is None:
            return self._decode(chunk)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, chunk)

    def _away(self, error: Unavailable) -> None:
        """The source does not answer: idle time stands still."""
        self._world.metrics.add("streamproc_retries_total", what=self.source_name)
        self._at_end_since_s = None
        self.at_end = False
        self.failure = error
        self._news()

    def _break(self, error: StreamprocError) -> None:
        self.failure, self.broken = error, True
        self._news()

    async def _pause(self, started_s: float) -> None:
        """A reader that said "nothing" without waiting is not asked again at once."""
        left_s = QUIET_READ_S - (self._world.clock.monotonic_s() - started_s)
        if self._raw or not self.at_end or left_s <= 0:
            await self._world.clock.sleep(0)
            return
        await first_of(self._world.clock.sleep(left_s), self._poked.wait())
        self._poked.clear()

    def take(self, records: int) -> list[Piece]:
        """Up to `records` from the front of the queue, a piece cut where they end."""
        taken: list[Piece] = []
        while self.queue and (records > 0 or not self.queue[0].count):
            piece = self.queue.popleft()
            if piece.count > records:
                self.queue.appendleft(piece.tail(records))
                piece = piece.head(records)
            taken.append(piece)
            records -= piece.count
            self._budget.release(piece.nbytes)
        return taken

    def begun(self) -> None:
        """An epoch has begun with what was taken: rows still queued came in a row with it."""
        self.idle_before_us = 0

    def __repr__(self) -> str:
        state = "broken" if self.broken else "away" if self.failure else "ended" if self.ended else "at end" if self.at_end else "reading"
        return f"<Feed {self.source_name}/{self.shard.id} {state} at {self.read_to}, {self.rows} rows queued>"


def merged(chunks: deque[Chunk]) -> tuple[Chunk, int]:
    """The first chunk together with those behind it up to MERGED_ROWS, and how many chunks that took."""
    rows, taken = chunks[0].rows.num_rows, 1
    while taken < len(chunks) and rows + chunks[taken].rows.num_rows <= MERGED_ROWS:
        rows += chunks[taken].rows.num_rows
        taken += 1
    if taken == 1:
        return chunks[0], 1
    parts = [chunks[i].rows for i in range(taken) if chunks[i].rows.num_rows] or [chunks[0].rows]
    return replace(chunks[taken - 1], rows=pa.concat_batches(parts)), taken
