"""Running one job: opens its checkpoint and lease table, and works on it until it is done, stopped or has failed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import structlog

from streamproc.engine.job_worker import JobWorker
from streamproc.engine.progress import Progress
from streamproc.engine.retry import BACKOFF_S
from streamproc.engine.runtime import Boundary, Connectors, Turns, nothing_happens
from streamproc.engine.trigger import Trigger
from streamproc.errors import Unavailable
from streamproc.job import AvailableNow, Interval, Job
from streamproc.lease import open_leases
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.keeping import InThread, Keeping
from streamproc.lease.lease import OUR_WORKERS, LeaseTable
from streamproc.race import first_of
from streamproc.status import Status
from streamproc.store import Store
from streamproc.stores import check_conditional, open_store
from streamproc.world import World

log = structlog.get_logger()
STATUS_EVERY_S = 0.5
LEASE_TTL_US = 10_000_000
OpenLeases = Callable[[Job, Store], LeaseTable]
StartKeeping = Callable[[Callable[[Callable[[], None]], LeaseKeeper], Callable[[], None]], Keeping]
"""InThread or InLoop."""


def trigger_of(job: Job, *, available_now: bool = False) -> Trigger:
    """The engine's trigger for the job file's."""
    if available_now or isinstance(job.trigger, AvailableNow):
        return Trigger("available_now")
    return Trigger("interval", job.trigger.us) if isinstance(job.trigger, Interval) else Trigger("asap")


def lease_table(job: Job, store: Store) -> LeaseTable:
    """The table that the job file names."""
    return open_leases(job.leases, job.name, [source.type for source in job.sources.values()], job.checkpoint, store)


def worker_id(world: World) -> str:
    """The name of this process in lease tables."""
    return f"{OUR_WORKERS}{socket.gethostname()}:{os.getpid()}:{world.new_id()}"


async def run_job(
    job: Job,
    *,
    available_now: bool = False,
    drain: bool = False,
    world: World | None = None,
    stop: asyncio.Event | None = None,
    on_status: Callable[[Status], None] = lambda status: None,
    connectors: Connectors | None = None,
    boundary: Boundary = nothing_happens,
    turns: Turns | None = None,
) -> int:
    """Run a job's tasks, as far as this worker has their leases, until `stop` is set, its input is read or one of them fails.

    0: done. Errors are raised as the kinds of errors.py. A lease that is lost is waited for: the log tells where to go on.
    """
    world = world or World()
    stop = stop or asyncio.Event()
    store = await open_checkpoint(job, world, stop)
    if store is None:
        return 0
    worker = JobWorker(
        job, store, world, keeping_of(job, store, world, worker_id(world)), connectors=connectors, turns=turns, boundary=boundary,
        trigger=trigger_of(job, available_now=available_now), drain=drain,
    )  # fmt: skip
    progress = Progress(worker)
    telling = asyncio.ensure_future(_tell_status(world, progress, on_status))
    try:
        await worker.run(stop)
        on_status(progress.status())
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await store.close()
    return 0


def keeping_of(
    job: Job, store: Store, world: World, worker: str, start: StartKeeping = InThread, table: OpenLeases = lease_table
) -> Callable[[Callable[[], None]], Keeping]:
    """Starts to keep the job's leases when called with what hears of changes."""
    options = job.leases
    ttl_s = (options.lease_ttl if options else LEASE_TTL_US) / 1e6

    def make(changed: Callable[[], None]) -> LeaseKeeper:
        return LeaseKeeper(
            table(job, store), worker, ttl_s, world, changed,
            max_leases=options.max_leases if options else None, by=options.balance if options else "count",
        )  # fmt: skip

    return lambda changed: start(make, changed)


async def open_checkpoint(job: Job, world: World, stop: asyncio.Event) -> Store | None:
    """The job's store, once it answers; InvalidJob where it cannot keep a checkpoint; None if `stop` was set before."""
    store = open_store(job.checkpoint, world)
    tries = 0
    while not stop.is_set():
        try:
            await check_conditional(store)
            await store.sweep()
            return store
        except Unavailable as error:
            world.metrics.add("streamproc_retries_total", what="checkpoint")
            log.warning("the checkpoint does not answer, trying again", checkpoint=job.checkpoint, error=str(error))
            await first_of(world.clock.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]), stop.wait())
            tries += 1
    await store.close()
    return None


async def _tell_status(world: World, progress: Progress, on_status: Callable[[Status], None]) -> None:
    while True:
        await world.clock.sleep(STATUS_EVERY_S)
        on_status(progress.status())
