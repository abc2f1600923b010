"""Keeping the leases of one job for one worker: look, take, renew, hand over, give, whatever the process is busy with.

Everything here runs in one event loop of its own (keeping.py; simulations run it in theirs), so
that neither a long query, a blocked sink nor a function that keeps the worker's loop busy loses a lease. The rest of the
worker sees `Hold`s: what is held, until when, and who asks for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

from streamproc.errors import LeaseLost, Unavailable
from streamproc.lease.balance import Move, Observed, Unit, View, departed, expires_s, look_every_s, moves, observe
from streamproc.lease.hold import Hold
from streamproc.lease.lease import Lease, LeaseTable, Mark
from streamproc.race import first_of
from streamproc.world import World

log = structlog.get_logger()
T = TypeVar("T")
RENEW_EVERY = 0.4
"""Part of a ttl between two renewals: one may fail and another still comes in time."""
RELEASE_POLL_S = 0.1
"""How often a new owner looks whether the one before it has committed its last epoch."""
FIRST_CALL_S = 30.0
AT_ONCE = 20
"""Calls of the table that run side by side."""


class LeaseKeeper:
    """Leases of `wanted` units on behalf of `worker`. `changed` is called, from the keeper's loop, when a hold changes or is new.

    `wanted`, `unwanted` (keys of rows to be removed) and `first_marks` (what a new row says) may be set from any thread; `wake`
    makes the keeper look at once. `counts` is what happened, as metrics (`changes`, `failures`) and their labels. `others` is how
    many other workers it sees.
    """

    def __init__(
        self, table: LeaseTable, worker: str, ttl_s: float, world: World, changed: Callable[[], None] = lambda: None, *,
        max_leases: int | None = None, by: Literal["count", "throughput"] = "count",
    ) -> None:  # fmt: skip
        self.table, self.worker, self.ttl_s = table, worker, ttl_s
        self.wanted: tuple[Unit, ...] = ()
        self.holds: dict[str, Hold] = {}
        self.observed = Observed()
        self._world, self._clock = world, world.clock
        self._changed = changed
        self.counts: Counter[tuple[str, str]] = Counter()
        self.unwanted: frozenset[str] = frozenset()
        self.first_marks: Mapping[str, Mark] = {}
        self._max_leases, self._by = max_leases, by
        self._released_s: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._beaten_s = float("-inf")
        self._ending = False
        self._beside: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    @property
    def others(self) -> int:
        """Other workers that have rows or say that they are there."""
        owners = {row.lease.owner for row in self.observed.rows.values()} | set(self.observed.workers)
        return len(owners - {None, self.worker})

    async def run(self) -> None:
        """Look and act until cancelled, or until something fails that is no table's being away."""
        first = True
        while self._broken is None:
            try:
                await self._look(first)
                first = False
            except (Unavailable, TimeoutError) as error:
                self.counts["failures", "look"] += 1
                log.warning("the lease table does not answer, trying again", error=str(error) or "too slow")
                await self._pause(min(1.0, self.ttl_s / 10))
            else:
                await self._pause(self._until_next_look_s())
        raise self._broken

    def wake(self) -> None:
        """Look at once (from the keeper's own loop)."""
        self._woken.set()

    async def _pause(self, seconds: float) -> None:
        await first_of(self._woken.wait(), self._clock.sleep(seconds))
        self._woken.clear()

    def _until_next_look_s(self) -> float:
        """Sooner if a row expires before; a part of it by chance, so that workers do not look in step."""
        rows = len(self.observed.rows)
        every_s = look_every_s(self.others + 1, rows, self.ttl_s) * (0.9 + 0.1 * self._world.random.random())
        expiry_s = expires_s(self._view())
        return every_s if expiry_s is None else max(min(every_s, expiry_s - self._clock.monotonic_s()), 0.001)

    def _view(self, abandoned: frozenset[str] = frozenset()) -> View:
        now_s = self._clock.monotonic_s()
        acquiring = frozenset(name for name, hold in self.holds.items() if not hold.ready and not hold.lost)
        return View(self.wanted, self.observed, self.worker, now_s, self.ttl_s, self._max_leases, self._by, abandoned, acquiring)

    async def _look(self, first: bool) -> None:
        await self._beat()
        await self._observe()
        if first and self.others:  # several that start together must see each other before they deal
            rows = len(self.observed.rows)
            await self._clock.sleep(self._world.random.random() * look_every_s(self.others + 1, rows, self.ttl_s))
            await self._observe()
        self._resume_own()
        self._reshape()
        self._clear_away()
        for move in self._planned(await self._abandoned()):
            self._aside(self._do(move))

    async def _observe(self) -> None:
        listing = await self._in_time(self.table.list(), self._patience_s)
        keys = [key for unit in self.wanted for key in unit.rows]
        self.observed = observe(listing, self.observed, self._clock.monotonic_s(), keys)
        for hold in self.holds.values():
            self._heed_request(hold)

    def _heed_request(self, hold: Hold) -> None:
        """Seen at a look, a request need not wait for the next renewal."""
        rows = [seen.lease for key in hold.rows if (seen := self.observed.rows.get(key)) is not None]
        later = [lease for lease in rows if lease.counter > hold.rows[lease.key].counter]  # a slow answer may be older than what we know
        asked = [lease for lease in later if lease.checkpoint_owner == self.worker and lease.owner != self.worker]
        if asked and hold.ready and not hold.asked and not hold.lost:
            hold.rows.update({lease.key: lease for lease in asked})
            hold.asked = True
            self.counts["changes", "asked"] += 1
            self._changed()

    async def _beat(self) -> None:
        """Show that we are there, as often as a row is renewed."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._beaten_s + RENEW_EVERY * self.ttl_s * 0.9:
            await self._in_time(self.table.beat(self.worker), self._patience_s)
            self._beaten_s = now_s

    async def _abandoned(self) -> frozenset[str]:
        rows = [row.lease for row in self.observed.rows.values() if row.lease.owner not in (None, self.worker)]
        gone = {owner: await self.table.abandoned(lease) for owner, lease in {lease.owner: lease for lease in rows}.items()}
        return frozenset(lease.key for lease in rows if gone[lease.owner])

    def _planned(self, abandoned: frozenset[str]) -> list[Move]:
        """What is to be done and is not being done already. What was just handed over is not asked back for at once."""
        now_s = self._clock.monotonic_s()
        resting = {name for name, at_s in self._released_s.items() if now_s < at_s + 2 * self.ttl_s}
        return [
            move for move in moves(self._view(abandoned))
            if self._may_begin(move) and not (move.kind == "request" and move.unit.name in resting)
        ]  # fmt: skip

    def _may_begin(self, move: Move) -> bool:
        """A unit that is held already may only grow."""
        hold = self.holds.get(move.unit.name)
        return hold is None or (hold.held and not hold.asked and not hold.growing and move.kind == "take")

    def _reshape(self) -> None:
        """Rows that are no part of their unit any more (their shard has ended) are given back."""
        for unit in self.wanted:
            hold = self.holds.get(unit.name)
            if hold is not None and hold.unit != unit:
                hold.unit = unit
                self._aside(self._part(hold, [key for key in hold.rows if key not in unit.rows]))

    def _clear_away(self) -> None:
        """Rows of tasks that are over, which nobody holds any more, and what dead workers have left."""
        now_s = self._clock.monotonic_s()
        for worker in departed(self.observed, now_s, self.ttl_s):
            self._aside(self._patiently(self.table.leave(worker)))
        for key in self.unwanted & self.observed.rows.keys():
            row = self.observed.rows[key]
            if row.lease.counter and (row.lease.owner is None or now_s >= row.since_s + self.ttl_s):
                self._aside(self._patiently(self.table.drop(row.lease)))

    async def _part(self, hold: Hold, keys: Sequence[str]) -> None:
        async with hold.lock:
            for key in keys:
                await self._last(hold.forget(key), partial(self._give_row, hold.marks.pop(key, None)))

    async def _grow(self, hold: Hold, leases: Sequence[Lease]) -> None:
        """Take rows that have come to a unit: a new shard. What is not had is tried again after the next look."""
        hold.growing = True
        try:
            for lease in leases:
                sent_s = self._clock.monotonic_s()
                taken = await self._in_time(self._take(lease))
                async with hold.lock:
                    hold.renewed(taken, sent_s)
        except (LeaseLost, Unavailable, TimeoutError):
            self.counts["failures", "grow"] += 1
        finally:
            hold.growing = False

    def _resume_own(self) -> None:
        """Rows that are ours without our knowing: the answer was lost, or another program's leader gave them to us."""
        for unit in self.wanted:
            rows = [self.observed.rows[key].lease for key in unit.rows if key in self.observed.rows]
            own = [lease for lease in rows if lease.owner == self.worker]
            hold = self.holds.get(unit.name)
            if hold is None and len(own) == len(unit.rows):
                self._aside(self._resume(unit, own))
            elif hold is not None and hold.held and not hold.growing and (strays := [row for row in own if row.key not in hold.rows]):
                self._aside(self._grow(hold, strays))

    async def _resume(self, unit: Unit, rows: Sequence[Lease]) -> None:
        hold = self._new(unit)
        await self._holding(hold, [(lease, self.table.renew) for lease in rows])

    async def _do(self, move: Move) -> None:
        """Take or request rows one by one; what is had of a unit that cannot be had whole is given back."""
        if (known := self.holds.get(move.unit.name)) is not None:
            await self._grow(known, move.leases)
            return
        hold = self._new(move.unit)
        rows = {key: self.observed.rows[key].lease for key in move.unit.rows if key in self.observed.rows}
        wanted = {lease.key for lease in move.leases}
        ours = [(lease, self.table.renew) for key, lease in rows.items() if key not in wanted and lease.owner == self.worker]
        call = self._take if move.kind == "take" else self._request
        await self._holding(hold, [*ours, *((lease, call) for lease in move.leases)])
        if not hold.lost:
            self.counts["changes", "taken" if move.kind == "take" else "requested"] += 1

    async def _take(self, lease: Lease) -> Lease:
        return await self.table.take(lease, self.worker, self.first_marks.get(lease.key))

    async def _request(self, lease: Lease) -> Lease:
        return await self.table.request(lease, self.worker)

    def _new(self, unit: Unit) -> Hold:
        hold = self.holds[unit.name] = Hold(unit, self._clock, self.ttl_s)
        return hold

    async def _holding(self, hold: Hold, steps: Sequence[tuple[Lease, Callable[[Lease], Awaitable[Lease]]]]) -> None:
        """Make the rows ours, wait for whoever finishes an epoch, then renew for ever."""
        try:
            for lease, change in steps:
                sent_s = self._clock.monotonic_s()
                hold.renewed(await self._in_time(change(lease)), sent_s)
                if lease.mark is not None:
                    hold.began[lease.key] = lease.mark
        except (LeaseLost, Unavailable, TimeoutError):
            hold.lost = True
            await self._give_rows(hold)
            self._forget(hold)
            return
        hold.renewal = asyncio.ensure_future(self._renew_for_ever(hold))
        hold.renewal.add_done_callback(self._beside_ended)
        await self._wait_for_release(hold)
        hold.ready = not hold.lost and not self._ending
        self._changed()

    async def _wait_for_release(self, hold: Hold) -> None:
        """Until the owner before us has committed its last epoch, or a ttl after the request: its own hold has ended by then."""
        asked_s = self._clock.monotonic_s()
        while not hold.lost and not self._ending and any(lease.checkpoint_owner for lease in hold.rows.values()):
            await self._clock.sleep(min(RELEASE_POLL_S, self.ttl_s / 20))
            with suppress(Unavailable, TimeoutError):
                async with hold.lock:
                    await self._see_releases(hold, force=self._clock.monotonic_s() >= asked_s + self.ttl_s)

    async def _see_releases(self, hold: Hold, *, force: bool) -> None:
        for lease in await self._in_time(self.table.get(list(hold.rows))):
            if lease.owner != self.worker:
                hold.lost = True
                return
            if lease.checkpoint_owner is not None and force:
                sent_s = self._clock.monotonic_s()
                with suppress(LeaseLost):
                    hold.renewed(await self._in_time(self.table.take(lease, self.worker)), sent_s)
            elif lease.checkpoint_owner is None:
                hold.rows[lease.key] = lease
            if lease.mark is not None:
                hold.began[lease.key] = lease.mark

    async def _renew_for_ever(self, hold: Hold) -> None:
        """Ends when the unit is not ours any more, or is asked for."""
        pause_s = RENEW_EVERY * self.ttl_s
        while not hold.lost and not hold.asked:
            await self._clock.sleep(pause_s)
            pause_s = RENEW_EVERY * self.ttl_s if await self._renew(hold) else self.ttl_s / 20

    async def _renew(self, hold: Hold) -> bool:
        """Renew every row, with what is to be shown in it; whether all answered."""
        known = hold.asked
        async with hold.lock:
            answers = await asyncio.gather(*(self._renew_row(hold, key) for key in list(hold.rows)))
        if hold.lost or hold.asked is not known:
            self.counts["changes", "lost" if hold.lost else "asked"] += 1
            self._changed()
        return all(answers)

    async def _renew_row(self, hold: Hold, key: str) -> bool:
        if hold.rows[key].owner != self.worker:  # asked for, as a look has shown
            return False
        mark = hold.marks.pop(key, None)
        try:
            async with self._gate:
                sent_s = self._clock.monotonic_s()
                hold.renewed(await self._in_time(self.table.renew(hold.rows[key], mark, hold.kbps)), sent_s)
            return True
        except (Unavailable, TimeoutError):
            self.counts["failures", "renew"] += 1
        except LeaseLost:
            with suppress(Unavailable, TimeoutError):
                await self._find_row(hold, key)
        if mark is not None:
            hold.marks.setdefault(key, mark)
        return False

    async def _find_row(self, hold: Hold, key: str) -> None:
        """Why a renewal was refused: its own answer before was lost, somebody asks for the row, or somebody has it."""
        row = next(iter(await self._in_time(self.table.get([key]))), None)
        if row is not None and row.owner == self.worker:
            hold.rows[key] = row
        elif row is not None and row.checkpoint_owner == self.worker:
            hold.rows[key] = row
            hold.asked = True
        else:
            hold.lost = True

    async def show(self, name: str, marks: Mapping[str, Mark]) -> None:
        """Write what the rows are to say of their shards; while one write runs, only the newest waits."""
        hold = self.holds.get(name)
        if hold is None:
            return
        waiting = bool(hold.marks)
        hold.marks.update({key: mark for key, mark in marks.items() if key in hold.rows})
        if not waiting and not hold.asked:
            await self._renew(hold)

    async def release(self, name: str, marks: Mapping[str, Mark]) -> None:
        """The task has committed its last epoch: whoever asked for it may begin. Rows that nobody asked for are freed."""
        hold = await self._no_longer_renewed(name)
        if hold is None:
            return
        async with hold.lock:
            hold.ready = False
            for key, lease in hold.rows.items():
                mark = marks.get(key)
                await self._last(lease, partial(self._release_row, mark))
        self._released_s[name] = self._clock.monotonic_s()
        self.counts["changes", "released"] += 1
        self._forget(hold)

    async def _release_row(self, mark: Mark | None, lease: Lease) -> None:
        if lease.checkpoint_owner == self.worker:
            await self.table.release(lease, mark)
        else:
            await self.table.give(lease, mark)

    async def give(self, name: str, marks: Mapping[str, Mark]) -> None:
        """Free a unit at a clean stop. A table that is away is no error: the rows expire."""
        hold = await self._no_longer_renewed(name)
        if hold is None:
            return
        async with hold.lock:
            hold.ready = False
            hold.marks.update(marks)
            await self._give_rows(hold)
        self.counts["changes", "given"] += 1
        self._forget(hold)

    async def drop(self, name: str) -> None:
        """Remove the rows of a unit that is over, where nobody else reads them."""
        hold = await self._no_longer_renewed(name)
        if hold is None:
            return
        async with hold.lock:
            for lease in hold.rows.values():
                await self._last(lease, self.table.drop)
        self._forget(hold)

    async def let_go(self, name: str) -> None:
        """Forget a unit that was lost."""
        hold = await self._no_longer_renewed(name)
        if hold is not None:
            self._forget(hold)

    async def add(self, rows: Mapping[str, Mark]) -> None:
        """Rows for shards that nobody has yet. Unavailable: not all were made."""
        await asyncio.gather(*(self._in_time(self.table.add(key, mark)) for key, mark in rows.items()))

    async def stop(self) -> None:
        """Give everything back and leave."""
        self._ending = True
        if self._beside:  # a take that is under way may still arrive
            await asyncio.wait(self._beside, timeout=self.ttl_s)
        for name in list(self.holds):
            await self.give(name, {})
        for task in list(self._beside):
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        try:
            await self._patiently(self._give_strays())
        except Exception as error:  # whatever a table answers, what is left expires
            log.warning("rows may be left to expire", error=repr(error))
        await self._patiently(self.table.leave(self.worker))
        await self.table.close()

    async def _give_strays(self) -> None:
        """Rows that are ours without our knowing: the answer of a take was lost."""
        for lease in (await self.table.list()).leases:
            if lease.owner == self.worker:
                await self._last(lease, partial(self._give_row, None))

    async def _give_row(self, mark: Mark | None, lease: Lease) -> None:
        await self.table.give(lease, mark)

    async def _give_rows(self, hold: Hold) -> None:
        for key, lease in hold.rows.items():
            if lease.owner == self.worker:
                await self._last(lease, partial(self._give_row, hold.marks.get(key)))

    async def _no_longer_renewed(self, name: str) -> Hold | None:
        """The hold of a unit, if there is one, once its renewal has ended: not in the middle of a call, which may still arrive and
        raise the counter.
        """
        hold = self.holds.get(name)
        if hold is None:
            return None
        async with hold.lock:
            if hold.renewal is not None:
                hold.renewal.cancel()
        if hold.renewal is not None:
            await asyncio.gather(hold.renewal, return_exceptions=True)
        return hold

    async def _last(self, lease: Lease, change: Callable[[Lease], Awaitable[object]]) -> None:
        """The last change of a row of ours, by its counter as it is now if we do not know it. A table that is away is no error."""
        with suppress(Unavailable, TimeoutError):
            try:
                await self._in_time(change(lease))
            except LeaseLost:
                now = next(iter(await self._in_time(self.table.get([lease.key]))), None)
                if now is not None and self.worker in (now.owner, now.checkpoint_owner):
                    with suppress(LeaseLost):
                        await self._in_time(change(now))

    def _forget(self, hold: Hold) -> None:
        if self.holds.get(hold.unit.name) is hold:
            del self.holds[hold.unit.name]
        self._changed()

    async def _patiently(self, call: Awaitable[object]) -> None:
        with suppress(LeaseLost, Unavailable, TimeoutError):
            await self._in_time(call)

    @property
    def _patience_s(self) -> float:
        """For a look: while nothing is held nothing can be lost, and a first call makes a client and maybe the table."""
        return self.ttl_s / 3 if self.holds else FIRST_CALL_S

    async def _in_time(self, call: Awaitable[T], limit_s: float | None = None) -> T:
        async with asyncio.timeout(self.ttl_s / 3 if limit_s is None else limit_s):
            return await call

    def _aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside_ended)
        return task

    def _beside_ended(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error
            self.wake()

    def __repr__(self) -> str:
        return f"<LeaseKeeper {self.worker} {len(self.holds)} of {len(self.wanted)} units, {self.others} other workers>"
