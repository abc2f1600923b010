"""Holding one lease: acquire it, renew it whatever the process is busy with, give it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from streamproc.errors import Bug, LeaseLost, Unavailable
from streamproc.lease.balance import Hold, Seen, Wait, decide, observe
from streamproc.lease.lease import Lease, LeaseTable
from streamproc.world import World

_T = TypeVar("_T")


class LeaseKeeper:
    """One row of a lease table on behalf of `owner`.

    Renewal runs in a thread with an event loop of its own, so that neither a long query nor a function that keeps the
    worker's loop busy loses the lease; so the clock must be one that runs by itself. `held` turns False by the
    holder's own clock no later than anybody else may judge the row abandoned: a renewal counts from before it was sent.
    """

    def __init__(self, table: LeaseTable, key: str, owner: str, ttl_s: float, world: World) -> None:
        self._table = table
        self._key = key
        self._owner = owner
        self._ttl_s = ttl_s
        self._clock = world.clock
        self._lease: Lease | None = None
        self._held_until_s = float("-inf")
        self._lost = False
        self._seen: dict[str, Seen] = {}
        self._renewal: _Renewal | None = None

    @property
    def held(self) -> bool:
        """Whether nobody else may run the task now."""
        return self._lease is not None and not self._lost and self._clock.monotonic_s() < self._held_until_s

    @property
    def current(self) -> Lease | None:
        """The row as this keeper last wrote it."""
        return self._lease

    async def acquire(self) -> None:
        """Return once the row is ours: it was free, its owner is provably dead, or was silent for the ttl.

        Raises Unavailable if the table does not answer; call again then, what was seen until now still counts.
        """
        self._lost = False
        while not await self._try_acquire():
            await self._clock.sleep(self._ttl_s / 10)
        self._renewal = _Renewal(self)

    async def give(self) -> None:
        """Stop renewing and free the row, so that the next worker need not wait. A table that is away is no error."""
        if self._renewal is not None:
            await asyncio.to_thread(self._renewal.stop)
        lease, self._lease = self._lease, None
        if lease is not None and not self._lost:
            with suppress(LeaseLost, Unavailable, TimeoutError):
                await self._in_time(self._table.give(lease))

    async def _try_acquire(self) -> bool:
        rows = await self._rows() or [Lease(self._key, None, 0)]
        self._seen = observe(rows, self._seen, self._clock.monotonic_s())
        sent_s = self._clock.monotonic_s()
        action = decide(self._seen[self._key], sent_s, self._ttl_s, self._owner)
        if isinstance(action, Wait) and not await self._table.abandoned(action.lease):
            return False
        change = self._table.renew(action.lease) if isinstance(action, Hold) else self._table.take(action.lease, self._owner)
        with suppress(LeaseLost):
            self._renewed(await change, sent_s)
            return True
        return False

    async def _rows(self) -> list[Lease]:
        return [row for row in await self._table.list() if row.key == self._key]

    async def renew_for_ever(self) -> None:
        """Renew three times a ttl; ends when somebody else has the row."""
        pause_s = self._ttl_s / 3
        while not self._lost:
            await self._clock.sleep(pause_s)
            try:
                await self._renew()
                pause_s = self._ttl_s / 3
            except (Unavailable, TimeoutError):
                pause_s = self._ttl_s / 20

    async def _renew(self) -> None:
        sent_s = self._clock.monotonic_s()
        try:
            self._renewed(await self._in_time(self._table.renew(self._own())), sent_s)
        except LeaseLost:
            await self._find_own_row()

    async def _find_own_row(self) -> None:
        """A renewal whose answer was lost moved the counter: then the row is still ours, to be renewed from there."""
        own = [row for row in await self._in_time(self._rows()) if row.owner == self._owner]
        self._lost = not own
        if own:
            self._lease = own[0]
            raise Unavailable("the answer of a renewal was lost")

    def _own(self) -> Lease:
        if self._lease is None:
            raise Bug("a lease is renewed that was never taken")
        return self._lease

    def _renewed(self, lease: Lease, sent_s: float) -> None:
        self._lease = lease
        self._held_until_s = sent_s + self._ttl_s

    async def _in_time(self, call: Awaitable[_T]) -> _T:
        async with asyncio.timeout(self._ttl_s / 3):
            return await call

    def __repr__(self) -> str:
        return f"<LeaseKeeper {self._key} {self._owner} {'held' if self.held else 'not held'}>"


class _Renewal:
    """The thread that renews, and how it is stopped."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(keeper.renew_for_ever())
        self._thread = threading.Thread(target=self._run, name=f"renew {keeper!r}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: renewal had ended
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
