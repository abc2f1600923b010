"""Who takes what: pure decisions over what one observer has seen of a lease table.

An owner is judged gone only by its counters and its beat standing still for the whole ttl on the observer's own
monotonic clock, so no two clocks are ever compared. Every worker computes the whole assignment from the rows and does
only its own part of it: workers that see the same rows never reach for the same unit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from streamproc.lease.lease import Lease, Listing, is_ours

GONE_TTLS = 20
DOUBT = 0.6
"""Part of a ttl without a sign of life (they come every 0.4) after which a worker is given nothing and asked for nothing."""
LOOK = 0.02
"""Part of a ttl by which every worker more stretches everybody's looks: so what a fleet reads costs about what it saves in renewals
against KCL's, at any number of rows. A table of fewer than `FEW_ROWS` rows is read for less."""
FEW_ROWS = 50


@dataclass(frozen=True, slots=True)
class Unit:
    """What is leased as one: a task and the keys of its rows in shard order. All or none."""

    name: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row and when this observer first saw it with this owner and counter, in seconds of its monotonic clock.

    `changed`: this observer saw it change, so somebody was alive then; False at first sight.
    """

    lease: Lease
    since_s: float
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's presence value, since when it stands, and whether it was seen to change."""

    value: int
    since_s: float
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What one observer knows of a table: rows by key, beats by worker id; by a look at `at_s`."""

    rows: Mapping[str, Seen] = field(default_factory=dict)
    workers: Mapping[str, Beat] = field(default_factory=dict)
    at_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class View:
    """What `me` decides by. `abandoned`: keys of rows whose owner is provably dead. `acquiring`: names of units that `me` is
    about to have by moves still under way: they count as its own and are not moved.
    """

    units: Sequence[Unit]
    observed: Observed
    me: str
    now_s: float
    ttl_s: float
    max_leases: int | None = None
    by: Literal["count", "throughput"] = "count"
    abandoned: Set[str] = frozenset()
    acquiring: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """`take` or `request` each of `leases` in this order, stopping at the first that is lost.

    They are rows of `unit` as they were seen (counter 0: not there yet) that are not ours, or, in a take, ours by a hand-over that
    was never released.
    """

    kind: Literal["take", "request"]
    unit: Unit
    leases: tuple[Lease, ...]


def observe(listing: Listing, before: Observed, now_s: float, keys: Collection[str] = ()) -> Observed:
    """What is known after a look: what did not change keeps its time. Rows of `keys` that the table lacks are known as free."""
    rows = {lease.key: _seen(lease, before.rows.get(lease.key), now_s) for lease in listing.leases}
    for key in keys:
        if key not in rows:
            rows[key] = _seen(Lease(key, None, 0), before.rows.get(key), now_s)
    beats = {worker: _beat(value, before.workers.get(worker), now_s) for worker, value in listing.workers.items()}
    return Observed(rows, beats, now_s)


def _seen(lease: Lease, before: Seen | None, now_s: float) -> Seen:
    return before if before and before.lease == lease else Seen(lease, now_s, before is not None)


def _beat(value: int, before: Beat | None, now_s: float) -> Beat:
    return before if before and before.value == value else Beat(value, now_s, before is not None)


def moves(view: View) -> list[Move]:
    """What `me` does now: complete its units, take its part of the free ones, ask living owners for what they have too much.

    - Free: no owner, no change for the ttl, or abandoned. Dealt to the least loaded of our workers.
    - Being handed over: left alone, until the new owner may force it (a ttl after the request) or is dead.
    - Asked for: only of workers seen alive, only the excess over floor..ceil (by throughput: only what narrows the gap between
      two workers by a tenth), of other programs' workers one unit in a call and only if they have two more than we.
    """
    fleet = _Fleet(view)
    completed = [move for holding in fleet.holdings if (move := fleet.completion(holding))]
    taken = [Move("take", holding.unit, holding.free) for holding, worker in fleet.deal() if worker == view.me]
    asked = [Move("request", holding.unit, holding.held) for holding in fleet.asked()]
    room = len(asked) if view.max_leases is None else max(0, view.max_leases - len(fleet.loads[view.me]))
    return completed + taken + asked[:room]


def look_every_s(workers: int, rows: int, ttl_s: float) -> float:
    """Seconds between two looks of one worker: a second in small fleets, so that a dead worker's units are taken over within a ttl and
    a second; longer in big ones, where every worker's look reads every row, up to a ttl.
    """
    return max(min(1.0, ttl_s / 4), min(LOOK * workers * min(1.0, rows / FEW_ROWS), 1.0) * ttl_s)


def departed(observed: Observed, now_s: float, ttl_s: float) -> list[str]:
    """Our workers that have shown nothing for GONE_TTLS and have no row: whoever sees their presence takes it away."""
    owners = {owner for row in observed.rows.values() for owner in (row.lease.owner, row.lease.checkpoint_owner)}
    silent = (worker for worker, beat in observed.workers.items() if now_s >= beat.since_s + GONE_TTLS * ttl_s)
    return [worker for worker in silent if is_ours(worker) and worker not in owners]


def expires_s(view: View) -> float | None:
    """The next instant after now at which a row of the units would be free for `me` if nothing changed: look again then."""
    alive_s = _signs_of_life(view.observed)
    rows = (view.observed.rows.get(key) for unit in view.units for key in unit.rows)
    instants = (_free_s(row, view, alive_s) for row in rows if row)
    return min((instant for instant in instants if view.now_s < instant < math.inf), default=None)


def _signs_of_life(observed: Observed) -> dict[str, float]:
    """When each worker last did something, as seen."""
    signs = {worker: beat.since_s for worker, beat in observed.workers.items()}
    for row in observed.rows.values():
        if row.lease.owner is not None:
            signs[row.lease.owner] = max(signs.get(row.lease.owner, row.since_s), row.since_s)
    return signs


def _free_s(row: Seen, view: View, alive_s: Mapping[str, float]) -> float:
    """From when on `me` may take the row if it does not change; a hand-over whose new owner lives has a second ttl."""
    lease, ttl_s = row.lease, view.ttl_s
    if lease.owner is None or lease.key in view.abandoned:  # whom it was asked of may still be finishing an epoch
        return row.since_s if lease.checkpoint_owner is None else row.since_s + ttl_s
    if lease.owner == view.me:
        return math.inf if lease.checkpoint_owner is None else row.since_s + ttl_s
    if lease.checkpoint_owner is None:
        return row.since_s + ttl_s
    return min(max(row.since_s, alive_s[lease.owner]) + ttl_s, row.since_s + 2 * ttl_s)


@dataclass(frozen=True, slots=True)
class _Holding:
    """A unit, who holds it (the living owner of its first row that has one), and its rows by what may be done with them.

    `held`: the owner's own. `free`: to be taken. `elsewhere`: living, of others than the owner. `moving`: a hand-over runs.
    """

    unit: Unit
    owner: str | None
    held: tuple[Lease, ...] = ()
    free: tuple[Lease, ...] = ()
    elsewhere: tuple[Lease, ...] = ()
    moving: bool = False
    free_since_s: float = 0.0
    kbps: float | None = None


class _Fleet:
    """The workers that are there and what each of them holds, by one view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._alive_s = _signs_of_life(view.observed)
        self._proven = _proven(view.observed)
        self.holdings = [self._holding(unit) for unit in sorted(view.units, key=lambda unit: unit.name)]
        self.loads: dict[str, list[_Holding]] = {worker: [] for worker in self._present()}
        for holding in self.holdings:
            if holding.owner in self.loads:
                self.loads[holding.owner].append(holding)
        self._rates = self._known_rates()

    def _present(self) -> list[str]:
        """Those that take part: with a sign of life not long before the look and no unit's row that they let expire; and `me`."""
        view = self._view
        rows = (view.observed.rows.get(key) for unit in view.units for key in unit.rows)
        lapsed = {row.lease.owner for row in rows if row and self._lapsed(row)}
        fresh = {worker for worker, sign_s in self._alive_s.items() if view.observed.at_s < sign_s + DOUBT * view.ttl_s}
        return sorted(fresh - lapsed | {view.me})

    def _lapsed(self, row: Seen) -> bool:
        return row.lease.owner is not None and _free_s(row, self._view, self._alive_s) <= self._view.now_s

    def _holding(self, unit: Unit) -> _Holding:
        view = self._view
        if unit.name in view.acquiring:
            return _Holding(unit, view.me, moving=True)
        rows = [view.observed.rows.get(key) or Seen(Lease(key, None, 0), view.now_s) for key in unit.rows]
        free_s = {row.lease.key: _free_s(row, view, self._alive_s) for row in rows}
        free = tuple(row.lease for row in rows if free_s[row.lease.key] <= view.now_s)
        living = [row.lease for row in rows if row.lease.owner == view.me or free_s[row.lease.key] > view.now_s]
        owner = _holder(living[0]) if living else None
        return _Holding(
            unit,
            owner,
            held=tuple(lease for lease in living if _holder(lease) == owner),
            free=free,
            elsewhere=tuple(lease for lease in living if _holder(lease) != owner),
            moving=any(lease.checkpoint_owner is not None for lease in living),
            free_since_s=max(free_s.values(), default=view.now_s),
            kbps=_sum_known([row.lease.throughput_kbps for row in rows]),
        )

    def _known_rates(self) -> dict[str, float]:
        """KiB/s of each unit by name; of one not yet known the mean of the others; none at all where nothing flows."""
        known = [holding.kbps for holding in self.holdings if holding.kbps is not None]
        mean = sum(known) / len(known) if known else 0.0
        return {holding.unit.name: mean if holding.kbps is None else holding.kbps for holding in self.holdings} if mean > 0 else {}

    @property
    def _by_throughput(self) -> bool:
        return self._view.by == "throughput" and bool(self._rates)

    def completion(self, holding: _Holding) -> Move | None:
        """What `me` lacks of a unit it holds the first row of: after a crash in the middle, a forced hand-over, or a new row."""
        if holding.owner != self._view.me:
            return None
        if holding.free:
            return Move("take", holding.unit, holding.free)
        if holding.elsewhere and not holding.moving and not any(lease.foreign for lease in holding.elsewhere):
            return Move("request", holding.unit, holding.elsewhere)
        return None

    def deal(self) -> Iterator[tuple[_Holding, str]]:
        """Free units with the worker whose part each is, which counts as its load from then on."""
        for holding in self.holdings:
            takers = [worker for worker in self.loads if self._may_take(worker)] if holding.owner is None else []
            if takers:
                turn = int((self._view.now_s - holding.free_since_s) / self._view.ttl_s) % len(takers)
                worker = sorted(takers, key=self._load)[turn] if turn else min(takers, key=self._load)
                self.loads[worker].append(holding)
                yield holding, worker

    def _may_take(self, worker: str) -> bool:
        """All are taken to have our `max_leases`; a unit that its taker leaves lying for a ttl goes to the next."""
        return is_ours(worker) and (self._view.max_leases is None or len(self.loads[worker]) < self._view.max_leases)

    def _load(self, worker: str) -> tuple[float, int, str]:
        return (self._flow(self.loads[worker]) if self._by_throughput else 0.0, len(self.loads[worker]), worker)

    def _flow(self, holdings: Sequence[_Holding]) -> float:
        return sum(self._rates[holding.unit.name] for holding in holdings)

    def asked(self) -> Iterator[_Holding]:
        """The units of living owners that are to come to `me`."""
        me, foreign = self._view.me, 0
        ours = len(self.loads[me])
        counts = {worker: len(holdings) for worker, holdings in self.loads.items()}
        for holding, worker in list(self._by_flow() if self._by_throughput else self._by_count()):
            if worker != me or holding.owner not in self._proven:
                continue
            if holding.held[0].foreign:
                foreign += 1
                if foreign > 1 or counts[holding.owner] < ours + 2:
                    continue
            yield holding

    def _movable(self, worker: str) -> list[_Holding]:
        return [each for each in self.loads[worker] if each.owner == worker and not (each.free or each.elsewhere or each.moving)]

    def _by_count(self) -> Iterator[tuple[_Holding, str]]:
        """The excess over floor..ceil, where those with most keep one more, to those that lack."""
        fullest = sorted(self.loads, key=lambda worker: (-len(self.loads[worker]), worker))
        floor, more = divmod(sum(map(len, self.loads.values())), len(self.loads))
        lack = {worker: floor + (place < more) - len(self.loads[worker]) for place, worker in enumerate(fullest)}
        excess = [holding for worker in fullest if lack[worker] < 0 for holding in self._movable(worker)[: -lack[worker]]]
        return zip(excess, [worker for worker in reversed(fullest) for _ in range(lack[worker])], strict=False)

    def _by_flow(self) -> Iterator[tuple[_Holding, str]]:
        plan = _Flows(
            counts={worker: len(holdings) for worker, holdings in self.loads.items()},
            flows={worker: self._flow(holdings) for worker, holdings in self.loads.items()},
            movable={worker: self._movable(worker) for worker in self.loads},
            rates=self._rates,
        )
        while (step := plan.step()) is not None:
            yield step


