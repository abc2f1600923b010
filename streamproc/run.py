"""`streamproc run`: one job in the foreground, with its picture or its logs, and its HTTP listener."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from streamproc import logs
from streamproc.clock import Clock
from streamproc.http.health import Health, Retries, judge
from streamproc.job import Job
from streamproc.memory import tune_allocator
from streamproc.metrics import Metrics
from streamproc.status import Status
from streamproc.world import World

if TYPE_CHECKING:
    from streamproc.live import LivePicture

log = structlog.get_logger()


async def run_in_foreground(job: Job, *, available_now: bool, drain: bool) -> int:
    """Run the job to its end; the exit code. On a terminal with the live picture, else with JSON logs."""
    from streamproc.engine.worker import run_job

    tune_allocator()
    world = World()
    watch = Watch(world)
    with _display(job, watch, world.clock, terminal=sys.stderr.isatty()):
        async with _listener(job, world.metrics, watch):
            return await run_job(job, available_now=available_now, drain=drain, world=world, stop=_stop_on_signal(), on_status=watch.take)


def _stop_on_signal() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM, which let the epoch finish; a second one ends the process as it would anyway."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        log.warning("stopping after this epoch; again to stop at once", signal=number.name)
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, first, number)
    return stop


class Watch:
    """Keeps the newest status for whoever asks, and when it came."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self._retries = Retries(world.metrics, world.clock)
        self._status: Status | None = None
        self._taken_s = world.clock.monotonic_s()
        self.picture: LivePicture | None = None

    def take(self, status: Status) -> None:
        self._status, self._taken_s = status, self._clock.monotonic_s()
        if self.picture is not None:
            self.picture.show(status)

    def health(self) -> Health:
        return judge(self._status, self._clock.monotonic_s() - self._taken_s, self._retries.ago_s())

    def __repr__(self) -> str:
        return f"<Watch of {self._status}>"


@contextmanager
def _display(job: Job, watch: Watch, clock: Clock, *, terminal: bool) -> Iterator[None]:
    logs.configure(clock, logs.secrets_in(job), terminal=terminal, job=job.name)
    if not terminal:
        yield
        return
    from rich.console import Console

    from streamproc.live import LivePicture

    with LivePicture(Console(stderr=True)) as watch.picture:
        yield


@asynccontextmanager
async def _listener(job: Job, metrics: Metrics, watch: Watch) -> AsyncIterator[None]:
    if job.metrics is None:
        yield
        return
    from streamproc.http.exposition import exposition
    from streamproc.http.server import serve

    server = await serve(job.metrics.host, job.metrics.port, partial(exposition, metrics), watch.health)
    log.info("listening", url=f"http://{server.host}:{server.port}/metrics")
    try:
        yield
    finally:
        await server.close()
