"""The memory source keeps the promises of sources."""

from collections.abc import Sequence

import pytest

from streamproc.offset import EARLIEST
from streamproc.source import Source
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.memory_source import MemorySource
from streamproc.testing.source_suite import SourceConformance, SourceHarness


class MemoryHarness(SourceHarness):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemorySource(clock=self.clock)
        self.memory.add_shard("a", hash_range=(0, 99))
        self.memory.add_shard("b", hash_range=(100, 199))
        self.made = 0

    async def source(self) -> Source:
        return self.memory

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"%d" % i for i in range(self.made, self.made + count)]
        self.made += count
        self.memory.put(shard, payloads)
        return payloads

    async def add_shard(self) -> str:
        self.memory.add_shard("c")
        return "c"

    async def split(self, shard: str) -> Sequence[str]:
        self.memory.split(shard, [f"{shard}-0", f"{shard}-1"])
        return [f"{shard}-0", f"{shard}-1"]

    async def end(self, shard: str) -> None:
        self.memory.end(shard)

    async def stop(self) -> None:
        self.memory.fail()

    async def start(self) -> None:
        self.memory.recover()

    async def trim(self, shard: str, rows: int) -> None:
        self.memory.trim(shard, rows)

    async def now_us(self) -> int:
        self.clock.advance(2)
        return self.clock.now_us() - 1


class TestMemorySource(SourceConformance):
    @pytest.fixture
    async def harness(self) -> SourceHarness:
        return MemoryHarness()


async def test_the_rows_of_one_put_are_one_chunk() -> None:
    source = MemorySource("0")
    source.put("0", [b"a", b"b", b"c"], keys=[b"k", None, b"l"], timestamps=[1, 2, 3], headers=[[("h", b"v")], None, []])
    source.put("0", [b"d"], partition_keys=["p"])
    (shard,) = await source.shards()
    reader = await source.open(shard, await source.position(shard, EARLIEST))
    first, second = await reader.read(), await reader.read()
    assert first.rows["_value"].to_pylist() == [b"a", b"b", b"c"]
    assert first.rows["_headers"].to_pylist() == [[{"key": "h", "value": b"v"}], None, []]
    assert (first.at_end, first.lag, second.at_end, second.lag) == (False, 1, True, 0)
    assert second.rows["_partition_key"].to_pylist() == ["p"]


async def test_merged_shards_join_their_hash_ranges() -> None:
    source = MemorySource()
    source.add_shard("a", hash_range=(0, 99))
    source.add_shard("b", hash_range=(100, 199))
    source.merge(["a", "b"], "a+b")
    assert [(s.id, s.parents, s.hash_range) for s in await source.shards()][-1] == ("a+b", ("a", "b"), (0, 199))
    with pytest.raises(ValueError, match="closed"):
        source.put("a", [b"x"])
