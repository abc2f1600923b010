"""The generator keeps the promises of sources; its rows are the same each time, however they are cut."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.generator import Generator
from streamproc.formats.clicks import SINCE_US, clicks
from streamproc.offset import EARLIEST, Start
from streamproc.schema import ddl
from streamproc.source import Source
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.source_suite import SourceConformance, SourceHarness, drain, values
from streamproc.world import World


class StillClock(ManualClock):
    """Time moves only by the test, and nobody waits for it."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def generator(clock: ManualClock | None = None, **keys: object) -> Generator:
    return Generator(Generator.Options(**keys), World(clock=clock or ManualClock()), "clicks")


class GeneratorHarness(SourceHarness):
    """One shard at a row a second: a row comes with each second that the test lets pass."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.generator = generator(self.clock, rows_per_second=1)
        self.made = 0

    async def source(self) -> Source:
        return self.generator

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        rows = clicks(0, shard, self.made, count, step_us=1_000_000).to_pylist()
        self.made += count
        self.clock.advance(count * 1_000_000)
        return rows


class TestGenerator(SourceConformance):
    @pytest.fixture
    async def harness(self) -> SourceHarness:
        return GeneratorHarness()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.integers(0, 10**9))
def test_any_cut_gives_the_same_rows(cuts: list[int], seed: int, first: int) -> None:
    parts, at = [], first
    for count in cuts:
        parts.append(clicks(seed, "1", at, count))
        at += count
    assert pa.concat_arrays(parts) == clicks(seed, "1", first, sum(cuts))


GOLDEN = [
    b'{"user":"u8369","page":"/page/20","amount":0.57,"ts":"2025-12-31T23:59:59.250177Z"}',
    b'{"user":"u2238","page":"/page/91","amount":26.07,"ts":"2025-12-31T23:59:59.150641Z"}',
]


def test_clicks_never_change() -> None:
    assert clicks(7, "0", 0, 2).to_pylist() == GOLDEN


def test_seeds_and_shards_differ() -> None:
    made = [clicks(seed, shard, 0, 100).to_pylist() for seed in (0, 1) for shard in ("0", "1")]
    assert len({row for rows in made for row in rows}) == 400


def test_clicks_are_spread_and_out_of_order_within_the_disorder() -> None:
    rows = [json.loads(row) for row in clicks(3, "0", 0, 20_000).to_pylist()]
    pages = Counter(row["page"] for row in rows)
    assert len(pages) == 100
    assert max(pages.values()) < 2 * min(pages.values())
    assert 49 < sum(row["amount"] for row in rows) / 20_000 < 51
    early = [SINCE_US + i * 1000 - micros(row["ts"]) for i, row in enumerate(rows)]
    assert min(early) >= 0
    assert 1_900_000 < max(early) <= 2_000_000


def micros(text: str) -> int:
    from datetime import datetime, timedelta

    return (datetime.fromisoformat(text) - datetime.fromisoformat("1970-01-01T00:00:00Z")) // timedelta(microseconds=1)


async def test_the_shards_share_the_rows_and_end() -> None:
    source = generator(shards=3, rows=20_000)
    counts = []
    for shard in await source.shards():
        chunks = await drain(await source.open(shard, await source.position(shard, EARLIEST)))
        assert chunks[-1].ended
        counts.append(len(values(chunks)))
    assert counts == [6667, 6667, 6666]


async def test_rows_come_at_the_rate_and_go_on_after_a_restart() -> None:
    clock = StillClock()
    source = generator(clock, rows_per_second=200, shards=2)
    shard = (await source.shards())[1]
    reader = await source.open(shard, "-1")
    assert (await reader.read()).rows.num_rows == 0
    clock.advance(500_000)
    chunk = await reader.read()
    assert (chunk.rows.num_rows, chunk.at_end, chunk.lag) == (50, True, 0)
    again = generator(clock, rows_per_second=200, shards=2)
    reader = await again.open(shard, "49")
    clock.advance(105_000)
    chunk = await reader.read()
    assert (chunk.rows.num_rows, chunk.end) == (10, "59")


async def test_a_replay_does_not_wait_for_the_rate() -> None:
    source = generator(rows_per_second=1)
    (shard,) = await source.shards()
    chunk = await (await source.open(shard, "-1")).read("999")
    assert (chunk.rows.num_rows, chunk.end) == (1000, "999")


async def test_a_start_time_is_of_the_events() -> None:
    source = generator()
    (shard,) = await source.shards()
    assert await source.position(shard, Start("timestamp", SINCE_US + 5_000_000)) == "4999"


def test_the_schema_is_there_unless_another_is_given() -> None:
    schema = Generator.Options().schema_
    assert schema is not None
    assert ddl(schema) == "user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP"
    other = Generator.Options(schema="user STRING").schema_
    assert other is not None
    assert other.names == ["user"]


@pytest.mark.parametrize(("keys", "message"), [({"kind": "nexmark.bid"}, "not built yet"), ({"format": "csv"}, "json")])
def test_options_that_cannot_be_are_refused(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator.Options(**keys)  # type: ignore[arg-type]
