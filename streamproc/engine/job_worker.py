"""One job in one process: finds out which tasks there are, runs those whose leases it holds, hands over those it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from msgspec import structs

from streamproc.checkpoint.log import Line
from streamproc.checkpoint.records import Root, ShardEnd
from streamproc.checkpoint.root import open_root, read_root, write_root
from streamproc.checkpoint.tasks import ALL, KnownTasks, TaskRegister, TaskScope, remove_task
from streamproc.engine.first_commit import Beginning
from streamproc.engine.hash_audit import HashAudit
from streamproc.engine.lease_rows import LeaseRows
from streamproc.engine.marks import NO_MARKS
from streamproc.engine.retry import retried
from streamproc.engine.runtime import Boundary, Connectors, Registered, Turns, connect, nothing_happens
from streamproc.engine.task import Outcome, Task
from streamproc.engine.task_set import children_of, grown, must_join, parents_of, runnable, scopes_of
from streamproc.engine.trigger import Trigger
from streamproc.errors import Bug, LeaseLost, StreamprocError, Unavailable
from streamproc.job import Job
from streamproc.lease.balance import Unit
from streamproc.lease.hold import Hold
from streamproc.lease.keeping import Keeping
from streamproc.lease.lease import Mark
from streamproc.race import ended, first_of
from streamproc.source import Shard
from streamproc.store import Changed, Store
from streamproc.world import World

log = structlog.get_logger()
ANSWER_S = 30.0
"""For a source to list its shards, and for readers to end: what takes longer is tried again, or left."""
DISCOVERY_S = 10.0
"""How often the checkpoint's root and its tasks are read again."""


@dataclass
class Running:
    """A task that runs under `hold`, and the future of its end."""

    task: Task
    hold: Hold
    ends: asyncio.Future[Outcome]


