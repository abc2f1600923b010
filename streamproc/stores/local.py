"""Objects as files of a local folder, durable when `put` returns."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from streamproc.errors import Unavailable
from streamproc.store import Changed, Exists, Listed, Missing, Object, Store
from streamproc.stores.names import check_name
from streamproc.world import World

TMP = ".tmp-"
STRAY_AFTER_S = 3600
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.002
_T = TypeVar("_T")


class LocalStore(Store):
    """One file an object. A new file is written as `.tmp-<random>` in the same folder, synced, then linked to its
    name (which fails if the name exists), so that a crash at any moment leaves the whole object or none.
    Replacing and deleting happen under `flock` of the folder; the lock is held for a comparison and a rename only.
    """

    def __init__(self, root: str | Path, world: World) -> None:
        self._root = Path(root).absolute()
        self._world = world

    async def get(self, name: str) -> Object:
        path = self._path(name)
        data, etag = await self._thread(_read, path)
        return Object(data, etag)

    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        path = self._path(name)
        if if_match is None and not overwrite:
            return await self._thread(self._create, path, data)
        deadline_s = self._world.clock.monotonic_s() + _LOCK_WAIT_S
        tmp = await self._thread(self._write_tmp, path, data)
        try:
            stat = await self._locked(deadline_s, functools.partial(_replace, tmp, path, if_match))
        finally:
            tmp.unlink(missing_ok=True)
        return _etag(data, stat)

    async def create(self, name: str, fill: Callable[[BinaryIO], None]) -> None:
        await self._thread(self._create_filled, self._path(name), fill)

    async def list(self, prefix: str = "") -> AsyncIterator[Listed]:
        check_name(f"{prefix}x")
        for listed in await self._thread(self._listing, prefix):
            yield listed

    async def delete(self, name: str) -> None:
        path = self._path(name)
        deadline_s = self._world.clock.monotonic_s() + _LOCK_WAIT_S
        await self._locked(deadline_s, functools.partial(_delete, path))

    async def sweep(self) -> None:
        await self._thread(_sweep, self._root, self._world.clock.now_us() / 1e6 - STRAY_AFTER_S)

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._root / name

    async def _thread(self, work: Callable[..., _T], *args: object) -> _T:
        try:
            return await asyncio.to_thread(work, *args)
        except OSError as error:
            raise _unavailable(error, self._root) from error

    async def _locked(self, deadline_s: float, work: Callable[[], _T]) -> _T:
        """Run `work`, which raises BlockingIOError while another holds the folder: a stopped process must not hang us."""
        while True:
            try:
                return await self._thread(work)
            except _Busy:
                if self._world.clock.monotonic_s() > deadline_s:
                    raise Unavailable(f"another process holds the lock of a folder in {self._root}") from None
                await self._world.clock.sleep(_LOCK_POLL_S)

    def _create(self, path: Path, data: bytes) -> str:
        tmp = self._write_tmp(path, data)
        return _etag(data, _link(tmp, path))

    def _create_filled(self, path: Path, fill: Callable[[BinaryIO], None]) -> None:
        tmp = self._tmp(path)
        try:
            with tmp.open("xb") as file:
                fill(file)
                file.flush()
                os.fdatasync(file.fileno())
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        _link(tmp, path)

    def _write_tmp(self, path: Path, data: bytes) -> Path:
        tmp = self._tmp(path)
        descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return tmp

    def _tmp(self, path: Path) -> Path:
        if not path.parent.is_dir():
            _make_folders(path.parent)
        return path.parent / f"{TMP}{self._world.new_id()}"

    def _listing(self, prefix: str) -> Sequence[Listed]:
        folder = self._root / prefix.rpartition("/")[0]
        start = len(str(self._root)) + 1
        found = []
        for entry in _walk(folder):
            name = entry.path[start:]
            if name.startswith(prefix) and not entry.name.startswith(TMP):
                with suppress(FileNotFoundError):  # deleted while we listed
                    found.append(_listed(name, entry.stat()))
        return sorted(found, key=lambda listed: listed.name)


class _Busy(Exception):
    """Another process or thread holds the folder's lock at the moment."""


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise _Busy from None
    finally:
        os.close(descriptor)


def _read(path: Path) -> tuple[bytes, str]:
    try:
        with path.open("rb") as file:
            data = file.read()
            return data, _etag(data, os.fstat(file.fileno()))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Missing(path.name) from None


def _etag(data: bytes, stat: os.stat_result) -> str:
    """Content and file identity: an inode alone is reused within a tick of the file system's clock."""
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{digest}-{stat.st_ino:x}-{stat.st_mtime_ns:x}"


def _link(tmp: Path, path: Path) -> os.stat_result:
    stat = tmp.stat()
    try:
        os.link(tmp, path)
    except FileExistsError:
        raise Exists(path.name) from None
    finally:
        tmp.unlink(missing_ok=True)
    _sync(path.parent)
    return stat


def _replace(tmp: Path, path: Path, if_match: str | None) -> os.stat_result:
    stat = tmp.stat()
    with _folder_lock(path.parent):
        if if_match is not None:
            try:
                current = _read(path)[1]
            except Missing:
                current = None
            if current != if_match:
                raise Changed(path.name)
        tmp.replace(path)
        _sync(path.parent)
    return stat


def _delete(path: Path) -> None:
    try:
        with _folder_lock(path.parent):
            path.unlink(missing_ok=True)
            _sync(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return


def _make_folders(folder: Path) -> None:
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, parent in enumerate(missing) if parent.is_dir())]
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync(new.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield entry


def _listed(name: str, stat: os.stat_result) -> Listed:
    return Listed(name, stat.st_size, stat.st_mtime_ns // 1000)


def _sweep(root: Path, oldest_s: float) -> None:
    for entry in _walk(root):
        if entry.name.startswith(TMP):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest_s:
                    Path(entry.path).unlink()


def _unavailable(error: OSError, root: Path) -> Unavailable:
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check that the folder can be written"
    return Unavailable(f"{root}: {error.strerror or error}; {hint}")
