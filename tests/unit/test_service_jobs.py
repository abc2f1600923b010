"""One supervised job with a run that the test directs, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamproc.errors import BadRecord, Bug, Fault, InvalidJob, LeaseLost, Unavailable
from streamproc.http.health import STUCK_AFTER_S, Health
from streamproc.job import Job, load_job
from streamproc.service.supervised import BACKOFF_S, CALM_S, SupervisedJob, pause_s
from streamproc.status import Status
from streamproc.testing import ManualClock
from streamproc.world import World

TEXT = """
sources: {clicks: {type: generator, rows: 1}}
sinks: {out: {type: console, query: SELECT page FROM clicks}}
"""
DRAIN_S = 30.0


def job(name: str = "j") -> Job:
    return load_job(f"{name}.yaml", text=TEXT)


class Directed:
    """Runs of a job that the test ends: by an error, by None (finished), or by the stop that the job is asked for."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.runs: list[tuple[Job, asyncio.Event, asyncio.Future[None], Callable[[Status], None]]] = []
        self.stops = True
        self.supervised = SupervisedJob(job(), World(self.clock), self.run, DRAIN_S)

    async def run(self, job: Job, world: World, stop: asyncio.Event, take: Callable[[Status], None]) -> None:
        ending = asyncio.get_running_loop().create_future()
        self.runs.append((job, stop, ending, take))
        if self.stops:
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait([stopping, ending], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not ending.done():
                return
        await ending

    async def start(self) -> SupervisedJob:
        self.supervised.start()
        await self.step()
        return self.supervised

    async def tell(self, *, held: bool = True, running_s: float = 0.0) -> None:
        self.runs[-1][3](Status("j", self.clock.now_us(), lease_held=held, epoch_running_s=running_s))
        await self.step()

    async def end(self, error: Exception | None = None) -> None:
        ending = self.runs[-1][2]
        ending.set_exception(error) if error else ending.set_result(None)
        await self.step()

    async def step(self, seconds: float = 0.0) -> None:
        for advance_s in (0.0, seconds):
            self.clock.advance(round(advance_s * 1e6))
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
def directed() -> Directed:
    return Directed()


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (Unavailable("away"), [*BACKOFF_S, 300.0]),
        (BadRecord("bad"), [*BACKOFF_S, 300.0]),
        (InvalidJob([Fault("j", 1, "does not fit")]), [300.0] * 10),
        (Bug("two commits"), [300.0] * 10),
        (KeyError("k"), [300.0] * 10),
    ],
)
def test_pauses(error: Exception, pauses: list[float]) -> None:
    assert [pause_s(error, in_a_row, 0.0) for in_a_row in range(1, 11)] == pauses
    assert pause_s(Unavailable("away"), 1, 0.999) < 1.2


async def test_states_of_a_job_that_runs(directed: Directed) -> None:
    supervised = await directed.start()
    assert (supervised.state, supervised.health()) == ("starting", Health(waiting=("starting",)))
    await directed.tell(held=False)
    assert (supervised.state, supervised.health()) == ("standby", Health())
    began_us = supervised.since_us
    await directed.step(5)
    await directed.tell()
    assert (supervised.state, supervised.health(), supervised.since_us - began_us) == ("running", Health(), 5_000_000)
    assert supervised.world.metrics.get("streamproc_job_up") == 1
    await supervised.close()
    assert (supervised.state, supervised.cut_off) == ("stopped", False)


async def test_a_failure_is_shown_and_tried_again(directed: Directed) -> None:
    supervised = await directed.start()
    await directed.tell()
    await directed.end(Unavailable("kafka at h:1 does not answer"))
    metrics = supervised.world.metrics
    assert (supervised.state, supervised.failures, len(directed.runs)) == ("failed", 1, 1)
    assert supervised.failure is not None
    assert (supervised.failure.kind, supervised.failure.error) == ("Unavailable", "kafka at h:1 does not answer")
    assert supervised.next_try_us is not None
    assert 1_000_000 <= supervised.next_try_us - directed.clock.now_us() <= 1_200_000
    assert (metrics.get("streamproc_job_up"), metrics.get("streamproc_job_failures_total", kind="Unavailable")) == (0, 1)
    assert supervised.health() == Health(waiting=("failed (Unavailable), is tried again after a pause",))
    await directed.step(1.2)
    assert (supervised.state, len(directed.runs), metrics.get("streamproc_job_up")) == ("restarting", 2, 1)
    await directed.tell()
    assert (supervised.state, supervised.next_try_us, supervised.failures) == ("running", None, 1)
    await supervised.close()


