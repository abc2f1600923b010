"""A lease table and a fleet of workers in virtual time, request by request; what a worker decides is its class's."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from random import Random

from streamproc.lease.balance import Unit
from streamproc.lease.lease import OUR_WORKERS, Lease, Listing

TTL_S = 10.0
"""KCL's failover time, and ours by default."""
EPOCH_S = 1.0
"""What an owner that is asked to hand over still takes at most."""
ROW_BYTES, KEY_BYTES, PAGE_BYTES = 600, 80, 1 << 20
"""A row of KCL's table, an entry of its index by owner, a page of a scan."""


class Fleet:
    """The table, its workers, virtual time, and what is counted: requests, units, moves, shards nobody reads or two read."""

    def __init__(self, worker: type[Worker], shards: int, seed: int) -> None:
        self.random, self.kind, self.now_s = Random(seed), worker, 0.0
        self.rows = {f"shardId-{number:012}": Lease(f"shardId-{number:012}", None, 1) for number in range(shards)}
        self.units = [Unit(key, (key,)) for key in self.rows]
        self.beats: dict[str, int] = {}
        self.leader: tuple[str, float] | None = None
        self.workers: dict[str, Worker] = {}
        self.readers: dict[str, set[str]] = {key: set() for key in self.rows}
        self.reset()
        self._unread, self._twice = shards, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._names = count()

    def reset(self) -> None:
        """Count anew from now. `begun` is when a worker began to read which shard."""
        self.reset_s = self.now_s
        self.requests = self.moves = 0
        self.read_units = self.write_units = self.unread_s = self.twice_s = 0.0
        self.begun: list[tuple[float, str]] = []

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), call))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; True as soon as `until` holds, asked every half second."""
        end_s = self.now_s + seconds
        while self.now_s < end_s and not until():
            self._run_to(min(self.now_s + 0.5, end_s))
        return until()

    def _run_to(self, moment_s: float) -> None:
        while self._events and self._events[0][0] <= moment_s:
            at_s, _, call = heapq.heappop(self._events)
            self._pass(at_s)
            call()
        self._pass(moment_s)

    def _pass(self, moment_s: float) -> None:
        self.unread_s += self._unread * (moment_s - self.now_s)
        self.twice_s += self._twice * (moment_s - self.now_s)
        self.now_s = moment_s

    def join(self, keys: Iterable[str] = (), delay_s: float = 0.0) -> Worker:
        """A new worker, with these rows from the beginning."""
        worker = self.kind(self, f"{OUR_WORKERS}{next(self._names):04}")
        for key in keys:
            self.rows[key] = Lease(key, worker.name, 1)
            worker.holds(self.rows[key])
        self.after(delay_s, worker.start)
        return worker

    def scan(self) -> Listing:
        size = (len(self.rows) + len(self.beats)) * ROW_BYTES
        self._read(size, max(1, math.ceil(size / PAGE_BYTES)), self.kind.consistent)
        return Listing(tuple(self.rows.values()), dict(self.beats))

    def get(self, key: str, times: int = 1) -> Lease:
        self._read(ROW_BYTES * times, times, self.kind.consistent)
        return self.rows[key]

    def keys_of(self, owner: str) -> list[str]:
        """A query of the index by owner."""
        keys = [key for key, lease in self.rows.items() if lease.owner == owner]
        self._read(len(keys) * KEY_BYTES, 1)
        return keys

    def _read(self, size: int, requests: int, consistent: bool = False) -> None:
        self.requests += requests
        self.read_units += max(requests, math.ceil(size / 4096)) * (1.0 if consistent else 0.5)

    def change(self, seen: Lease, owner: str | None, checkpoint_owner: str | None = None) -> Lease | None:
        """Compare and swap; None if the row is another by now. A new owner also changes the index, where there is one."""
        self.write()
        if self.rows[seen.key] != seen:
            return None
        if owner != seen.owner:
            self.moves += owner is not None
            self.write_units += 2 * self.kind.indexed
        lease = self.rows[seen.key] = replace(seen, owner=owner, counter=seen.counter + 1, checkpoint_owner=checkpoint_owner)
        return lease

    def write(self) -> None:
        self.requests += 1
        self.write_units += 1

    def reads(self, key: str, worker: str, on: bool) -> None:
        """A worker begins or ends to read a shard."""
        readers = self.readers[key]
        before = len(readers)
        if on:
            readers.add(worker)
            self.begun.append((self.now_s, key))
        else:
            readers.discard(worker)
        self._unread += (not readers) - (not before)
        self._twice += max(0, len(readers) - 1) - max(0, before - 1)

    @property
    def settled(self) -> bool:
        """Every shard is read by one worker, and no worker is more than one shard away from the mean."""
        if self._unread or self._twice:
            return False
        counts = Counter(worker for readers in self.readers.values() for worker in readers)
        mean = len(self.rows) / len(self.workers)
        return all(abs(counts[worker] - mean) <= 1 for worker in self.workers)

    def leads(self, worker: str) -> bool:
        return self.leader is not None and self.leader[0] == worker

    @property
    def all_read(self) -> bool:
        return not self._unread

    def __repr__(self) -> str:
        return f"<Fleet {self.kind.title} {len(self.rows)} shards {len(self.workers)} workers at {self.now_s:.1f} s>"


class Worker:
    """What all kinds of workers do: begin, renew, end."""

    title: str
    indexed = True
    """Whether the table has the index by owner."""
    consistent = False
    """Whether rows are read consistently, at twice the price."""
    renew_every_s: float

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet, self.name, self.alive, self.looks = fleet, name, False, 0
        self.held: dict[str, Lease] = {}

    def start(self) -> None:
        self.alive = True
        self.fleet.workers[self.name] = self
        self.every(self.renew_every_s, self.renew, self.fleet.random.random() * self.renew_every_s)
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError

    def every(self, period_s: float, call: Callable[[], None], first_s: float = 0.0) -> None:
        def again() -> None:
            if self.alive:
                call()
                self.fleet.after(period_s, again)

        self.fleet.after(first_s, again)

    def renew(self) -> None:
        for key, lease in list(self.held.items()):
            renewed = self.fleet.change(lease, lease.owner, lease.checkpoint_owner)
            if renewed is None:
                del self.held[key]
                self.refused(self.fleet.get(key))
            else:
                self.held[key] = renewed

    def refused(self, row: Lease) -> None:
        """A renewal failed: the old owner has just released the row, somebody asks for it, or has it."""
        if row.owner == self.name:
            self.held[row.key] = row
        elif row.checkpoint_owner == self.name:
            self.fleet.after(self.fleet.random.random() * EPOCH_S, lambda: self.release(row.key))
        else:
            self.fleet.reads(row.key, self.name, on=False)

    def release(self, key: str) -> None:
        row = self.fleet.rows[key]
        if self.alive and row.checkpoint_owner == self.name:
            self.fleet.change(row, row.owner)
            self.fleet.reads(key, self.name, on=False)
            self.released(key, str(row.owner))

    def released(self, key: str, owner: str) -> None:
        """A hook: how the new owner comes to know."""

    def holds(self, lease: Lease) -> None:
        self.held[lease.key] = lease
        self.fleet.reads(lease.key, self.name, on=True)

    def end(self) -> None:
        """Gone, without a word (a clean stop says its words before)."""
        self.alive = False
        self.fleet.workers.pop(self.name, None)
        for key in self.fleet.rows:
            self.fleet.reads(key, self.name, on=False)

    stop = end
