"""Files to be read: those under a folder or glob of this machine, or under a prefix of an object store.

Names that begin with `.` or `_` in any part of the path, and files of no bytes, are not there: they are being written,
or are somebody's own book-keeping.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, BinaryIO, ClassVar

from streamproc.errors import Fault, InvalidJob, Unavailable
from streamproc.store import Missing
from streamproc.world import World

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be read. `time_us`: when this version appeared under its name; `digest`: 16 hex digits of name and version."""

    name: str
    time_us: int
    digest: str


class Folder(ABC):
    """Where files lie. Both methods block: call them in a thread. A server that is away raises `Unavailable`."""

    settle_us: ClassVar[int]
    """How long after a file's time another may still appear with the same time."""
    listed_every_s: ClassVar[float]

    @abstractmethod
    def files(self) -> list[File]: ...

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The bytes of a file; `Missing` if it is gone."""


def open_folder(path: str, world: World) -> Folder:
    """A local folder, file or glob, `file:///…`, `s3://…`, `gs://…` or `az://…`. Nothing is connected yet."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme != "file":
        return _Bucket(path, world)
    return _Local(rest if separator else path)


class _Local(Folder):
    """Time is that of the last change of the inode: a file moved into the folder is new though its contents are old."""

    settle_us = 300_000
    listed_every_s = 0.5

    def __init__(self, path: str) -> None:
        self._root, self._pattern = _split(path)

    def files(self) -> list[File]:
        if os.path.isfile(self._root):
            stat = os.stat(self._root)
            return [self._file(stat, "")] if stat.st_size else []
        return [self._file(entry.stat(), name) for entry, name in self._walk(self._root, "") if self._pattern.fullmatch(name)]

    def open(self, name: str) -> BinaryIO:
        try:
            return open(os.path.join(self._root, name) if name else self._root, "rb")
        except FileNotFoundError:
            raise Missing(name) from None
        except OSError as error:
            raise Unavailable(f"{self._root}: {error}") from error

    def _file(self, stat: os.stat_result, name: str) -> File:
        return File(name, max(stat.st_mtime_ns, stat.st_ctime_ns) // 1000, _digest(name, f"{stat.st_size}-{stat.st_mtime_ns}"))

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"{folder}: {error}") from error
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            if entry.is_dir():
                yield from self._walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file() and entry.stat().st_size:
                yield entry, prefix + entry.name

    def __repr__(self) -> str:
        return f"<folder {self._root}>"


class _Bucket(Folder):
    """Time is LastModified, in seconds. S3 takes the beginning of a multipart upload for it, so large objects appear late."""

    settle_us = 2_000_000
    listed_every_s = 5.0

    def __init__(self, url: str, world: World) -> None:
        self._root, self._pattern = _split(url)
        self._world = world
        self._opened: Any = None

    def files(self) -> list[File]:
        import obstore

        with self._errors(""):
            metas = [meta for page in obstore.list(self._store()) for meta in page]
        return [File(m["path"], _us(m["last_modified"]), _digest(m["path"], m["e_tag"] or "")) for m in metas if self._visible(m)]

    def open(self, name: str) -> BinaryIO:
        import obstore

        with self._errors(name):
            return _Bytes(self, name, obstore.open_reader(self._store(), name, buffer_size=8 * 2**20))  # type: ignore[return-value]  # what Arrow needs of one

    def _visible(self, meta: Any) -> bool:
        hidden = any(part.startswith((".", "_")) for part in meta["path"].split("/"))
        return not hidden and meta["size"] > 0 and self._pattern.fullmatch(meta["path"]) is not None

    def _store(self) -> Any:
        from streamproc.stores.remote import RemoteStore

        if self._opened is None:
            self._opened = RemoteStore(self._root, self._world).objects
        return self._opened

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where = f"{self._root}/{name}"
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise InvalidJob([Fault(where, 0, "the bucket does not exist; create it or correct the path")]) from None
            raise Missing(name) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise InvalidJob([Fault(where, 0, f"access denied: {str(error).splitlines()[0]}")]) from None
        except (BaseError, OSError) as error:
            raise Unavailable(f"{where}: {str(error).splitlines()[0]}") from None

    def __repr__(self) -> str:
        return f"<folder {self._root}>"


class _Bytes:
    """obstore's reader as a Python file, errors mapped."""

    closed = False

    def __init__(self, bucket: _Bucket, name: str, reader: Any) -> None:
        self._bucket, self._name, self._reader = bucket, name, reader

    def read(self, size: int = -1) -> bytes:
        with self._bucket._errors(self._name):
            return bytes(self._reader.read(size if size >= 0 else None))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def size(self) -> int:
        return int(self._reader.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self._reader.close()
        self.closed = True


def _digest(name: str, version: str) -> str:
    return blake2b(f"{name}\0{version}".encode(), digest_size=8).hexdigest()


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _split(path: str) -> tuple[str, re.Pattern[str]]:
    """The folder without wildcards, and what names below it must look like (`*` and `?` within a part, `**` across parts)."""
    found = _GLOB.search(path)
    if found is None:
        return path.rstrip("/") or "/", re.compile(".*", re.DOTALL)
    root, _, pattern = path[: found.start()].rpartition("/")
    return root or ("/" if path.startswith("/") else "."), re.compile(_expression(pattern + path[found.start() :]))


def _expression(pattern: str) -> str:
    pieces = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    return "".join(pieces.get(p) or (p.replace("[!", "[^") if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts)