async def test_it_never_ends_in_a_loop_of_crashes(directed: Directed) -> None:
    supervised = await directed.start()
    for second in range(305):
        if not directed.runs[-1][2].done():
            await directed.end(LeaseLost(f"at {second}"))
        await directed.step(1)
    assert len(directed.runs) == 9  # at 0, 1, 3, 7, 15, 30, 60, 120, 240 s, and a little later each
    await directed.step(361)
    await directed.step(CALM_S + 1)
    await directed.end(Unavailable("after a long calm run"))
    assert supervised.next_try_us is not None
    assert supervised.next_try_us - directed.clock.now_us() <= 1_200_000
    await supervised.close()


async def test_what_is_no_error_of_ours_is_a_bug_and_waits_long(directed: Directed) -> None:
    supervised = await directed.start()
    await directed.end(KeyError("k"))
    assert supervised.world.metrics.get("streamproc_job_failures_total", kind="Bug") == 1
    await directed.step(200)
    assert len(directed.runs) == 1
    supervised.restart()
    await directed.step()
    assert (len(directed.runs), supervised.state) == (2, "restarting")
    directed.runs[-1][2].cancel()  # something inside cancelled the run
    await directed.step()
    assert supervised.failure is not None
    assert supervised.failure.error == "the run was cancelled, and nobody asked for it"
    await supervised.close()


async def test_a_finished_job_stays_finished_until_it_is_restarted(directed: Directed) -> None:
    supervised = await directed.start()
    await directed.end()
    await directed.step(1000)
    assert (supervised.state, supervised.health(), len(directed.runs)) == ("finished", Health(), 1)
    assert "streamproc_job_up" not in {metric.name for metric, *_ in supervised.world.metrics.samples()}
    supervised.restart()
    await directed.step()
    assert len(directed.runs) == 2
    await supervised.close()


async def test_a_restart_stops_cleanly_and_takes_the_new_job(directed: Directed) -> None:
    supervised = await directed.start()
    await directed.tell()
    supervised.refused = ("of before",)
    supervised.restart(job("new"))
    assert (supervised.state, supervised.job.name, supervised.wanted.name) == ("restarting", "j", "new")
    await directed.step()
    assert [run[0].name for run in directed.runs] == ["j", "new"]
    assert (supervised.job.name, supervised.refused, supervised.failures) == ("new", (), 0)
    await supervised.close()


async def test_a_stop_that_hangs_is_cut_off(directed: Directed) -> None:
    directed.stops = False
    supervised = await directed.start()
    closing = asyncio.ensure_future(supervised.close())
    await directed.step(DRAIN_S - 1)
    assert (supervised.state, closing.done()) == ("stopping", False)
    await directed.step(1)
    await closing
    assert (supervised.state, supervised.cut_off) == ("stopped", True)


async def test_a_restart_that_hangs_is_cut_off_and_the_next_run_begins(directed: Directed) -> None:
    directed.stops = False
    supervised = await directed.start()
    supervised.restart()
    await directed.step(DRAIN_S)
    assert (len(directed.runs), supervised.cut_off, supervised.left_behind) == (2, False, True)
    directed.runs[-1][2].set_result(None)
    await supervised.close()
    assert (supervised.state, supervised.cut_off) == ("stopped", False)


async def test_a_run_that_ignores_even_that_is_given_up() -> None:
    clock, release = ManualClock(), asyncio.Event()

    async def stubborn(*_: object) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    supervised = SupervisedJob(job(), World(clock), stubborn, DRAIN_S)
    supervised.start()
    closing = asyncio.ensure_future(supervised.close())
    for _ in range(80):
        await asyncio.sleep(0)
        clock.advance(1_000_000)
    await closing
    assert (supervised.cut_off, supervised.left_behind, supervised.state) == (True, True, "stopping")
    release.set()


async def test_a_job_that_hangs_is_unhealthy(directed: Directed) -> None:
    supervised = await directed.start()
    await directed.tell(running_s=STUCK_AFTER_S + 1)
    assert supervised.health().stuck == ("epoch 1 has been running for 301 s",)
    supervised.world.metrics.add("streamproc_retries_total", what="views")
    assert supervised.health() == Health()
    await directed.tell()
    await directed.step(STUCK_AFTER_S + 1)
    assert supervised.health().stuck == ("the worker reported nothing for 301 s",)
    await supervised.close()
