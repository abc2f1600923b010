"""Random rows, disorder, shards, cuts into epochs, crashes and restarts: the final rows are those of one batch query, however the
rows are cut; and an epoch that is run again gives the same rows in the same order.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.job import Added, TestStep, load_job
from streamproc.testing.job_runner import JobRun
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_source import MemorySource

pytestmark = pytest.mark.timeout(43_200)  # thousands of examples in a soak run
CASES = yaml.safe_load((Path(__file__).parent.parent / "golden" / "matrix.yaml").read_text())
NUMBERS = {name: number for number, name in enumerate(CASES)}
MACROS = """
CREATE MACRO bucket(seconds, t) AS time_bucket(to_seconds(seconds), t, TIMESTAMPTZ '1970-01-01 00:00:00Z');
CREATE MACRO islands(gap) AS TABLE
WITH r AS (SELECT *, ts + to_seconds(gap) AS e FROM a WHERE ts IS NOT NULL),
     m AS (SELECT *, max(e) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM r),
     s AS (SELECT *, sum(CASE WHEN ts <= before THEN 0 ELSE 1 END) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING) AS s FROM m)
SELECT min(ts) AS w, k, count(*) AS c, sum(n) AS total, max(e) AS e FROM s GROUP BY k, s;
"""
SPAN_S = 90
END_S = 10_000
SOURCE = """{type: kafka, topic: %s, bootstrap_servers: 127.0.0.1:9092, schema: 'k STRING, n INT, ts TIMESTAMP',
  watermark: {column: ts, delay: %d seconds, idle: never, max_ahead: 4000 days}}"""
CRASHES = ("after_begin", "before_commit", "after_commit")
SOURCES, SHARDS = "ab", "xy"


@dataclass(frozen=True)
class Place:
    """Where and when the rows are: `scale` seconds for each of theirs."""

    timezone: str = "UTC"
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    scale: int = 1

    @classmethod
    def of(cls, names):
        """That of cases that have the same."""
        [place] = {cls(**CASES[name].get("place", {})) for name in names}
        return place

    def at(self, seconds):
        return None if seconds is None else self.start + timedelta(seconds=seconds * self.scale)


@dataclass(frozen=True)
class Cut:
    """Rows up to the one at `row` come now, all in one epoch if `together`; the worker may be killed or stopped."""

    row: int
    event: str = ""
    together: bool = True


def grouped(size):
    """All cases, so many at a time that one job runs together: those of a place."""
    places = {}
    for name in CASES:
        places.setdefault(Place.of([name]), []).append(name)
    return [tuple(names[at : at + size]) for names in places.values() for at in range(0, len(names), size)]


def examples(share):
    """Settings of a test that takes so much of the profile's examples, and in a soak run all of them."""
    slow, most = [HealthCheck.too_slow, HealthCheck.data_too_large], settings().max_examples
    count = most if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else max(3, round(most * share))
    return settings(max_examples=count, suppress_health_check=slow)


some_names = st.sampled_from(grouped(3))
rows = st.lists(
    st.tuples(
        st.sampled_from(SOURCES), st.sampled_from(SHARDS), st.sampled_from(["p", "q", "r", None]),
        st.one_of(st.none(), st.integers(-3, 6)), st.one_of(st.none(), st.integers(0, SPAN_S * 2).map(lambda half: half / 2)),
    ),
    max_size=30,
)  # fmt: skip
cuts = st.lists(st.builds(Cut, st.integers(0, 30), st.sampled_from(["", "restart", *CRASHES]), st.booleans()), max_size=6)


class Fetching(MemorySource):
    """Its reads give so many rows at most."""

    rows_max = 1_000

    def _read(self, shard, first, until):
        stop = first + self.rows_max - 1
        return super()._read(shard, first, str(stop if until is None else min(stop, int(until))))


