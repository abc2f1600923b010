"""Store, sinks and lease table as workers of a run reach them: the parts in memory, each behind a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from streamproc.lease.lease import Lease, LeaseTable, Listing, Mark
from streamproc.sink import Change, EpochId, Sink
from streamproc.store import Listed, Object, Store
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_store import MemoryStore
from streamproc.testing.simulation.servers import Server, at_once

T = TypeVar("T")


class SimStore(Store):
    """`created` is told of every object that is made: its name, its bytes, and whether it took the place of another."""

    def __init__(self, memory: MemoryStore, server: Server, created: Callable[[str, bytes, bool], None]) -> None:
        self._memory, self._server, self._created = memory, server, created

    async def get(self, name: str) -> Object:
        return await self._server.ask(f"get {name}", lambda: at_once(self._memory.get(name)))

    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        def effect() -> str:
            there = name in self._memory.names
            etag = at_once(self._memory.put(name, data, if_match=if_match, overwrite=overwrite))
            self._created(name, data, there)
            return etag

        return await self._server.ask(f"put {name}", effect)

    async def list(self, prefix: str = "") -> AsyncIterator[Listed]:
        for entry in await self._server.ask(f"list {prefix}", lambda: self._listed(prefix)):
            yield entry

    def _listed(self, prefix: str) -> Sequence[Listed]:
        async def collect() -> Sequence[Listed]:
            return [entry async for entry in self._memory.list(prefix)]

        return at_once(collect())

    async def delete(self, name: str) -> None:
        await self._server.ask(f"delete {name}", lambda: at_once(self._memory.delete(name)))

    def __repr__(self) -> str:
        return f"<SimStore {self._memory!r}>"


class SimSink(Sink):
    """`written` is told of every write that arrives."""

    guarantee = "exactly once"
    undoes = True

    def __init__(self, memory: MemorySink, server: Server, written: Callable[[EpochId, pa.Table], None]) -> None:
        self.appends_only = memory.appends_only  # type: ignore[misc]  # as the sink it stands for
        self._memory, self._server, self._written = memory, server, written

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        table = rows.read_all()

        def effect() -> None:
            self._written(epoch, table)
            at_once(self._memory.write(epoch, table.to_reader(), change))

        await self._server.ask(f"write {epoch.task} {epoch.epoch}: {table.num_rows} rows", effect)

    def __repr__(self) -> str:
        return f"<SimSink {self._memory!r}>"


class SimLeases(LeaseTable):
    """`changed` is called after every change."""

    def __init__(self, memory: MemoryLeases, server: Server, changed: Callable[[], None]) -> None:
        self._memory, self._server, self._changed = memory, server, changed

    async def list(self) -> Listing:
        return await self._server.ask("list", lambda: at_once(self._memory.list()))

    async def get(self, keys: Sequence[str]) -> Sequence[Lease]:
        return await self._server.ask("get", lambda: at_once(self._memory.get(keys)))

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        return await self._change("take", lease, lambda: self._memory.take(lease, owner, mark))

    async def request(self, lease: Lease, owner: str) -> Lease:
        return await self._change("request", lease, lambda: self._memory.request(lease, owner))

    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        await self._change("release", lease, lambda: self._memory.release(lease, mark))

    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        return await self._change("renew", lease, lambda: self._memory.renew(lease, mark, throughput_kbps))

    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        return await self._change("give", lease, lambda: self._memory.give(lease, mark))

    async def drop(self, lease: Lease) -> None:
        await self._change("drop", lease, lambda: self._memory.drop(lease))

    async def beat(self, worker: str) -> None:
        await self._server.ask("beat", lambda: at_once(self._memory.beat(worker)))

    async def leave(self, worker: str) -> None:
        await self._server.ask("leave", lambda: at_once(self._memory.leave(worker)))

    async def _change(self, what: str, lease: Lease, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        def effect() -> T:
            after = at_once(change())
            self._changed()
            return after

        return await self._server.ask(f"{what} {lease.key}", effect)

    def __repr__(self) -> str:
        return f"<SimLeases {self._memory!r}>"
