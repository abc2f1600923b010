"""One task: the running copy of a job's query over its shards. Recovers from the log, then repeats epochs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import structlog
from msgspec import structs

from streamproc.checkpoint.log import EpochLog, Line
from streamproc.checkpoint.records import CLOSED, Begin, Commit, JobText, ShardBegin, ShardEnd
from streamproc.checkpoint.retention import EPOCHS_KEPT, Collector
from streamproc.checkpoint.root import keep_text, open_root, read_text
from streamproc.checkpoint.tasks import TaskRegister, TaskScope
from streamproc.engine.epoch import Overtaken, Standing, advance_time, finish_epoch, run_epoch
from streamproc.engine.feed import Feed
from streamproc.engine.first_commit import Beginning
from streamproc.engine.intake import EVERY_SHARD, Feeds, Intake, reread
from streamproc.engine.marks import NO_MARKS, Marks, adopted
from streamproc.engine.retry import retried
from streamproc.engine.runtime import (
    Boundary,
    Connected,
    Connectors,
    Held,
    Marking,
    Registered,
    Runtime,
    check_held,
    connect,
    nothing_happens,
    nothing_is_marked,
    runtime_of,
)
from streamproc.engine.trigger import Decision, Trigger, View, decide
from streamproc.engine.unbounded import Table
from streamproc.engine.undo import undo_task
from streamproc.errors import Fault, InvalidJob, LeaseLost, StreamprocError
from streamproc.job import Job, load_job
from streamproc.job.changes import changes
from streamproc.job.planning import plan
from streamproc.race import first_of
from streamproc.source import Shard
from streamproc.store import Store
from streamproc.world import World

log = structlog.get_logger()
Outcome = Literal["stopped", "finished", "over", "closed"]
"""How a task ended: asked to; its input was read (available_now); its shard has ended; it goes on as part of another task."""


async def always() -> bool:
    """Nothing speaks against an epoch."""
    return True


class Task:
    """Runs a job's query over the shards of `scope` while its lease is held.

    `start` recovers: it finishes an epoch that was begun, with the job text it began with; checks that an edited job
    fits what is stored; then opens the feeds. `step` decides and does one thing; `run` repeats it. `standing` is what
    the log says now. With `stepwise`, nothing happens between steps but reading (tests). `connected` is shared with
    other tasks of the job (None: its own). `parents` are the tasks that one over a shard begins after. `marks` is where
    the rows of its lease stood, `mark` writes there; `adopt`: go on from a row that another program has moved. `may_begin` is
    asked once the rows of an epoch are read and before it begins. `children` are shards that the end of its own has named.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        world: World,
        lease: Held,
        *,
        connectors: Connectors | None = None,
        trigger: Trigger | None = None,
        boundary: Boundary = nothing_happens,
        stepwise: bool = False,
        scope: TaskScope = EVERY_SHARD,
        parents: Sequence[TaskScope] = (),
        connected: Connected | None = None,
        marks: Marks = NO_MARKS,
        mark: Marking = nothing_is_marked,
        adopt: bool = False,
        may_begin: Callable[[], Awaitable[bool]] = always,
    ) -> None:
        self.job, self.store, self.world, self.lease, self.scope = job, store, world, lease, scope
        self.trigger = trigger or Trigger()
        self.stopping = False
        self.children: tuple[Shard, ...] = ()
        self._dropped_rows = False  # rows that were taken and not begun: an epoch that stands behind them would lose them
        self._parents, self._marks, self._mark, self._adopt, self._may_begin = parents, marks, mark, adopt, may_begin
        self._connectors: Connectors = connectors or Registered()
        self._connected = connected
        self._own: Connected | None = None
        self._boundary = boundary
        self._stepwise = stepwise
        self._writer = world.new_id()
        self._begun_us: int | None = None
        self._begun_s: float | None = None
        self._feeds: Feeds | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._runtime: Runtime | None = None
        self._standing: Standing | None = None

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None, "start() comes first"
        return self._runtime

    @property
    def standing(self) -> Standing:
        assert self._standing is not None, "start() comes first"
        return self._standing

    @property
    def started(self) -> bool:
        """Whether the log has been read: `standing` says what it said."""
        return self._standing is not None

    def check_lease(self) -> None:
        check_held(self.lease, self.job.name)

    @property
    def over(self) -> bool:
        """Whether its one shard has ended, and everything of it is committed."""
        source, shard = self.scope.source, self.scope.shard
        if source is None or shard is None:
            return False
        end = self.standing.commit.shards.get(source, {}).get(shard.id)
        return end is not None and end.ended

    async def start(self) -> None:
        """Recover and begin to read."""
        root = (await retried(self, "checkpoint", lambda: open_root(self.store, self.world))).root
        text = JobText(file=self.job.file, text=self.job.text, overrides=self.job.overrides)
        await retried(self, "checkpoint", lambda: keep_text(self.store, self.job.hash, text))
        self._log = EpochLog(self.store, Line(root.checkpoint, root.generation, self.scope.name), self._writer)
        self._register = TaskRegister(self.store, root.generation)
        if self._connected is None:
            self._connected = self._own = self._connect(self.job)
        self._runtime = self._runtime_of(self._connected)
        self._collector = Collector(self._log)
        await undo_task(self, self.runtime.sinks, root)
        await self._recover()

    def _connect(self, job: Job) -> Connected:
        return connect(job, plan(job), self.world, self._connectors, offloaded=not self._stepwise)

    def _runtime_of(self, connected: Connected) -> Runtime:
        return runtime_of(connected, self._log, self.lease, self._boundary, self._mark)

    async def _recover(self) -> None:
        """Bring `standing` to the newest commit, finishing what was begun after it, and read on from there."""
        await self._close_feeds()
        latest = await retried(self, "checkpoint", self._log.latest)
        if latest is None:
            if await retried(self, "checkpoint", self._log.floor) >= CLOSED:
                raise StreamprocError("a rollback of this checkpoint was interrupted: run `streamproc rollback` again")
            await self._begin_log()
            latest = await retried(self, "checkpoint", self._log.latest)
            assert latest is not None
        if latest.commit.finished:
            raise InvalidJob(
                [Fault(self.job.file, 1, "this checkpoint was drained and is finished: begin a new one (another `checkpoint:`)")]
            )
        log.info("the log was read", task=self.scope.name, epoch=latest.epoch, begun=latest.begun is not None)
        self._standing = Standing(latest.epoch, latest.commit)
        if latest.begun is not None:
            await self._finish(latest.begun)
        await self._heed_marks()
        await self._adopt_edit()
        if self.over or self.standing.commit.closed:
            return
        committed = self.standing.commit.tables if self.standing.commit.job == self.job.hash else {}
        await self.runtime.bounded.start(self, committed, beside=not self._stepwise)
        self._feeds = Feeds(
            self._tables_of(self.runtime), self.standing.commit.shards, self.world, self.runtime.connected.decoding,
            scope=self.scope, once=self.trigger.kind == "available_now",
        )  # fmt: skip
        await self._feeds.start()

    async def _begin_log(self) -> None:
        """Epoch 0, by whoever is first."""
        beginning = Beginning(self.runtime.connected, self.store, self._log.line, self._writer)
        if self.scope.shard is None:
            await beginning.checkpoint(self, self._marks)
            return
        await retried(self, "checkpoint", lambda: self._register.begin(self.scope))
        await beginning.of_shard(self, self.scope, self._parents, self._marks)

    async def _heed_marks(self) -> None:
        """Stop, or go on from them, where another program has moved positions of ours."""
        moved = await retried(self, "checkpoint", self._moved)
        if moved is not None:
            await self._commit_again(moved)

    async def _moved(self) -> Commit | None:
        return await adopted(self._log, self.standing.epoch, self.standing.commit, self._marks, adopt=self._adopt)

    async def _commit_again(self, commit: Commit) -> None:
        """An epoch without rows, whose commit changes what `commit` says. LeaseLost: another worker goes on meanwhile."""
        before = self.standing.commit
        now_us = max(self.world.clock.now_us(), before.now_us + 1)
        shards = {name: {shard: _standing_still(end) for shard, end in ends.items()} for name, ends in before.shards.items()}
        begin = Begin(writer=self._writer, job=before.job, now_us=now_us, shards=shards, tables=before.tables)
        epoch, record = self.standing.epoch + 1, structs.replace(commit, writer=self._writer, now_us=now_us)
        begun = await retried(self, "checkpoint", lambda: self._log.begin(epoch, begin))
        stands = await retried(self, "checkpoint", lambda: self._log.commit(epoch, record)) if begun.writer == self._writer else None
        if stands is None or stands.writer != self._writer:
            raise LeaseLost(f"another worker goes on with task {self.scope.name} of job {self.job.name}")
        self._standing = Standing(epoch, record, self.standing.state)

    async def _finish(self, begun: Begin) -> None:
        """Run the begun epoch's steps 3 to 7 with its own job text and its own rows."""
        own = begun.job == self.job.hash
        runtime = self.runtime if own else self._runtime_of(self._connect(await self._job_of(begun.job)))
        try:
            state = await retried(self, "checkpoint", lambda: runtime.load(self.standing.commit.state))
            intake = await retried(self, "source", lambda: reread(self._tables_of(runtime), begun.shards))
            standing = Standing(self.standing.epoch, self.standing.commit, state)
            log.info("finishing an epoch that was begun", epoch=standing.epoch + 1, writer=begun.writer)
            self._standing = await finish_epoch(runtime, standing, begun, intake)
        except Overtaken:
            await self._recover()
        finally:
            if not own:
                await runtime.connected.close()

    def _tables_of(self, runtime: Runtime) -> Mapping[str, Table]:
        """A task of one shard whose state is kept by key holds the keys against the shard's hash range."""
        source, shard = self.scope.source, self.scope.shard
        if source is None or shard is None or not runtime.plan.tasks.key:
            return runtime.tables
        return {**runtime.tables, source: runtime.tables[source].of_shard(shard)}

    async def _job_of(self, job_hash: str) -> Job:
        kept = await retried(self, "checkpoint", lambda: read_text(self.store, job_hash))
        return load_job(kept.file, overrides=kept.overrides, text=kept.text)

    async def _adopt_edit(self) -> None:
        """Go on with an edited job if what is stored fits it; else say what changed and what to do. Load its state."""
        before = self.standing.commit
        if before.job != self.job.hash:
            old = await self._job_of(before.job)
            refused = [c for c in changes(old, self.job, plan(old), self.runtime.plan) if not c.compatible]
            if refused:
                raise InvalidJob([Fault(self.job.file, 1, str(change)) for change in refused])
        if not self.standing.state:
            kept = {op: refs for op, refs in before.state.items() if op.partition("/")[0] in self.job.sinks}
            state = await retried(self, "checkpoint", lambda: self.runtime.load(kept))
            self._standing = Standing(self.standing.epoch, before, state)

    async def settle(self) -> None:
        """Read the bounded tables that are due; wait until every readable shard has answered once more (tests)."""
        if self._feeds is not None:
            await self.runtime.bounded.refresh_due()
            await self._feeds.settle()

    def decide(self) -> Decision:
        if self.over or self.standing.commit.closed:
            return Decision("finish")
        feeds = self._the_feeds()
        if (error := feeds.failed()) is not None:
            raise error
        work = feeds.work or self._becomes_final()
        view = View(self._steady_us(), self._begun_us, work, feeds.exhausted, self.stopping)
        return decide(self.trigger, view)

    def _steady_us(self) -> int:
        """What the trigger's interval is measured by: the wall clock may be set back."""
        return round(self.world.clock.monotonic_s() * 1e6)

    async def step(self) -> Decision:
        """Decide; run one epoch if it is time."""
        decision = self.decide()
        if decision.action == "begin":
            self.check_lease()
            intake = self._the_feeds().take()
            if not await self._may_begin():
                self._dropped_rows = True
                self.stop()
                return Decision("finish")
            self._begun_us = self._steady_us()
            self._begun_s = self.world.clock.monotonic_s()
            try:
                self._standing = await run_epoch(self.runtime, self.standing, intake)
            except Overtaken:
                await self._recover()
                return decision
            finally:
                self._begun_s = None
            self._the_feeds().committed(self.standing.commit.shards)
            self._keep_house()
        return decision

    async def run(self, *, drain: bool = False) -> Outcome:
        """Repeat steps until stopped, finished or failed. A stop finishes the running epoch."""
        while True:
            decision = await self.step()
            if decision.action == "finish":
                break
            if decision.action == "wait":
                await self._wait(decision.wait_us)
        if self.standing.commit.closed:
            return "closed"
        if self.over:
            self.children = tuple(child for feed in self.feeds() for child in feed.children)
            await retried(self, "checkpoint", lambda: self._register.end(self.scope.name))
            return "over"
        if drain and not self.stopping:
            self._standing = await run_epoch(self.runtime, self.standing, self._the_feeds().take(), drain=True)
        if self.stopping and not self._dropped_rows:
            await self.keep_idle_time()
        return "stopped" if self.stopping else "finished"

    async def close_log(self) -> None:
        """After `run`: say that the task goes on as part of another."""
        if not self.standing.commit.closed:
            await self._commit_again(structs.replace(self.standing.commit, closed=True))

    async def keep_idle_time(self) -> None:
        """Before a clean stop: an epoch without rows commits the idle time counted since the last one."""
        shards, before = self._the_feeds().standing(), self.standing.commit.shards
        counted = any(
            begun.idle_us > (old.idle_us if (old := before.get(name, {}).get(shard)) else 0)
            for name, found in shards.items() if self.runtime.tables[name].watermark
            for shard, begun in found.items()
        )  # fmt: skip
        if counted:
            with suppress(Overtaken):  # another worker goes on: it has its own idle time
                self._standing = await run_epoch(self.runtime, self.standing, Intake(shards, {}))

    def stop(self) -> None:
        """Let the running epoch finish, begin no other."""
        self.stopping = True
        if self._feeds is not None:
            self._feeds.news.set()

    def watermark_us(self, source: str | None = None) -> int | None:
        """The task's watermark now (or a source's own), idle time counted, as an epoch beginning now would end with."""
        begin = Begin(writer="", job="", now_us=0, shards=self._the_feeds().standing())
        time, _, sources = advance_time(self.runtime, self.standing.commit, begin, {})
        return time.watermark_end_us if source is None else sources.get(source)

    @property
    def epoch_running_s(self) -> float:
        """How long the running epoch has been running; 0 between epochs."""
        return 0.0 if self._begun_s is None else self.world.clock.monotonic_s() - self._begun_s

    def feeds(self) -> list[Feed]:
        """Every shard being read."""
        return list(self._feeds.feeds.values()) if self._feeds is not None else []

    def source_faults(self) -> dict[str, str]:
        """Sources that do not answer now, with the reason."""
        return self._feeds.faults() if self._feeds is not None else {}

    def _becomes_final(self) -> bool:
        wake_us = self._wake_us()
        if wake_us is not None and self.world.clock.now_us() >= wake_us:
            return True
        timer_us = self.runtime.executor.timer_us(self.standing.state)
        if timer_us is None:
            return False
        now_us = self.watermark_us()
        return now_us is not None and now_us >= timer_us

    def _wake_us(self) -> int | None:
        """When a stateful function's timer is due by the clock."""
        return self.runtime.executor.wake_us(self.standing.state)

    def _the_feeds(self) -> Feeds:
        assert self._feeds is not None, "start() comes first"
        return self._feeds

    async def _wait(self, wait_us: int | None) -> None:
        """Until news of a feed or the trigger's time; news cannot bring the trigger's time nearer."""
        feeds, wake_us = self._the_feeds(), self._wake_us()
        if wait_us is None and wake_us is not None and not self.stopping:
            sleep_s = max(wake_us - self.world.clock.now_us(), 0) / 1e6
            await first_of(self.world.clock.sleep(sleep_s), feeds.news.wait())
            feeds.news.clear()
            return
        if wait_us is not None and not self.stopping:
            await first_of(self.world.clock.sleep(wait_us / 1e6), self._stopped())
            return
        await feeds.news.wait()
        feeds.news.clear()

    async def _stopped(self) -> None:
        feeds = self._the_feeds()
        while not self.stopping:
            await feeds.news.wait()
            feeds.news.clear()

    def _keep_house(self) -> None:
        """Retention runs beside the epochs; one run at a time."""
        if self._housekeeping is not None and not self._housekeeping.done():
            return
        standing = self.standing
        self._housekeeping = asyncio.ensure_future(self._collect(standing))

    async def _collect(self, standing: Standing) -> None:
        try:
            await self._collector.save_hourly(standing.epoch, standing.commit)
            if standing.epoch % EPOCHS_KEPT == 0:
                await self._collector.collect(standing.epoch, standing.commit.now_us)
        except Exception as error:
            log.warning("old epochs were not removed; it is tried again later", error=str(error))

    async def _close_feeds(self) -> None:
        if self._feeds is not None:
            await self._feeds.close()
            self._feeds = None

    async def abandon(self) -> None:
        """Take away the task's coroutines and nothing else: what a dead process leaves (tests)."""
        await self._close_feeds()
        await self.runtime.bounded.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    async def close(self) -> None:
        """Stop reading, let housekeeping end, release connections."""
        await self._close_feeds()
        if self._housekeeping is not None:
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        if self._runtime is not None:
            await self._runtime.bounded.stop()
        if self._own is not None:
            await self._own.close()

    def __repr__(self) -> str:
        return f"<Task {self.job.name}/{self.scope.name} epoch {self.standing.epoch if self.started else '-'}>"


def _standing_still(end: ShardEnd) -> ShardBegin:
    return ShardBegin(after=end.end, until=end.end, idle_us=end.idle_us, idle_before_us=end.idle_us, ended=end.ended, parents=end.parents)
