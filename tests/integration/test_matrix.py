"""Random rows, disorder, shards, cuts into epochs, crashes and restarts: the final rows are those of one batch query."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamproc.job import Added, TestStep, load_job
from streamproc.testing.job_runner import JobRun

CASES = yaml.safe_load((Path(__file__).parent.parent / "golden" / "matrix.yaml").read_text())
MACROS = """
CREATE MACRO bucket(seconds, t) AS time_bucket(to_seconds(seconds), t, TIMESTAMPTZ '1970-01-01 00:00:00Z');
CREATE MACRO islands(gap) AS TABLE
WITH r AS (SELECT *, ts + to_seconds(gap) AS e FROM a WHERE ts IS NOT NULL),
     m AS (SELECT *, max(e) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM r),
     s AS (SELECT *, sum(CASE WHEN ts <= before THEN 0 ELSE 1 END) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING) AS s FROM m)
SELECT min(ts) AS w, k, count(*) AS c, sum(n) AS total, max(e) AS e FROM s GROUP BY k, s;
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = 1_767_225_600_000_000
SPAN_S = 90
SOURCE = """{type: kafka, topic: %s, bootstrap_servers: 127.0.0.1:9092, schema: 'k STRING, n INT, ts TIMESTAMP',
  watermark: {column: ts, delay: %d seconds, idle: never}}"""
CRASHES = ("after_begin", "before_commit", "after_commit")

rows = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["p", "q", "r", None]),
        st.one_of(st.none(), st.integers(-3, 6)), st.one_of(st.none(), st.integers(0, SPAN_S * 2).map(lambda half: half / 2)),
    ),
    max_size=30,
)  # fmt: skip
cuts = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", "restart", *CRASHES])), max_size=6)


@cache
def job_of(name: str):
    case = CASES[name]
    query = "\n".join(f"      {line.strip()}" for line in case["query"].splitlines())
    sources = "\n".join(f"  {s}: {SOURCE % (s, SPAN_S + 1)}" for s in "ab")
    sink = f"  out:\n    type: console\n    mode: {case.get('mode', 'append')}\n    query: |\n{query}"
    text = f"name: matrix\nsources:\n{sources}\nsinks:\n{sink}\n"
    return load_job("matrix.yaml", text=text)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else START + timedelta(seconds=seconds)


def steps_of(data, cut_at):
    """The rows in order, cut at some places, where the worker may also be killed or stopped; then rows that end all windows."""
    places = sorted(cut_at)
    begun = 0
    for place, event in [*places, (len(data), "")]:
        part = data[begun:place]
        begun = max(begun, place)
        if event in CRASHES:
            yield TestStep("crash", 0, event)
        for source in "ab":
            for shard in "xy":
                found = [{"k": k, "n": n, "ts": at(t)} for s, sh, k, n, t in part if (s, sh) == (source, shard)]
                if found:
                    yield TestStep("add", 0, {source: Added(shard=shard, rows=tuple(found))})
        if event == "restart":
            yield TestStep("restart", 0, {})
    for source in "ab":
        for shard in "xy":
            end = {"k": "end", "n": None, "ts": at(10_000 if shard == "x" else 10_001)}
            yield TestStep("add", 0, {source: Added(shard=shard, rows=(end,))})


async def streamed(name, data, cut_at):
    run = JobRun(job_of(name), START_US)
    await run.start()
    try:
        for step in steps_of(data, cut_at):
            failure = await run.step(step)
            assert failure is None, failure
        assert run.stopped is None, run.stopped
        sink = run.sinks["out"]
        whole = CASES[name].get("mode") == "complete"
        return list(sink.rows()) if whole else [row for table in sink.epochs.values() for row in table.to_pylist()]
    finally:
        await run.close()


def folded(written, key):
    """What a table has after the rows were written to it, by key."""
    return list({tuple(row[name] for name in key): row for row in written}.values())


def plain(value):
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, list):
        return tuple(plain(item) for item in value)
    return round(float(value), 9) if isinstance(value, float) or value.__class__.__name__ == "Decimal" else value


def counted(found, names):
    """Rows as a multiset, without those that end the input."""
    kept = [row for row in found if row.get("k") != "end" and not _is_end(row)]
    return Counter(tuple(plain(row[name]) for name in names) for row in kept)


def _is_end(row):
    return any(isinstance(value, datetime) and value.astimezone(UTC) >= at(5_000) for value in row.values())


def batch(name, data):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for source in "ab":
        found = [(k, n, at(t), shard, i) for i, (s, shard, k, n, t) in enumerate(data) if s == source]
        columns = (
            dict(zip(("k", "n", "ts", "shard", "i"), zip(*found, strict=True), strict=True))
            if found
            else dict.fromkeys(("k", "n", "ts", "shard", "i"), ())
        )
        types = {"k": pa.string(), "n": pa.int32(), "ts": pa.timestamp("us", "UTC"), "shard": pa.string(), "i": pa.int64()}
        connection.register(source, pa.table({c: pa.array(list(columns[c]), kind) for c, kind in types.items()}))
    connection.execute(MACROS)
    made = connection.sql(CASES[name]["batch"]).to_arrow_table()
    return made.column_names, made.to_pylist()


def check(name, data, cut_at):
    names, expected = batch(name, data)
    written = asyncio.run(streamed(name, data, cut_at))
    if key := CASES[name].get("key"):
        written = folded(written, key)
    assert counted(written, names) == counted(expected, names)


@given(st.sampled_from(sorted(CASES)), rows, cuts)
def test_final_rows_are_those_of_a_batch_query(name, data, cut_at):
    check(name, data, cut_at)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_case_once(name):
    random.seed(name)
    data = [
        (
            random.choice("ab"),
            random.choice("xy"),
            random.choice(["p", "q", None]),
            random.choice([None, *range(-2, 5)]),
            random.choice([None, *range(90)]),
        )
        for _ in range(40)
    ]
    check(name, data, [(10, ""), (20, "before_commit"), (30, "restart")])
