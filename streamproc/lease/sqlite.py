"""A lease table in an SQLite file, for workers of one machine."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from streamproc.errors import LeaseLost, Unavailable
from streamproc.lease.lease import Lease, LeaseTable, Listing, Mark
from streamproc.lease.steps import changed_elsewhere, given, renewed, requested, taken

_T = TypeVar("_T")
_LOCK_WAIT_S = 2.0
_TABLES = (
    "CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, owner TEXT, counter INTEGER NOT NULL, checkpoint_owner TEXT, kbps REAL)",
    "CREATE TABLE IF NOT EXISTS workers (id TEXT PRIMARY KEY, beat INTEGER NOT NULL)",
)
_SELECT = "SELECT key, owner, counter, checkpoint_owner, NULL, kbps FROM rows"
_AS_SEEN = "WHERE key = ? AND counter = ? AND owner IS ? AND checkpoint_owner IS ?"


class SqliteLeases(LeaseTable):
    """Rows in `path`. A worker's process holds an exclusive `flock` on `<path>.<worker>` for as long as it lives, so
    whoever can take that lock knows that the process is gone (a stopped one keeps it).
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).absolute()
        self._alive: dict[str, int] = {}
        self._alive_lock = threading.Lock()

    async def list(self) -> Listing:
        listing = await self._run(_listing)
        dead = await asyncio.to_thread(lambda: [worker for worker in listing.workers if _can_lock(self._alive_file(worker))])
        for worker in dead:
            await self._forget(worker)
        return Listing(listing.leases, {worker: beat for worker, beat in listing.workers.items() if worker not in dead})

    async def get(self, keys: Sequence[str]) -> Sequence[Lease]:
        return await self._run(lambda database: [lease for key in keys if (lease := _row(database, key))])

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        del mark
        await asyncio.to_thread(self._show_alive, owner)
        new = taken(lease, owner)
        await self._run(lambda database: _create_or_change(database, lease, new))
        if lease.owner not in (None, owner) and await self.abandoned(lease):
            await self._forget(str(lease.owner))
        return new

    async def request(self, lease: Lease, owner: str) -> Lease:
        await asyncio.to_thread(self._show_alive, owner)
        return await self._change(lease, requested(lease, owner))

    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        del mark
        statement = "UPDATE rows SET counter = counter + 1, checkpoint_owner = NULL WHERE key = ? AND checkpoint_owner = ?"
        done = await self._run(lambda database: database.execute(statement, (lease.key, lease.checkpoint_owner)).rowcount)
        if done != 1:
            raise LeaseLost(f"lease {lease.key} is not handed over by {lease.checkpoint_owner} any more")

    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        del mark
        return await self._change(lease, renewed(lease, throughput_kbps))

    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        del mark
        return await self._change(lease, given(lease))

    async def drop(self, lease: Lease) -> None:
        await self._run(lambda database: _one(database, f"DELETE FROM rows {_AS_SEEN}", lease))

    async def beat(self, worker: str) -> None:
        await asyncio.to_thread(self._show_alive, worker)
        statement = "INSERT INTO workers VALUES (?, 1) ON CONFLICT DO UPDATE SET beat = beat + 1"
        await self._run(lambda database: database.execute(statement, (worker,)))

    async def leave(self, worker: str) -> None:
        await self._run(lambda database: database.execute("DELETE FROM workers WHERE id = ?", (worker,)))

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
                for table in _TABLES:
                    database.execute(table)
                database.execute("BEGIN IMMEDIATE")
                return work(database)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"lease table {self._path}: {error}") from error

    def _show_alive(self, owner: str) -> None:
        with self._alive_lock:  # a second descriptor of this process would wait for the first
            if owner in self._alive:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._alive_file(owner), os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._alive[owner] = descriptor

    def _alive_file(self, owner: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{owner.replace('/', '_')}")

    async def _forget(self, worker: str) -> None:
        """A dead worker's presence goes at once; its file, which proves the death, with the last row that names it."""

        def forget(database: sqlite3.Connection) -> bool:
            database.execute("DELETE FROM workers WHERE id = ?", (worker,))
            named = database.execute("SELECT 1 FROM rows WHERE ? IN (owner, checkpoint_owner) LIMIT 1", (worker,))
            return named.fetchone() is None

        if await self._run(forget):
            self._alive_file(worker).unlink(missing_ok=True)


def _listing(database: sqlite3.Connection) -> Listing:
    rows = tuple(Lease(*row) for row in database.execute(f"{_SELECT} ORDER BY key"))
    return Listing(rows, dict(database.execute("SELECT id, beat FROM workers")))


def _row(database: sqlite3.Connection, key: str) -> Lease | None:
    found = database.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
    return Lease(*found) if found else None


def _create_or_change(database: sqlite3.Connection, old: Lease, new: Lease) -> None:
    if old.owner is None and old.counter == 0:
        inserted = database.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, NULL, NULL)", (new.key, new.owner, new.counter))
        if inserted.rowcount == 1:
            return
    _update(database, old, new)


def _update(database: sqlite3.Connection, old: Lease, new: Lease) -> None:
    statement = f"UPDATE rows SET owner = ?, counter = ?, checkpoint_owner = ?, kbps = ? {_AS_SEEN}"
    _one(database, statement, old, new.owner, new.counter, new.checkpoint_owner, new.throughput_kbps)


def _one(database: sqlite3.Connection, statement: str, seen: Lease, *values: object) -> None:
    """Run a statement whose condition is the row as it was seen; LeaseLost if it is another now."""
    if database.execute(statement, (*values, seen.key, seen.counter, seen.owner, seen.checkpoint_owner)).rowcount != 1:
        raise changed_elsewhere(seen.key)


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
