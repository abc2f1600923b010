"""One simulated process that runs the job as a worker does: the engine, the keeper and the executor as they are."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pyarrow as pa

from streamproc.bounded import BoundedTable
from streamproc.engine.job_worker import JobWorker
from streamproc.engine.worker import keeping_of, trigger_of
from streamproc.errors import StreamprocError
from streamproc.job import Job, SinkSpec, SourceSpec, TableSpec
from streamproc.lease.keeping import InLoop
from streamproc.lease.lease import OUR_WORKERS
from streamproc.sink import Sink
from streamproc.source import Source
from streamproc.testing.simulation.history import History
from streamproc.testing.simulation.places import SimLeases, SimSink, SimStore
from streamproc.testing.simulation.stream import SimSource
from streamproc.testing.virtual_loop import VirtualClock, VirtualLoop, VirtualProcess
from streamproc.world import World


@dataclass
class Places:
    """What every worker of a run reaches. It is its connectors too."""

    store: SimStore
    leases: SimLeases
    input: SimSource
    output: SimSink

    def source(self, spec: SourceSpec, world: World) -> Source:
        return self.input

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        raise NotImplementedError(f"{spec.name}: workloads of a simulation have no bounded tables")

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        return self.output


class Worker:
    """A process with one job in it. `ends` is done when it has left or failed; a killed one never is."""

    def __init__(self, name: str, job: Job, edit: int, places: Places, loop: VirtualLoop, chance: random.Random, history: History) -> None:
        self.name, self.edit = name, edit
        self.process = VirtualProcess(loop, name, skew_us=chance.choice((0, 0, chance.randrange(-5_000_000, 5_000_000))))
        self.disturbed_at_s = float("-inf")
        self._stop = asyncio.Event()
        self._history = history
        world = World(clock=VirtualClock(loop, self.process, chance.uniform(0, 1000)), random=random.Random(chance.random()))
        self.id = f"{OUR_WORKERS}{name}"
        history.aliases[self.id] = name
        keeping = keeping_of(job, places.store, world, self.id, InLoop, lambda job, store: places.leases)
        self.job_worker = JobWorker(job, places.store, world, keeping, connectors=places, trigger=trigger_of(job))
        self.ends = self.process.start(self._run())

    @property
    def alive(self) -> bool:
        return self.process.state != "dead" and not self.ends.done()

    @property
    def leaving(self) -> bool:
        return self._stop.is_set()

    def leave(self) -> None:
        """Stop as on SIGTERM."""
        self._stop.set()

    def kill(self) -> None:
        self.process.kill()

    def believes(self) -> list[str]:
        """Tasks that run here under a lease that this worker takes for its own now."""
        return [name for name, running in self.job_worker.running.items() if running.hold.held] if self.alive else []

    async def _run(self) -> None:
        try:
            await self.job_worker.run(self._stop)
            self._history.note(self.name, "has left")
        except StreamprocError as error:
            self._history.broken("the job goes on", f"{self.name} failed with {type(error).__name__}: {error}")
        except Exception as error:
            self._history.broken("the job goes on", f"{self.name} crashed with {type(error).__name__}: {error}")

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.process.state}>"
