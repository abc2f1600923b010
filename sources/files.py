"""Files of a folder, bucket or glob, each read once: lines of text or rows of Parquet, as one shard.

The order is a function of the files alone, so that a replay meets them as the first reading did: by `modified` time and
name, or (order `name`) by name among those that were there at the start, then by name within each second of appearance.

A position is a JSON list that needs nothing beside it: [bound, mark cell, mark name, floor, recent, count, digest, name, row].
Files up to the mark in that order are read. Objects may appear late with an old time (multipart uploads): those newer than
`floor` that are not among the `recent` ones are read as well. So exactly once holds for a file that appears out of order
while fewer than RECENT younger ones have been read; later than that it is taken for read.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from streamproc.batch import TIMESTAMP, Chunk
from streamproc.clients.folders import File, Folder, open_folder
from streamproc.errors import BadRecord, StreamprocError
from streamproc.formats.contents import Block, lines, parquet
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.source import Reader, Shard, Source
from streamproc.store import Missing
from streamproc.world import World

RECENT = 24
CELL_US = 1_000_000
OFFSET_BYTES = 16 * 2**20
"""Of a chunk's `_offset` column at most: a position takes some hundred bytes."""
WAIT_S = 1.0

Key = tuple[int, str]


class FilesOptions(SourceOptions):
    """Keys of a `files` source."""

    type: Literal["files"] = "files"
    path: str = Field(description="folder, file or glob; s3://, gs:// and az:// too. Names that begin with . or _ are left out")
    order: Literal["name", "modified"] = Field("name", description="of what is new at one time")
    max_files_per_epoch: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _records_are_lines_or_rows(self) -> FilesOptions:
        if self.format in ("avro", "protobuf"):
            raise ValueError(f"format: {self.format} is of records in Kafka or Kinesis; files are json, csv, raw or parquet")
        if self.compression is not None:
            raise ValueError("compression is of single payloads; compressed files are known by their names (.gz, .zst, .bz2)")
        return self


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been read. `mark`: files up to it in reading order; `bound_us`: files no younger were there at the start;
    `recent`: digest and time (whole seconds) of the files finished last; `floor_us`: no older file counts as late.
    `name`, `digest`: the file being read, `row` of its records so far (None: finished); `count`: files begun so far.
    """

    bound_us: int
    mark: Key
    floor_us: int
    recent: tuple[tuple[str, int], ...] = ()
    count: int = 0
    digest: str = ""
    name: str = ""
    row: int | None = None

    @classmethod
    def parse(cls, position: Position) -> Progress:
        bound, cell, name, floor, recent, count, digest, current, row = json.loads(position)
        known = tuple((entry[:16], int(entry[16:])) for entry in recent.split())
        return cls(bound, (cell, name), floor, known, count, digest, current, row)

    def position(self) -> Position:
        return f"{self.prefix()}{'null' if self.row is None else self.row}]"

    def prefix(self) -> str:
        """A position without its row number and the closing bracket."""
        recent = " ".join(f"{digest}{seconds}" for digest, seconds in self.recent)
        head = [self.bound_us, *self.mark, self.floor_us, recent, self.count, self.digest, self.name]
        return json.dumps(head, separators=(",", ":"))[:-1] + ","

    def key(self, file: File, order: str) -> Key:
        """Where a file stands in the reading order."""
        if order == "modified":
            return file.time_us, file.name
        return (0 if file.time_us <= self.bound_us else file.time_us // CELL_US), file.name

    def begun(self, file: File, order: str) -> Progress:
        mark = max(self.mark, self.key(file, order))
        return replace(self, mark=mark, count=self.count + 1, digest=file.digest, name=file.name, row=0)

    def finished(self, file: File) -> Progress:
        recent = (*self.recent, (file.digest, -(-file.time_us // 1_000_000)))
        forgotten = [seconds * 1_000_000 for _, seconds in recent[:-RECENT]]
        return replace(self, recent=recent[-RECENT:], floor_us=max([self.floor_us, *forgotten]), row=None)

    def unread(self, files: Sequence[File], order: str) -> list[File]:
        """What is left to read, in reading order; the file in hand is not among it."""
        known = {digest for digest, _ in self.recent} | {self.digest}
        left = [f for f in files if f.digest not in known and (self.key(f, order) > self.mark or f.time_us > self.floor_us)]
        return sorted(left, key=lambda f: self.key(f, order))

    def settled(self, file: File, order: str, now_us: int) -> bool:
        """Nothing can appear before this file any more, as far as its time tells."""
        if file.time_us <= self.bound_us:
            return True
        end_us = file.time_us if order == "modified" else (file.time_us // CELL_US + 1) * CELL_US
        return end_us <= now_us


class Files(Source):
    """One shard, "0"."""

    Options: ClassVar[type[FilesOptions]] = FilesOptions
    discovery_interval_s = 60.0

    def __init__(self, options: FilesOptions, world: World, name: str) -> None:
        self.options = options
        self.world = world
        self.name = name
        self.folder: Folder = open_folder(options.path, world)
        self.told: Progress | None = None

    async def shards(self) -> Sequence[Shard]:
        await asyncio.to_thread(self.folder.files)
        return [Shard("0")]

    async def position(self, shard: Shard, start: Start) -> Position:
        """Earliest: what is there now comes first. A start time is compared with the time of the files."""
        del shard
        if start.kind == "timestamp":
            return self._all_up_to((start.at_us or 0) - 1).position()
        there = sorted(await asyncio.to_thread(self.folder.files), key=lambda f: f.time_us)
        bound_us = max((f.time_us for f in there), default=-1)
        if start.kind == "earliest":
            return Progress(bound_us, (-1, ""), -1).position()
        known = tuple((f.digest, -(-f.time_us // 1_000_000)) for f in there[-RECENT:])
        floor_us = max((f.time_us for f in there[:-RECENT]), default=-1)
        return replace(self._all_up_to(bound_us), floor_us=floor_us, recent=known).position()

    def _all_up_to(self, time_us: int) -> Progress:
        return Progress(time_us, (0 if self.options.order == "name" else time_us, "\U0010ffff"), time_us)

    async def open(self, shard: Shard, after: Position) -> Reader:
        del shard
        return _FilesReader(self, Progress.parse(after))

    async def tell(self, ends: Mapping[str, Position]) -> None:
        """Lets readers begin further files where `max_files_per_epoch` held them back."""
        self.told = Progress.parse(ends["0"])

    def settled_us(self) -> int:
        return self.world.clock.now_us() - self.folder.settle_us

    def blocks(self, file: File, row: int, rows_max: int) -> Iterator[Block]:
        """The records of a file after the first `row`. Blocking."""
        stream, options = self.folder.open(file.name), self.options
        if options.format == "parquet":
            return parquet(stream, options.schema_, skip=row, rows_max=rows_max)
        header = options.format == "csv" and options.csv.header
        name = file.name or options.path
        return lines(stream, name, skip=row, header=header, blank=options.format == "raw", rows_max=rows_max)

    def nothing(self) -> pa.RecordBatch:
        """No rows, with the columns of a chunk."""
        schema = self.options.schema_ if self.options.format == "parquet" else pa.schema([("_value", pa.binary())])
        return pa.RecordBatch.from_pylist([], schema=pa.schema([*(schema or ()), ("_offset", pa.string())]))

    def __repr__(self) -> str:
        return f"<Files {self.name} {self.folder!r}>"


@dataclass(slots=True)
class _Reading:
    """A file in hand: its blocks, read one ahead so that the last one is known as such."""

    file: File
    blocks: Iterator[Block]
    ahead: Block | None = None
    primed: bool = False

    def next(self) -> tuple[Block | None, bool]:
        """A block (None: the file has no more records) and whether it is the last. Blocking."""
        if not self.primed:
            self.ahead, self.primed = next(self.blocks, None), True
        block, self.ahead = self.ahead, next(self.blocks, None) if self.ahead is not None else None
        return block, self.ahead is None


class _FilesReader(Reader):
    """`_progress` is what was handed out. A block that is read and not handed out waits in `_block`."""

    def __init__(self, source: Files, after: Progress) -> None:
        self._source = source
        self._order = source.options.order
        self._progress = after
        self._told = after
        self._waiting: deque[File] = deque()
        self._reading: _Reading | None = None
        self._block: Block | None = None
        self._last = False
        self._at_end = False
        self._listed: list[File] = []
        self._list_at_s = 0.0
        self._loading: asyncio.Task[None] | None = None
        self._by_order = False

    async def read(self, until: Position | None = None) -> Chunk:
        goal = None if until is None else Progress.parse(until)
        if goal == self._progress:
            return Chunk("0", self._source.nothing(), goal.position())
        if self._block is None and not self._last:
            await self._load(goal)
        return self._hand_out(goal)

    async def _load(self, goal: Progress | None) -> None:
        """Get a block. The work goes on if the read is cancelled: the next one finds it done."""
        self._loading = self._loading or asyncio.ensure_future(self._step(goal))
        try:
            await asyncio.shield(self._loading)
        finally:
            if self._loading.done():
                self._loading = None

    async def _step(self, goal: Progress | None) -> None:
        if self._reading is None:
            await self._begin_file(goal)
        reading = self._reading
        if reading is None:
            return
        try:
            self._block, self._last = await asyncio.to_thread(reading.next)
        except Missing:
            self._reading = None
            raise self._bad(reading.file.name, "was removed before it was read") from None
        except StreamprocError:
            self._reading = None
            raise
        except (ValueError, OSError) as error:
            self._reading = None
            raise self._bad(reading.file.name, f"cannot be read: {error}") from error

    async def _begin_file(self, goal: Progress | None) -> None:
        progress = self._progress
        if progress.row is not None:
            file = next((f for f in await self._list() if f.digest == progress.digest), None)
            if file is None:
                raise self._bad(progress.name, "was removed or replaced before all of it was read")
        else:
            file = await (self._next() if goal is None else self._next_of(goal))
            if file is None:
                return
            progress = progress.begun(file, self._order)
        rows_max = min(65_536, max(1024, OFFSET_BYTES // len(progress.prefix())))
        try:
            blocks = await asyncio.to_thread(self._source.blocks, file, progress.row or 0, rows_max)
        except Missing:
            raise self._bad(file.name, "was removed before it was read") from None
        if self._waiting and self._waiting[0] is file:
            self._waiting.popleft()
        self._progress, self._reading = progress, _Reading(file, blocks)

    async def _list(self) -> list[File]:
        """The next listing is due after a while, in large folders ten times as long as this one took."""
        clock, folder = self._source.world.clock, self._source.folder
        began_s = clock.monotonic_s()
        self._listed = await asyncio.to_thread(folder.files)
        ended_s = clock.monotonic_s()
        self._list_at_s = ended_s + max(folder.listed_every_s, 10 * (ended_s - began_s))
        return self._listed

    async def _next(self) -> File | None:
        """The next file; None after about a second if there is none."""
        clock = self._source.world.clock
        if self._held_back():
            await clock.sleep(WAIT_S / 10)
            return None
        if not self._waiting:
            wait_s = self._list_at_s - clock.monotonic_s()
            await clock.sleep(min(wait_s, WAIT_S))
            if wait_s > WAIT_S:
                return None
            unread = self._progress.unread(await self._list(), self._order)
            now_us = self._source.settled_us()
            self._waiting = deque(f for f in unread if self._progress.settled(f, self._order, now_us))
            self._at_end = not unread
        return self._waiting[0] if self._waiting else None

    def _held_back(self) -> bool:
        """As many files as an epoch may have were begun since the last commit."""
        limit, told = self._source.options.max_files_per_epoch, self._source.told
        if told is not None and told.count > self._told.count:
            self._told = told
        return limit is not None and self._progress.count - self._told.count >= limit

    async def _next_of(self, goal: Progress) -> File:
        """The file that came next when `goal` was reached first. The goal names the files before it, RECENT of them: these
        come as they came then. Further back the reading order decides; a file that was not there then is noticed.
        """
        self._waiting.clear()
        if self._source.world.clock.monotonic_s() >= self._list_at_s or not self._listed:
            await self._list()
        listed = self._listed
        then = [digest for digest, _ in goal.recent] + [goal.digest] * (goal.row is not None)
        ordered = [f for f in self._progress.unread(listed, self._order) if self._progress.key(f, self._order) > self._progress.mark]
        distance = goal.count - self._progress.count
        if 0 < distance <= len(then):
            strangers = self._by_order and ordered[:1] and ordered[0].digest not in then
            found = [] if strangers else [f for f in listed if f.digest == then[-distance]]
        else:
            found = [] if ordered[:1] and ordered[0].digest in then else ordered[:1]
            self._by_order = True
        if not found:
            raise self._bad(goal.name, "or a file before it was there when it was read first and is not now, or has changed")
        self._by_order = self._by_order and distance > len(then)
        return found[0]

    def _bad(self, name: str, why: str) -> BadRecord:
        return BadRecord(f"source {self._source.name}, shard 0: {self._source.folder!r} {name} {why} (after {self._progress.position()})")

    def _hand_out(self, goal: Progress | None) -> Chunk:
        reading, before = self._reading, self._progress
        if reading is None:
            return Chunk("0", self._source.nothing(), before.position(), at_end=self._at_end and goal is None)
        records, numbers = self._block or _NO_BLOCK
        goal = goal if goal is not None and goal.count == before.count else None
        stop = len(numbers) if goal is None or goal.row is None else _count_to(numbers, goal.row)
        rows = self._rows(records.slice(0, stop), numbers.slice(0, stop), reading.file) if stop else self._source.nothing()
        if goal is not None and goal.row is not None and (self._last or stop < len(numbers) or numbers[-1].as_py() == goal.row):
            self._progress, self._block = goal, (records.slice(stop), numbers.slice(stop))
        elif self._last:
            self._progress, self._block, self._last, self._reading = goal or before.finished(reading.file), None, False, None
        else:
            self._progress = replace(before, row=numbers[-1].as_py() if stop else before.row)
            self._block = None
        return Chunk("0", rows, self._progress.position())

    def _rows(self, records: pa.RecordBatch, numbers: pa.Array, file: File) -> pa.RecordBatch:
        offsets = pc.binary_join_element_wise(self._progress.prefix(), numbers.cast(pa.string()), "]", "")
        columns = {**dict(zip(records.schema.names, records.columns, strict=True)), "_offset": offsets}
        if "_timestamp" in self._source.wanted:
            columns["_timestamp"] = pa.repeat(pa.scalar(file.time_us, TIMESTAMP), len(numbers))
        return pa.RecordBatch.from_pydict(columns)

    async def close(self) -> None:
        if self._loading is not None:
            await asyncio.wait([self._loading])

    def __repr__(self) -> str:
        return f"<_FilesReader {self._source.folder!r} {self._progress.count} files, now {self._progress.name!r}>"


_NO_BLOCK: Block = pa.RecordBatch.from_pydict({}), pa.array([], pa.int64())


def _count_to(numbers: pa.Array, row: int) -> int:
    """How many of the ascending record numbers are at most `row`."""
    return int(pc.sum(pc.less_equal(numbers, row)).as_py() or 0)
