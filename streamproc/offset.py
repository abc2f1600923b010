"""Positions in shards.

A **position** is an opaque string that means "everything up to and including this has been read". A row's
own offset is the position after it, so `after` of a shard is simply the offset of the last row consumed.
Only the source that made a position can compare it with another; the engine stores and compares for equality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Position = str
"""Kafka: `"41"` (the next read is 42). Kinesis: `"4959…"`, `"4959…:3"` inside a KPL aggregate, `"TRIM_HORIZON"`, …"""


@dataclass(frozen=True, slots=True)
class Start:
    """Where shards that exist when a checkpoint begins are read from; later ones from their first record.

    `at_us` is set only for kind `timestamp`: microseconds since 1970 UTC, the first row at or after it is read.
    """

    kind: Literal["earliest", "latest", "timestamp"] = "earliest"
    at_us: int | None = None

    def __str__(self) -> str:
        return self.kind if self.at_us is None else f"timestamp {self.at_us}"


EARLIEST = Start()