class _Flows:
    """A plan by throughput as it grows: every step takes one unit from one worker to another, no unit twice.

    Steps either bring a count back to within half of the mean (floor, ceil), or take from the hottest to the coolest what
    narrows their gap by a tenth, unless the gap is below a tenth of the mean flow; so no sequence of steps comes back.
    """

    def __init__(
        self, counts: dict[str, int], flows: dict[str, float], movable: dict[str, list[_Holding]], rates: Mapping[str, float]
    ) -> None:
        self._counts, self._flows, self._movable, self._rates = counts, flows, movable, rates
        mean = sum(counts.values()) / len(counts)
        self._fewest, self._most = math.floor(mean / 2), math.ceil(mean * 1.5)
        self._trifle_kbps = sum(flows.values()) / len(flows) / 10

    def step(self) -> tuple[_Holding, str] | None:
        return self._even_counts() or self._even_flows()

    def _even_counts(self) -> tuple[_Holding, str] | None:
        giver = max((worker for worker in self._counts if self._movable[worker]), key=self._by_count, default=None)
        taker = min(self._counts, key=self._by_count)
        if giver is None or self._counts[giver] < self._counts[taker] + 2:
            return None
        if self._counts[giver] <= self._most and self._counts[taker] >= self._fewest:
            return None
        return self._move(giver, taker, self._best(giver, taker))

    def _even_flows(self) -> tuple[_Holding, str] | None:
        givers = (worker for worker, count in self._counts.items() if self._movable[worker] and count > self._fewest)
        takers = (worker for worker, count in self._counts.items() if count < self._most)
        giver, taker = max(givers, key=self._by_flow, default=None), min(takers, key=self._by_flow, default=None)
        if giver is None or taker is None or (gap := self._gap(giver, taker)) <= self._trifle_kbps:
            return None
        best = self._best(giver, taker)
        return self._move(giver, taker, best) if self._gap_after(best, gap) < 0.9 * gap else None

    def _best(self, giver: str, taker: str) -> _Holding:
        gap = self._gap(giver, taker)
        return min(self._movable[giver], key=lambda holding: self._gap_after(holding, gap))

    def _gap(self, giver: str, taker: str) -> float:
        return self._flows[giver] - self._flows[taker]

    def _gap_after(self, holding: _Holding, gap: float) -> float:
        return abs(gap - 2 * self._rates[holding.unit.name])

    def _by_count(self, worker: str) -> tuple[int, float, str]:
        return self._counts[worker], self._flows[worker], worker

    def _by_flow(self, worker: str) -> tuple[float, int, str]:
        return self._flows[worker], self._counts[worker], worker

    def _move(self, giver: str, taker: str, holding: _Holding) -> tuple[_Holding, str]:
        self._movable[giver].remove(holding)
        for worker, sign in ((giver, -1), (taker, 1)):
            self._counts[worker] += sign
            self._flows[worker] += sign * self._rates[holding.unit.name]
        return holding, taker


def _holder(lease: Lease) -> str | None:
    """Its owner; where that one has gone in the middle of a hand-over, whom it asked."""
    return lease.owner or lease.checkpoint_owner


def _sum_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _proven(observed: Observed) -> set[str]:
    """Workers that this observer saw do something: a row's owner may have been dead at first sight."""
    workers = {worker for worker, beat in observed.workers.items() if beat.changed}
    return workers | {row.lease.owner for row in observed.rows.values() if row.changed and row.lease.owner is not None}


@dataclass(frozen=True, slots=True)
class Hold:
    lease: Lease


@dataclass(frozen=True, slots=True)
class Take:
    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    lease: Lease


def decide(seen: Seen, now_s: float, ttl_s: float, owner: str) -> Hold | Take | Wait:
    """What the keeper of a single row asks; goes with it."""
    if seen.lease.owner == owner:
        return Hold(seen.lease)
    return Take(seen.lease) if seen.lease.owner is None or now_s >= seen.since_s + ttl_s else Wait(seen.lease)
