"""Who takes what: pure decisions over what one observer has seen of a lease table.

An owner is judged gone only by its counter standing still for the whole ttl on the observer's own monotonic clock, so
no two clocks are ever compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamproc.lease.lease import Lease


@dataclass(frozen=True, slots=True)
class Seen:
    """A row and when this observer first saw it so, in seconds of its monotonic clock."""

    lease: Lease
    since_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """The row is ours already (the answer of our own take was lost): renew it, since when it was written is not known."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Take:
    """The row is free, or its owner has been silent for the ttl: try to take it."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else's, and alive as far as can be told."""

    lease: Lease


Action = Hold | Take | Wait


def observe(leases: Iterable[Lease], seen: Mapping[str, Seen], now_s: float) -> dict[str, Seen]:
    """What is known after a listing: a row that did not change keeps its time."""
    known = {}
    for lease in leases:
        before = seen.get(lease.key)
        known[lease.key] = before if before and before.lease == lease else Seen(lease, now_s)
    return known


def decide(seen: Seen, now_s: float, ttl_s: float, owner: str) -> Action:
    """What `owner` does about one row."""
    if seen.lease.owner == owner:
        return Hold(seen.lease)
    if seen.lease.owner is None or now_s >= seen.since_s + ttl_s:
        return Take(seen.lease)
    return Wait(seen.lease)
