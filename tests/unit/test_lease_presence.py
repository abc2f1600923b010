"""Workers that are long gone are taken out of the lease table; others are not."""

from streamproc.lease.balance import GONE_TTLS, Beat, Observed, Seen, departed
from streamproc.lease.lease import Lease

TTL_S = 10.0
NOW_S = 1000.0
GONE_S = NOW_S - GONE_TTLS * TTL_S


def observed(*leases: Lease, **since_s: float) -> Observed:
    rows = {lease.key: Seen(lease, 0.0) for lease in leases}
    return Observed(rows, {name.replace("_", ":"): Beat(1, at_s) for name, at_s in since_s.items()})


def test_who_was_silent_for_long_and_has_no_row_is_gone() -> None:
    assert departed(observed(streamproc_a=GONE_S, streamproc_b=GONE_S + 0.1), NOW_S, TTL_S) == ["streamproc:a"]


def test_owners_and_those_that_are_to_hand_over_are_not() -> None:
    rows = Lease("j/1", "streamproc:a", 1), Lease("j/2", "streamproc:c", 2, checkpoint_owner="streamproc:b")
    assert departed(observed(*rows, streamproc_a=0.0, streamproc_b=0.0, streamproc_c=0.0), NOW_S, TTL_S) == []


def test_workers_of_other_programs_are_their_own_business() -> None:
    assert departed(observed(kcl_worker=0.0), NOW_S, TTL_S) == []
