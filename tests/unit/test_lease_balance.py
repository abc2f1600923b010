"""Decisions over what was seen of a lease table."""

import dataclasses
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamproc.lease.balance import Beat, Move, Observed, Seen, Unit, View, expires_s, look_every_s, moves, observe
from streamproc.lease.lease import OUR_WORKERS, Lease, Listing

TTL_S = 10.0
NOW_S = 100.0
ME, ALICE, BOB, KCL = f"{OUR_WORKERS}me", f"{OUR_WORKERS}alice", f"{OUR_WORKERS}bob", "kcl-1"


def units(count: int) -> list[Unit]:
    return [Unit(f"u{place:03}", (f"u{place:03}",)) for place in range(count)]


def row(key: str, owner: str | None, age_s: float = 1.0, checkpoint_owner: str | None = None, kbps: float | None = None) -> Seen:
    lease = Lease(key, owner, 7, checkpoint_owner, throughput_kbps=kbps)
    return Seen(lease, NOW_S - age_s, changed=True)


def view(rows: Sequence[Seen], workers: Sequence[str] = (), me: str = ME, leased: Sequence[Unit] | None = None) -> View:
    beats = {worker: Beat(3, NOW_S - 1, changed=True) for worker in workers}
    observed = Observed({each.lease.key: each for each in rows}, beats, NOW_S)
    return View(leased or [Unit(each.lease.key, (each.lease.key,)) for each in rows], observed, me, NOW_S, TTL_S)


def told(planned: Sequence[Move]) -> list[tuple[str, str]]:
    return [(move.kind, move.unit.name) for move in planned]


def owned(owners: Mapping[str, int], age_s: float = 1.0) -> list[Seen]:
    names = [owner for owner, count in owners.items() for _ in range(count)]
    return [row(f"u{place:03}", owner, age_s) for place, owner in enumerate(names)]


def test_a_row_that_is_not_there_is_taken_into_being() -> None:
    [move] = moves(view([], leased=units(1)))
    assert move == Move("take", units(1)[0], (Lease("u000", None, 0),))


def test_free_rows_are_dealt_and_each_worker_takes_its_part() -> None:
    rows = [row(f"u{place}", None) for place in range(5)]
    parts = {worker: told(moves(view(rows, [ME, ALICE], worker))) for worker in (ME, ALICE)}
    assert parts == {ALICE: [("take", "u0"), ("take", "u2"), ("take", "u4")], ME: [("take", "u1"), ("take", "u3")]}


def test_a_silent_owner_is_waited_out_by_our_clock() -> None:
    assert moves(view([row("a", ALICE, age_s=9.9)])) == []
    assert told(moves(view([row("a", ALICE, age_s=10.0)]))) == [("take", "a")]


def test_a_row_whose_owner_is_provably_dead_is_not_waited_for() -> None:
    assert told(moves(dataclasses.replace(view([row("a", ALICE)]), abandoned={"a"}))) == [("take", "a")]


def test_what_is_ours_is_held_and_completed() -> None:
    both = [Unit("t", ("a", "b"))]
    assert moves(view([row("a", ME, 50.0), row("b", ME, 50.0)], leased=both)) == []
    [move] = moves(view([row("a", ME), row("b", None)], leased=both))
    assert (move.kind, [lease.key for lease in move.leases]) == ("take", ["b"])


def test_rows_torn_between_two_workers_go_to_the_one_with_the_first() -> None:
    torn, both = [row("a", ALICE), row("b", BOB), row("c", None)], [Unit("t", ("a", "b", "c"))]
    assert moves(view(torn, me=BOB, leased=both)) == [] == moves(view(torn, me=ME, leased=both))
    assert [lease.key for move in moves(view(torn, me=ALICE, leased=both)) for lease in move.leases] == ["c"]
    [asked] = moves(view([*torn[:2], row("c", ALICE)], me=ALICE, leased=both))
    assert (asked.kind, [lease.key for lease in asked.leases]) == ("request", ["b"])


def test_only_the_excess_is_asked_for() -> None:
    rows = owned({ALICE: 5, BOB: 4})
    assert len(moves(view(rows, [ALICE, BOB, ME]))) == 3
    assert moves(view(owned({ALICE: 3, BOB: 4}), [ALICE, BOB], ALICE)) == []
    assert len(moves(view(owned({ALICE: 3, BOB: 2, ME: 1}), [ALICE, BOB, ME]))) == 1


def test_the_only_task_of_a_job_stays() -> None:
    assert moves(view([row("a", ALICE)], [ALICE, ME])) == []
    assert moves(view([row("a", ALICE), row("b", ALICE)], [ALICE, ME], leased=[Unit("t", ("a", "b"))])) == []


