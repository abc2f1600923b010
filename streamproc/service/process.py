"""The process of `streamproc worker`: signals, listener, systemd, exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from streamproc import logs
from streamproc.engine.turns import Turns
from streamproc.engine.worker import run_job
from streamproc.errors import InvalidJob
from streamproc.http.jobs import JobPages, is_loopback
from streamproc.http.server import Server, serve
from streamproc.job import Job
from streamproc.memory import tune_allocator
from streamproc.notify import Notifier
from streamproc.options import Secret
from streamproc.race import first_of
from streamproc.service.fleet import Fleet
from streamproc.service.job_files import read_jobs
from streamproc.service.supervised import Run
from streamproc.status import Status
from streamproc.world import World

START_WAIT_S = 30.0
"""systemd is told that the service is ready when every job has reported or failed; a checkpoint that is away keeps it no longer."""
TELL_EVERY_S = 5.0
THREADS = 32
"""For calls that block (files, folders): the default of some more than cores is soon taken up by one job on a slow disk."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Settings:
    """What the command line says. `drain_s`: how long a stop may take; `token`: for pages that change something."""

    paths: tuple[str, ...]
    overrides: tuple[str, ...]
    host: str
    port: int
    token: Secret | None
    drain_s: float


async def serve_jobs(settings: Settings) -> int:
    """Run the jobs until a signal; the exit code. InvalidJob, before anything runs, if one of the files is wrong."""
    tune_allocator()
    found = read_jobs(settings.paths, settings.overrides)
    if found.faults:
        raise InvalidJob(found.faults)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "blocking"))
    world = World()
    fleet = Fleet(settings.paths, settings.overrides, world, _runs(world), drain_s=settings.drain_s, token=settings.token)
    logs.configure(world.clock)
    server = await _listen(settings, fleet)
    try:
        signals = Signals()
        fleet.start(found)
        await _until_stopped(fleet, Notifier(os.environ, world.clock), signals, world)
        return _exit_code(await fleet.drain(), left_behind=fleet.left_behind)
    finally:
        await server.close()


def _runs(world: World) -> Run:
    """The engine's way to run a job, all jobs taking turns on the cores."""
    turns = Turns(len(os.sched_getaffinity(0)), world.clock)

    async def run(job: Job, own: World, stop: asyncio.Event, take: Callable[[Status], None]) -> object:
        return await run_job(job, world=own, stop=stop, on_status=take, turns=turns)

    return run


async def _listen(settings: Settings, fleet: Fleet) -> Server:
    loopback = await asyncio.to_thread(is_loopback, settings.host)
    pages = JobPages(fleet, settings.token, loopback=loopback)
    server = await serve(settings.host, settings.port, fleet.exposition, fleet.health, routes=pages.routes(), key="--listen")
    log.info("listening", url=f"http://{server.host}:{server.port}/jobs")
    if not loopback and settings.token is None:
        log.warning("/jobs answers 403: others can reach this address; give an --admin-token, or listen on 127.0.0.1", host=settings.host)
    return server


class Signals:
    """SIGTERM and SIGINT set `stop`, a second one ends the process at once; SIGHUP sets `reload`."""

    def __init__(self) -> None:
        self.stop, self.reload = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._first, number)
        self._loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _first(self, number: signal.Signals) -> None:
        log.warning("stopping: every job finishes its epoch; again to stop at once", signal=number.name)
        self.stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    def __repr__(self) -> str:
        return f"<Signals stop={self.stop.is_set()} reload={self.reload.is_set()}>"


async def _until_stopped(fleet: Fleet, notifier: Notifier, signals: Signals, world: World) -> None:
    """Until the first signal; systemd hears of every step."""
    beside = [asyncio.ensure_future(each) for each in (_follow_reloads(fleet, notifier, signals), _tell(fleet, notifier, world))]
    try:
        await first_of(_started(fleet, notifier, world), signals.stop.wait())
        await signals.stop.wait()
    finally:
        notifier.send("STOPPING=1", "STATUS=draining")
        for each in beside:
            each.cancel()


async def _started(fleet: Fleet, notifier: Notifier, world: World) -> None:
    await first_of(fleet.settled(), world.clock.sleep(START_WAIT_S))
    notifier.send("READY=1", f"STATUS={fleet.summary()}")


async def _follow_reloads(fleet: Fleet, notifier: Notifier, signals: Signals) -> None:
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        notifier.reloading()
        try:
            await fleet.reload()
        except Exception as error:  # the service lives on with what it has
            log.error("the job files were not followed", error=str(error), exc_info=error)
        notifier.send("READY=1", f"STATUS={fleet.summary()}")


async def _tell(fleet: Fleet, notifier: Notifier, world: World) -> None:
    """The watchdog hears of us for as long as this loop turns and no job hangs."""
    every_s = min(TELL_EVERY_S, (notifier.watchdog_s or TELL_EVERY_S * 2) / 2)
    told = ""
    while True:
        await world.clock.sleep(every_s)
        if notifier.watchdog_s is not None and not fleet.health().stuck:
            notifier.send("WATCHDOG=1")
        if (summary := fleet.summary()) != told:
            told = summary
            notifier.send(f"STATUS={summary}")


def _exit_code(cut_off: Sequence[str], *, left_behind: bool) -> int:
    """1 if a job had to be cut off. Threads of a run that was would keep the process alive for ever: it ends as by a crash."""
    if cut_off:
        log.error("not every job stopped in time", jobs=list(cut_off))
    else:
        log.info("every job has stopped")
    code = 1 if cut_off else 0
    if left_behind:
        sys.stderr.flush()
        os._exit(code)
    return code
