"""The worker of one job: takes the lease, runs the task, gives it back."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from streamproc.engine.progress import Progress
from streamproc.engine.race import first_of
from streamproc.engine.retry import BACKOFF_S
from streamproc.engine.runtime import Boundary, Connectors, nothing_happens
from streamproc.engine.task import TASK, Task
from streamproc.engine.trigger import Trigger
from streamproc.errors import LeaseLost, StreamprocError, Unavailable
from streamproc.job import AvailableNow, Interval, Job
from streamproc.lease import open_leases
from streamproc.lease.keeper import LeaseKeeper
from streamproc.status import Status
from streamproc.store import Store
from streamproc.stores import check_conditional, open_store
from streamproc.world import World

log = structlog.get_logger()
STATUS_EVERY_S = 0.5
LEASE_TTL_US = 10_000_000


def trigger_of(job: Job, *, available_now: bool = False) -> Trigger:
    """The engine's trigger for the job file's."""
    if available_now or isinstance(job.trigger, AvailableNow):
        return Trigger("available_now")
    return Trigger("interval", job.trigger.us) if isinstance(job.trigger, Interval) else Trigger("asap")


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
) -> int:
    """Run a job until `stop` is set, it is finished or it fails. 0: done. Errors are raised as the kinds of errors.py.

    Waits for the lease first, and again whenever it is lost: the log tells where to go on.
    """
    world = world or World()
    stop = stop or asyncio.Event()
    owner = f"{socket.gethostname()}:{os.getpid()}:{world.new_id()}"
    store = await open_checkpoint(job, world)
    while not stop.is_set():
        async with leased(job, store, world, owner, stop) as keeper:
            if keeper is None:
                continue
            task = Task(
                job, store, world, keeper, connectors=connectors,
                trigger=trigger_of(job, available_now=available_now), boundary=boundary,
            )  # fmt: skip
            try:
                await _run_task(task, owner, drain, stop, on_status)
                break
            except LeaseLost as error:
                log.warning("the lease was lost; waiting for it", job=job.name, reason=str(error))
    await store.close()
    return 0


async def open_checkpoint(job: Job, world: World) -> Store:
    """The job's store, once it answers; InvalidJob where it cannot keep a checkpoint."""
    store = open_store(job.checkpoint, world)
    tries = 0
    while True:
        try:
            await check_conditional(store)
            await store.sweep()
            return store
        except Unavailable as error:
            log.warning("the checkpoint does not answer, trying again", checkpoint=job.checkpoint, error=str(error))
            await world.clock.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1


@asynccontextmanager
async def leased(job: Job, store: Store, world: World, owner: str, stop: asyncio.Event) -> AsyncIterator[LeaseKeeper | None]:
    """The job's lease while the block runs; None if `stop` was set before it could be had, or it expired at once."""
    options = job.leases
    table = open_leases(job.leases, job.name, [source.type for source in job.sources.values()], job.checkpoint, store)
    ttl_us = options.lease_ttl if options else LEASE_TTL_US
    keeper = LeaseKeeper(table, f"{job.name}/{TASK}", owner, ttl_us / 1e6, world)
    try:
        yield keeper if await _acquired(keeper, world, stop) else None
    finally:
        await keeper.give()
        await table.close()


async def _acquired(keeper: LeaseKeeper, world: World, stop: asyncio.Event) -> bool:
    async def acquire() -> None:
        while True:
            try:
                await keeper.acquire()
                return
            except Unavailable as error:
                log.warning("the lease table does not answer, trying again", error=str(error))
                await world.clock.sleep(1.0)

    await first_of(acquire(), stop.wait())
    return keeper.held


async def _run_task(task: Task, owner: str, drain: bool, stop: asyncio.Event, on_status: Callable[[Status], None]) -> None:
    beside = [asyncio.ensure_future(_stop_when(task, stop)), asyncio.ensure_future(_tell_status(task, owner, on_status))]
    try:
        await task.start()
        await task.run(drain=drain)
        on_status(Progress(task, owner).status())
    except LeaseLost:
        raise
    except StreamprocError as error:
        log.error("the job stopped", job=task.job.name, kind=type(error).__name__, error=str(error))
        raise
    finally:
        for future in beside:
            future.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await task.close()


async def _stop_when(task: Task, stop: asyncio.Event) -> None:
    await stop.wait()
    task.stop()


async def _tell_status(task: Task, owner: str, on_status: Callable[[Status], None]) -> None:
    progress = Progress(task, owner)
    while True:
        await task.world.clock.sleep(STATUS_EVERY_S)
        if task.started:
            on_status(progress.status())
