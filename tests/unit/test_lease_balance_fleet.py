"""Properties of the decisions of a whole fleet: every worker acts on its own, delayed view; rows change by compare-and-swap."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.lease.balance import Move, Observed, Unit, View, moves, observe
from streamproc.lease.lease import OUR_WORKERS, Lease, Listing

TTL_S = 10.0


class Fleet:
    """A table and its workers in rounds of a renewal each: everybody renews and beats, hand-overs end, everybody looks and acts.

    In a mixed round each worker's view is of a moment of the round drawn at random, else all see the table as the round began.
    """

    def __init__(
        self, seed: int, units: list[Unit], workers: list[str], owners: Mapping[str, str | None], max_leases: int | None = None,
        by: Literal["count", "throughput"] = "count", kbps: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.random, self.units, self.max_leases, self.by = random.Random(seed), units, max_leases, by
        self.now_s = 0.0
        rates = kbps or {}
        self.rows = {
            key: Lease(key, owners[unit.name], 1, throughput_kbps=rates.get(unit.name))
            for unit in units for key in unit.rows if unit.name in owners
        }  # fmt: skip
        self.beats = dict.fromkeys(workers, 0)
        self.observed = dict.fromkeys(workers, Observed())
        for worker in workers:
            self.look(worker, self.listing())

    def listing(self) -> Listing:
        return Listing(tuple(self.rows.values()), dict(self.beats))

    def look(self, worker: str, listing: Listing) -> list[Move]:
        before = self.observed[worker]
        self.observed[worker] = observe(listing, before, self.now_s, [key for unit in self.units for key in unit.rows])
        return moves(View(self.units, self.observed[worker], worker, self.now_s, TTL_S, self.max_leases, self.by))

    def change(self, lease: Lease, owner: str | None, checkpoint_owner: str | None = None) -> bool:
        now = self.rows.get(lease.key, Lease(lease.key, None, 0))
        if now == lease:
            self.rows[lease.key] = dataclasses.replace(now, counter=now.counter + 1, owner=owner, checkpoint_owner=checkpoint_owner)
        return now == lease

    def begin_round(self) -> None:
        self.now_s += 0.4 * TTL_S
        for lease in list(self.rows.values()):
            if lease.owner in self.beats:
                self.change(lease, lease.owner)
        self.beats = {worker: beat + 1 for worker, beat in self.beats.items()}

    def round(self, mixed: bool = False, joining: int = 0) -> int:
        """Returns how many moves were made. Workers that join do not see each other yet."""
        self.begin_round()
        start = self.listing()
        joined = [f"{OUR_WORKERS}j{self.now_s:04.0f}-{place}" for place in range(joining)]
        workers = [*self.beats, *joined]
        self.random.shuffle(workers)
        self.beats |= dict.fromkeys(joined, 0)
        self.observed |= dict.fromkeys(joined, Observed())
        done = 0
        for worker in workers:
            listing = self.listing() if mixed and self.random.random() < 0.5 else start
            done += sum(self.do(worker, move) for move in self.look(worker, listing))
        return done

    def do(self, worker: str, move: Move) -> bool:
        had: list[str] = []
        for lease in move.leases:
            asked = lease.owner if move.kind == "request" else None
            if not self.change(lease, worker, asked):
                for key in had:
                    self.change(self.rows[key], None)
                return False
            had.append(lease.key)
        return True

    def owner(self, unit: Unit) -> str | None:
        owners = {self.rows[key].owner if key in self.rows else None for key in unit.rows}
        assert len(owners) == 1, f"{unit} is torn between {owners}"
        return owners.pop()

    def loads(self) -> dict[str, int]:
        counts = Counter(self.owner(unit) for unit in self.units)
        assert None not in counts, "a unit is unowned"
        return {worker: counts[worker] for worker in self.beats}

    @property
    def balanced(self) -> bool:
        floor, more = divmod(len(self.units), len(self.beats))
        return sorted(self.loads().values()) == [floor] * (len(self.beats) - more) + [floor + 1] * more


def named(count: int, rows: int = 1) -> list[Unit]:
    return [Unit(f"u{place:03}", tuple(f"u{place:03}-{row}" for row in range(rows))) for place in range(count)]


@st.composite
def fleets(draw: st.DrawFn, dead: int = 2) -> Fleet:
    """Any start: rows missing, free, of living workers, of dead ones; one or more rows a unit."""
    units = named(draw(st.integers(1, 40)), draw(st.integers(1, 3)))
    workers = [f"{OUR_WORKERS}w{place}" for place in range(draw(st.integers(1, 8)))]
    start = [None, "missing", *workers, *(f"{OUR_WORKERS}dead{place}" for place in range(dead))]
    owners = {unit.name: draw(st.sampled_from(start)) for unit in units}
    return Fleet(draw(st.integers(0, 2**16)), units, workers, {name: owner for name, owner in owners.items() if owner != "missing"})


@settings(max_examples=150, deadline=None)
@given(fleets(), st.integers(0, 5))
def test_any_start_is_balanced_within_two_rounds_and_stays_so(fleet: Fleet, joining: int) -> None:
    """Two rounds after the dead have had their ttl and those that joined without seeing each other can be seen."""
    for _ in range(3):
        fleet.round(mixed=True)
    fleet.round(mixed=True, joining=joining)
    fleet.round(mixed=True)
    fleet.round()
    assert fleet.balanced
    assert [fleet.round(mixed=True) for _ in range(6)] == [0] * 6


@settings(max_examples=150, deadline=None)
@given(fleets(dead=0))
def test_moves_are_as_few_as_can_be(fleet: Fleet) -> None:
    """By one look at the same rows: all free units and only the excess, where those with most keep one more."""
    fleet.begin_round()
    counts = Counter(fleet.owner(unit) for unit in fleet.units)
    floor, more = divmod(len(fleet.units), len(fleet.beats))
    loads = sorted((counts[worker] for worker in fleet.beats), reverse=True)
    excess = sum(max(0, load - floor - (place < more)) for place, load in enumerate(loads))
    planned = [move for worker in fleet.beats for move in fleet.look(worker, fleet.listing())]
    assert len({move.unit.name for move in planned}) == len(planned)
    assert Counter(move.kind for move in planned) == Counter({"take": counts[None], "request": excess})


@settings(max_examples=100, deadline=None)
@given(fleets(), st.integers(1, 12), st.integers(0, 3))
def test_nobody_has_more_than_max_leases_and_nothing_lies_while_there_is_room(fleet: Fleet, max_leases: int, joining: int) -> None:
    fleet.rows = {key: lease for key, lease in fleet.rows.items() if lease.owner not in fleet.beats}
    fleet.max_leases = max_leases
    for turn in range(10):
        fleet.round(mixed=turn < 8, joining=joining if turn == 4 else 0)
        counts = Counter(fleet.owner(unit) for unit in fleet.units)
        assert all(counts[worker] <= max_leases for worker in fleet.beats)
    owned = sum(counts[worker] for worker in fleet.beats)
    assert owned == min(len(fleet.units), max_leases * len(fleet.beats))


def spread(fleet: Fleet, kbps: Mapping[str, float]) -> float:
    flows = Counter(dict.fromkeys(fleet.beats, 0.0))
    for unit in fleet.units:
        flows[str(fleet.owner(unit))] += kbps[unit.name]  # type: ignore[assignment]
    return max(flows.values()) - min(flows.values())


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(st.floats(0.1, 1000.0), min_size=4, max_size=30), st.integers(2, 6), st.integers(0, 2**16))
def test_by_throughput_the_spread_narrows_and_comes_to_rest(data: st.DataObject, rates: list[float], workers: int, seed: int) -> None:
    units, names = named(len(rates)), [f"{OUR_WORKERS}w{place}" for place in range(workers)]
    owners = {unit.name: data.draw(st.sampled_from(names)) for unit in units}
    kbps = {unit.name: rate for unit, rate in zip(units, rates, strict=True)}
    fleet = Fleet(seed, units, names, owners, by="throughput", kbps=kbps)
    before, even = spread(fleet, kbps), within_half(fleet)
    made = [fleet.round(mixed=True) for _ in range(4)] + [fleet.round() for _ in range(4)]
    assert made[-2:] == [0, 0]
    assert within_half(fleet)
    assert spread(fleet, kbps) <= before or not even


def within_half(fleet: Fleet) -> bool:
    mean, counts = len(fleet.units) / len(fleet.beats), fleet.loads().values()
    return math.floor(mean / 2) <= min(counts) and max(counts) <= math.ceil(mean * 1.5)
