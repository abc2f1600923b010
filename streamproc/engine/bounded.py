"""The bounded tables of a job: read when it starts, again at their own intervals beside the epochs, one version an epoch.

An epoch's `begin` names the version of every table, and its rows are in the checkpoint before that, so that whoever runs the
epoch again joins with the same rows. A version whose content did not change is not copied again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import structlog
from msgspec import structs

from streamproc.bounded import BoundedTable
from streamproc.checkpoint.records import TableRef
from streamproc.checkpoint.retention import TABLES_PREFIX
from streamproc.engine.retry import Leased, retried
from streamproc.errors import Bug, StreamprocError
from streamproc.state.files import from_bytes, to_bytes
from streamproc.store import Missing, Store
from streamproc.world import World

log = structlog.get_logger()
RETRY_US = 30_000_000
"""After a refresh that failed, at most."""


@dataclass(frozen=True)
class Joined:
    """A table that queries join with: where its rows come from, and how often (None: once, at every start)."""

    table: BoundedTable
    refresh_us: int | None


@dataclass(frozen=True, slots=True)
class _Held:
    """The version in memory. Until it is in the checkpoint, `data` is the object to be written and `ref.name` is empty."""

    ref: TableRef
    rows: pa.Table = field(repr=False)
    data: bytes | None = field(default=None, repr=False)


class BoundedTables:
    """`start` reads them or goes on with what the last commit names; `pin` fixes the versions of the next epoch; `rows` gives
    those that a begin names. With `beside` the refreshes run by themselves, else in `refresh_due` (tests).
    """

    def __init__(self, joined: Mapping[str, Joined], store: Store, world: World) -> None:
        self._joined = joined
        self._store = store
        self._world = world
        self._held: dict[str, _Held] = {}
        self._due_us: dict[str, int] = {}
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, around: Leased, committed: Mapping[str, TableRef], *, beside: bool) -> None:
        """Have a version of every table: the committed one until its refresh is due, else a new one. Waits for servers that are
        away. `committed`: what the last commit of this same job names. BadRecord: a table cannot be read as declared.
        """
        await self.stop()
        await asyncio.gather(*(self._begin(around, name, committed.get(name)) for name in self._joined))
        if beside:
            self._loops = [asyncio.ensure_future(self._repeat(name)) for name in self._due_us]

    async def refresh_due(self) -> None:
        """Read the tables again whose time has come."""
        for name, due_us in list(self._due_us.items()):
            if due_us <= self._world.clock.now_us():
                await self._refresh(name)

    async def pin(self, prefix: str) -> dict[str, TableRef]:
        """The versions that are there now, each in the checkpoint: new ones as `tables/<prefix><table>-<random>`. May be tried again."""
        refs = {name: await self._saved(name, held, prefix) for name, held in list(self._held.items())}
        for name, held in self._held.items():  # a refresh beside may have gone on meanwhile, maybe to the same version
            if held.data is not None and held.ref.version == refs[name].version:
                self._held[name] = _Held(structs.replace(held.ref, name=refs[name].name), held.rows)
        return refs

    async def _saved(self, name: str, held: _Held, prefix: str) -> TableRef:
        if held.data is None:
            return held.ref
        target = f"{TABLES_PREFIX}{prefix}{name}-{self._world.new_id()}"
        await self._store.put(target, held.data)
        return structs.replace(held.ref, name=target)

    async def rows(self, refs: Mapping[str, TableRef]) -> dict[str, pa.Table]:
        """The rows of these versions, from memory where they are there."""
        found = await asyncio.gather(*(self._rows(name, ref) for name, ref in refs.items() if name in self._joined))
        return dict(zip((name for name in refs if name in self._joined), found, strict=True))

    async def stop(self) -> None:
        """End the refreshes that run beside."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    async def _begin(self, around: Leased, name: str, committed: TableRef | None) -> None:
        joined, now_us = self._joined[name], self._world.clock.now_us()
        if committed is not None and joined.refresh_us is not None and now_us < committed.read_us + joined.refresh_us:
            self._hold(name, _Held(committed, await retried(around, "checkpoint", lambda: self._load(committed))))
            return
        await retried(around, f"table {name}", lambda: self._read(name, committed))

    async def _read(self, name: str, known: TableRef | None) -> None:
        """Hold the table as it is now; `known` is the version that needs no new copy."""
        snapshot = await self._joined[name].table.read(known.version if known else None)
        now_us = self._world.clock.now_us()
        if snapshot is not None:
            data = await asyncio.to_thread(to_bytes, snapshot.rows)
            self._hold(name, _Held(TableRef(name="", version=snapshot.version, read_us=now_us), snapshot.rows, data))
            return
        assert known is not None
        held = self._held.get(name)
        if held is not None and held.ref.version == known.version:
            self._hold(name, replace(held, ref=structs.replace(held.ref, read_us=now_us)))
        else:
            self._hold(name, _Held(structs.replace(known, read_us=now_us), await self._load(known)))

    def _hold(self, name: str, held: _Held) -> None:
        self._held[name] = held
        refresh_us = self._joined[name].refresh_us
        if refresh_us is not None:
            self._due_us[name] = held.ref.read_us + refresh_us
        self._world.metrics.set("streamproc_table_rows", held.rows.num_rows, table=name)
        self._world.metrics.set("streamproc_table_read_timestamp_seconds", held.ref.read_us / 1e6, table=name)

    async def _repeat(self, name: str) -> None:
        while True:
            await self._world.clock.sleep(max(0.0, (self._due_us[name] - self._world.clock.now_us()) / 1e6))
            await self._refresh(name)

    async def _refresh(self, name: str) -> None:
        """Read a table again. Whatever fails, the epochs go on with the version that is there."""
        before = self._held[name].ref
        try:
            await self._read(name, before)
        except Exception as error:
            self._world.metrics.add("streamproc_table_refresh_failures_total", table=name)
            text = str(error) if isinstance(error, StreamprocError) else repr(error)
            log.warning("a table was not refreshed, its old rows are used", table=name, read_us=before.read_us, error=text)
            pause_us = min(self._joined[name].refresh_us or RETRY_US, RETRY_US)
            self._due_us[name] = self._world.clock.now_us() + pause_us
        else:
            changed = self._held[name].ref.version != before.version
            log.info("a table was refreshed", table=name, rows=self._held[name].rows.num_rows, changed=changed)

    async def _rows(self, name: str, ref: TableRef) -> pa.Table:
        held = self._held.get(name)
        return held.rows if held is not None and held.ref.name == ref.name else await self._load(ref)

    async def _load(self, ref: TableRef) -> pa.Table:
        try:
            data = (await self._store.get(ref.name)).data
        except Missing:
            raise Bug(f"table object {ref.name} is gone, but the log names it") from None
        return await asyncio.to_thread(from_bytes, data, ref.name)

    def __repr__(self) -> str:
        return f"<BoundedTables {', '.join(self._joined) or 'none'}>"
