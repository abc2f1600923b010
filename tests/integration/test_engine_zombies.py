"""A paused worker wakes after another took over: whatever it was about to do, nothing of it counts.

Two tasks share source, sink and store. The first is paused at a boundary between two steps; the second goes on, a
little or so far that the first one's epoch has been collected; then the first wakes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from streamproc.checkpoint.retention import Collector
from streamproc.engine.task import Task
from streamproc.errors import LeaseLost
from streamproc.job import load_job
from streamproc.testing import BOUNDARIES, JobRun
from streamproc.testing.job_runner import Leased

START_US = 1_767_225_600_000_000
TEXT = """
name: zombie
sources:
  clicks:
    type: generator
    schema: user STRING, ts TIMESTAMP
    watermark: {column: ts, delay: 0 seconds}
sinks:
  out: {type: console, mode: update, query: 'SELECT user, count(*) AS n FROM clicks GROUP BY user'}
  rows: {type: console, query: 'SELECT user FROM clicks'}
"""


class Lease:
    """Held until somebody says otherwise; a paused worker does not learn of it."""

    held = True


class Pause:
    """Stops at a boundary until `wake` is set."""

    def __init__(self, at: str) -> None:
        self.at: str | None = at
        self.reached = asyncio.Event()
        self.wake = asyncio.Event()

    async def __call__(self, boundary: str) -> None:
        if boundary == self.at:
            self.at = None
            self.reached.set()
            await self.wake.wait()


def put(run: JobRun, *users: str) -> None:
    rows = [f'{{"user":"{user}","ts":"2026-01-01T00:00:00Z"}}'.encode() for user in users]
    run.sources["clicks"].put("0", rows)


def task(run: JobRun, lease: object, **kwargs) -> Task:
    return Task(run.job, run.store, run.world, lease, connectors=run, stepwise=True, **kwargs)


async def rest(worker: Task) -> None:
    while True:
        await worker.settle()
        if (await worker.step()).action != "begin":
            return


def check(run: JobRun, *users: str) -> None:
    assert Counter(r["user"] for r in run.sinks["rows"].rows()) == Counter(users)
    newest = {r["user"]: r["n"] for r in run.sinks["out"].rows()}
    assert newest == dict(Counter(users))


@pytest.mark.parametrize("ahead", [1, 10], ids=["soon", "after its epoch was collected"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_worker_that_slept_at_a_boundary_writes_nothing_that_counts(boundary, ahead):
    run = JobRun(load_job("zombie.yaml", text=TEXT), START_US)
    pause = Pause(boundary)
    sleeper = task(run, Lease(), boundary=pause)
    await sleeper.start()
    put(run, "a", "b")
    await sleeper.settle()
    sleeping = asyncio.ensure_future(sleeper.step())
    await pause.reached.wait()

    other = task(run, Leased())
    await other.start()
    await rest(other)
    users = ["a", "b"]
    for i in range(ahead):
        users.append("a" if i % 2 else "c")
        put(run, users[-1])
        await rest(other)
    if ahead > 1:
        await Collector(other._log, epochs_kept=3).collect(other.standing.epoch, run.clock.now_us())
    check(run, *users)

    pause.wake.set()
    put(run, "d")
    users.append("d")
    with suppress(LeaseLost):  # it learns that it may not, or it has read the log again and goes on from there
        await sleeping
        await rest(sleeper)
    await rest(other)
    check(run, *users)
    await sleeper.close()
    await other.close()


async def test_a_worker_without_its_lease_begins_nothing():
    run = JobRun(load_job("zombie.yaml", text=TEXT), START_US)
    lease = Lease()
    worker = task(run, lease)
    await worker.start()
    put(run, "a")
    await worker.settle()
    lease.held = False
    names = run.store.names
    with pytest.raises(LeaseLost):
        await worker.step()
    assert run.store.names == names
    await worker.close()


async def test_two_workers_that_both_believe_to_hold_the_lease_write_each_row_once():
    run = JobRun(load_job("zombie.yaml", text=TEXT), START_US)
    workers = [task(run, Lease()) for _ in range(2)]
    for worker in workers:
        await worker.start()
    users = []
    for i in range(20):
        users.append(f"u{i % 3}")
        put(run, users[-1])
        for worker in workers:
            await worker.settle()
        await asyncio.gather(*(worker.step() for worker in workers))
    for worker in workers:
        await rest(worker)
    check(run, *users)
    for worker in workers:
        await worker.close()
