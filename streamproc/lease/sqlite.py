"""A lease table in an SQLite file, for workers of one machine."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from streamproc.errors import LeaseLost, Unavailable
from streamproc.lease.lease import Lease, LeaseTable

_T = TypeVar("_T")
_LOCK_WAIT_S = 2.0
_TABLE = "CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner TEXT, counter INTEGER NOT NULL)"


class SqliteLeases(LeaseTable):
    """Rows in `path`. An owner's process holds an exclusive `flock` on `<path>.<owner>` for as long as it lives, so
    whoever can take that lock knows that the process is gone (a stopped one keeps it).
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()
        self._alive: dict[str, int] = {}

    async def list(self) -> Sequence[Lease]:
        return await self._run(_rows)

    async def take(self, lease: Lease, owner: str) -> Lease:
        await asyncio.to_thread(self._show_alive, owner)
        taken = Lease(lease.key, owner, lease.counter + 1)
        await self._run(lambda database: _create_or_change(database, lease, taken))
        if lease.owner is not None and lease.owner != owner:
            self._alive_file(lease.owner).unlink(missing_ok=True)
        return taken

    async def renew(self, lease: Lease) -> Lease:
        return await self._change(lease, Lease(lease.key, lease.owner, lease.counter + 1))

    async def give(self, lease: Lease) -> Lease:
        return await self._change(lease, Lease(lease.key, None, lease.counter + 1))

    async def drop(self, lease: Lease) -> None:
        await self._run(lambda database: _one(database, "DELETE FROM leases WHERE key = ? AND counter = ? AND owner IS ?", lease))

    async def abandoned(self, lease: Lease) -> bool:
        return lease.owner is not None and await asyncio.to_thread(_can_lock, self._alive_file(lease.owner))

    async def close(self) -> None:
        for owner, descriptor in self._alive.items():
            self._alive_file(owner).unlink(missing_ok=True)
            os.close(descriptor)
        self._alive.clear()

    def __repr__(self) -> str:
        return f"SqliteLeases({str(self._path)!r})"

    async def _change(self, old: Lease, new: Lease) -> Lease:
        await self._run(lambda database: _update(database, old, new))
        return new

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await asyncio.to_thread(self._in_transaction, work)

    def _in_transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, isolation_level="IMMEDIATE")) as database, database:
                database.execute(_TABLE)
                database.execute("BEGIN IMMEDIATE")
                return work(database)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"lease table {self._path}: {error}") from error

    def _show_alive(self, owner: str) -> None:
        if owner in self._alive:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._alive_file(owner), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._alive[owner] = descriptor

    def _alive_file(self, owner: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{owner}")


def _rows(database: sqlite3.Connection) -> Sequence[Lease]:
    return [Lease(*row) for row in database.execute("SELECT key, owner, counter FROM leases ORDER BY key")]


def _create_or_change(database: sqlite3.Connection, old: Lease, new: Lease) -> None:
    if old.owner is None and old.counter == 0:
        inserted = database.execute("INSERT OR IGNORE INTO leases VALUES (?, ?, ?)", (new.key, new.owner, new.counter))
        if inserted.rowcount == 1:
            return
    _update(database, old, new)


def _update(database: sqlite3.Connection, old: Lease, new: Lease) -> None:
    _one(database, "UPDATE leases SET owner = ?, counter = ? WHERE key = ? AND counter = ? AND owner IS ?", old, new.owner, new.counter)


def _one(database: sqlite3.Connection, statement: str, seen: Lease, *values: object) -> None:
    """Run a statement whose condition is the row as it was seen; LeaseLost if it is another now."""
    if database.execute(statement, (*values, seen.key, seen.counter, seen.owner)).rowcount != 1:
        raise LeaseLost(f"lease {seen.key} was changed by another worker")


def _can_lock(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
