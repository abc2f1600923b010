"""Rows that the SQL cannot take: which ones, at what cost, and what becomes of them."""

from __future__ import annotations

import random
from decimal import Decimal

import pyarrow as pa
import pytest

from streamproc.errors import BadRecord
from streamproc.job.load import load_job
from streamproc.operators import poison
from streamproc.operators.duck import Duck
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.plan.probe import probe_sql
from streamproc.schema import parse_ddl
from streamproc.testing.job_runner import JobRun

DDL = "k STRING, i INT, l BIGINT, dec DECIMAL(10,2), s STRING, a ARRAY<INT>, st STRUCT<a: INT, b: STRING>, ts TIMESTAMP"
TABLES = {"t": TableInfo(parse_ddl(DDL), watermark=Watermark("ts"))}
VIEWS = {
    "numbers": "SELECT k, CAST(s AS INT) AS n, 10 / i AS q, st.a AS k2, a, ts FROM t WHERE 100 div l >= 0 AND k <> 'dropped'",
    "swapped": "SELECT CAST(k AS INT) AS s, s AS k FROM (SELECT s AS k, k AS s FROM t)",
}
QUERIES = {
    "cast": "SELECT CAST(s AS INT) AS n FROM t",
    "guarded": "SELECT CASE WHEN i = 0 THEN 0 ELSE 10 div i END AS q FROM t",
    "short circuit": "SELECT k FROM t WHERE i <> 0 AND 10 div i > 3",
    "filtered first": "SELECT 10 div i AS q FROM t WHERE i IS DISTINCT FROM 0",
    "never read": "SELECT k FROM numbers",
    "dropped above": "SELECT k, n + 1 AS n FROM numbers WHERE k = 'a'",
    "overflow": "SELECT CAST(l * 1000000000000 AS INT) AS n, i FROM t",
    "same names": "SELECT s, k FROM swapped",
    "exploded": "SELECT k, 10 div y AS q FROM t LATERAL VIEW explode(a) z AS y",
    "exploded list fails": "SELECT explode(array(10 div i, 1)) AS y FROM t",
    "union": "SELECT k, CAST(s AS INT) AS n FROM t UNION ALL SELECT s, 10 div i FROM t WHERE l > 0",
    "struct": "SELECT st.a, CAST(st.b AS INT) AS b, a[i] AS x, element_at(a, i + 1) AS y FROM t",
    "decimal": "SELECT dec / i AS d, to_timestamp(s, 'yyyy') AS y FROM t",
    "global": "SELECT sum(10 div i) AS q, count(*) FILTER (WHERE CAST(s AS INT) > 0) AS c FROM t",
    "tumbling": "SELECT window.start AS w, k, sum(q) AS q, first(n) AS f FROM numbers GROUP BY window(ts, '1 minute'), k",
    "sliding": "SELECT window.start AS w, avg(dec / i) AS q FROM t GROUP BY window(ts, '1 minute', '10 seconds')",
    "grouped": "SELECT CAST(s AS INT) AS n, max(k) AS k FROM t GROUP BY CAST(s AS INT) HAVING 10 div max(i) > 0 OR true",
}


def table(count: int, schema: pa.Schema, seed: int = 3) -> pa.Table:
    rng = random.Random(seed)
    data = {
        "k": [rng.choice(["a", "b", "dropped", None]) for _ in range(count)], "i": [rng.choice([0, 1, 2, 7, None]) for _ in range(count)],
        "l": [rng.choice([0, 1, 2**40, None]) for _ in range(count)], "dec": [Decimal(rng.randrange(999)) / 100 for _ in range(count)],
        "s": [rng.choice(["1", " 7", "x", "2026", None]) for _ in range(count)],
        "a": [rng.choice([[], [0], [1, 2], None]) for _ in range(count)],
        "st": [rng.choice([None, {"a": 1, "b": "5"}, {"a": None, "b": "x"}]) for _ in range(count)],
        "ts": [rng.choice([None, 10**15 + rng.randrange(10**8)]) for _ in range(count)],
        "_source": ["t"] * count, "_shard": ["0"] * count, "_offset": [str(n) for n in range(count)],
    }  # fmt: skip
    columns = [pa.array(data[f.name], pa.int64() if f.name == "ts" else f.type).cast(f.type) for f in schema]
    return pa.table(columns, schema=schema)


class Job:
    """One query over rows that an epoch may hold."""

    def __init__(self, sql: str, slice_rows: int = 131_072, late: bool = False) -> None:
        mode = "complete" if "max(" in sql or "sum(10" in sql else "append"
        self.plan = plan_job(TABLES, {name: view for name, view in VIEWS.items() if name in sql}, {"out": SinkQuery(sql, mode, late)})
        self.executor = Executor(self.plan, threads=2, slice_rows=slice_rows)
        self.schema = self.plan.scans["t"].schema

    async def poison(self, rows: pa.Table, **options):
        return (await self.executor.run({"t": rows}, EpochTime(1, None, None), {}, limits={}, **options)).poison

    async def failing_alone(self, rows: pa.Table) -> list[int]:
        return [row for row in range(rows.num_rows) if await self.poison(rows.slice(row, 1))]