class MatrixRun(JobRun):
    """Two kinds of sinks: those that overwrite by key are called `…_keyed`. After a crash the sources give `refetched` rows a read."""

    refetched = 1_000

    def source(self, spec, world):
        return self.sources.setdefault(spec.name, Fetching(clock=self.clock))

    def sink(self, spec, name, world):
        return self.sinks.setdefault(name, MemorySink(appends_only=not name.endswith("_keyed")))

    async def put(self, part):
        """Rows by source and shard, all before the next epoch."""
        for source, shard, found in part:
            await self._add({source: Added(shard=shard, rows=tuple(found))})
        await self.process()
        self._fetch(1_000)

    async def _die(self):
        self._fetch(self.refetched)
        await super()._die()

    def _fetch(self, rows_max):
        for source in self.sources.values():
            source.rows_max = rows_max


def sinks_of(name):
    """A case's sinks and what they say; what a sink is told of changes is looked at in two ways."""
    case, number = CASES[name], f"c{NUMBERS[name]}"
    if case.get("mode") != "update":
        return {number: f"mode: {case.get('mode', 'append')}"}
    keyed = {f"{number}_keyed": "mode: update"} if "key" in case else {}
    return {f"{number}_changes": "mode: update, changes: true"} | keyed


@cache
def job_of(names):
    place = Place.of(names)
    sources = "\n".join(f"  {s}: {SOURCE % (s, (SPAN_S + 1) * place.scale)}" for s in SOURCES)
    sinks = [
        f"  {sink}: {{type: console, {keys}, query: '{' '.join(CASES[name]['query'].split()).replace(chr(39), chr(39) * 2)}'}}"
        for name in names
        for sink, keys in sinks_of(name).items()
    ]
    text = "\n".join(["name: matrix", f"timezone: {place.timezone}", "sources:", sources, "sinks:", *sinks, ""])
    return load_job("matrix.yaml", text=text)


def ends():
    """Rows that end all windows."""
    return [(source, shard, "end", None, END_S + SHARDS.index(shard)) for source in SOURCES for shard in SHARDS]


def parts_of(data, cut_at):
    """The rows in order, cut at some places: what happens first, and by source and shard the rows that come then."""
    begun = 0
    for cut in [*sorted(cut_at, key=lambda cut: cut.row), Cut(len(data))]:
        yield cut, by_shard(data[begun : cut.row])
        begun = max(begun, cut.row)
    yield Cut(0), by_shard(ends())


def by_shard(part):
    places = [(source, shard) for source in SOURCES for shard in SHARDS]
    return [(*place, found) for place in places if (found := [(k, n, t) for s, sh, k, n, t in part if (s, sh) == place])]


def encoded(part, place):
    return [(source, shard, [{"k": k, "n": n, "ts": place.at(t)} for k, n, t in found]) for source, shard, found in part]


async def streamed(names, data, cut_at, refetched=1_000):
    """The tables that each sink was given, and the last one's rows where it replaces."""
    place = Place.of(names)
    run = MatrixRun(job_of(tuple(names)), int(place.start.timestamp() * 1e6))
    run.refetched = refetched
    await run.start()
    try:
        for cut, part in parts_of(data, cut_at):
            if cut.event in CRASHES:
                await run.step(TestStep("crash", 0, cut.event))
            for step in [part] if cut.together else [[one] for one in part]:
                await run.put(encoded(step, place))
                assert run.stopped is None, run.stopped
            if cut.event == "restart":
                await run.step(TestStep("restart", 0, {}))
        assert run.stopped is None, run.stopped
        return {name: [table.to_pylist() for table in sink.epochs.values()] for name, sink in run.sinks.items()}
    finally:
        await run.close()


def held(name, sink, written):
    """What the sink holds after all that was written to it."""
    if CASES[name].get("mode") == "complete":
        return next((table for table in reversed(written) if table), []) if written else []
    rows = [row for table in written for row in table]
    if sink.endswith("_keyed"):
        return overwritten(rows, CASES[name]["key"])
    return changed(rows) if sink.endswith("_changes") else rows


def overwritten(rows, key):
    """By key, where `_op` = delete takes a row away."""
    found = {}
    for row in rows:
        of = tuple(row[name] for name in key)
        found.pop(of, None)
        if row.get("_op") != "delete":
            found[of] = row
    return list(found.values())


