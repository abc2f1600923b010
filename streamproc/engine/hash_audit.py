"""Whether the open shards of a source cover all hashes, as KCL's PeriodicShardSyncManager asks."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from streamproc.hash_ranges import holes, leaves
from streamproc.metrics import Metrics
from streamproc.source import Shard

log = structlog.get_logger()
CONFIDENCE = 3
"""Listings in a row with the same gaps before they are believed: a listing in the middle of a reshard has some."""


class HashAudit:
    """Looks at every listing of a job's sources."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._found: dict[str, tuple[list[tuple[int, int]], int]] = {}

    def look(self, source: str, shards: Sequence[Shard]) -> None:
        """Note gaps; the third time they are the same they are counted, and logged once."""
        hashed = {shard.id: shard.hash_range for shard in shards if shard.hash_range is not None}
        if not hashed:
            return
        open_ones = leaves((shard.id, shard.parents) for shard in shards)
        gaps = holes(hashes for shard, hashes in hashed.items() if shard in open_ones)
        before, times = self._found.get(source, ([], 0))
        times = times + 1 if gaps == before else 1
        self._found[source] = (gaps, times)
        self._metrics.set("streamproc_hash_range_holes", len(gaps) if times >= CONFIDENCE else 0, source=source)
        if gaps and times == CONFIDENCE:
            log.error("records of some partition keys are read by nobody: no open shard has their hashes", source=source, hashes=gaps[:3])

    def __repr__(self) -> str:
        return f"<HashAudit of {', '.join(self._found) or 'nothing yet'}>"
