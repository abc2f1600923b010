"""Two workers on one job: one runs, the other stands by; and what a stopped or sleeping worker leaves to the next."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loaded_job import LoadedJob, on_kafka

from streamproc.demo.worker import Worker
from streamproc.testing.noida import NoidaBroker

SHORT_LEASE = "leases: {type: sqlite, lease_ttl: 2 seconds}"


@pytest.fixture
def loaded(tmp_path: Path, noida_broker: NoidaBroker) -> Callable[..., LoadedJob]:
    return lambda more="": on_kafka(tmp_path, noida_broker.bootstrap_servers, more=more)


async def epochs(worker: Worker) -> float:
    """Epochs the worker has committed itself."""
    assert worker.running, worker.log.read_text()[-3000:]
    return (await worker.metrics()).get("streamproc_epochs_total", 0)


def committed_by(loaded: LoadedJob) -> dict[str, int]:
    """How many of the kept epochs each writer committed."""
    commits = [json.loads(path.read_bytes()) for path in (loaded.folder / "checkpoint").glob("g1/all/epochs/*.commit")]
    writers = [commit["writer"] for commit in commits]
    return {writer: writers.count(writer) for writer in writers}


def lost_its_lease(worker: Worker) -> bool:
    return any(line.get("event") == "the lease was lost; waiting for it" for line in worker.logged())


async def test_of_two_workers_started_at_once_one_stands_by_and_takes_over_when_the_other_is_killed(
    loaded: Callable[..., LoadedJob],
) -> None:
    async with loaded() as job:
        both = [job.start_worker(), job.start_worker()]
        while sum(done := [await epochs(worker) for worker in both]) < 10:
            assert 0 in done
            await asyncio.sleep(0.05)
        first, second = both if done[0] else both[::-1]
        await job.until(second, lambda ready, page: not ready)
        assert await epochs(second) == 0
        assert len(committed_by(job)) == 1
        first.kill()
        killed_s = time.monotonic()
        assert await second.committed(30)
        assert time.monotonic() - killed_s < 9, "it waited for the lease to expire, though the owner is provably dead"
        assert len(committed_by(job)) == 2
        assert await second.stop() == 0
        compared = await job.drain()
    assert compared.equal, f"{compared}: {compared.examples}"


async def test_a_worker_that_slept_longer_than_its_lease_writes_nothing_that_counts(loaded: Callable[..., LoadedJob]) -> None:
    async with loaded(SHORT_LEASE) as job:
        sleeper = job.start_worker()
        await job.recovered(sleeper)
        sleeper.process.send_signal(signal.SIGSTOP)
        other = job.start_worker()
        await job.recovered(other)
        before = await epochs(other)
        sleeper.process.send_signal(signal.SIGCONT)
        while not lost_its_lease(sleeper) or await epochs(other) < before + 5:
            assert sleeper.running
            await asyncio.sleep(0.05)
        assert await other.stop() == 0
        before = await epochs(sleeper)
        while await epochs(sleeper) <= before:  # the lease is free: it goes on
            await asyncio.sleep(0.05)
        assert await sleeper.stop() == 0
        compared = await job.drain()
    assert compared.equal, f"{compared}: {compared.examples}"


async def test_sigterm_under_load_finishes_the_epoch_and_the_next_worker_goes_on_without_a_gap(loaded: Callable[..., LoadedJob]) -> None:
    async with loaded() as job:
        for _ in range(3):
            worker = job.start_worker()
            await job.recovered(worker)
            assert await worker.stop() == 0
            assert job.epochs()[1] is False, "an epoch was left begun"
        compared = await job.drain()
    assert compared.equal, f"{compared}: {compared.examples}"
