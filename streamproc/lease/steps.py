"""The changes of a row as pure functions, for tables that read, compare and replace."""

from __future__ import annotations

from dataclasses import replace

from streamproc.errors import LeaseLost
from streamproc.lease.lease import Lease


def taken(seen: Lease, owner: str) -> Lease:
    return replace(seen, owner=owner, counter=seen.counter + 1, checkpoint_owner=None)


def requested(seen: Lease, owner: str) -> Lease:
    """LeaseLost if there is nobody to ask, or somebody else has asked already."""
    if seen.owner is None or seen.checkpoint_owner is not None:
        raise LeaseLost(f"lease {seen.key} has no owner to ask, or is being handed over to {seen.owner}")
    return replace(seen, owner=owner, counter=seen.counter + 1, checkpoint_owner=seen.owner)


def released(row: Lease | None, seen: Lease) -> Lease:
    """`row` without its checkpoint owner; LeaseLost if that is not the one of `seen`."""
    if row is None or row.checkpoint_owner is None or row.checkpoint_owner != seen.checkpoint_owner:
        raise LeaseLost(f"lease {seen.key} is not handed over by {seen.checkpoint_owner} any more")
    return replace(row, counter=row.counter + 1, checkpoint_owner=None)


def renewed(seen: Lease, throughput_kbps: float | None) -> Lease:
    kbps = seen.throughput_kbps if throughput_kbps is None else throughput_kbps
    return replace(seen, counter=seen.counter + 1, throughput_kbps=kbps)


def given(seen: Lease) -> Lease:
    """Free; a hand-over that runs goes on."""
    return replace(seen, owner=None, counter=seen.counter + 1)


def changed_elsewhere(key: str) -> LeaseLost:
    return LeaseLost(f"lease {key} was changed by another worker")
