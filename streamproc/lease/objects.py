"""A lease table of objects that are replaced by compare-and-swap, beside a checkpoint in an object store."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamproc.errors import LeaseLost
from streamproc.lease.lease import Lease, LeaseTable
from streamproc.store import Changed, Exists, Missing, Store

PREFIX = "leases/"


class _Row(msgspec.Struct, frozen=True):
    key: str
    owner: str | None
    counter: int
    dropped: bool = False


class ObjectLeases(LeaseTable):
    """One object a key: `leases/<key>.json`. A dropped row leaves its object behind, so that its counter never falls."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> Sequence[Lease]:
        names = [listed.name async for listed in self._store.list(PREFIX)]
        rows = [row for name in names if (row := (await self._read(name))[0]) is not None and not row.dropped]
        return [Lease(row.key, row.owner, row.counter) for row in rows]

    async def take(self, lease: Lease, owner: str) -> Lease:
        return await self._change(lease, _Row(lease.key, owner, lease.counter + 1))

    async def renew(self, lease: Lease) -> Lease:
        return await self._change(lease, _Row(lease.key, lease.owner, lease.counter + 1))

    async def give(self, lease: Lease) -> Lease:
        return await self._change(lease, _Row(lease.key, None, lease.counter + 1))

    async def drop(self, lease: Lease) -> None:
        await self._change(lease, _Row(lease.key, None, lease.counter + 1, dropped=True))

    def __repr__(self) -> str:
        return f"ObjectLeases({self._store!r})"

    async def _change(self, seen: Lease, new: _Row) -> Lease:
        name = f"{PREFIX}{seen.key}.json"
        row, etag = await self._read(name)
        if row is not None and row.dropped and seen == Lease(seen.key, None, 0):
            new = msgspec.structs.replace(new, counter=row.counter + 1)
        elif (row and Lease(row.key, row.owner, row.counter)) != (seen if seen.counter or seen.owner else None):
            raise LeaseLost(f"lease {seen.key} was changed by another worker")
        try:
            await self._store.put(name, msgspec.json.encode(new), if_match=etag)
        except (Exists, Changed):
            await self._check_written(name, new)
        return Lease(new.key, new.owner, new.counter)

    async def _check_written(self, name: str, new: _Row) -> None:
        """A store that repeats a request refuses its own success: an owner's id in the row tells whose it was."""
        if new.owner is None or (await self._read(name))[0] != new:
            raise LeaseLost(f"lease {new.key} was changed by another worker")

    async def _read(self, name: str) -> tuple[_Row | None, str | None]:
        try:
            found = await self._store.get(name)
        except Missing:
            return None, None
        return msgspec.json.decode(found.data, type=_Row), found.etag
