"""Leases of a big fleet: our decisions against those of KCL 2 and KCL 3.

`python -m streamproc.testing.lease_scale --shards 1000 --workers 100` prints one table. Everything but the lease table's
answers takes its (virtual) time; the same seed gives the same figures. Every shard carries the same traffic, by which KCL 3
balances. Checkpoints are not counted: they depend on the application.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys

from streamproc.lease.balance import Move, Observed, View, expires_s, look_every_s, moves, observe
from streamproc.lease.keeper import RELEASE_POLL_S, RENEW_EVERY
from streamproc.testing.kcl_workers import Kcl2Worker, Kcl3Worker
from streamproc.testing.lease_fleet import EPOCH_S, TTL_S, Fleet, Worker

START_S = 10.0
"""Within which the workers of a cold start come up, and what a replacement in a rolling deploy needs."""
LIMIT_S = 3600.0
"""How long a scene waits for what it measures."""
Figures = list[tuple[str, str]]
"""What was measured, and the figure with its unit."""


class OurWorker(Worker):
    """Ours: the product's own functions decide; a keeper's cadence around them."""

    title = "streamproc"
    consistent = False
    renew_every_s = RENEW_EVERY * TTL_S

    def __init__(self, fleet: Fleet, name: str) -> None:
        super().__init__(fleet, name)
        self.observed = Observed()

    def begin(self) -> None:
        self.every(self.renew_every_s, self._beat)
        self.fleet.after(self.fleet.random.random() * look_every_s(len(self.fleet.workers), len(self.fleet.rows), TTL_S), self._look)

    def _beat(self) -> None:
        self.fleet.write()
        self.fleet.beats[self.name] = self.fleet.beats.get(self.name, 0) + 1

    def _look(self) -> None:
        if not self.alive:
            return
        now_s, self.looks = self.fleet.now_s, self.looks + 1
        self.observed = observe(self.fleet.scan(), self.observed, now_s)
        view = View(self.fleet.units, self.observed, self.name, now_s, TTL_S)
        for move in moves(view):
            self._do(move)
        owners = {row.lease.owner for row in self.observed.rows.values()} | set(self.observed.workers) | {self.name}
        every_s = look_every_s(len(owners - {None}), len(self.observed.rows), TTL_S) * (0.9 + 0.1 * self.fleet.random.random())
        expiry_s = expires_s(view)
        self.fleet.after(every_s if expiry_s is None else max(0.001, min(every_s, expiry_s - now_s)), self._look)

    def _do(self, move: Move) -> None:
        [seen] = move.leases
        lease = self.fleet.change(seen, self.name, seen.owner if move.kind == "request" else None)
        if lease is None:
            return
        if move.kind == "take":
            self.holds(lease)
        else:
            self.held[lease.key] = lease
            asked_s = self.fleet.now_s
            self.fleet.after(TTL_S, lambda: self._force(lease.key, asked_s))

    def _force(self, key: str, asked_s: float) -> None:
        row = self.fleet.rows[key]
        if self.alive and row.owner == self.name and row.checkpoint_owner is not None:
            self._polled(key, self.fleet.now_s - asked_s)
            self.holds(self.fleet.change(row, self.name) or row)

    def _polled(self, key: str, seconds: float) -> None:
        self.fleet.get(key, math.ceil(seconds / RELEASE_POLL_S))

    def released(self, key: str, owner: str) -> None:
        def seen() -> None:
            worker = self.fleet.workers.get(owner)
            if worker is not None and key in worker.held:
                self._polled(key, self.renew_every_s / 2 + EPOCH_S / 2)
                worker.holds(self.fleet.rows[key])

        self.fleet.after(self.fleet.random.random() * RELEASE_POLL_S, seen)

    def stop(self) -> None:
        for lease in self.held.values():
            self.fleet.change(self.fleet.rows[lease.key], None)
        self.fleet.write()
        self.fleet.beats.pop(self.name, None)
        self.end()


KINDS: tuple[type[Worker], ...] = (OurWorker, Kcl2Worker, Kcl3Worker)


def _steady(kind: type[Worker], shards: int, workers: int, seed: int) -> Fleet:
    """A fleet that has been even for a while."""
    fleet = Fleet(kind, shards, seed)
    keys = list(fleet.rows)
    for place in range(workers):
        fleet.join(keys[place::workers], fleet.random.random() * 2)
    fleet.run(60.0)
    fleet.reset()
    return fleet


def cold_start(kind: type[Worker], shards: int, workers: int, seed: int) -> Figures:
    """Rows that nobody owns; the workers come up one after another."""
    fleet = Fleet(kind, shards, seed)
    for _ in range(workers):
        fleet.join(delay_s=fleet.random.random() * START_S)
    fleet.run(START_S)
    even = _seconds(fleet, fleet.run(LIMIT_S, lambda: fleet.settled))
    looks = max(worker.looks for worker in fleet.workers.values())
    return [("cold start: even after", even), ("looks of a worker until then", f"{looks}"), ("moves", f"{fleet.moves}")]


def traffic(kind: type[Worker], shards: int, workers: int, seed: int) -> Figures:
    """Nothing happens."""
    fleet = _steady(kind, shards, workers, seed)
    fleet.run(120.0)
    read, written = fleet.read_units / 120, fleet.write_units / 120
    return [
        ("steady: requests a second", f"{fleet.requests / 120:.0f}"),
        ("read units a second", f"{read:.0f}"),
        ("write units a second", f"{written:.0f}"),
        ("on demand (0.125 and 0.625 USD a million), a month", f"{(read * 0.125 + written * 0.625) * 2.592:.0f} USD"),
    ]


def loss(kind: type[Worker], shards: int, workers: int, seed: int, losses: int = 8) -> Figures:
    """Seconds from a kill until each of the worker's shards is read again."""
    fleet, waits = _steady(kind, shards, workers, seed), list[float]()
    for _ in range(min(losses, workers // 2)):
        waits += _killed(fleet, fleet.random.choice([name for name in fleet.workers if not fleet.leads(name)]))
    leader = next((name for name in fleet.workers if fleet.leads(name)), None)
    return [
        ("worker killed: its shards read again after, p50", f"{statistics.median(waits):.1f} s"),
        ("longest", f"{max(waits):.1f} s"),
        ("longest, if it was the leader", f"{max(_killed(fleet, leader)):.1f} s" if leader else "no leader"),
    ]


def _killed(fleet: Fleet, name: str) -> list[float]:
    fleet.run(fleet.random.random() * 2 * TTL_S + 2 * TTL_S)
    fleet.reset()
    orphans = {key for key, readers in fleet.readers.items() if readers == {name}}
    fleet.workers[name].end()
    fleet.run(LIMIT_S, lambda: fleet.all_read)
    return [at_s - fleet.reset_s for at_s, key in fleet.begun if key in orphans]


def joining(kind: type[Worker], shards: int, workers: int, seed: int) -> Figures:
    """A tenth more workers come within a second."""
    fleet = _steady(kind, shards, workers, seed)
    more = max(1, workers // 10)
    for _ in range(more):
        fleet.join(delay_s=fleet.random.random())
    fleet.run(1.5)
    even = _seconds(fleet, fleet.run(LIMIT_S, lambda: fleet.settled))
    return [(f"{more} more workers: even after", even), ("moves", f"{fleet.moves}"), *_readers(fleet)]


def rolling(kind: type[Worker], shards: int, workers: int, seed: int, pause_s: float = 5.0) -> Figures:
    """Every worker is stopped cleanly, one every few seconds, and replaced after its start-up time."""
    fleet = _steady(kind, shards, workers, seed)
    for worker in list(fleet.workers.values()):
        worker.stop()
        fleet.join(delay_s=START_S)
        fleet.run(pause_s)
    fleet.run(START_S)
    even = _seconds(fleet, fleet.run(LIMIT_S, lambda: fleet.settled))
    return [(f"all workers replaced, one every {pause_s:.0f} s: even after", even), ("moves", f"{fleet.moves}"), *_readers(fleet)]


def idle(kind: type[Worker], seed: int) -> Figures:
    fleet = _steady(kind, 100, 1, seed)
    fleet.run(120.0)
    return [("one idle worker with 100 shards: requests a minute", f"{fleet.requests / 2:.0f}")]


def _seconds(fleet: Fleet, reached: bool) -> str:
    seconds = f"{fleet.now_s - fleet.reset_s:.0f} s"
    return seconds if reached else f"not in {seconds}"


def _readers(fleet: Fleet) -> Figures:
    return [("shard-seconds read by nobody", f"{fleet.unread_s:.0f}"), ("shard-seconds read by two", f"{fleet.twice_s:.0f}")]


def compare(shards: int, workers: int, seed: int) -> dict[str, Figures]:
    """The figures of each algorithm by its name, in the same order."""
    scenes = (cold_start, traffic, loss, joining, rolling)
    return {kind.title: [figure for scene in scenes for figure in scene(kind, shards, workers, seed)] + idle(kind, seed) for kind in KINDS}


def table(told: dict[str, Figures], heading: str) -> str:
    rows = zip(*told.values(), strict=True)
    lines = [[heading, *told], ["---", *("---:" for _ in told)], *([row[0][0], *(figure for _, figure in row)] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.stdout.write(table(compare(asked.shards, asked.workers, asked.seed), f"{asked.shards} shards, {asked.workers} workers"))


if __name__ == "__main__":
    main()