class JobWorker:
    """Runs the tasks of a job whose leases `keeping` holds, until `stop`, until its input is read, or until one of them fails.

    Tasks share what `connect` makes. `adopt`: go on from positions that other programs have moved. `running` by task.
    """

    def __init__(
        self, job: Job, store: Store, world: World, keeping: Callable[[Callable[[], None]], Keeping], *,
        connectors: Connectors | None = None, turns: Turns | None = None, boundary: Boundary = nothing_happens,
        trigger: Trigger | None = None, drain: bool = False,
    ) -> None:  # fmt: skip
        self.job, self.store, self.world = job, store, world
        self.running: dict[str, Running] = {}
        self._news = asyncio.Event()
        self._make_keeping = keeping
        self._connectors: Connectors = connectors or Registered()
        self._boundary, self._trigger, self._drain = boundary, trigger or Trigger(), drain
        self.connected = connect(job, job.planned, world, self._connectors, turns)
        self._rows = LeaseRows(job, self.connected.tables)
        self._audit = HashAudit(world.metrics)
        self._writer = world.new_id()
        self._listed: dict[str, list[Shard]] = {}
        self._over: set[str] = set()
        self._done: set[str] = set()
        self._closed: set[str] = set()
        self._letting_go: set[str] = set()
        self._scopes: dict[str, TaskScope] = {}
        self._began: Mapping[str, Mapping[str, ShardEnd]] = {}
        self._due_s = float("-inf")
        self._failure: BaseException | None = None
        self._stopping = False
        self.unlisted: dict[str, str] = {}
        self._keeping: Keeping | None = None
        self._root: Root | None = None

    @property
    def keeping(self) -> Keeping:
        assert self._keeping is not None, "run() comes first"
        return self._keeping

    @property
    def owner(self) -> str | None:
        """Who has the job's leases, as far as it is one worker: ours if we have any."""
        if self._keeping is None:
            return None
        keeper = self._keeping.keeper
        others = {row.lease.owner for row in list(keeper.observed.rows.values())} - {None}
        return keeper.worker if self.running or not others else min(str(owner) for owner in others)

    @property
    def others(self) -> int:
        """Other workers that share the job."""
        return self._keeping.keeper.others if self._keeping else 0

    @property
    def lease_counts(self) -> Mapping[tuple[str, str], int]:
        """What happened to leases, as metrics and their labels."""
        return self._keeping.keeper.counts if self._keeping else {}

    @property
    def sink_names(self) -> list[str]:
        return list(self.connected.sinks)

    @property
    def prefetch_nbytes(self) -> int:
        return self.connected.decoding.budget.nbytes

    def check_lease(self) -> None:
        """What is done here needs no lease: it is decided by create-if-absent."""

    async def run(self, stop: asyncio.Event) -> None:
        """Raises what a task failed with; the others have finished their epochs then."""
        self._keeping = self._make_keeping(self._news.set)
        stopping = asyncio.ensure_future(self._heed(stop))
        try:
            await self._begin()
            while not self._finished():
                await self._discover_if_due()
                self._follow()
                await self._wait()
                await self._settle()
        finally:
            stopping.cancel()
            await self._end()
        if self._failure is not None:
            raise self._failure

    # -- what there is

    async def _begin(self) -> None:
        kind = self.job.planned.tasks.kind
        self._root = (await retried(self, "checkpoint", lambda: open_root(self.store, self.world, kind))).root
        self._register = TaskRegister(self.store, self._root.generation)

    @property
    def _cut(self) -> bool:
        """Whether there is a task for every shard."""
        return self._root is not None and self._root.tasks == "shards"

    async def _discover_if_due(self) -> None:
        """Look at the sources and the checkpoint; what does not answer is asked again soon, the tasks go on meanwhile."""
        now_s = self.world.clock.monotonic_s()
        if now_s < self._due_s or self._stopping:
            return
        try:
            await self._discover()
            self._due_s = now_s + min((t.source.discovery_interval_s for t in self.connected.tables.values()), default=DISCOVERY_S)
        except (Unavailable, LeaseLost) as error:  # lost: this worker slept while others joined the tasks; it looks again
            log.warning("shards were not found, trying again", job=self.job.name, error=str(error))
            self._due_s = now_s + 1.0
        except StreamprocError as error:
            self._fail(error)

    async def _discover(self) -> None:
        if self._cut or self.keeping.keeper.table.keeps_marks:
            for name in self.connected.tables:
                await self._list(name)
            await self._rows.learn(self.keeping.keeper.table)
            self.keeping.keeper.first_marks = self._rows.first_marks(self._listed)
        if not self._cut:
            self._want_all()
            return
        opened = await read_root(self.store)
        self._root = opened.root if opened else self._root
        known = await self._register.read()
        self._over |= known.over
        self._scopes = scopes_of(self._listed, known)
        if not self._joining and await self._must_join():
            await self._change_root(joining=True)
        if self._joining and await self._all_closed():
            await self._join()
        self.keeping.keeper.unwanted = self._rows.left_behind(self._scopes, self._over, self.keeping.keeper.observed, cut=self._cut)
        if self._cut:
            await self._forget_old()
            self._want(runnable(self._scopes, self._over | self._closed))

    def _want_all(self) -> None:
        """One task: its unit has the rows of all shards that have not ended. It does not share a table with another live program."""
        running = self.running.get(ALL)
        if running is not None and running.task.started:
            self._rows.note_ended(running.task.standing.commit.shards, self._listed)
        self._want([TaskScope()])
        [unit] = self.keeping.keeper.wanted or [None]
        if unit is not None and (owner := self._rows.foreign_owner(unit, self.keeping.keeper.observed)):
            raise StreamprocError(
                f"job {self.job.name} needs all shards in one task ({'; '.join(self.job.planned.tasks.reasons)}), but {owner} of another"
                " program is alive on the lease table and has some of them: stop it, or use another table"
            )

    async def _list(self, name: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                self._listed[name] = list(await self.connected.tables[name].source.shards())
        except (Unavailable, TimeoutError) as error:
            self.unlisted[name] = str(error) or f"no answer within {ANSWER_S:.0f} s"
            raise Unavailable(self.unlisted[name]) from error
        self.unlisted.pop(name, None)
        self._audit.look(name, self._listed[name])

    def _want(self, scopes: Iterable[TaskScope]) -> None:
        units = tuple(Unit(scope.name, self._rows.of(scope, self._listed)) for scope in scopes if scope.name not in self._done)
        if units != self.keeping.keeper.wanted:
            self.keeping.keeper.wanted = units
            self.keeping.wake()

    # -- from a task for every shard to one over all

    @property
    def _joining(self) -> bool:
        return self._cut and self._root is not None and self._root.joining

    def _beginning(self) -> Beginning:
        assert self._root is not None
        return Beginning(self.connected, self.store, Line(self._root.checkpoint, self._root.generation, ALL), self._writer)

    async def _must_join(self) -> bool:
        split = self.job.planned.tasks
        began = await self._first_shards() if split.key else {}
        joining = must_join(split, self._scopes, began)
        if joining and split.kind == "shards":
            added = grown(self._scopes, began)
            log.warning("partitions were added: keys may have moved, the tasks go on as one", job=self.job.name, tasks=added)
        return joining

    async def _first_shards(self) -> Mapping[str, Mapping[str, ShardEnd]]:
        """The shards that there were when the checkpoint began, which never change; empty before that."""
        if not self._began:
            began = await self._beginning().log_of(ALL).read_commit(0)
            self._began = began.shards if began else {}
        return self._began

    async def _all_closed(self) -> bool:
        """Whether every task that has begun says that it goes on as part of another."""
        for name, scope in self._scopes.items():
            if name not in self._over and name not in self._closed:
                latest = await self._beginning().log_of(name).latest()
                parents = parents_of(scope, self._scopes)
                newest = latest.commit if latest else await self._beginning().of_shard(self, scope, parents, NO_MARKS, closed=True)
                if not newest.closed:
                    return False
                self._closed.add(name)
        return True

    async def _join(self) -> None:
        begun = [scope for name, scope in self._scopes.items() if name not in self._over]
        await self._beginning().joined(self, begun)
        await self._change_root(tasks="all", joining=False)
        if not self._cut:
            log.info("the tasks go on as one", job=self.job.name, tasks=len(begun))
            self._want_all()

    async def _change_root(self, **changes: object) -> None:
        """Of many workers that want the same, one writes it; what was decided on an older root is not written."""
        opened = await read_root(self.store)
        assert opened is not None
        if opened.root != self._root:
            self._root = opened.root
            return
        try:
            self._root = (await write_root(self.store, structs.replace(opened.root, **changes), opened.etag)).root
        except Changed:
            reread = await read_root(self.store)
            self._root = reread.root if reread else self._root

    async def _forget_old(self) -> None:
        """Logs of shards that the source has forgotten, once all that follows them has begun."""
        if not any(name in self._over and name not in self._listed_tasks() for name in self._scopes):
            return
        for name in self.connected.tables:  # again: a shard may have come and ended after it was listed last
            await self._list(name)
        listed = self._listed_tasks()
        for name in [name for name in self._scopes if name in self._over and name not in listed]:
            children = children_of(self._scopes[name], self._scopes.values())
            if all(TaskScope.of(str(self._scopes[name].source), child).name in self._register for child in children):
                await remove_task(self.store, self._register, name)
                del self._scopes[name]

    def _listed_tasks(self) -> set[str]:
        return {TaskScope.of(name, shard).name for name, shards in self._listed.items() for shard in shards}

    # -- what runs

    def _follow(self) -> None:
        """Start what is held and does not run; stop what is asked for, not wanted any more, or being joined."""
        wanted = {unit.name for unit in self.keeping.keeper.wanted}
        for name, hold in list(self.keeping.keeper.holds.items()):
            running = self.running.get(name)
            if running is not None:
                if hold.asked or hold.lost or self._stopping or self._joining or name not in wanted:
                    running.task.stop()
            elif hold.held and name in wanted and not self._stopping and not hold.asked:
                self._start(name, hold)
            elif name not in self._letting_go and (hold.lost or (hold.ready and (hold.asked or name not in wanted))):
                self._aside(self._let_go(name, hold))

    def _start(self, name: str, hold: Hold) -> None:
        scope = self._scopes.get(name, TaskScope())
        shared = self._rows.shared(hold.unit)
        task = Task(
            self.job, self.store, self.world, hold, connectors=self._connectors, trigger=self._trigger, boundary=self._boundary,
            scope=scope, parents=parents_of(scope, self._scopes), connected=self.connected,
            marks=self._rows.marks(hold.began), mark=partial(self._show, name) if shared else lambda _: None,
            adopt=bool(self.job.leases and self.job.leases.adopt), may_begin=partial(self._may_begin, scope),
        )  # fmt: skip
        ends = asyncio.ensure_future(self._run_task(task))
        ends.add_done_callback(lambda _: self._news.set())
        self.running[name] = Running(task, hold, ends)

    async def _may_begin(self, scope: TaskScope) -> bool:
        """Whether keys are still where they were when the rows of an epoch were written. Hashed shards check each key instead."""
        if scope.source is None or scope.shard is None or scope.shard.hash_range is not None or not self.connected.plan.tasks.key:
            return True
        source = self.connected.tables[scope.source].source
        now = await retried(self, scope.source, source.shards)
        began = await retried(self, "checkpoint", self._first_shards)  # first tasks start before it is written
        if not grown(scopes_of({scope.source: now}, KnownTasks()), began):
            return True
        self._due_s = float("-inf")
        self._news.set()
        return False

    async def _run_task(self, task: Task) -> Outcome:
        with structlog.contextvars.bound_contextvars(task=task.scope.name):
            await task.start()
            if self._joining and task.scope.shard is not None:
                task.stop()
            outcome = await task.run(drain=self._drain)
            if outcome == "stopped" and self._joining and not self._stopping:
                await task.close_log()
                return "closed"
            return outcome

    def _show(self, name: str, ends: Mapping[str, Mapping[str, ShardEnd]]) -> None:
        """Let the rows of a shared table say where the task stands; nobody waits for it."""
        marks = self._rows.marks_of(ends, self._listed)
        self._aside(self.keeping.call(lambda: self.keeping.keeper.show(name, marks)))

    async def _settle(self) -> None:
        """What comes of tasks that have ended."""
        for name, running in [(name, running) for name, running in self.running.items() if running.ends.done()]:
            await self._close(running.task)
            del self.running[name]
            try:
                outcome = running.ends.result()
            except LeaseLost as error:
                log.warning("the lease was lost; waiting for it", job=self.job.name, task=name, reason=str(error))
                await self.keeping.call(partial(self.keeping.keeper.let_go, name))
                continue
            except Exception as error:
                self._fail(error)
                await self._give(name, running, show=False)  # what the row says may be what the task failed over
                continue
            await self._after(name, running, outcome)

    async def _close(self, task: Task) -> None:
        """A connection that does not end must not keep the job's other tasks waiting."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await task.close()
        except TimeoutError:
            log.warning("a task's readers do not end", job=self.job.name, task=task.scope.name)

    async def _after(self, name: str, running: Running, outcome: Outcome) -> None:
        if outcome != "stopped":
            self._no_more(name, outcome)
        if outcome == "over" and not self._rows.shared(running.hold.unit):
            await self.keeping.call(lambda: self.keeping.keeper.drop(name))
            return
        if outcome == "over":  # rows for its children before its own row says that it has ended
            self._learn_children(running.task)
            await self._discover_if_due()
            children = self._rows.children(running.task.scope, self._listed)
            await self.keeping.call(lambda: self.keeping.keeper.add(children))
        await self._give(name, running)

    def _learn_children(self, task: Task) -> None:
        """Those that the end of a shard has named: a listing may be late."""
        listed = self._listed.get(task.scope.source or "", [])
        listed += [child for child in task.children if child.id not in {shard.id for shard in listed}]

    def _no_more(self, name: str, outcome: Outcome) -> None:
        """The task does not run again; others may follow it."""
        {"finished": self._done, "over": self._over, "closed": self._closed}[outcome].add(name)
        keeper = self.keeping.keeper
        keeper.wanted = tuple(unit for unit in keeper.wanted if unit.name != name)
        self._due_s = float("-inf")

    async def _give(self, name: str, running: Running, *, show: bool = True) -> None:
        """Hand over to whoever asked for it, or free it, with the last position."""
        marks = self._rows.marks_of(running.task.standing.commit.shards, self._listed) if show and running.task.started else {}
        await self._hand_back(name, running.hold, marks)

    async def _hand_back(self, name: str, hold: Hold, marks: Mapping[str, Mark]) -> None:
        keeper = self.keeping.keeper
        await self.keeping.call(partial(keeper.release if hold.asked else keeper.give, name, marks))

    async def _let_go(self, name: str, hold: Hold) -> None:
        """A unit that does not run: it is lost, or asked for, or nobody wants it any more."""
        keeper = self.keeping.keeper
        self._letting_go.add(name)
        try:
            if keeper.holds.get(name) is not hold:
                return
            if hold.lost:
                await self.keeping.call(partial(keeper.let_go, name))
            else:
                await self._hand_back(name, hold, {})
        finally:
            self._letting_go.discard(name)

    # -- until when

    async def _wait(self) -> None:
        pause_s = max(0.0, self._due_s - self.world.clock.monotonic_s()) if not self._stopping else DISCOVERY_S
        until_held_s = 0.2 if any(hold.ready and not hold.held for hold in self.keeping.keeper.holds.values()) else pause_s
        if not self._news.is_set():
            await first_of(self._news.wait(), self.world.clock.sleep(min(pause_s, until_held_s)))
        self._news.clear()
        if self._failure is None and (failure := self.keeping.failure()) is not None:
            self._fail(failure)

    def _finished(self) -> bool:
        if self._stopping:
            return not self.running
        if self._trigger.kind != "available_now":
            return False
        return not self.running and bool(self._listed or self._done) and not self.keeping.keeper.wanted

    def _fail(self, error: BaseException) -> None:
        """The first failure ends the job's tasks in this worker after their epochs."""
        if self._failure is None:
            kind = type(error).__name__
            log.error("the job stopped", job=self.job.name, kind=kind, error=str(error))
            self._failure = error if isinstance(error, StreamprocError) else Bug(f"{kind}: {error}")
            self._failure.__cause__ = None if self._failure is error else error
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        if self._keeping is not None:
            self.keeping.keeper.wanted = ()  # what is given now is not taken again
        for running in self.running.values():
            running.task.stop()
        self._news.set()

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stop()

    async def _end(self) -> None:
        """After a failure, a stop or a cancel: nothing of ours is left."""
        for running in self.running.values():
            await ended([running.ends])
            await self._close(running.task)
        await self.keeping.stop()
        await self.connected.close()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        future = asyncio.ensure_future(work)
        future.add_done_callback(_heard)

    def __repr__(self) -> str:
        return f"<JobWorker {self.job.name}: {', '.join(self.running) or 'no task'}>"


def _heard(future: asyncio.Future[None]) -> None:
    """What is done aside fails without harm: it comes again with the next epoch or look."""
    if not future.cancelled() and future.exception() is not None:
        log.warning("a lease was not written", error=str(future.exception()))
