"""Reading a shard by GetRecords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from sources.kinesis.positions import count_to, order, sequence_of
from streamproc.batch import Chunk
from streamproc.clients.aws import Expired, NotFound, Refused, Throttled
from streamproc.clients.kinesis import MAX_RECORDS, Answer, KinesisStream, Rows, rows_of
from streamproc.errors import BadRecord, Unavailable
from streamproc.offset import Position
from streamproc.source import Reader, Shard
from streamproc.world import World

PACE_S = 0.2
"""Between two reads of a shard that is not behind: Kinesis allows five a second to all its consumers together."""
QUIET_S = 1.0
"""The same once nothing has come for a while, so that a quiet shard leaves reads to others."""
_EDGE_MS = 60_000
_RECORD_COLUMNS = frozenset({"_timestamp", "_key", "_partition_key"})
NOTHING = rows_of([], frozenset(), None, drop=False).rows


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one answer that are not handed out yet, and what the answer said about the shard behind them."""

    read: Rows
    at_end: bool
    ended: bool
    lag: int | None
    children: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A shard that is read, and what both ways of reading do with the records of an answer. `drop`: user records of
    aggregates whose hash lies outside the shard.
    """

    stream: KinesisStream
    shard: Shard
    wanted: frozenset[str]
    drop: bool
    world: World
    name: str

    def bare(self, resuming: bool) -> bool:
        """Whether bytes and sequence numbers of records are enough."""
        return not (self.wanted & _RECORD_COLUMNS or resuming)

    def page(self, answer: Answer, after: Position, *, at_end: bool, ended: bool) -> Page:
        """An answer that began at or behind `after`, without what lies up to there."""
        read = rows_of(answer.Records, self.wanted, self.shard.hash_range, drop=self.drop)
        if read.outside:
            self.world.metrics.add("streamproc_outside_hash_range_total", read.outside, source=self.name)
        if read.sequences and read.sequences[0] == sequence_of(after):
            read = replace(read, rows=read.rows.slice(count_to(read.rows, after)))
        return Page(read, at_end, ended, answer.MillisBehindLatest, answer.children() if ended else ())

    def chunk(self, rows: pa.RecordBatch, end: Position, page: Page | None = None) -> Chunk:
        if page is None:
            return Chunk(self.shard.id, rows, end)
        return Chunk(self.shard.id, rows, end, page.at_end or page.ended, page.ended, page.lag, page.children)

    async def check_gap(self, after: Position, records: Sequence[Any]) -> None:
        """BadRecord if the record at `after` is no longer there, and rows behind it may be gone too.

        They are if the shard begins later than that (the stream was made anew), or if the oldest record left lies at the edge of
        the retention. If it is younger, nothing between the two has been trimmed lately and the shard was just quiet.
        """
        known = sequence_of(after)
        if known is None or not records or known == records[0].SequenceNumber:
            return
        first = await self.stream.first_sequence(self.shard.id)
        if int(known) < first:
            raise self.gone(after, f"the shard begins at {first}; was the stream deleted and made anew?")
        horizon_ms = self.world.clock.now_us() / 1000 - await self.stream.retention_ms()
        if records[0].ApproximateArrivalTimestamp * 1000 < horizon_ms + _EDGE_MS:
            raise self.gone(after, f"they are older than the stream's retention; the oldest left is {records[0].SequenceNumber}")

    def gone(self, after: Position, why: str) -> BadRecord:
        return BadRecord(f"source {self.name}, shard {self.shard.id}: rows after {after} are gone: {why}")

    def count_retry(self) -> None:
        self.world.metrics.add("streamproc_retries_total", what=f"source {self.name}")


class PollingReader(Reader):
    """Holds at most one page: what lies behind `until`, or what a cancelled read had fetched."""

    def __init__(self, reading: Reading, after: Position) -> None:
        self._reading = reading
        self._after = after
        self._iterator: str | None = None
        self._resuming = False
        self._page: Page | None = None
        self._not_before_s = 0.0
        self._wait_s = PACE_S
        self._throttled = 0

    @property
    def holds_rows(self) -> bool:
        return self._page is not None

    async def read(self, until: Position | None = None) -> Chunk:
        if until == self._after:
            return self._reading.chunk(NOTHING, self._after)
        if self._page is None:
            clock = self._reading.world.clock
            await clock.sleep(self._not_before_s - clock.monotonic_s())
            try:
                await self._fetch()
            except Throttled:
                self._back_off()
        page, self._page = self._page, None
        if page is None:
            return self._reading.chunk(NOTHING, self._after)
        return self._hand_out(page, until)

    async def _fetch(self) -> None:
        """Get the next page. State changes only after the last await: a cancelled fetch is simply made again."""
        reading = self._reading
        resuming = self._resuming or self._iterator is None
        iterator = self._iterator or await self._begin()
        try:
            answer = await reading.stream.get_records(iterator, bare=reading.bare(resuming))
        except Expired:
            self._iterator = None
            return
        except NotFound as error:
            raise reading.gone(self._after, "the shard no longer exists") from error
        if resuming:
            await reading.check_gap(self._after, answer.Records)
        count = len(answer.Records)
        at_end = answer.MillisBehindLatest == 0 and count < MAX_RECORDS
        self._page = reading.page(answer, self._after, at_end=at_end, ended=answer.NextShardIterator is None)
        self._iterator, self._resuming = answer.NextShardIterator, resuming and not count
        self._pace(count, at_end)

    async def _begin(self) -> str:
        """An iterator where the reader stands. AT, not AFTER, a sequence number: its record must come first, else it is gone."""
        stream, shard = self._reading.stream, self._reading.shard.id
        kind, _, rest = self._after.partition(":")
        try:
            if kind == "TRIM_HORIZON":
                return await stream.iterator(shard, "TRIM_HORIZON")
            if kind == "AT_TIMESTAMP":
                return await stream.iterator(shard, "AT_TIMESTAMP", at_ms=int(rest))
            return await stream.iterator(shard, "AT_SEQUENCE_NUMBER", sequence=kind)
        except NotFound as error:
            raise self._reading.gone(self._after, "stream or shard no longer exists") from error
        except Refused as error:
            if kind == "AT_TIMESTAMP":
                raise Unavailable(f"{error} (is the clock of this machine ahead?)") from error
            raise self._reading.gone(self._after, f"Kinesis does not know that position ({error}); was the stream made anew?") from error

    def _hand_out(self, page: Page, until: Position | None) -> Chunk:
        rows, end = page.read.rows, page.read.end or self._after
        if until is None or order(until)[0] > order(end)[0]:
            if until is not None and page.at_end:
                self._page = page
                raise self._reading.gone(self._after, f"{until} was read before and is not there now")
            self._after = end
            return self._reading.chunk(rows, end, page)
        if sequence_of(until) not in (*page.read.sequences, sequence_of(end)):
            self._page = page
            raise self._reading.gone(self._after, f"{until} was read before and is not there now")
        count = count_to(rows, until)
        if count == rows.num_rows and order(until)[0] == order(end)[0]:
            self._after = until
            return self._reading.chunk(rows, until, page)
        self._page = replace(page, read=replace(page.read, rows=rows.slice(count)))
        self._after = until
        return self._reading.chunk(rows.slice(0, count), until)

    def _pace(self, count: int, at_end: bool) -> None:
        """When the next read may be made: at once while the shard is behind."""
        self._throttled = 0
        self._wait_s = PACE_S if count else min(self._wait_s * 2, QUIET_S)
        self._not_before_s = self._reading.world.clock.monotonic_s() + (self._wait_s if at_end else 0)

    def _back_off(self) -> None:
        self._throttled += 1
        world = self._reading.world
        wait_s = min(PACE_S * 2**self._throttled, QUIET_S) * world.random.uniform(0.5, 1)
        self._not_before_s = world.clock.monotonic_s() + wait_s
        self._reading.count_retry()

    def __repr__(self) -> str:
        return f"<PollingReader {self._reading.shard.id} after {self._after}{' holds a page' * self.holds_rows}>"
