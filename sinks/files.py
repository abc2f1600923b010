"""Sink `files`: Parquet, JSON or CSV files in a folder or an object store, exactly once for any plain reader of it.

Names follow from who wrote: `part-<checkpoint>-<generation>-<sink>-<task>-<epoch>-<part>.<ext>`, and a file is created only if
there is none of its name. So an epoch that is written again, by whomever, adds exactly the files that are missing; each file
appears whole, and a reader of the folder sees each row once at any moment, with no manifest. What is not promised: the
files of one epoch do not appear at the same moment (an epoch has more than one only with `partition_by` or
`max_rows_per_file`).

`mode: complete` keeps one file, `complete-<checkpoint>-<sink>.<ext>`, which each epoch replaces as a whole. Which epoch it holds at
the least is noted in `_complete-<checkpoint>-<sink>`, so that a slow writer of an older epoch finds out and writes nothing.
(In S3 an etag is made of the content: JSON and CSV results that are equal to the byte count as the same version.)
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, ClassVar, Literal

import msgspec
import pyarrow as pa
from pydantic import Field, model_validator

from streamproc.errors import BadRecord, Fault, InvalidJob
from streamproc.formats import hive
from streamproc.formats.write import Compression, Encoding
from streamproc.options import SinkOptions
from streamproc.sink import Change, EpochId, Sink
from streamproc.store import Changed, Exists, Missing, Object, Store
from streamproc.stores import open_store
from streamproc.world import World

WRITERS = 8
"""Files of one epoch that are written side by side."""


class FilesOptions(SinkOptions):
    """Keys of `type: files`."""

    path: str = Field(description="local folder, s3://, gs:// or az://")
    format: Literal["parquet", "json", "csv"] = Field("parquet", description="json: one object a line; csv: with a header")
    partition_by: tuple[str, ...] = Field((), description="columns that become folders (day=2026-01-01/) in Hive's layout")
    max_rows_per_file: int | None = Field(None, gt=0, description="an epoch's rows are cut into files of this many")
    compression: Compression | None = Field(
        None, description="parquet: snappy (default), zstd, gzip, none; json and csv: none (default), gzip, zstd"
    )
    kms_key: str | None = Field(None, description="S3: encrypt with this KMS key (SSE-KMS)")

    @model_validator(mode="after")
    def _check(self) -> FilesOptions:
        if self.mode == "complete" and (self.partition_by or self.max_rows_per_file):
            raise ValueError("mode complete keeps one file: leave out partition_by and max_rows_per_file")
        if self.format != "parquet" and self.compression == "snappy":
            raise ValueError(f"snappy is Parquet's; for {self.format} use gzip, zstd or none")
        if self.kms_key and not self.path.startswith("s3://"):
            raise ValueError("kms_key is S3's: remove it or write to s3://")
        return self


class _Held(msgspec.Struct, frozen=True, order=True):
    """Which epoch a `complete` file holds at the least."""

    generation: int
    epoch: int


def _encoding(options: FilesOptions) -> Encoding:
    return Encoding(options.format, options.compression or ("snappy" if options.format == "parquet" else "none"))


class Files(Sink):
    """Rows as files under `options.path`."""

    guarantee: ClassVar[str] = "exactly once"
    undoes: ClassVar[bool] = True
    Options = FilesOptions

    def __init__(self, options: FilesOptions, world: World, name: str, store: Store | None = None) -> None:
        """`store` stands for the one at `options.path`, in tests."""
        self._options = options
        self._name = name
        self._encoding = _encoding(options)
        self._store = store or open_store(options.path, world, kms_key=options.kms_key)
        self._swept = False

    @classmethod
    def refuses(cls, options: FilesOptions, schema: pa.Schema) -> str | None:
        by = options.partition_by
        return _encoding(options).refuses(schema) or (hive.refuses(schema, by) if by else None)

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        """Rows of `append` and `upsert` become new files, `replace` the one of `complete`. InvalidJob if the columns do not fit
        the format or partition_by; Unavailable may be followed by the same call with the same rows.
        """
        if refused := self.refuses(self._options, rows.schema):
            raise InvalidJob([Fault(f"sink {self._name}", 0, refused)])
        if not self._swept:
            await self._store.sweep()
            self._swept = True
        if change == "replace":
            await self._replace(epoch, rows)
        elif self._options.partition_by:
            await self._write_partitions(epoch, rows)
        else:
            await self._write_stream(epoch, rows)

    async def undo(self, after: EpochId) -> str | None:
        line = re.compile(rf"{re.escape(_line(after))}(\d{{10}})-\d{{5}}\..+")
        found = [(match, listed.name) async for listed in self._store.list() if (match := line.fullmatch(_file(listed.name)))]
        await _side_by_side([partial(self._store.delete, name) for match, name in found if int(match[1]) > after.epoch])
        held = await self._held(after)
        if held and held[0] > _Held(after.generation, after.epoch):
            return f"the result of epoch {held[0].epoch} stays until the next epoch replaces it"
        return None

    async def foreign(self, checkpoint: str) -> str | None:
        async for listed in self._store.list():
            match = re.match(r"(?:part|complete)-([^-]+)-", _file(listed.name))
            if match and match[1] != _safe(checkpoint):
                return (
                    f"{self._options.path} holds rows of another checkpoint ({match[1]}), which readers will see beside the new ones; "
                    "write to a new folder or remove them"
                )
        return None

    async def close(self) -> None:
        await self._store.close()

    def __repr__(self) -> str:
        return f"<Files {self._name} {self._encoding.extension} in {self._store!r}>"

    async def _write_stream(self, epoch: EpochId, rows: pa.RecordBatchReader) -> None:
        """One file, or one after another, never held in memory."""
        cut = _Cut(rows)
        part = 0
        while await asyncio.to_thread(cut.more):
            await self._write_part(epoch, "", part, cut)
            part += 1

    async def _write_partitions(self, epoch: EpochId, rows: pa.RecordBatchReader) -> None:
        by, most = self._options.partition_by, self._options.max_rows_per_file
        try:
            found = await asyncio.to_thread(lambda: hive.partitions(rows.read_all(), by))
        except ValueError as error:
            raise BadRecord(f"sink {self._name}: {error}") from None
        parts = [(folder, table.slice(at, most)) for folder, table in found for at in range(0, table.num_rows, most or table.num_rows)]
        cuts = [(f"{folder}/", part, _Cut(table.to_reader())) for part, (folder, table) in enumerate(parts)]
        await _side_by_side([partial(self._write_part, epoch, *cut) for cut in cuts])

    async def _write_part(self, epoch: EpochId, folder: str, part: int, cut: _Cut) -> None:
        """Create one file of the next `max_rows_per_file` rows, unless an earlier try did."""

        def fill(file: BinaryIO) -> None:
            self._encoding.write(file, cut.schema, cut.take(self._options.max_rows_per_file), {})

        try:
            await self._store.create(f"{folder}{_line(epoch)}{epoch.epoch:010}-{part:05}.{self._encoding.extension}", fill)
        except Exists:
            return

    async def _replace(self, epoch: EpochId, rows: pa.RecordBatchReader) -> None:
        name = f"complete-{_of(epoch)}.{self._encoding.extension}"
        data = await asyncio.to_thread(self._encoded, epoch, rows)
        while True:
            before = await self._get(name)  # before the claim: who claims after us changes this version or finds ours
            if not await self._claim(epoch) or (before and before.data == data):
                return
            try:
                await self._store.put(name, data, if_match=before.etag if before else None)
                return
            except (Exists, Changed):
                continue

    async def _claim(self, epoch: EpochId) -> bool:
        """Note that the complete file holds this epoch or a newer one; False if a newer one was noted."""
        mine = _Held(epoch.generation, epoch.epoch)
        while True:
            held = await self._held(epoch)
            if held and held[0] >= mine:
                return held[0] == mine
            try:
                await self._store.put(f"_complete-{_of(epoch)}", msgspec.json.encode(mine), if_match=held[1] if held else None)
                return True
            except (Exists, Changed):
                continue

    async def _held(self, epoch: EpochId) -> tuple[_Held, str] | None:
        found = await self._get(f"_complete-{_of(epoch)}")
        return (msgspec.json.decode(found.data, type=_Held), found.etag) if found else None

    async def _get(self, name: str) -> Object | None:
        try:
            return await self._store.get(name)
        except Missing:
            return None

    def _encoded(self, epoch: EpochId, rows: pa.RecordBatchReader) -> bytes:
        file = io.BytesIO()
        self._encoding.write(file, rows.schema, rows, {"streamproc.epoch": f"{epoch.generation}-{epoch.epoch}"})
        return file.getvalue()


class _Cut:
    """A stream of rows that is taken piece by piece. Used by one thread at a time."""

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self.schema = rows.schema
        self._batches = iter(rows)
        self._rest: pa.RecordBatch | None = None

    def more(self) -> bool:
        """Whether a row is left; blocks until that is known."""
        while self._rest is None or not self._rest.num_rows:
            self._rest = next(self._batches, None)
            if self._rest is None:
                return False
        return True

    def take(self, count: int | None) -> Iterator[pa.RecordBatch]:
        """The next `count` rows (None: all)."""
        left = count
        while left != 0 and self.more() and self._rest is not None:
            batch, self._rest = self._rest.slice(0, left), None if left is None else self._rest.slice(left)
            left = None if left is None else left - batch.num_rows
            yield batch


async def _side_by_side(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make the calls, a few at a time; raise what the first of them raised once the running ones have ended."""
    for at in range(0, len(calls), WRITERS):
        answers = await asyncio.gather(*(call() for call in calls[at : at + WRITERS]), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


def _of(epoch: EpochId) -> str:
    return f"{_safe(epoch.checkpoint)}-{_safe(epoch.sink)}"


def _line(epoch: EpochId) -> str:
    """What the names of all files of one writer begin with."""
    return f"part-{_safe(epoch.checkpoint)}-{epoch.generation}-{_safe(epoch.sink)}-{_safe(epoch.task)}-"


def _safe(text: str) -> str:
    """A name in which `-` separates nothing, so that no two writers' file names can be equal."""
    return re.sub(rb"[^A-Za-z0-9_.]", lambda found: b"~%02X" % found[0][0], text.encode()).decode()


def _file(name: str) -> str:
    return name.rpartition("/")[2]
