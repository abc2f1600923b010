"""Decisions over what was seen of a lease table."""

from hypothesis import given
from hypothesis import strategies as st

from streamproc.lease.balance import Hold, Seen, Take, Wait, decide, observe
from streamproc.lease.lease import Lease

TTL_S = 10.0


def test_a_free_row_is_taken() -> None:
    assert decide(Seen(Lease("k", None, 0), 5.0), 5.0, TTL_S, "me") == Take(Lease("k", None, 0))


def test_our_own_row_is_held() -> None:
    assert decide(Seen(Lease("k", "me", 7), 5.0), 500.0, TTL_S, "me") == Hold(Lease("k", "me", 7))


def test_a_silent_owner_is_waited_out_by_our_clock() -> None:
    seen = Seen(Lease("k", "other", 7), 5.0)
    assert decide(seen, 14.9, TTL_S, "me") == Wait(seen.lease)
    assert decide(seen, 15.0, TTL_S, "me") == Take(seen.lease)


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.booleans()), max_size=30))
def test_a_row_is_taken_only_after_standing_still_for_the_ttl(steps: list[tuple[float, bool]]) -> None:
    now_s, changed_s, counter, seen = 0.0, 0.0, 1, observe([Lease("k", "other", 1)], {}, 0.0)
    for pause_s, renewed in steps:
        now_s += pause_s
        counter += renewed
        changed_s = now_s if renewed else changed_s
        seen = observe([Lease("k", "other", counter)], seen, now_s)
        taken = isinstance(decide(seen["k"], now_s, TTL_S, "me"), Take)
        assert taken == (now_s >= changed_s + TTL_S)


def test_rows_that_are_gone_are_forgotten() -> None:
    assert observe([], {"k": Seen(Lease("k", "other", 1), 0.0)}, 1.0) == {}
