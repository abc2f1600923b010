"""Kinesis Data Streams by polling: GetRecords shard by shard, KPL aggregates unpacked.

Positions: `TRIM_HORIZON`, `AT_TIMESTAMP:<ms since 1970>`, `<sequence number>`, and inside an aggregate
`<sequence number>:<sub-sequence number>`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from streamproc.batch import Chunk
from streamproc.clients.aws import Expired, NotFound, Refused, Throttled
from streamproc.clients.kinesis import MAX_RECORDS, KinesisStream, Rows, rows_of
from streamproc.errors import BadRecord, Unavailable
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.source import Reader, Shard, Source
from streamproc.world import World

PACE_S = 0.2
"""Between two reads of a shard that is not behind: Kinesis allows five a second to all its consumers together."""
QUIET_S = 1.0
"""The same once nothing has come for a while, so that a quiet shard leaves reads to others."""
_EDGE_MS = 60_000
_RECORD_COLUMNS = frozenset({"_timestamp", "_key", "_partition_key"})


class KinesisOptions(SourceOptions):
    """Keys of a `kinesis` source."""

    type: Literal["kinesis"] = "kinesis"
    stream: str | None = Field(None, description="name of the stream; or stream_arn")
    stream_arn: str | None = Field(None, description="ARN of the stream, also in another account")
    region: str | None = Field(None, description="default: the platform's (AWS_REGION, profile)")
    endpoint_url: str | None = Field(None, description="default: the platform's (AWS_ENDPOINT_URL), else AWS")
    read: Literal["polling", "fan_out"] = Field("polling", description="polling: GetRecords, at most five reads a second a shard")
    consumer: str | None = Field(None, description="name of the registered consumer (fan_out)")
    outside_hash_range: Literal["keep", "drop"] = Field(
        "keep", description="user records of KPL aggregates whose hash lies outside the shard: keep (counted) or drop"
    )

    @field_validator("read")
    @classmethod
    def _built(cls, value: str) -> str:
        if value == "fan_out":
            raise ValueError("read: fan_out is not built yet; use polling")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> KinesisOptions:
        if (self.stream is None) == (self.stream_arn is None):
            raise ValueError("a kinesis source needs stream or stream_arn, one of the two")
        if self.format == "parquet":
            raise ValueError("format: parquet is of files only; Kinesis records are json, csv or raw")
        if self.partitioned_by and self.outside_hash_range == "keep" and "outside_hash_range" in self.model_fields_set:
            raise ValueError("partitioned_by cannot hold together with outside_hash_range: keep; use drop")
        return self


class Kinesis(Source):
    """One stream, a reader a shard. Which records of a shard are left depends on the stream's retention."""

    Options: ClassVar[type[KinesisOptions]] = KinesisOptions
    lag_unit = "ms"
    optional_columns = frozenset({"_partition_key", "_sub_sequence"})

    def __init__(self, options: KinesisOptions, world: World, name: str) -> None:
        self._options = options
        self._world = world
        self._name = name
        self._stream = KinesisStream(name, options.stream, options.stream_arn, options.region, options.endpoint_url)

    async def shards(self) -> Sequence[Shard]:
        return await self._stream.list_shards()

    async def position(self, shard: Shard, start: Start) -> Position:
        """Latest is this moment by the clock of this machine; arrival times are in milliseconds."""
        del shard
        if start.kind == "earliest":
            return "TRIM_HORIZON"
        at_ms = self._world.clock.now_us() // 1000 if start.at_us is None else -(-start.at_us // 1000)
        return f"AT_TIMESTAMP:{at_ms}"

    async def open(self, shard: Shard, after: Position) -> Reader:
        return _KinesisReader(self._stream, shard, after, self.wanted, self._options, self._world, self._name)

    async def close(self) -> None:
        await self._stream.close()

    def __repr__(self) -> str:
        return f"<Kinesis {self._name} {self._stream!r}>"


@dataclass(frozen=True, slots=True)
class _Page:
    """Rows of one answer that are not handed out yet, and what the answer said about the shard behind them."""

    read: Rows
    at_end: bool
    ended: bool
    lag: int | None