def test_nobody_is_asked_who_was_not_seen_alive() -> None:
    """A worker that starts right after another was killed must not wait for the dead one's answer, nor deter those who would take over."""
    first = observe(Listing(tuple(each.lease for each in owned({ALICE: 6})), {ALICE: 1}), Observed(), NOW_S)
    start = View(units(6), first, ME, NOW_S, TTL_S)
    assert moves(start) == []
    renewed = tuple(Lease(each.lease.key, ALICE, 8) for each in owned({ALICE: 6}))
    again = observe(Listing(renewed, {ALICE: 1}), first, NOW_S + 4)
    assert len(moves(dataclasses.replace(start, observed=again, now_s=NOW_S + 4))) == 3


def test_a_worker_that_misses_its_renewals_is_given_and_asked_for_nothing() -> None:
    rows = [*owned({ALICE: 4}, age_s=7.0), row("u100", None), row("u101", None)]
    assert told(moves(view(rows))) == [("take", "u100"), ("take", "u101")]


def test_who_is_there_is_judged_at_the_time_of_the_look() -> None:
    """A worker that pauses between look and decision must not take the others for gone."""
    looked = view([*owned({ALICE: 4}, age_s=0.0), row("u100", None, 0.0)], [ALICE, ME])
    assert told(moves(dataclasses.replace(looked, now_s=NOW_S + 7))) == [("take", "u100"), ("request", "u000")]


def test_the_units_of_a_dead_worker_are_not_dealt_to_it_while_its_last_row_still_stands() -> None:
    rows = [row("a", ALICE, 10.1), row("b", ALICE, 10.1), row("c", ALICE, 5.0)]
    assert told(moves(view(rows))) == [("take", "a"), ("take", "b")]


def test_a_hand_over_is_left_alone_until_its_new_owner_may_force_it() -> None:
    moving = row("a", ME, 9.9, checkpoint_owner=ALICE)
    assert moves(view([moving], [ALICE])) == []
    assert expires_s(view([moving], [ALICE])) == NOW_S + TTL_S - 9.9
    assert told(moves(view([row("a", ME, 10.0, checkpoint_owner=ALICE)], [ALICE]))) == [("take", "a")]


def test_a_hand_over_to_a_dead_worker_is_taken_and_to_a_living_one_only_when_it_sleeps() -> None:
    def taken(age_s: float, workers: Sequence[str]) -> bool:
        return bool(moves(view([row("a", BOB, age_s, checkpoint_owner=ALICE)], workers)))

    assert [taken(9.9, []), taken(10.0, []), taken(10.0, [BOB]), taken(19.9, [BOB]), taken(20.0, [BOB])] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_units_being_handed_over_count_for_the_new_owner_and_are_not_asked_for() -> None:
    rows = [*owned({ALICE: 2}), row("x", BOB, checkpoint_owner=ALICE), row("y", BOB, checkpoint_owner=ALICE)]
    assert moves(view(rows, [ALICE, BOB], ALICE)) == [] == moves(view(rows, [ALICE, BOB], BOB))
    assert told(moves(view([*rows, *(row(key, ALICE) for key in "vw")], [ALICE, BOB, ME]))) == [("request", "u000"), ("request", "u001")]


def test_a_unit_that_is_just_being_handed_over_is_not_asked_for() -> None:
    assert moves(view([row("a", ALICE), *(row(f"m{place}", BOB, checkpoint_owner=ALICE) for place in range(5))], [ALICE, BOB, ME])) == []


def test_moves_under_way_are_not_begun_twice_and_fill_max_leases() -> None:
    free = dataclasses.replace(view([row(f"u{place}", None) for place in range(4)]), max_leases=2)
    assert told(moves(free)) == [("take", "u0"), ("take", "u1")]
    assert told(moves(dataclasses.replace(free, acquiring={"u0"}))) == [("take", "u1")]
    assert moves(dataclasses.replace(free, acquiring={"u0", "u1"})) == []
    assert len(moves(dataclasses.replace(view(owned({ALICE: 9, ME: 1}), [ALICE, ME]), max_leases=2))) == 1


def test_a_unit_that_its_taker_leaves_lying_goes_to_the_next() -> None:
    assert moves(view([row("a", None, age_s=1.0)], [ALICE, ME], ME)) == []
    assert told(moves(view([row("a", None, age_s=10.0)], [ALICE, ME], ME))) == [("take", "a")]


def test_other_programs_are_asked_for_one_unit_at_a_time_and_only_for_two_more_than_ours() -> None:
    assert moves(view(owned({KCL: 3, ME: 2}))) == []
    assert len(moves(view(owned({KCL: 4, ME: 2})))) == 1
    assert len(moves(view(owned({KCL: 9}), [ME]))) == 1
    assert len(moves(view(owned({KCL: 9, "kcl-2": 9}), [ME]))) == 1


