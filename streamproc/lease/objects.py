"""A lease table of objects that are replaced by compare-and-swap, beside a checkpoint in an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote, unquote

import msgspec

from streamproc.lease.lease import Lease, LeaseTable, Listing, Mark
from streamproc.lease.steps import changed_elsewhere, given, released, renewed, requested, taken
from streamproc.store import Changed, Exists, Missing, Store

PREFIX = "leases/"
WORKERS = "workers/"
_READS_AT_ONCE = 16
_T = TypeVar("_T")


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    key: str
    owner: str | None
    counter: int
    checkpoint_owner: str | None = None
    throughput_kbps: float | None = None
    dropped: bool = False

    @classmethod
    def of(cls, lease: Lease) -> _Row:
        return cls(lease.key, lease.owner, lease.counter, lease.checkpoint_owner, lease.throughput_kbps)

    def lease(self) -> Lease:
        return Lease(self.key, self.owner, self.counter, self.checkpoint_owner, None, self.throughput_kbps)


class _Beat(msgspec.Struct, frozen=True):
    beat: int


class ObjectLeases(LeaseTable):
    """One object a key: `leases/<quoted key>.json`. A dropped row leaves its object behind, so that its counter never falls.
    One a worker: `workers/<quoted id>.json` with the number of its beats.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._beats: dict[str, int] = {}

    async def list(self) -> Listing:
        rows = [row for row, _ in await self._read_all(PREFIX, _Row) if row is not None and not row.dropped]
        workers = {unquote(name): beat.beat for beat, name in await self._read_all(WORKERS, _Beat) if beat is not None}
        return Listing(tuple(sorted((row.lease() for row in rows), key=lambda lease: lease.key)), workers)

    async def get(self, keys: Sequence[str]) -> Sequence[Lease]:
        rows = await asyncio.gather(*(self._read(_name(key), _Row) for key in keys))
        return [row.lease() for row, _ in rows if row is not None and not row.dropped]

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        del mark
        return await self._change(lease, _Row.of(taken(lease, owner)))

    async def request(self, lease: Lease, owner: str) -> Lease:
        return await self._change(lease, _Row.of(requested(lease, owner)))

    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        del mark
        while True:
            row, etag = await self._read(_name(lease.key), _Row)
            new = _Row.of(released(row.lease() if row else None, lease))
            try:
                await self._store.put(_name(lease.key), msgspec.json.encode(new), if_match=etag)
                return
            except (Exists, Changed):  # the new owner renews meanwhile
                if (await self._read(_name(lease.key), _Row))[0] == new:
                    return

    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        del mark
        return await self._change(lease, _Row.of(renewed(lease, throughput_kbps)))

    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        del mark
        return await self._change(lease, _Row.of(given(lease)))

    async def drop(self, lease: Lease) -> None:
        await self._change(lease, _Row(lease.key, None, lease.counter + 1, dropped=True))

    async def beat(self, worker: str) -> None:
        name = f"{WORKERS}{quote(worker, safe='')}.json"
        if worker not in self._beats:
            found, _ = await self._read(name, _Beat)
            self._beats[worker] = found.beat if found else 0
        self._beats[worker] += 1
        await self._store.put(name, msgspec.json.encode(_Beat(self._beats[worker])), overwrite=True)

    async def leave(self, worker: str) -> None:
        await self._store.delete(f"{WORKERS}{quote(worker, safe='')}.json")

    def __repr__(self) -> str:
        return f"ObjectLeases({self._store!r})"

    async def _change(self, seen: Lease, new: _Row) -> Lease:
        row, etag = await self._read(_name(seen.key), _Row)
        if row is not None and row.dropped and seen == Lease(seen.key, None, 0):
            new = msgspec.structs.replace(new, counter=row.counter + 1)
        elif (row and row.lease()) != (seen if seen.counter or seen.owner else None):
            raise changed_elsewhere(seen.key)
        try:
            await self._store.put(_name(seen.key), msgspec.json.encode(new), if_match=etag)
        except (Exists, Changed):
            await self._check_written(new)
        return new.lease()

    async def _check_written(self, new: _Row) -> None:
        """A store that repeats a request refuses its own success: an owner's id in the row tells whose it was."""
        if new.owner is None or (await self._read(_name(new.key), _Row))[0] != new:
            raise changed_elsewhere(new.key)

    async def _read_all(self, prefix: str, kind: type[_T]) -> Sequence[tuple[_T | None, str]]:
        """Each object below a prefix, with the name between prefix and ending."""
        names = [listed.name async for listed in self._store.list(prefix)]
        turn = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(name: str) -> _T | None:
            async with turn:
                return (await self._read(name, kind))[0]

        found = await asyncio.gather(*map(read, names))
        return list(zip(found, [name.removeprefix(prefix).removesuffix(".json") for name in names], strict=True))

    async def _read(self, name: str, kind: type[_T]) -> tuple[_T | None, str | None]:
        try:
            found = await self._store.get(name)
        except Missing:
            return None, None
        return msgspec.json.decode(found.data, type=kind), found.etag


def _name(key: str) -> str:
    return f"{PREFIX}{quote(key, safe='')}.json"
