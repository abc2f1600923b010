"""A bounded table in files: all rows of a folder, file or glob, files in name order.

A version is the names and etags of its files. A table without any file is not an empty one: whoever replaces it may have
removed the old files and not yet written the new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from typing import BinaryIO, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from streamproc.batch import Decoder
from streamproc.bounded import BoundedTable, Snapshot, TableOptions
from streamproc.clients.folders import File, Folder, open_folder
from streamproc.errors import BadRecord, Unavailable
from streamproc.formats import make_decoder
from streamproc.formats.contents import Block, lines, parquet
from streamproc.options import CsvOptions
from streamproc.store import Missing
from streamproc.world import World


class BoundedFilesOptions(TableOptions):
    """Keys of a `files` table."""

    type: Literal["files"] = "files"
    path: str = Field(description="folder, file or glob; s3://, gs:// and az:// too. Names that begin with . or _ are left out")
    format: Literal["parquet", "csv", "json"] = Field("json", description="of the files; json: one object a line")
    csv: CsvOptions = CsvOptions()
    timestamps: dict[str, str] = Field({}, description="how odd times are written: epoch_s, epoch_ms, epoch_us or a Spark datetime pattern")


class BoundedFiles(BoundedTable):
    """`schema`: the declared columns that something reads; others are not judged."""

    Options: ClassVar[type[BoundedFilesOptions]] = BoundedFilesOptions

    def __init__(self, options: BoundedFilesOptions, schema: pa.Schema, world: World, name: str, time_zone: str) -> None:
        self.options = options
        self.schema = schema
        self.name = name
        self.folder: Folder = open_folder(options.path, world)
        self._decoder: Decoder | None = None
        if options.format != "parquet":
            self._decoder = make_decoder(
                options.format, schema, csv=options.csv, timestamps=options.timestamps, time_zone=time_zone, declared=options.schema_
            )

    async def read(self, known: str | None = None) -> Snapshot | None:
        return await asyncio.to_thread(self._read, known)

    def _read(self, known: str | None) -> Snapshot | None:
        files = self._files()
        version = _version(files)
        if version == known:
            return None
        parts = [part for file in files for part in self._rows(file)]
        if _version(self._files()) != version:
            raise Unavailable(f"table {self.name}: {self.folder!r} changed while it was read")
        return Snapshot(version, pa.concat_tables([self.schema.empty_table(), *parts]))

    def _files(self) -> list[File]:
        try:
            files = sorted(self.folder.files(), key=lambda file: file.name)
        except FileNotFoundError as error:  # removed while they are listed
            raise Unavailable(f"table {self.name}: {error}") from error
        if not files:
            raise Unavailable(f"table {self.name}: {self.folder!r} holds no file (an empty table is a file without rows)")
        return files

    def _rows(self, file: File) -> list[pa.Table]:
        try:
            with closing(self.folder.open(file.name)) as stream:
                return list(self._blocks(file, stream))
        except Missing:
            raise Unavailable(f"table {self.name}: {self.folder!r} {file.name} was removed while it was read") from None
        except (ValueError, OSError) as error:
            raise BadRecord(f"table {self.name}: {self.folder!r} {file.name} cannot be read: {error}") from error

    def _blocks(self, file: File, stream: BinaryIO) -> Iterator[pa.Table]:
        if self._decoder is None:
            yield from (pa.Table.from_batches([batch]) for batch, _ in parquet(stream, self.schema))
            return
        header = self.options.format == "csv" and self.options.csv.header
        for block in lines(stream, file.name or self.options.path, header=header):
            yield self._decoded(self._decoder, file, block)

    def _decoded(self, decoder: Decoder, file: File, block: Block) -> pa.Table:
        batch, numbers = block
        decoded = decoder.decode(batch.column("_value"))
        if decoded.bad.num_rows:
            first = decoded.bad.slice(0, 1).to_pylist()[0]
            line = numbers[first["index"]]
            raise BadRecord(f"table {self.name}: {self.folder!r} {file.name} line {line}: {first['reason']}: {first['error']}")
        return decoded.rows

    def __repr__(self) -> str:
        return f"<BoundedFiles {self.name} {self.folder!r}>"


def _version(files: list[File]) -> str:
    return blake2b(" ".join(file.digest for file in files).encode(), digest_size=8).hexdigest()
