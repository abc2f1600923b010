"""The watermark's rules, one test a clause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamproc.state.watermark import ShardTime, inherited, raised, shard_watermark, task_watermark

S = 1_000_000


def test_a_shard_is_its_newest_event_less_the_delay_and_never_goes_back():
    assert shard_watermark(None, 100 * S, 30 * S) == 70 * S
    assert shard_watermark(70 * S, 90 * S, 30 * S) == 70 * S
    assert shard_watermark(70 * S, None, 30 * S) == 70 * S
    assert shard_watermark(None, None, 30 * S) is None


def test_the_task_is_the_minimum_over_its_shards():
    assert task_watermark(None, [ShardTime(20 * S), ShardTime(10 * S)]) == 10 * S


def test_a_shard_without_data_holds_the_watermark_back():
    assert task_watermark(None, [ShardTime(20 * S), ShardTime(None)]) is None
    assert task_watermark(5 * S, [ShardTime(20 * S), ShardTime(None)]) == 5 * S


def test_an_idle_shard_leaves_the_minimum():
    idle = ShardTime(10 * S, idle_us=60 * S, idle_limit_us=60 * S)
    assert task_watermark(10 * S, [idle, ShardTime(50 * S, idle_limit_us=60 * S)]) == 50 * S
    assert task_watermark(None, [ShardTime(None, 60 * S, 0, 60 * S), ShardTime(50 * S)]) == 50 * S


def test_when_all_are_idle_the_watermark_moves_on_by_the_time_counted_since():
    assert task_watermark(70 * S, [ShardTime(70 * S, idle_us=120 * S, idle_limit_us=60 * S)]) == 130 * S


def test_time_counted_at_the_last_commit_is_not_counted_again():
    before = ShardTime(70 * S, idle_us=120 * S, idle_before_us=100 * S, idle_limit_us=60 * S)
    assert task_watermark(110 * S, [before]) == 130 * S


def test_the_shard_that_leaves_last_sets_the_base():
    first = ShardTime(10 * S, idle_us=100 * S, idle_limit_us=60 * S)
    last = ShardTime(50 * S, idle_us=70 * S, idle_limit_us=60 * S)
    assert task_watermark(10 * S, [first, last]) == 60 * S


def test_never_turns_idle_off():
    assert task_watermark(10 * S, [ShardTime(10 * S, idle_us=10**15, idle_limit_us=None)]) == 10 * S


def test_without_live_shards_it_stands_still():
    assert task_watermark(10 * S, []) == 10 * S
    assert task_watermark(None, []) is None


def test_a_child_begins_with_the_least_of_its_parents():
    assert inherited([30, 20]) == 20
    assert inherited([30, None]) is None
    assert inherited([]) is None


shards = st.lists(
    st.builds(
        lambda w, before, more, limit: ShardTime(w, before + more, before, limit),
        st.one_of(st.none(), st.integers(-(10**12), 10**12)),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.one_of(st.none(), st.integers(0, 10**9)),
    ),
    max_size=5,
)


@given(st.one_of(st.none(), st.integers(-(10**12), 10**12)), shards)
def test_it_never_goes_back(previous, live):
    after = task_watermark(previous, live)
    assert raised(previous, after) == after


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**8), min_size=1, max_size=6), st.integers(0, 10**9))
def test_idle_time_moves_it_the_same_however_it_is_cut_into_epochs(start, steps, limit):
    at_once = task_watermark(start, [ShardTime(start, sum(steps), 0, limit)])
    now, idle = start, 0
    for step in steps:
        now = task_watermark(now, [ShardTime(start, idle + step, idle, limit)])
        idle += step
    assert now == at_once
