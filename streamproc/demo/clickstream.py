"""The click events of the demo: what is sent, and what of it was acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from streamproc.formats.clicks import clicks

Kind = Literal["click", "late", "bad"]
DISORDER_US = 1_000_000
LATE_US = 600_000_000
"""How much older than their neighbours the events are that come too late."""
KINDS: tuple[Kind, ...] = ("click", "late", "bad")


@dataclass(frozen=True, slots=True)
class ClickStream:
    """Events of `shards` shards, `rate` a second over all of them, from `since_us` on: a pure function of seed, shard and row.

    An event is up to DISORDER_US older than the moment it is due. Of each shard every `late_every`-th is ten minutes old, every
    `bad_every`-th is cut in the middle of its JSON.
    """

    seed: int
    rate: int
    since_us: int
    shards: int = 4
    late_every: int = 1500
    bad_every: int = 1000

    @property
    def step_us(self) -> int:
        """Between two events of a shard."""
        return self.shards * 1_000_000 // self.rate

    def due(self, now_us: int) -> int:
        """How many events of a shard have happened before `now_us`."""
        return max(0, -(-(now_us - self.since_us) // self.step_us))

    def rows(self, shard: int, first: int, count: int) -> tuple[list[Kind], list[bytes]]:
        """Kinds and payloads of a shard's events `first` to `first + count - 1`."""
        kinds = [self._kind(row) for row in range(first, first + count)]
        payloads = self._clicks(shard, first, count)
        for i, kind in enumerate(kinds):
            if kind == "bad":
                payloads[i] = payloads[i][: len(payloads[i]) // 2]
            elif kind == "late":
                [payloads[i]] = self._clicks(shard, first + i, 1, LATE_US)
        return kinds, payloads

    def _kind(self, row: int) -> Kind:
        if row % self.bad_every == self.bad_every - 1:
            return "bad"
        return "late" if row % self.late_every == self.late_every - 1 else "click"

    def _clicks(self, shard: int, first: int, count: int, earlier_us: int = 0) -> list[bytes]:
        since_us = self.since_us - earlier_us
        made = clicks(self.seed, str(shard), first, count, step_us=self.step_us, since_us=since_us, disorder_us=DISORDER_US)
        return list(made.to_pylist())


@dataclass
class Acknowledged:
    """What the server has confirmed: the input that the job's output is compared with."""

    count: int = 0
    _batches: list[pa.RecordBatch] = field(default_factory=list, repr=False)

    def add(self, kinds: list[Kind], payloads: list[bytes]) -> None:
        columns = {"kind": pa.array(kinds, pa.string()), "payload": pa.array(payloads, pa.binary())}
        self._batches.append(pa.RecordBatch.from_pydict(columns))
        self.count += len(payloads)

    def table(self) -> pa.Table:
        """Columns `kind` and `payload`, in the order of the answers."""
        schema = pa.schema({"kind": pa.string(), "payload": pa.binary()})
        return pa.Table.from_batches(self._batches, schema)
