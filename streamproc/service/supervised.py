"""One job of a service: run, and run again after a failure, until it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from streamproc import logs
from streamproc.errors import Bug, InvalidJob, StreamprocError
from streamproc.http.health import Health, Retries, judge
from streamproc.job import Job
from streamproc.metrics import Metrics
from streamproc.race import first_of
from streamproc.status import Status
from streamproc.world import World

Run = Callable[[Job, World, asyncio.Event, Callable[[Status], None]], Awaitable[object]]
"""Runs a job until the event is set (then it finishes its epoch), it is finished, or it fails, which it raises."""
State = Literal["starting", "running", "standby", "failed", "restarting", "stopping", "finished", "stopped"]
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
CALM_S = 300.0
"""A run that lasted so long was no quick failure: the next pause is the shortest again."""
CANCEL_GRACE_S = 2.0
_LEVELS_OF_A_RUN = ("streamproc_lease_held", "streamproc_leases", "streamproc_tasks")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended a run. `kind` is one of errors.py, `Bug` for anything that was not raised on purpose."""

    kind: str
    error: str
    at_us: int


def pause_s(error: Exception, in_a_row: int, chance: float) -> float:
    """How long to wait after the `in_a_row`-th quick failure (from 1). What repeats itself until somebody changes something,
    a wrong job or a bug, waits longest at once. `chance` in [0, 1) adds up to a fifth: jobs that failed together do not return together.
    """
    step = len(BACKOFF_S) if isinstance(error, InvalidJob) or _kind(error) == "Bug" else min(in_a_row, len(BACKOFF_S))
    return BACKOFF_S[step - 1] * (1 + chance / 5)


def _kind(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, StreamprocError) else "Bug"


