"""Ten minutes of history at full speed, with real threads and clock: shards that drift apart lose no event."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from streamproc.batch import Chunk
from streamproc.engine.worker import run_job
from streamproc.job import load_job
from streamproc.source import Reader, Shard
from streamproc.testing import MemorySink, MemorySource
from streamproc.world import World

EVENTS = 15_000
PUT = 1_000
SPAN_S = 600
TEXT = """
name: drift
sources:
  clicks:
    type: generator
    schema: page STRING, ts TIMESTAMP
    watermark: {column: ts, delay: 5 seconds}
    max_rows_per_epoch: %d
sinks:
  out: {type: console, query: "SELECT window.start AS w, page, count(*) AS n FROM clicks GROUP BY window(ts, '10 seconds'), page"}
checkpoint: %s
"""


class Drifting(MemorySource):
    """Each shard answers at a pace of its own."""

    async def open(self, shard: Shard, after: str) -> Reader:
        return Paced(await super().open(shard, after), int(shard.id) * 0.004)


class Paced(Reader):
    def __init__(self, reader: Reader, pause_s: float) -> None:
        self._reader, self._pause_s = reader, pause_s

    async def read(self, until: str | None = None) -> Chunk:
        await asyncio.sleep(self._pause_s)
        return await self._reader.read(until)


class Memory:
    """Connectors of one source and one sink in memory."""

    def __init__(self, source: MemorySource) -> None:
        self.clicks, self.out = source, MemorySink()

    def source(self, spec, world):
        return self.clicks

    def sink(self, spec, name, world):
        return self.out


def history(seed: int) -> tuple[Drifting, Counter[tuple[int, str]]]:
    """Shards with up to two seconds of disorder, and the rows of each window and page."""
    draw, source, expected = random.Random(seed), Drifting(), Counter()
    for shard in range(4):
        rows = []
        for i in range(EVENTS):
            at_s, page = max(0.0, i * SPAN_S / EVENTS - draw.random() * 2), f"/p/{draw.randrange(20)}"
            expected[int(at_s) // 10 * 10, page] += 1
            rows.append(f'{{"page":"{page}","ts":"2026-01-01T00:{int(at_s // 60):02d}:{int(at_s % 60):02d}.{int(at_s % 1 * 1e6):06d}Z"}}')
        for start in range(0, EVENTS, PUT):
            source.put(str(shard), [row.encode() for row in rows[start : start + PUT]])
    return source, expected


@pytest.mark.parametrize("rows_max", [1_000_000, 7_000])
async def test_a_replay_at_full_speed_loses_no_event(tmp_path, rows_max):
    source, expected = history(rows_max)
    memory = Memory(source)
    job = load_job("drift.yaml", text=TEXT % (rows_max, tmp_path / "checkpoint"))
    code = await asyncio.wait_for(run_job(job, available_now=True, drain=True, world=World(), connectors=memory), 60)
    assert code == 0
    found = Counter({(row["w"].minute * 60 + row["w"].second, row["page"]): row["n"] for row in memory.out.rows()})
    assert found == expected
