"""Event time as pure functions over values: from shards' newest events to the task's watermark.

The watermark of a shard is its newest event time less the delay; the task's is the minimum over the shards that can
still deliver. It never goes back. A shard whose reader has been at its end for `idle` leaves the minimum; once all
have left, the watermark moves on by the time counted since. All times are microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.hash_ranges import HashRange


@dataclass(frozen=True, slots=True)
class ShardTime:
    """A shard that could deliver when the epoch began. `idle_us` counts only while its reader says it is at its end;
    `idle_before_us` is what it was at the last commit; `idle_limit_us` None: it never leaves the minimum.
    """

    watermark_us: int | None
    idle_us: int = 0
    idle_before_us: int = 0
    idle_limit_us: int | None = None

    @property
    def surplus_us(self) -> int:
        """How long ago the shard left the minimum; negative while it is in it."""
        return -1 if self.idle_limit_us is None else self.idle_us - self.idle_limit_us


@dataclass(frozen=True, slots=True)
class Floor:
    """A watermark above the task's own, of the keys whose hash lies in the range: the task before it has written so far, so their
    rows are late up to it.
    """

    hash_range: HashRange
    watermark_us: int


def shard_watermark(previous_us: int | None, event_us: int | None, delay_us: int) -> int | None:
    """A shard's watermark once events up to `event_us` (None: no event time) have been read."""
    if event_us is None:
        return previous_us
    return max(event_us - delay_us, previous_us if previous_us is not None else event_us - delay_us)


def inherited(parents_us: Sequence[int | None]) -> int | None:
    """The watermark a child shard begins with: the least of its parents', None if one of them has none."""
    known = [w for w in parents_us if w is not None]
    return min(known) if known and len(known) == len(parents_us) else None


def task_watermark(previous_us: int | None, shards: Sequence[ShardTime]) -> int | None:
    """The task's watermark at the end of an epoch, from that of the last one and the shards live at its start."""
    if not shards:
        return previous_us
    active = [s for s in shards if s.surplus_us < 0]
    if active:
        return raised(previous_us, _least(active))
    base = raised(previous_us, _left_last([s for s in shards if s.watermark_us is not None]))
    return None if base is None else base + min(s.surplus_us for s in shards) - _counted_before(shards)


def _left_last(shards: Sequence[ShardTime]) -> int | None:
    """The minimum when the last of these left it. One that never had data has nothing to say once it is idle."""
    last_us = min((s.surplus_us for s in shards), default=0)
    return _least([s for s in shards if s.surplus_us == last_us])


def _counted_before(shards: Sequence[ShardTime]) -> int:
    """Time for which all shards had left already at the last commit: it has moved the watermark then."""
    before = [s.idle_before_us - s.idle_limit_us for s in shards if s.idle_limit_us is not None]
    return max(0, min(*before, *(s.surplus_us for s in shards)))


def _least(shards: Sequence[ShardTime]) -> int | None:
    """None while a shard has had no data: it holds the watermark back."""
    return inherited([s.watermark_us for s in shards])


def raised(previous_us: int | None, candidate_us: int | None) -> int | None:
    """The later of two watermarks: one never goes back."""
    if candidate_us is None:
        return previous_us
    return candidate_us if previous_us is None else max(previous_us, candidate_us)


def lowered(watermark_us: int | None, lag_us: int) -> int | None:
    """The watermark where rows may be older than it by `lag_us`."""
    return None if watermark_us is None else watermark_us - lag_us
