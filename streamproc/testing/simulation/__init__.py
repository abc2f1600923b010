"""Deterministic simulation: the real engine and lease keeper over servers in memory, under virtual time and the faults of a seed."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import structlog

from streamproc.checkpoint.retention import Collector
from streamproc.engine import runtime, task
from streamproc.operators.executor import Executor
from streamproc.plan.plan import Plan
from streamproc.testing.simulation.faults import Circumstances
from streamproc.testing.simulation.history import Event, History, Violation
from streamproc.testing.simulation.run import Simulation
from streamproc.testing.virtual_loop import HERE

__all__ = ["Event", "Outcome", "Violation", "simulate"]


@dataclass(frozen=True)
class Outcome:
    """How the run of a seed went. `violation` is None if every promise was kept; `seconds` by what was waited for in the calm."""

    seed: int
    circumstances: str
    violation: Violation | None
    events: list[Event] = field(repr=False)
    rows: int
    epochs: int
    virtual_s: float
    seconds: Mapping[str, float]

    def report(self) -> str:
        """The history for a reader, and how to see it again."""
        lines = [f"seed {self.seed}: {self.violation or 'every promise was kept'}"]
        lines += [str(event) for event in self.events if not event.minor]
        return "\n".join([*lines, f"again: python -m streamproc.testing.simulate --seeds 1 --first {self.seed}"])


def simulate(seed: int, *, workloads: Iterable[str] = ()) -> Outcome:
    """Run a seed: the same seed gives the same events. `workloads`: names of those to draw from (all)."""
    circumstances = Circumstances.draw(random.Random(f"{seed} plan"), tuple(workloads))
    with _undisturbed(), patch.object(runtime, "Executor", _shared), _collected(circumstances.epochs_kept):
        simulation = Simulation(seed, circumstances)
        with _logs_into(simulation.history):
            try:
                simulation.loop.run_until_complete(simulation.play())
                events, virtual_s = list(simulation.history.events), simulation.loop.time()
            finally:
                _bury(simulation)
        invariants = simulation.invariants
        epochs = sum(len(line.commits) for line in invariants.lines.values())
        return Outcome(
            seed,
            str(circumstances),
            simulation.history.violation,
            events,
            len(simulation.stream.rows),
            epochs,
            virtual_s,
            simulation.measured,
        )


def _bury(simulation: Simulation) -> None:
    """Let what dead processes left behind fall apart, out of everybody's sight."""
    loop = simulation.loop
    for server in simulation.servers.values():
        server.closed = True
    for worker in simulation.workers:
        worker.process.state = "runs"
        loop.is_ready(worker.process)
    left = asyncio.all_tasks(loop)
    for one in left:
        one.cancel()
    if left:
        with suppress(RuntimeError):
            loop.run_until_complete(asyncio.wait(left, timeout=1000))
    loop.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A collection in the middle would end what dead processes left, at a moment that no seed decides."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Shared(Executor):
    async def close(self) -> None:
        """Others use it too."""


_executors: dict[int, tuple[Plan, Executor]] = {}


def _shared(plan: Plan, *rest: Any) -> Executor:
    """One for all workers and runs: making it takes longer than most runs' epochs, and it keeps nothing between epochs."""
    if id(plan) not in _executors:
        _executors[id(plan)] = plan, _Shared(plan, *rest)
    return _executors[id(plan)][1]


@contextmanager
def _collected(epochs_kept: int) -> Iterator[None]:
    """A run is too short for the collector as it is set."""
    with patch.object(task, "EPOCHS_KEPT", epochs_kept), patch.object(task, "Collector", partial(Collector, epochs_kept=epochs_kept)):
        yield


@contextmanager
def _logs_into(history: History) -> Iterator[None]:
    """What the engine logs is part of the history."""

    def note(_logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        text = event.pop("event")
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key != "job")
        process = HERE.get(history.loop.server)
        history.note(process.name, f"{method}: {text} {rest}".rstrip())
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, note], wrapper_class=structlog.BoundLogger)
    try:
        yield
    finally:
        structlog.configure(**before)
