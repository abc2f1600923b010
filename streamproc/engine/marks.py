"""Positions that a shared lease table shows to other programs (KCL), and what they mean to a log of our own."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from streamproc.checkpoint.log import EpochLog
from streamproc.checkpoint.records import Commit, ShardEnd
from streamproc.errors import StreamprocError
from streamproc.lease.lease import SHARD_END, Mark
from streamproc.offset import EARLIEST, Start
from streamproc.source import Shard, Source

Marks = Mapping[tuple[str, str], Mark]
"""By source and shard."""
NO_MARKS: Marks = {}
SENTINELS: Mapping[str, Start | None] = {"TRIM_HORIZON": EARLIEST, "LATEST": Start("latest"), "AT_TIMESTAMP": None}
"""What a row holds before its first checkpoint; None: whatever the job's `start` says."""


async def starting_at(source: Source, shard: Shard, start: Start, mark: Mark | None) -> ShardEnd:
    """Where a checkpoint without a log begins to read a shard: where the table's row stands, else where the job says."""
    if mark is None or mark.position is None:
        return ShardEnd(end=await source.position(shard, start), parents=shard.parents)
    if mark.position == SHARD_END:
        return ShardEnd(end=await source.position(shard, EARLIEST), ended=True, parents=shard.parents)
    if mark.position in SENTINELS:
        return ShardEnd(end=await source.position(shard, SENTINELS[mark.position] or start), parents=shard.parents)
    return ShardEnd(end=mark.position, parents=shard.parents)


def shown(end: ShardEnd, children: tuple[str, ...], shard: Shard | None) -> Mark:
    """What the row of a shard is to say after a commit."""
    parents, hash_range = (shard.parents, shard.hash_range) if shard else ((), None)
    return Mark(SHARD_END if end.ended else end.end, parents, children if end.ended else (), hash_range)


async def adopted(log: EpochLog, epoch: int, commit: Commit, marks: Marks, *, adopt: bool) -> Commit | None:
    """The newest commit with the positions of rows that another program has moved; None where nobody has.

    A row that stands at a commit that is still kept, and that nobody but us has touched since, is an old mirror of ours.
    StreamprocError naming both positions without `adopt`.
    """
    moved = {key: mark for key, mark in marks.items() if _differs(commit.shards.get(key[0], {}).get(key[1]), mark)}
    stale = await _stale(log, epoch, {key: mark for key, mark in moved.items() if mark.ours})
    foreign = {key: mark for key, mark in moved.items() if key not in stale}
    if not foreign:
        return None
    if not adopt:
        raise StreamprocError("\n".join(_said(commit.shards[name][shard], name, shard, mark) for (name, shard), mark in foreign.items()))
    shards = {name: dict(ends) for name, ends in commit.shards.items()}
    for (name, shard), mark in foreign.items():
        ended = mark.position == SHARD_END
        end = shards[name][shard].end if ended else str(mark.position)
        shards[name][shard] = structs.replace(shards[name][shard], end=end, ended=ended)
    return structs.replace(commit, shards=shards)


async def _stale(log: EpochLog, epoch: int, moved: Marks) -> set[tuple[str, str]]:
    """Those that stand where a kept commit stood."""
    stale: set[tuple[str, str]] = set()
    if moved:
        for kept in [n async for n in log.epochs("commit") if n < epoch]:
            before = await log.read_commit(kept)
            stale |= {(n, s) for (n, s), mark in moved.items() if before and not _differs(before.shards.get(n, {}).get(s), mark)}
    return stale


def _differs(end: ShardEnd | None, mark: Mark) -> bool:
    """Whether a row says something else than a commit. A row without a checkpoint, or of a shard that is new to the log, says nothing."""
    if end is None or mark.position is None or mark.position in SENTINELS:
        return False
    if mark.position == SHARD_END or end.ended:
        return (mark.position == SHARD_END) != end.ended
    return _plain(mark.position) != _plain(end.end)


def _plain(position: str) -> str:
    """A record that is no aggregate ends at its only user record."""
    return position.removesuffix(":0")


def _said(end: ShardEnd, source: str, shard: str, mark: Mark) -> str:
    return (
        f"source {source}, shard {shard}: the lease table says {mark.position}, moved by another program; this job's newest commit says"
        f" {SHARD_END if end.ended else end.end}: set leases.adopt: true to go on from the table's, or put the row back"
    )
