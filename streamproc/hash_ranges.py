"""Whether shards cover the space of hashes, each place once: 0 to 2^128 - 1, ranges inclusive at both ends (Kinesis)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

HASHES = 2**128
HashRange = tuple[int, int]
"""The first and the last hash."""


def leaves(parents: Iterable[tuple[str, Sequence[str]]]) -> set[str]:
    """Of shards with their parents: those that nobody has as a parent, which are the open ones."""
    listed = list(parents)
    return {shard for shard, _ in listed} - {parent for _, ids in listed for parent in ids}


def holes(ranges: Iterable[HashRange]) -> list[HashRange]:
    """What no range covers, in order: records that hash there are read by nobody."""
    found: list[HashRange] = []
    covered = -1
    for low, high in sorted(ranges):
        if low > covered + 1:
            found.append((covered + 1, low - 1))
        covered = max(covered, high)
    if covered < HASHES - 1:
        found.append((covered + 1, HASHES - 1))
    return found


def overlaps(ranges: Iterable[HashRange]) -> list[HashRange]:
    """What more than one range covers, in order and joined where it touches."""
    return list(_joined(_twice(sorted(ranges))))


def _twice(ordered: Sequence[HashRange]) -> Iterator[HashRange]:
    covered = -1
    for low, high in ordered:
        if low <= covered:
            yield low, min(covered, high)
        covered = max(covered, high)


def _joined(ordered: Iterable[HashRange]) -> Iterator[HashRange]:
    last: HashRange | None = None
    for low, high in sorted(ordered):
        if last is not None and low <= last[1] + 1:
            last = last[0], max(last[1], high)
            continue
        if last is not None:
            yield last
        last = low, high
    if last is not None:
        yield last
