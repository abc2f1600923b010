"""One run: workers, servers and the faults of a seed, in one thread under virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from streamproc.checkpoint.tasks import ALL
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_store import MemoryStore
from streamproc.testing.simulation.faults import SERVERS, STORM_S, Circumstances, Fault, outage
from streamproc.testing.simulation.history import History
from streamproc.testing.simulation.invariants import Invariants
from streamproc.testing.simulation.places import SimLeases, SimSink, SimStore
from streamproc.testing.simulation.servers import Server, Weather, at_once
from streamproc.testing.simulation.stream import SimSource, Stream
from streamproc.testing.simulation.worker import Places, Worker
from streamproc.testing.simulation.workload import LEASE_TTL_S
from streamproc.testing.virtual_loop import VirtualClock, VirtualLoop
from streamproc.world import World

WORKERS_MAX = 4
EDITS_MAX = 3
SHARDS_MAX, SHARDS_EVER_MAX = 6, 16
IDLE_S = 5
PROGRESS_S, SHARD_S = 20.0, 4.0
"""Once faults have stopped, the rows that were there are committed in this time, and so much more for each shard to be read to
its end: of shards that follow one another each waits for the one before."""
BALANCE_S = 30.0
DRAINED_S = 40.0
LEFT_S = 20.0
POLL_S = 0.25


class Over(Exception):
    """A promise was broken: there is nothing more to see."""


class Simulation:
    """The run of one seed. `play` is its course; `history` says how it went."""

    def __init__(self, seed: int, around: Circumstances) -> None:
        self.around = around
        self._chance = random.Random(f"{seed} faults")
        self._threads = random.Random(f"{seed} threads")
        self.loop = VirtualLoop(random.Random(f"{seed} order"), self._thread_s)
        self.history = History(self.loop)
        self._clock = clock = VirtualClock(self.loop, self.loop.server)
        self.stream = Stream(around.kind, around.shards, clock, random.Random(f"{seed} rows"))
        self.invariants = Invariants(self.history, self.stream)
        self.servers = {name: Server(name, self.loop, random.Random(f"{seed} {name}"), self.history) for name in SERVERS}
        self.sink = MemorySink()
        self.leases = MemoryLeases()
        self.workers: list[Worker] = []
        self.measured: dict[str, float] = {}
        self._edit = 0
        self._ending = False
        self._places = Places(
            store=SimStore(MemoryStore(World(clock=clock)), self.servers["store"], self.invariants.created),
            leases=SimLeases(self.leases, self.servers["leases"], self._lease_changed),
            input=SimSource(self.stream, self.servers["source"], self.invariants.opened),
            output=SimSink(self.sink, self.servers["sink"], self.invariants.sank),
        )

    async def play(self) -> None:
        """Storm, calm, and the end. A broken promise is in the history."""
        self.history.note("", str(self.around))
        producing = asyncio.ensure_future(self._produce())
        try:
            await self._storm()
            self._calm()
            await self._settle(producing)
        except Over:
            pass
        finally:
            producing.cancel()

    # -- the course of things

    async def _produce(self) -> None:
        while True:
            await self._clock.sleep(self._chance.expovariate(1 / self.around.rows_every_s))
            self.stream.put(self._chance.randint(1, 5))

    async def _storm(self) -> None:
        for name, weather in self.around.weather.items():
            self.servers[name].weather = weather
        for _ in range(self.around.workers):
            self.join()
            await self._clock.sleep(self._chance.uniform(0, 1))
        while self.loop.time() < STORM_S:
            await self._sleep(min(self._chance.expovariate(1 / self.around.every_s), STORM_S - self.loop.time()))
            if self.loop.time() < STORM_S:
                self._do(self._chance.choice(self.around.faults))

    def _calm(self) -> None:
        self.history.note("", "the storm is over")
        for server in self.servers.values():
            server.weather = Weather()
        self._join_if_alone()

    async def _settle(self, producing: asyncio.Future[None]) -> None:
        ends = dict(self.stream.ends)
        bound_s = PROGRESS_S + SHARD_S * len(set(ends) - self.invariants.over)
        await self._until(
            lambda: not self.invariants.unread(ends), bound_s, "progress resumes", lambda: f"unread: {self.invariants.unread(ends)}"
        )
        await self._until(self._balanced, BALANCE_S, "balance is reached", lambda: f"leases: {dict(self._shares())}")
        producing.cancel()
        await self._until(lambda: not self._wrong(), DRAINED_S, "each row is counted once", lambda: "; ".join(self._wrong()[:5]))
        self._ending = True
        for worker in self._alive():
            worker.leave()
        await self._until(lambda: not self._alive(), LEFT_S, "a stop ends in time", lambda: f"still there: {self._alive()}")
        if wrong := self._wrong():
            self.history.broken("each row is counted once", "; ".join(wrong[:5]))
        if held := [owner for owner in self._shares() if owner != "nobody"]:
            self.history.broken("a clean stop gives its leases back", f"still the owners of leases: {held}")

    async def _until(self, reached: Callable[[], bool], bound_s: float, invariant: str, now: Callable[[], str]) -> None:
        began_s = self.loop.time()
        while not reached():
            await self._sleep(POLL_S)
            if self.loop.time() > began_s + bound_s:
                self.history.broken(invariant, f"not within {bound_s:.0f} s; {now()}")
                raise Over
        self.measured[invariant] = self.loop.time() - began_s
        self.history.note("", f"{invariant}: after {self.measured[invariant]:.1f} s")

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if self.history.violation is not None:
            raise Over

    # -- what is looked at

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    def _wrong(self) -> list[str]:
        return self.around.workload.compare(self.stream.rows, self.sink.rows(), self.around.kind == "kinesis")

    def _shares(self) -> Counter[str]:
        """Leases of tasks that are not over, by owner."""
        rows = at_once(self.leases.list()).leases
        return Counter(self.history.name(row.owner) for row in rows if not self.invariants.is_over(row.key.partition("/")[2]))

    def _balanced(self) -> bool:
        shares = self._shares()
        counts = [shares.pop(worker.name, 0) for worker in self._alive()]
        return not shares and sum(counts) > 0 and max(counts) - min(counts) <= 1

    def _lease_changed(self) -> None:
        believers: dict[str, list[str]] = {}
        for worker in self._alive():
            for task in worker.believes():
                believers.setdefault(task, []).append(worker.name)
        for task, names in believers.items():
            if len(names) > 1:
                self.history.broken("one worker at a time holds a lease", f"{' and '.join(names)} both believe to hold {task}")

    # -- faults

    def _do(self, fault: Fault) -> None:
        victims = [worker for worker in self._alive() if not worker.leaving]
        if fault in ("join", "reshard", "edit", "outage"):
            getattr(self, fault)()
        elif victims:
            getattr(self, fault)(self._chance.choice(victims))

    def join(self) -> None:
        """A worker starts."""
        if self._ending or len(self._alive()) >= WORKERS_MAX:
            return
        name = f"w{len(self.workers)}"
        job = self.around.workload.job(IDLE_S, self._edit, self.around.trigger)
        self.history.note(name, f"starts with edit {self._edit}")
        self.workers.append(Worker(name, job, self._edit, self._places, self.loop, self._chance, self.history))

    def pause(self, worker: Worker) -> None:
        seconds = min(self._chance.uniform(0.2, 3.0) * LEASE_TTL_S, STORM_S - self.loop.time())
        self.history.note(worker.name, f"is paused for {seconds:.2f} s")
        worker.process.pause(seconds)

    def ambush(self, worker: Worker) -> None:
        """It sleeps long enough to be overtaken, at the worst moment of an epoch."""
        seconds = min(self._chance.uniform(1.2, 5.0) * LEASE_TTL_S, STORM_S - self.loop.time())
        self.servers[self._chance.choice(("store", "sink"))].lie_in_wait(worker.process, seconds, sent=self._chance.random() < 0.5)

    def kill(self, worker: Worker) -> None:
        self.history.note(worker.name, "is killed")
        worker.kill()
        self._later(self._join_if_alone if self._chance.random() < 0.3 else self.join)

    def leave(self, worker: Worker) -> None:
        self.history.note(worker.name, "is asked to leave")
        worker.leave()
        self._later(self._join_if_alone)

    def reshard(self) -> None:
        """Once or several in a row; partitions are added only once the checkpoint has begun: keyed rows of before could be in two."""
        if self.stream.kind == "kafka" and not self.invariants.lines[ALL].commits:
            return
        for _ in range(self._chance.choice((1, 1, 2, 3))):
            if len(self.stream.open_shards) < SHARDS_MAX and len(self.stream.ends) < SHARDS_EVER_MAX:
                self.history.note("", self.stream.reshard())

    def edit(self) -> None:
        """The job's text changes; workers are replaced one by one."""
        if self._edit == EDITS_MAX:
            return
        self._edit += 1
        self.history.note("", f"the job is edited ({self._edit})")
        for worker in self._alive():
            self._later(partial(self._replace, worker))

    def outage(self) -> None:
        name = self._chance.choice(SERVERS)
        server, before = self.servers[name], self.around.weather[name]
        server.weather = outage(self._chance)
        seconds = self._chance.uniform(0.1, 2.0) * LEASE_TTL_S
        self.history.note("", f"{name}: {server.weather} for {seconds:.2f} s")
        self.loop.call_later(min(seconds, STORM_S - self.loop.time()), self._restore, server, before)

    def clock(self, worker: Worker) -> None:
        worker.process.skew_us = self._chance.randrange(-20_000_000, 20_000_000)
        self.history.note(worker.name, f"its wall clock is off by {worker.process.skew_us / 1e6:.1f} s now")

    def _replace(self, worker: Worker) -> None:
        if worker.alive and not worker.leaving:
            self.history.note(worker.name, "is replaced")
            worker.leave()
        self.join()

    def _join_if_alone(self) -> None:
        if not [worker for worker in self._alive() if not worker.leaving]:
            self.join()

    def _restore(self, server: Server, weather: Weather) -> None:
        if self.loop.time() < STORM_S:
            server.weather = weather

    def _later(self, action: Callable[[], None]) -> None:
        self.loop.call_later(self._chance.uniform(0.2, 1.5) * LEASE_TTL_S, action)

    def _thread_s(self) -> float:
        """How long work in a thread takes."""
        if self.loop.time() < STORM_S and self._threads.random() < self.around.long_threads:
            return self._threads.uniform(0, self.around.long_thread_s)
        return self._threads.uniform(0.0005, 0.01)

    def __repr__(self) -> str:
        return f"<Simulation {self.around} at {self.loop.time():.1f} s>"