@pytest.fixture
async def job():
    made = []

    def make(*args, **options):
        made.append(Job(*args, **options))
        return made[-1]

    yield make
    for one in made:
        await one.executor.close()


@pytest.fixture
def statements(monkeypatch):
    calls = []
    query_all = Duck.query_all
    monkeypatch.setattr(Duck, "query_all", lambda self, sql, **tables: calls.append(sql) or query_all(self, sql, **tables))
    return calls


@pytest.mark.parametrize("late", [False, True], ids=["", "late"])
@pytest.mark.parametrize("name", QUERIES)
async def test_the_probe_finds_the_rows_that_fail_alone(job, monkeypatch, name, late):
    one = job(QUERIES[name], slice_rows=50, late=late)
    rows = table(100, one.schema)
    expected = await one.failing_alone(rows)
    monkeypatch.setattr(poison, "STATEMENTS_MAX", 0)  # the probe alone, without halving
    assert [found.row for found in await one.poison(rows)] == expected
    assert bool(expected) == (name not in ("guarded", "short circuit", "filtered first"))


async def test_a_slice_whose_every_row_fails_takes_a_few_statements(job, statements):
    one = job(QUERIES["cast"])
    rows = pa.table({"s": ["x"] * 20_000, "ts": pa.nulls(20_000, pa.int64())}).cast(one.schema)
    statements.clear()
    found = await one.poison(rows)
    assert [p.row for p in found] == list(range(20_000))
    assert len(statements) <= poison.QUOTED_MAX + 4
    assert all("cannot cast 'x' to INT" in p.error for p in found[: poison.QUOTED_MAX])
    assert {p.error for p in found[poison.QUOTED_MAX :]} == {""}


async def test_the_first_row_that_fails_is_found_by_halving_towards_it(job, statements):
    one = job(QUERIES["cast"], slice_rows=4096)
    rows = pa.table({"s": ["1"] * 3001 + ["x"] * 6000, "ts": pa.nulls(9001, pa.int64())}).cast(one.schema)
    statements.clear()
    found = await one.poison(rows, first_only={"t"})
    assert (found[0].row, "cannot cast 'x'" in found[0].error) == (3001, True)
    assert len(statements) <= 3 * (12 + 2)


@pytest.mark.parametrize(
    "wrong", [None, "nonsense", 'SELECT "#row", true AS "#failed" FROM input', 'SELECT "#row", false AS "#failed" FROM input']
)
async def test_a_probe_that_is_wrong_or_missing_changes_nothing(job, monkeypatch, wrong):
    one = job(QUERIES["tumbling"])
    rows = table(40, one.schema)
    expected = [p.row for p in await one.poison(rows)]
    monkeypatch.setattr(poison, "probe_sql", lambda steps, columns, in_order: wrong)
    assert [p.row for p in await one.poison(rows)] == expected


async def test_halving_gives_up_with_a_clear_error(job, monkeypatch):
    one = job(QUERIES["cast"])
    rows = pa.table({"s": ["x"] * 500, "ts": pa.nulls(500, pa.int64())}).cast(one.schema)
    monkeypatch.setattr(poison, "probe_sql", lambda steps, columns, in_order: None)
    monkeypatch.setattr(poison, "STATEMENTS_MAX", 100)
    with pytest.raises(BadRecord, match=r"source t: rows 0 to 499: too many fail to find them one by one, \d+ so far: .*cannot cast 'x'"):
        await one.poison(rows)


@pytest.mark.parametrize(
    "sql", ["FROM input", "SELECT n FROM other", "SELECT n + 1 FROM input", "WITH x AS (SELECT 1 AS n) SELECT n AS n FROM x"]
)
def test_sql_of_another_form_has_no_probe(sql):
    assert probe_sql((sql,), ("n",)) is None


TEXT = """
sources:
  t:
    type: kafka
    topic: t
    bootstrap_servers: 127.0.0.1:1
    schema: v INT
    bad_records: {policy}
sinks:
  out: {{type: console, query: SELECT 10 div v AS q FROM t}}
dead_letter: {{type: console}}
"""


async def run(policy: str) -> JobRun:
    job = JobRun(load_job("poison.yaml", text=TEXT.format(policy=policy)), 0)
    await job.start()
    job.sources["t"].put("0", [b'{"v": 1}', b"broken"] if policy == "dead_letter" else [b'{"v": 1}'])
    job.sources["t"].put("1", [b'{"v": %d}' % (n % 2) for n in range(100)])
    await job.process()
    await job.close()
    return job


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
async def test_poison_is_counted_and_goes_where_the_job_says(policy):
    job = await run(policy)
    assert job.stopped is None
    assert len(job.sinks["out"].rows()) == 51
    assert job.world.metrics.get("streamproc_dead_letters_total", source="t", reason="sql_error") == 50


async def test_under_fail_the_first_row_stops_the_job():
    job = await run("fail")
    assert "source t, shard 1, offset 0: " in str(job.stopped)
    assert "ivision by zero" in str(job.stopped)
