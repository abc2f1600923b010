"""Which shards are read, and how an epoch's limit is shared among them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamproc.checkpoint.records import ShardEnd
from streamproc.engine.intake import readable, shard_order, shared
from streamproc.source import Shard


def ids(shards, ends):
    return [s.id for s in readable(shards, ends)]


def test_children_wait_for_the_committed_end_of_all_their_parents():
    shards = [Shard("a"), Shard("b"), Shard("c", ("a", "b"))]
    over = ShardEnd(end="9", ended=True)
    assert ids(shards, {}) == ["a", "b"]
    assert ids(shards, {"a": over}) == ["b"]
    assert ids(shards, {"a": over, "b": over}) == ["c"]


def test_parents_that_nobody_lists_any_more_hold_nobody_up():
    assert ids([Shard("c", ("gone",))], {}) == ["c"]


def test_shards_come_in_the_order_of_their_numbers_or_names():
    assert sorted(["10", "9", "shardId-2", "shardId-1"], key=shard_order) == ["9", "10", "shardId-1", "shardId-2"]


def test_without_a_limit_everything_is_taken():
    assert shared({"a": (5, 50), "b": (7, 70)}, None, None) == {"a": 5, "b": 7}


def test_what_one_shard_leaves_goes_to_the_others():
    assert shared({"a": (1, 1), "b": (100, 1), "c": (100, 1)}, 11, None) == {"a": 1, "b": 5, "c": 5}


def test_a_byte_limit_takes_at_least_one_record():
    assert shared({"a": (10, 1000)}, None, 500) == {"a": 5}
    assert shared({"a": (10, 1000)}, None, 1) == {"a": 1}


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 100), st.integers(0, 1000)), max_size=6), st.integers(1, 300))
def test_shares_fill_the_limit_and_no_shard_gives_more_than_it_has(queued, limit):
    shares = shared(queued, limit, None)
    assert sum(shares.values()) == min(limit, sum(n for n, _ in queued.values()))
    assert all(0 <= shares[s] <= queued[s][0] for s in queued)
