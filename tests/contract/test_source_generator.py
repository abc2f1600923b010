"""The generator keeps the promises of sources; its rows are the same each time, however they are cut."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.generator import Generator
from streamproc.formats import make_decoder
from streamproc.formats.clicks import SINCE_US, clicks
from streamproc.formats.nexmark import SCHEMAS, Nexmark, NexmarkKind
from streamproc.offset import EARLIEST, Start
from streamproc.schema import ddl
from streamproc.source import Shard, Source
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
    schema = Generator.Options().default_schema()
    assert schema is not None
    assert ddl(schema) == "user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP"
    other = Generator.Options(schema="user STRING").schema_
    assert other is not None
    assert other.names == ["user"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"format": "csv"}, "json"), ({"format": "parquet"}, "json"), ({"kind": "nexmark.bid", "format": "csv"}, "parquet, json")],
)
def test_options_that_cannot_be_are_refused(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator.Options(**keys)  # type: ignore[arg-type]


class NexmarkHarness(SourceHarness):
    """One shard of JSON payloads at a row a second."""

    def __init__(self, kind: NexmarkKind) -> None:
        self.clock = StillClock()
        self.keys = {"kind": f"nexmark.{kind}", "format": "json", "rows_per_second": 1}
        self.made = 0
        self.generator = generator(self.clock, **self.keys)

    async def source(self) -> Source:
        return self.generator

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        made, self.made = self.made, self.made + count
        self.clock.advance(count * 1_000_000)
        chunk = await (await generator(**self.keys).open(Shard(shard), str(made - 1))).read(str(self.made - 1))
        return chunk.rows["_value"].to_pylist()


class TestNexmark(SourceConformance):
    @pytest.fixture(params=SCHEMAS)
    async def harness(self, request: pytest.FixtureRequest) -> SourceHarness:
        return NexmarkHarness(request.param)


def nexmark(kind: NexmarkKind, count: int, **keys: int) -> pa.Table:
    """The first rows of a kind."""
    world = Nexmark(kind, **keys)
    return pa.table(world.columns(pa.arange(0, count), world.schema.names), schema=world.schema)


@pytest.mark.parametrize("kind", SCHEMAS)
@given(
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    shards=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    first=st.integers(0, 10**9),
)
def test_any_cut_and_any_number_of_shards_give_the_same_nexmark(
    kind: NexmarkKind, cuts: list[int], shards: int, seed: int, first: int
) -> None:
    world = Nexmark(kind, seed)
    source = generator(kind=f"nexmark.{kind}", seed=seed, shards=shards)
    parts = []
    at = first
    for count in cuts:
        parts.append(source._batch("0", at, count))
        at += count
    rows = pa.arange(first, at)
    whole = world.columns(pa.array([row * shards for row in rows.to_pylist()]), world.schema.names)
    cut = pa.Table.from_batches(parts)
    assert {name: cut[name].combine_chunks() for name in whole} == whole
    assert cut["_timestamp"].combine_chunks() == cut["dateTime"].combine_chunks()


async def test_only_the_columns_that_are_read_are_made() -> None:
    source = generator(kind="nexmark.bid", rows=10)
    source.wanted, source.columns = frozenset({"_offset"}), frozenset({"price"})
    (chunk,) = await drain(await source.open(Shard("0"), "-1"))
    assert chunk.rows.schema.names == ["_offset", "price"]
    source = generator(kind="nexmark.bid", rows=10, schema="price BIGINT, dateTime TIMESTAMP")
    (chunk,) = await drain(await source.open(Shard("0"), "-1"))
    assert chunk.rows.schema.names == ["_offset", "price", "dateTime", "_timestamp"]


async def test_nexmark_shards_share_the_rows() -> None:
    source = generator(kind="nexmark.auction", rows=1000, shards=3)
    ids = []
    for shard in await source.shards():
        chunks = await drain(await source.open(shard, "-1"))
        assert chunks[-1].ended
        ids += [i for chunk in chunks for i in chunk.rows["id"].to_pylist()]
    assert sorted(ids) == list(range(1000, 2000))


def test_nexmark_is_one_world() -> None:
    """Proportions, ids, hot keys, prices and times of the public definition, from all three kinds of 250,000 events."""
    bids, auctions, persons = nexmark("bid", 230_000), nexmark("auction", 15_000), nexmark("person", 5000)
    assert auctions["id"].to_pylist() == list(range(1000, 16_000))
    assert persons["id"].to_pylist() == list(range(1000, 6000))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in (("bids", bids), ("auctions", auctions), ("persons", persons)):
            connection.register(name, table)
        (facts,) = connection.sql("""
            SELECT
              round(avg((auction % 100 = 0)::INT), 2), round(avg((bidder % 100 = 1)::INT), 2), min(price), max(price) <= 100_000_000,
              round(median(log10(price)), 1), count(DISTINCT channel) > 9000, round(avg((channel IN ('Google', 'Apple'))::INT), 2),
              round(avg((url LIKE '%&channel_id=%')::INT), 2), round(avg(length(extra))),
              (SELECT count(*) FROM bids b LEFT JOIN auctions a ON a.id = b.auction WHERE a.id IS NULL) < 20,
              (SELECT round(avg((seller % 100 = 0)::INT), 2) FROM auctions), (SELECT max(category) - min(category) FROM auctions),
              (SELECT round(avg(epoch_ms(expires) - epoch_ms(dateTime)) / 10) FROM auctions), (SELECT count(DISTINCT state) FROM persons),
              (SELECT bool_and(reserve > initialBid) FROM auctions), (SELECT max(creditCard) ~ '^[0-9 ]{19}$' FROM persons),
              (SELECT max(emailAddress) ~ '^[a-z ]+@[a-z ]+[.]com$' FROM persons)
            FROM bids""").fetchall()
        (share,) = connection.sql(
            """SELECT avg((a.dateTime <= b.dateTime)::INT) FROM bids b JOIN auctions a ON a.id = b.auction"""
        ).fetchall()
    assert facts == (0.5, 0.75, 100, True, 5.0, True, 0.25, 0.45, 68, True, 0.76, 4, 17, 6, True, True, True)
    assert 0.9 < share[0] < 1
    last = [table["dateTime"][-1].as_py() for table in (bids, auctions, persons)]
    assert max(last) - min(last) < timedelta(milliseconds=6)
    assert (last[0] - bids["dateTime"][0].as_py()).total_seconds() == pytest.approx(25, abs=0.005)


def test_nexmark_never_changes() -> None:
    digest = {kind: sha256(str(nexmark(kind, 1000, seed=7).to_pylist()).encode()).hexdigest()[:16] for kind in SCHEMAS}
    assert digest == {"person": "ad2d94d4f424d205", "auction": "5a18dad0d8133d1d", "bid": "4eed6432af228a70"}


@pytest.mark.parametrize("kind", SCHEMAS)
async def test_nexmark_payloads_are_its_columns(kind: NexmarkKind) -> None:
    (chunk,) = await drain(await generator(kind=f"nexmark.{kind}", format="json", rows=100).open(Shard("0"), "-1"))
    decoded = make_decoder("json", Nexmark(kind).schema).decode(chunk.rows["_value"])
    assert decoded.rows == nexmark(kind, 100)


@pytest.mark.parametrize("kind", SCHEMAS)
async def test_a_nexmark_start_time_is_of_the_events(kind: NexmarkKind) -> None:
    source = generator(kind=f"nexmark.{kind}", shards=2)
    times = nexmark(kind, 5000)["dateTime"].cast(pa.int64()).to_pylist()
    for at_us in (SINCE_US, SINCE_US + 1, SINCE_US + 70_000, SINCE_US + 71_500):
        first = next(i for i, time in enumerate(times) if time >= at_us)
        expected = [str(-(-(first - shard) // 2) - 1) for shard in range(2)]
        assert [await source.position(shard, Start("timestamp", at_us)) for shard in await source.shards()] == expected