def changed(rows):
    """Rows that came and did not go; what goes is there."""
    found = []
    for row in rows:
        values = {name: value for name, value in row.items() if name not in ("_op", "_epoch")}
        if row["_op"] in ("insert", "update_after"):
            found.append(values)
        else:
            found.remove(values)
    return found


def plain(value):
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, list):
        return tuple(plain(item) for item in value)
    return round(float(value), 9) if isinstance(value, float) or value.__class__.__name__ == "Decimal" else value


def counted(found, names, place):
    """Rows as a multiset, without those that end the input."""
    kept = [row for row in found if row.get("k") != "end" and not _is_end(row, place)]
    return Counter(tuple(plain(row[name]) for name in names) for row in kept)


def _is_end(row, place):
    end = place.at(END_S / 2)
    instants = (value if isinstance(value, datetime) else None for value in row.values())
    days = (value for value in row.values() if type(value) is date)
    return any(value.astimezone(UTC) >= end for value in instants if value) or any(day >= end.date() for day in days)


def batch(name, data):
    place = Place.of([name])
    connection = duckdb.connect(config={"default_null_order": "nulls_first_on_asc_last_on_desc", "threads": 1})
    connection.execute(f"SET TimeZone = '{place.timezone}'")
    schema = pa.schema(
        {"k": pa.string(), "n": pa.int32(), "ts": pa.timestamp("us", "UTC"), "shard": pa.string(), "i": pa.int64()},
    )
    for source in SOURCES:
        found = [
            {"k": k, "n": n, "ts": place.at(t), "shard": shard, "i": i}
            for i, (s, shard, k, n, t) in enumerate([*data, *ends()])
            if s == source
        ]
        connection.register(source, pa.Table.from_pylist(found, schema=schema))
    connection.execute(MACROS)
    made = connection.sql(CASES[name]["batch"]).to_arrow_table()
    return made.column_names, made.to_pylist()


def check(names, data, cut_at):
    tables = asyncio.run(streamed(names, data, cut_at))
    for name in (name for name in names if "batch" in CASES[name]):
        columns, expected = batch(name, data)
        for sink in sinks_of(name):
            found = counted(held(name, sink, tables[sink]), columns, Place.of([name]))
            assert found == counted(expected, columns, Place.of([name])), (name, sink)


@examples(0.25)
@given(some_names, rows, cuts)
def test_final_rows_are_those_of_a_batch_query(names, data, cut_at):
    check(names, data, cut_at)


@examples(0.08)
@given(some_names, rows, cuts, cuts)
def test_rows_cut_into_epochs_in_another_way_give_the_same(names, data, cut_at, otherwise):
    # what comes from several shards has no order of its own: only what is cut within a shard may differ
    first, second = (asyncio.run(streamed(names, data, each)) for each in (cut_at, otherwise))
    for name in names:
        for sink in sinks_of(name):
            one, other = held(name, sink, first[sink]), held(name, sink, second[sink])
            columns = [c for c in (one[0] if one else {}) if not c.startswith("_")]
            assert counted(one, columns, Place.of([name])) == counted(other, columns, Place.of([name])), (name, sink)


@examples(0.08)
@given(some_names, rows, st.lists(st.builds(Cut, st.integers(0, 30)), max_size=4), st.integers(1, 3))
def test_an_epoch_run_again_gives_the_same_rows_in_the_same_order(names, data, cut_at, refetched):
    killed = [replace(cut, event="after_begin") for cut in cut_at]
    first, second = asyncio.run(streamed(names, data, cut_at)), asyncio.run(streamed(names, data, killed, refetched))
    assert first == second


@pytest.mark.parametrize("names", grouped(24), ids=lambda names: names[0])
def test_every_case_once(names):
    chosen = random.Random(names[0])
    data = [
        (
            chosen.choice(SOURCES),
            chosen.choice(SHARDS),
            chosen.choice(["p", "q", None]),
            chosen.choice([None, *range(-2, 5)]),
            chosen.choice([None, *range(90)]),
        )
        for _ in range(40)
    ]
    check(names, data, [Cut(15, "restart"), Cut(28, "before_commit")])
