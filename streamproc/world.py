"""The outside world as one value: clock, randomness, ids and metrics come in through constructors."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from streamproc.clock import Clock, SystemClock
from streamproc.metrics import Metrics


@dataclass(frozen=True)
class World:
    """What a connector, a store or the engine may know of the world. Tests pass a manual clock and a seeded random."""

    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.SystemRandom)
    metrics: Metrics = field(default_factory=Metrics)

    def new_id(self) -> str:
        """16 hex digits that nobody else has."""
        return f"{self.random.getrandbits(64):016x}"