def test_free_units_are_not_left_to_other_programs() -> None:
    assert told(moves(view([*owned({KCL: 1, ME: 2}), row("a", None), row("b", None)]))) == [("take", "a"), ("take", "b")]


def test_finished_rows_of_other_programs_say_nothing_about_their_owner() -> None:
    ended = row("ended", KCL, age_s=500.0)
    assert len(moves(view([ended, *owned({KCL: 4})], leased=units(4)))) == 1


def by_throughput(rows: Sequence[Seen], workers: Sequence[str], me: str = ME) -> list[tuple[str, str]]:
    return told(moves(dataclasses.replace(view(rows, workers, me), by="throughput")))


def test_by_throughput_the_hottest_gives_what_narrows_the_gap() -> None:
    hot = [row("a", ALICE, kbps=100.0), row("b", ALICE, kbps=300.0), row("c", ALICE, kbps=600.0)]
    cool = [row("d", ME, kbps=100.0), row("e", ME, kbps=90.0)]
    assert by_throughput([*hot, *cool], [ALICE, ME]) == [("request", "b"), ("request", "a")]


def test_by_throughput_trifles_and_single_hot_units_do_not_move() -> None:
    even = [row("a", ALICE, kbps=100.0), row("b", ALICE, kbps=104.0), row("c", ME, kbps=100.0), row("d", ME, kbps=98.0)]
    assert by_throughput(even, [ALICE, ME]) == []
    small = [row("e", ALICE, kbps=2.0), row("f", ALICE, kbps=2.0), row("g", ALICE, kbps=100.0), row("h", ME, kbps=100.0)]
    assert by_throughput(small, [ALICE, ME]) == []
    assert by_throughput([row("a", ALICE, kbps=900.0), row("b", ME, kbps=1.0)], [ALICE, ME]) == []


def test_by_throughput_counts_stay_within_half_of_the_mean() -> None:
    rows = [*(row(f"a{place}", ALICE, kbps=10.0) for place in range(8)), *(row(f"b{place}", ME, kbps=1.0) for place in range(8))]
    assert len(by_throughput(rows, [ALICE, ME])) == 4
    hot = [row(f"{owner}{place}", owner, kbps=100.0) for owner in (ALICE, BOB) for place in range(6)]
    assert len(by_throughput([*hot, *(row(f"m{place}", ME, kbps=1.0) for place in range(9))], [ALICE, BOB, ME])) == 2


def test_by_throughput_without_any_flow_counts_decide() -> None:
    assert len(by_throughput([row(f"u{place}", ALICE, kbps=0.0) for place in range(6)], [ALICE, ME])) == 3


def test_looks_are_short_in_small_fleets_and_affordable_in_big_ones() -> None:
    assert look_every_s(3, 12, 10.0) == 1.0
    assert look_every_s(3, 12, 2.0) == 0.5
    assert 5.0 <= look_every_s(100, 1000, 10.0) <= 10.0
    assert look_every_s(1000, 10_000, 10.0) == 10.0


def test_the_next_expiry_is_known() -> None:
    rows = [row("a", ALICE, 2.0), row("b", BOB, 4.0), row("c", ME, 9.0), row("d", None), row("e", ALICE, 11.0)]
    assert expires_s(view(rows)) == NOW_S + 6.0
    assert expires_s(view([row("c", ME, 9.0)])) is None


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.booleans()), max_size=30))
def test_a_row_is_taken_only_after_standing_still_for_the_ttl(steps: list[tuple[float, bool]]) -> None:
    now_s, changed_s, counter = 0.0, 0.0, 1
    observed = observe(Listing((Lease("k", ALICE, 1),)), Observed(), 0.0)
    for pause_s, renewed in steps:
        now_s += pause_s
        counter += renewed
        changed_s = now_s if renewed else changed_s
        observed = observe(Listing((Lease("k", ALICE, counter),)), observed, now_s)
        taken = bool(moves(View([Unit("k", ("k",))], observed, ME, now_s, TTL_S)))
        assert taken == (now_s >= changed_s + TTL_S)


def test_rows_and_workers_that_are_gone_are_forgotten() -> None:
    before = observe(Listing((Lease("k", ALICE, 1),), {ALICE: 1}), Observed(), 0.0)
    assert observe(Listing(), before, 1.0) == Observed({}, {}, 1.0)


def test_a_row_that_is_missing_is_known_as_free_since_it_is_missed() -> None:
    first = observe(Listing(), Observed(), 1.0, ["k"])
    assert observe(Listing(), first, 2.0, ["k"]).rows == {"k": Seen(Lease("k", None, 0), 1.0)}
