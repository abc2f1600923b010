"""How KCL's workers share leases, for comparison: after the sources of amazon-kinesis-client 2.x and 3.x, with their defaults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from streamproc.lease.lease import Lease
from streamproc.testing.lease_fleet import TTL_S, Fleet, Worker


class Kcl2Worker(Worker):
    """KCL 2: every worker scans the table every two failover times, takes what is free up to its target, or steals one."""

    title = "KCL 2"
    indexed = False
    renew_every_s = TTL_S / 3 - 0.025
    take_every_s = (TTL_S + 0.025) * 2

    def __init__(self, fleet: Fleet, name: str) -> None:
        super().__init__(fleet, name)
        self.since: dict[str, tuple[int, float]] = {}

    def begin(self) -> None:
        self.every(self.take_every_s, self._take, self.fleet.random.random())

    def observe(self) -> dict[str, float]:
        """When each row's counter was seen to change; an unowned row at first sight never was."""
        self.looks += 1
        for lease in self.fleet.scan().leases:
            before = self.since.get(lease.key)
            if before is None or before[0] != lease.counter:
                never = before is None and lease.owner is None
                self.since[lease.key] = (lease.counter, -math.inf if never else self.fleet.now_s)
        return {key: since_s for key, (_, since_s) in self.since.items()}

    def _take(self) -> None:
        since_s, rows, now_s = self.observe(), self.fleet.rows, self.fleet.now_s
        free = [key for key, lease in rows.items() if lease.owner is None or now_s > since_s[key] + TTL_S]
        counts = Counter(lease.owner for key, lease in rows.items() if key not in set(free))
        counts[self.name] += 0
        counts.pop(None, None)
        target = max(1, math.ceil(len(rows) / len(counts)))
        need = target - counts[self.name]
        very_old = [key for key in rows if now_s > since_s[key] + 3 * TTL_S]
        if very_old:
            chosen = very_old
        elif free:
            chosen = self.fleet.random.sample(free, min(len(free), max(0, need)))
        else:
            chosen = self._steal(counts, need, target)
        for key in chosen:
            lease = self.fleet.change(rows[key], self.name)
            if lease is not None:
                self.holds(lease)

    def _steal(self, counts: Counter[str | None], need: int, target: int) -> list[str]:
        fullest, most = max(counts.items(), key=lambda item: item[1])
        steal = min(need, most - target)
        if steal <= 0 and not (need > 1 and most == target):
            return []
        return [self.fleet.random.choice([key for key, lease in self.fleet.rows.items() if lease.owner == fullest])]