class SupervisedJob:
    """Keeps one job going. Its metrics outlive its runs; clock and randomness are the service's.

    A stop that takes longer than `drain_s` is cut off: the epoch is finished by whoever runs the job next.
    """

    def __init__(self, job: Job, world: World, run: Run, drain_s: float) -> None:
        self.job = job
        self.world = World(world.clock, world.random, Metrics())
        self.state: State = "starting"
        self.since_us = world.clock.now_us()
        self.status: Status | None = None
        self.failures = 0
        self.failure: Failure | None = None
        self.next_try_us: int | None = None
        self.refused: tuple[str, ...] = ()
        """Why the job's file, as it is now, is not what runs."""
        self.cut_off = False
        """Whether the last run was."""
        self.left_behind = False
        """Whether any was: its threads may never end."""
        self._run, self._drain_s = run, drain_s
        self._retries = Retries(self.world.metrics, world.clock)
        self._heard_s = world.clock.monotonic_s()
        self._in_a_row = 0
        self._next: Job | None = None
        self._closing = False
        self._stop, self._wake, self._settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> Job:
        """The job that runs, or will as soon as the one before has stopped."""
        return self._next or self.job

    def start(self) -> None:
        self._living = asyncio.ensure_future(self._live())

    def restart(self, job: Job | None = None) -> None:
        """Stop cleanly and start again at once, as `job` if one is given."""
        self._next, self._in_a_row = job or self.wanted, 0
        if self.state not in ("stopping", "stopped"):
            self._enter("restarting")
        self._end_run()

    def try_now(self) -> None:
        """If it waits after a failure, it has waited long enough."""
        if self.state == "failed":
            self.restart()

    async def settled(self) -> None:
        """Until the first run has reported, ended or failed."""
        await self._settled.wait()

    async def close(self) -> None:
        """Finish the epoch, commit, give the leases; given up a little after it was cut off."""
        self._closing = True
        self._enter("stopping")
        self._end_run()
        if self._living is not None:
            await first_of(asyncio.wait([self._living]), self.world.clock.sleep(self._drain_s + CANCEL_GRACE_S))

    def _end_run(self) -> None:
        self._stop.set()
        self._wake.set()

    async def _live(self) -> None:
        while not self._closing:
            self._begin()
            began_s = self.world.clock.monotonic_s()
            error = await self._one_run()
            self._ended()
            if error is not None:
                await self._fail(error, self.world.clock.monotonic_s() - began_s)
            elif self._next is None and not self._closing:
                self._enter("finished")
                self.world.metrics.drop("streamproc_job_up")
                log.info("the job is finished")
                await self._wake.wait()
        self._enter("stopped")

    def _begin(self) -> None:
        if self._next is not None:
            self.job, self._next, self.refused = self._next, None, ()
        self._stop, self._wake = asyncio.Event(), asyncio.Event()
        if self._closing:  # asked for between two runs
            self._end_run()
        self.next_try_us, self.cut_off = None, False
        self._heard_s = self.world.clock.monotonic_s()
        self.world.metrics.set("streamproc_job_up", 1)
        logs.bind(job=self.job.name)

    async def _one_run(self) -> Exception | None:
        """What the run raised."""
        run = asyncio.ensure_future(self._run(self.job, self.world, self._stop, self._take))
        cutting = asyncio.ensure_future(self._cut_off(run))
        try:
            await asyncio.wait([run])
        finally:
            cutting.cancel()
            run.cancel()
        if run.cancelled():
            return None if self._stop.is_set() else Bug("the run was cancelled, and nobody asked for it")
        error = run.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    async def _cut_off(self, run: asyncio.Future[object]) -> None:
        await self._stop.wait()
        await self.world.clock.sleep(self._drain_s)
        self.cut_off = self.left_behind = True
        log.error("the job did not stop in time and is cut off; its epoch is finished by the next run", seconds=self._drain_s)
        run.cancel()

    def _take(self, status: Status) -> None:
        self.status, self._heard_s = status, self.world.clock.monotonic_s()
        if not self._stop.is_set():
            self._enter("running" if status.lease_held else "standby")
            self._settled.set()

    def _ended(self) -> None:
        self._settled.set()
        for level in _LEVELS_OF_A_RUN:
            self.world.metrics.set(level, 0)

    async def _fail(self, error: Exception, lasted_s: float) -> None:
        """Note it, and wait before the next run unless one was asked for."""
        self._in_a_row = 1 if lasted_s > CALM_S else self._in_a_row + 1
        pause = pause_s(error, self._in_a_row, self.world.random.random())
        now_us = self.world.clock.now_us()
        self.failures += 1
        self.failure = Failure(_kind(error), str(error), now_us)
        self.world.metrics.add("streamproc_job_failures_total", kind=self.failure.kind)
        self.world.metrics.set("streamproc_job_up", 0)
        trace = error if isinstance(error, Bug) or not isinstance(error, StreamprocError) else None
        log.error("the job failed", kind=self.failure.kind, error=str(error), failures=self.failures, exc_info=trace)
        if self._stop.is_set():
            return
        self.next_try_us = now_us + round(pause * 1e6)
        self._enter("failed")
        log.warning("the job is started again after a pause", pause_s=round(pause, 1))
        await first_of(self.world.clock.sleep(pause), self._wake.wait())
        if not self._closing:
            self._enter("restarting")

    def _enter(self, state: State) -> None:
        if state != self.state:
            self.state, self.since_us = state, self.world.clock.now_us()

    def health(self) -> Health:
        """Standing by is healthy; a failed job is not ready and does not hang."""
        if self.state in ("finished", "stopped"):
            return Health()
        if self.state == "failed" and self.failure is not None:
            return Health(waiting=(f"failed ({self.failure.kind}), is tried again after a pause",))
        live = self.state in ("running", "standby")
        silent_s = self.world.clock.monotonic_s() - self._heard_s
        judged = judge(self.status if live else None, silent_s, self._retries.ago_s(), standby_is_ready=True)
        return judged if live else Health(judged.stuck, (self.state,))

    def __repr__(self) -> str:
        return f"<SupervisedJob {self.job.name} {self.state}>"