class _KinesisReader(Reader):
    """Holds at most one page: what lies behind `until`, or what a cancelled read had fetched."""

    def __init__(
        self, stream: KinesisStream, shard: Shard, after: Position, wanted: frozenset[str], options: KinesisOptions, world: World, name: str
    ) -> None:
        self._stream = stream
        self._shard = shard
        self._after = after
        self._wanted = wanted
        self._drop = options.outside_hash_range == "drop"
        self._world = world
        self._name = name
        self._iterator: str | None = None
        self._resuming = False
        self._page: _Page | None = None
        self._not_before_s = 0.0
        self._wait_s = PACE_S
        self._throttled = 0

    async def read(self, until: Position | None = None) -> Chunk:
        if until == self._after:
            return self._chunk(_NOTHING, self._after)
        if self._page is None:
            await self._world.clock.sleep(self._not_before_s - self._world.clock.monotonic_s())
            try:
                await self._fetch()
            except Throttled:
                self._back_off()
        page, self._page = self._page, None
        if page is None:
            return self._chunk(_NOTHING, self._after)
        return self._hand_out(page, until)

    async def _fetch(self) -> None:
        """Get the next page. State changes only after the last await: a cancelled fetch is simply made again."""
        resuming = self._resuming or self._iterator is None
        iterator = self._iterator or await self._begin()
        bare = not (self._wanted & _RECORD_COLUMNS or resuming)
        try:
            answer = await self._stream.get_records(iterator, bare=bare)
        except Expired:
            self._iterator = None
            return
        except NotFound as error:
            raise self._gone("the shard no longer exists") from error
        if resuming and answer.Records:
            await self._check_gap(answer.Records[0])
        read = rows_of(answer.Records, self._wanted, self._shard.hash_range, drop=self._drop)
        count, behind = len(answer.Records), answer.MillisBehindLatest
        at_end = behind == 0 and count < MAX_RECORDS
        self._page = _Page(self._skip_known(read), at_end, answer.NextShardIterator is None, behind)
        self._iterator, self._resuming = answer.NextShardIterator, resuming and not count
        self._pace(count, at_end)
        if read.outside:
            self._world.metrics.add("streamproc_outside_hash_range_total", read.outside, source=self._name)

    async def _begin(self) -> str:
        """An iterator where the reader stands. AT, not AFTER, a sequence number: its record must come first, else it is gone."""
        kind, _, rest = self._after.partition(":")
        try:
            if kind == "TRIM_HORIZON":
                return await self._stream.iterator(self._shard.id, "TRIM_HORIZON")
            if kind == "AT_TIMESTAMP":
                return await self._stream.iterator(self._shard.id, "AT_TIMESTAMP", at_ms=int(rest))
            return await self._stream.iterator(self._shard.id, "AT_SEQUENCE_NUMBER", sequence=kind)
        except NotFound as error:
            raise self._gone("stream or shard no longer exists") from error
        except Refused as error:
            if kind == "AT_TIMESTAMP":
                raise Unavailable(f"{error} (is the clock of this machine ahead?)") from error
            raise self._gone(f"Kinesis does not know that position ({error}); was the stream made anew?") from error

    async def _check_gap(self, first: object) -> None:
        """A record that is no longer there while the oldest one left lies at the edge of the retention: rows after it are gone too.

        If the oldest one is younger than that, nothing between the two has been trimmed lately and the shard was just quiet.
        """
        known = _sequence(self._after)
        if known is None or known == first.SequenceNumber:  # type: ignore[attr-defined]  # a Record
            return
        arrived_ms = first.ApproximateArrivalTimestamp * 1000  # type: ignore[attr-defined]
        horizon_ms = self._world.clock.now_us() / 1000 - await self._stream.retention_ms()
        if arrived_ms < horizon_ms + _EDGE_MS:
            raise self._gone(f"they are older than the stream's retention; the oldest left is {first.SequenceNumber}")  # type: ignore[attr-defined]

    def _gone(self, why: str) -> BadRecord:
        return BadRecord(f"source {self._name}, shard {self._shard.id}: rows after {self._after} are gone: {why}")

    def _skip_known(self, read: Rows) -> Rows:
        """Without what the reader had before: the record AT which the iterator began, or its first user records."""
        if not read.sequences or read.sequences[0] != _sequence(self._after):
            return read
        return replace(read, rows=read.rows.slice(_count_to(read.rows, self._after)))

    def _hand_out(self, page: _Page, until: Position | None) -> Chunk:
        rows, end = page.read.rows, page.read.end or self._after
        if until is None or _order(until) > _order(end):
            if until is not None and page.at_end:
                self._page = page
                raise self._gone(f"{until} was read before and is not there now")
            self._after = end
            return self._chunk(rows, end, page)
        if _order(until) == _order(end):
            self._after = until
            return self._chunk(rows, until, page)
        if _sequence(until) not in page.read.sequences:
            self._page = page
            raise self._gone(f"{until} was read before and is not there now")
        count = _count_to(rows, until)
        self._page = replace(page, read=replace(page.read, rows=rows.slice(count)))
        self._after = until
        return self._chunk(rows.slice(0, count), until)

    def _chunk(self, rows: pa.RecordBatch, end: Position, page: _Page | None = None) -> Chunk:
        if page is None:
            return Chunk(self._shard.id, rows, end)
        return Chunk(self._shard.id, rows, end, at_end=page.at_end or page.ended, ended=page.ended, lag=page.lag)

    def _pace(self, count: int, at_end: bool) -> None:
        """When the next read may be made: at once while the shard is behind."""
        self._throttled = 0
        self._wait_s = PACE_S if count else min(self._wait_s * 2, QUIET_S)
        self._not_before_s = self._world.clock.monotonic_s() + (self._wait_s if at_end else 0)

    def _back_off(self) -> None:
        self._throttled += 1
        wait_s = min(PACE_S * 2**self._throttled, QUIET_S) * self._world.random.uniform(0.5, 1)
        self._not_before_s = self._world.clock.monotonic_s() + wait_s
        self._world.metrics.add("streamproc_retries_total", what=f"source {self._name}")

    def __repr__(self) -> str:
        return f"<_KinesisReader {self._shard.id} after {self._after}{' holds a page' * (self._page is not None)}>"


_NOTHING = rows_of([], frozenset(), None, drop=False).rows


def _sequence(position: Position) -> str | None:
    """The sequence number of a position; None for those that name no record."""
    sequence = position.partition(":")[0]
    return sequence if sequence.isdigit() else None


def _order(position: Position) -> tuple[int, float]:
    """Where a position lies in its shard: sequence numbers are long integers; without a sub-sequence number the whole record is meant."""
    sequence, _, sub = position.partition(":")
    if not sequence.isdigit():
        return -1, 0
    return int(sequence), int(sub) if sub else float("inf")


def _count_to(rows: pa.RecordBatch, position: Position) -> int:
    """How many of the rows lie at or before a position; about log2(rows) comparisons."""
    return bisect_right(rows["_offset"], _order(position), key=lambda offset: _order(offset.as_py()))