class Kcl3Worker(Kcl2Worker):
    """KCL 3: one leader assigns every two failover times, evening out every third time; workers find theirs through the index."""

    title = "KCL 3"
    indexed = True
    lock_s, heartbeat_s, metrics_every_s, hand_over_s = 120.0, 30.0, 30.0, 30.0

    def __init__(self, fleet: Fleet, name: str) -> None:
        super().__init__(fleet, name)
        self._runs, self._checked_s = 0, -math.inf
        self._asked_s: dict[str, float] = {}

    def begin(self) -> None:
        self.every(self.metrics_every_s, self._report)
        self.every(2 * TTL_S, self._assign, self.fleet.random.random())
        self.every(TTL_S - 0.025, self._discover, self.fleet.random.random())

    def _report(self) -> None:
        self.fleet.write()
        self.fleet.beats[self.name] = int(self.fleet.now_s)

    def _discover(self) -> None:
        for key in self.fleet.keys_of(self.name):
            if key not in self.held:
                row = self.fleet.get(key)
                if row.owner == self.name and row.checkpoint_owner is None:
                    self.holds(row)

    def _leads(self) -> bool:
        fleet, leader = self.fleet, self.fleet.leader
        if fleet.leads(self.name):
            fleet.leader = (self.name, fleet.now_s)
            return True
        if fleet.now_s < self._checked_s + self.heartbeat_s:
            return False
        self._checked_s = fleet.now_s
        fleet.get(next(iter(fleet.rows)))
        if leader is None or fleet.now_s > leader[1] + self.lock_s:
            fleet.write()
            fleet.leader, self._runs = (self.name, fleet.now_s), 0
            return True
        return False

    def _assign(self) -> None:
        if not self._leads():
            return
        since_s, fleet = self.observe(), self.fleet
        active = [name for name, at_s in fleet.beats.items() if fleet.now_s <= at_s + 2 * self.metrics_every_s]
        plan = _Assignment(fleet, active)
        lapsed = [key for key, lease in fleet.rows.items() if lease.owner is None or fleet.now_s > since_s[key] + TTL_S]
        for key in sorted(lapsed, key=lambda key: since_s[key]):
            plan.assign(key)
        if self._runs % 3 == 0:
            plan.even_out()
        self._runs += 1
        for key, owner in plan.new.items():
            self._write(fleet.rows[key], owner, lapsed=key in lapsed)

    def _write(self, row: Lease, owner: str, *, lapsed: bool) -> None:
        """A lease that is renewed is handed over; one that waits for its old owner is left until that one's time is over."""
        now_s = self.fleet.now_s
        if row.checkpoint_owner is not None and now_s < self._asked_s.setdefault(row.key, now_s) + self.hand_over_s + TTL_S:
            return
        graceful = row.owner is not None and row.checkpoint_owner is None and not lapsed
        if graceful:
            self._asked_s[row.key] = now_s
        self.fleet.change(row, owner, row.owner if graceful else None)

    def stop(self) -> None:
        """Leases stay owned, the leader's lock is given back."""
        if self.fleet.leads(self.name):
            self.fleet.leader = None
        self.end()


class _Assignment:
    """One run of KCL 3's leader, where a worker's load is the share of the traffic it is assigned, in percent of the mean."""

    threshold, dampening = 0.10, 0.60

    def __init__(self, fleet: Fleet, active: Sequence[str]) -> None:
        self._fleet, self.new = fleet, dict[str, str]()
        self._leases: dict[str | None, list[str]] = {}
        for key, lease in fleet.rows.items():
            self._leases.setdefault(lease.checkpoint_owner or lease.owner, []).append(key)
        self._target = len(fleet.rows) / max(1, len(active))
        self._load = {worker: len(self._leases.get(worker, ())) / self._target * 100 for worker in active}
        self._mean = sum(self._load.values()) / max(1, len(active))
        self._queue = list(active)

    def _poll(self) -> str | None:
        """The worker furthest below the mean by its own load; one without any counts as half full."""
        worker = max(self._queue, key=self._distance, default=None)
        if worker is not None:
            self._queue.remove(worker)
        return worker

    def _distance(self, worker: str) -> float:
        load = self._load[worker]
        return (self._mean - load) / load if load else 1.0

    def assign(self, key: str) -> None:
        worker = self._poll()
        if worker is not None:
            self._give(key, worker)

    def _give(self, key: str, worker: str) -> None:
        self._queue.append(worker)
        row = self._fleet.rows[key]
        if (row.checkpoint_owner or row.owner) != worker:
            self._load[worker] += (self._mean or 100.0) / self._target
            self.new[key] = worker

    def even_out(self) -> None:
        """Take from those above the mean what dampening leaves of their excess, at least one, while somebody stays below it."""
        above = [worker for worker, load in self._load.items() if load > 100 or load >= self._mean * (1 + self.threshold)]
        uneven = above or any(load < self._mean * (1 - self.threshold) for load in self._load.values())
        givers = above or [max(self._load, key=lambda worker: self._load[worker])] if uneven else []
        excess = {worker: (1 - self._mean / self._load[worker]) * self.dampening if self._load[worker] else 0 for worker in givers}
        for giver in sorted(excess, key=lambda worker: -excess[worker] * len(self._leases.get(worker, ()))):
            held = self._leases.get(giver, [])
            for key in self._fleet.random.sample(held, min(len(held), max(1, math.ceil(excess[giver] * len(held)) - 1))):
                worker = self._poll()
                if worker is None or self._load[worker] + self._mean / self._target > self._mean + 1e-6:
                    break
                self._give(key, worker)
