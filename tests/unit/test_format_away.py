"""A feed whose decoder needs a server that is away: what was read waits, in order, and is not counted as idle time."""

from __future__ import annotations

import asyncio

import pyarrow as pa

from streamproc.batch import Chunk
from streamproc.engine.feed import Decoding, Feed, Piece
from streamproc.errors import Unavailable
from streamproc.source import Reader, Shard, Source
from streamproc.testing.manual_clock import ManualClock
from streamproc.world import World


class TwoChunks(Source):
    async def shards(self):
        return [Shard("0")]

    async def position(self, shard, start):
        return "-1"

    async def open(self, shard, after):
        return TwoChunksReader()


class TwoChunksReader(Reader):
    def __init__(self):
        self.read_so_far = 0

    async def read(self, until=None):
        self.read_so_far += 1
        offsets = [str(self.read_so_far)] if self.read_so_far <= 2 else []
        return Chunk(
            "0", pa.RecordBatch.from_pydict({"_offset": pa.array(offsets, pa.string())}), str(min(self.read_so_far, 2)), at_end=True
        )


async def test_records_wait_for_a_registry_that_is_away():
    away, asked = [True], []

    def decode(chunk):
        asked.append(chunk.end)
        if away[0]:
            raise Unavailable("schema registry http://r does not answer")
        rows = pa.table({"_offset": chunk.rows.column("_offset")})
        return Piece("0", rows, pa.table({"index": pa.array([], pa.int64())}), chunk.rows.column("_offset"), chunk.end)

    clock = ManualClock()
    feed = Feed("clicks", TwoChunks(), Shard("0"), "-1", decode, Decoding(offloaded=False), World(clock=clock), lambda: None)
    task = asyncio.ensure_future(feed.run())
    for _ in range(30):
        await asyncio.sleep(0)
        clock.advance(1_000_000)
    assert len(asked) > 2
    assert not feed.broken
    assert (feed.rows, feed.settled, feed.idle_us) == (0, False, 0)
    away[0] = False
    for _ in range(30):
        await asyncio.sleep(0)
        clock.advance(1_000_000)
    assert [piece.offsets.to_pylist() for piece in feed.queue] in ([["1"], ["2"]], [["1", "2"]])
    assert feed.idle_us > 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
