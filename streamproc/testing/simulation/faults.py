"""What a seed lets happen: which faults at all, how bad the servers are, how the input is cut. Few kinds a run find more than all."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from streamproc.checkpoint.retention import EPOCHS_KEPT
from streamproc.testing.simulation.servers import Weather
from streamproc.testing.simulation.workload import LEASE_TTL_S, Workload, draw

STORM_S = 25.0
"""How long faults come; then they stop."""
Fault = Literal["pause", "kill", "leave", "join", "reshard", "edit", "outage", "clock", "ambush"]
FAULTS: tuple[Fault, ...] = ("pause", "kill", "leave", "join", "reshard", "edit", "outage", "clock", "ambush")
SERVERS = ("store", "leases", "source", "sink")


@dataclass(frozen=True)
class Circumstances:
    """Drawn once from a seed. `weather` is what each server does all the time until the storm ends; `long_thread_s` is how long
    a query takes at most when it takes long, which happens with chance `long_threads`.
    `epochs_kept`: how many commits the collector leaves, which it does as often.
    """

    workload: Workload
    kind: Literal["kinesis", "kafka"]
    shards: int
    workers: int
    trigger: str
    faults: tuple[Fault, ...]
    every_s: float
    rows_every_s: float
    epochs_kept: int
    weather: dict[str, Weather] = field(repr=False)
    long_threads: float = 0.0
    long_thread_s: float = 0.0

    @classmethod
    def draw(cls, chance: random.Random, workloads: Iterable[str] = ()) -> Circumstances:
        return cls(
            workload=draw(chance, workloads),
            kind=chance.choice(("kinesis", "kinesis", "kafka")),
            shards=chance.randint(1, 4),
            workers=chance.randint(1, 3),
            trigger=chance.choice(("asap", "2 seconds", "3 seconds")),
            faults=tuple(chance.sample(FAULTS, chance.randint(1, 4))),
            every_s=chance.uniform(1.5, 4.0),
            rows_every_s=chance.uniform(0.5, 1.5),
            epochs_kept=chance.choice((3, EPOCHS_KEPT)),
            weather={name: _weather(chance) for name in SERVERS},
            long_threads=chance.choice((0.0, 0.0, 0.01, 0.05)),
            long_thread_s=chance.uniform(0.5, 2.0) * LEASE_TTL_S,
        )

    def __str__(self) -> str:
        bad = ", ".join(f"{name} {weather}" for name, weather in self.weather.items() if not weather.fair)
        return (
            f"{self.workload.name} over {self.shards} {self.kind} shards, {self.workers} workers, trigger {self.trigger}, "
            f"{self.epochs_kept} epochs kept; {', '.join(self.faults)} every {self.every_s:.1f} s; {bad or 'servers are well'}"
        )


def _weather(chance: random.Random) -> Weather:
    """Half of the servers are well."""
    if chance.random() < 0.5:
        return Weather()
    slow = chance.choice((0.0, 0.05))
    return Weather(lost=chance.uniform(0, 0.08), unsent=chance.uniform(0, 0.08), slow=slow, slow_s=chance.uniform(0.2, 1.0) * LEASE_TTL_S)


def outage(chance: random.Random) -> Weather:
    """What becomes of a server for a while: away, or so slow that it might be."""
    return Weather(down=True) if chance.random() < 0.7 else Weather(slow=0.8, slow_s=LEASE_TTL_S)
