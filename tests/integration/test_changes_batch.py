"""What is written of results that change, put together, is what a batch query over all rows gives: in any cut into epochs."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.job import Added, Job, TestStep, load_job
from streamproc.testing.job_runner import JobRun

QUERIES = {
    "averages": "SELECT g, avg(v) AS a, count(*) AS n FROM best GROUP BY g",
    "few": "SELECT g, sum(n) AS s, max(n) AS m FROM (SELECT g, k, count(*) AS n FROM t GROUP BY g, k HAVING count(*) < 3) GROUP BY g",
    "total": "SELECT sum(v) AS s, count(*) AS n FROM best",
    "sums": (
        "SELECT g, k, sum(n) AS s, avg(m) AS a, count(m) AS c, sum(d) FILTER (WHERE n < 4) AS f, coalesce(count_if(m > 0), 0) AS i "
        "FROM odd GROUP BY ROLLUP (g, k) HAVING count(*) > 0"
    ),
    "over": "SELECT c, avg(n) AS a FROM (SELECT g, count(*) AS n, count(m) AS c FROM odd GROUP BY g) GROUP BY c HAVING sum(n) > 1",
    "top": "SELECT g, k, v FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY v DESC, k) AS rn FROM best) WHERE rn <= 2",
    "top_rows": "SELECT k, v FROM t QUALIFY row_number() OVER (PARTITION BY g ORDER BY v DESC NULLS LAST, k NULLS LAST) <= 2",
    "ranked": "SELECT k, rank() OVER (ORDER BY v NULLS FIRST) AS r FROM best",
    "running": "SELECT k, v, sum(v) OVER (PARTITION BY g ORDER BY v NULLS FIRST) AS s FROM t",
    "maxima": "SELECT DISTINCT v FROM best",
    "joined": "SELECT b.k, b.v, c.n FROM best b LEFT JOIN counts c ON b.k = c.k",
    "both": "SELECT k, v FROM best UNION ALL SELECT k, v FROM t",
    "having": "SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k HAVING count(*) % 2 = 1",
}
VIEWS = {
    "odd": "SELECT g, k, count(*) AS n, max(v) AS m, CAST(min(v) AS DECIMAL(9, 2)) AS d FROM t GROUP BY g, k HAVING count(*) % 2 = 1",
    "best": "SELECT g, k, max(v) AS v FROM t GROUP BY g, k",
    "counts": "SELECT k, count(*) AS n FROM t WHERE v > 1 GROUP BY k HAVING count(*) <> 2",
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {"g": st.sampled_from(["x", "y", None]), "k": st.sampled_from(["a", "b", "c", None]), "v": st.none() | st.integers(-2, 3)}
    ),
    max_size=12,
)
STEPS = st.lists(st.tuples(ROWS, st.sampled_from(["", "", "restart", "after_begin", "before_commit", "after_commit"])), max_size=5)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    lines = ["sources:", "  t: {type: kafka, topic: t, bootstrap_servers: 'localhost:9092', schema: 'g STRING, k STRING, v INT'}", "views:"]
    lines += [f"  {name}: '{sql}'" for name, sql in VIEWS.items()]
    lines += ["sinks:"]
    lines += [f"  {name}: {{type: console, mode: update, changes: true, query: '{sql}'}}" for name, sql in QUERIES.items()]
    file: Path = tmp_path_factory.mktemp("changes") / "changes.yaml"
    file.write_text("\n".join(lines))
    return load_job(file)


def in_batch(rows: list[dict[str, Any]], sql: str) -> Counter[tuple[Any, ...]]:
    connection = duckdb.connect(config={"default_null_order": "nulls_first_on_asc_last_on_desc"})  # Spark's
    schema = pa.schema([("g", pa.string()), ("k", pa.string()), ("v", pa.int32())])
    connection.register("t", pa.Table.from_pylist(rows, schema=schema))
    for name, view in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {view}")
    return Counter(connection.execute(sql).fetchall())


def folded(tables: list[pa.Table]) -> Counter[tuple[Any, ...]]:
    """The rows that are there in the end; every deleted row was there before."""
    there: Counter[tuple[Any, ...]] = Counter()
    for row in (row for table in tables for row in table.to_pylist()):
        op, _ = row.pop("_op"), row.pop("_epoch")
        values = tuple(row.values())
        there[values] += 1 if op in ("insert", "update_after") else -1
        assert there[values] >= 0, (op, values)
    return +there


async def written(job: Job, steps: list[tuple[list[dict[str, Any]], str]]) -> dict[str, list[pa.Table]]:
    run = JobRun(job, 0)
    try:
        await run.start()
        for rows, event in steps:
            if event == "restart":
                await run.step(TestStep("restart", 0, None))
            elif event:
                await run.step(TestStep("crash", 0, event))
            await run.step(TestStep("add", 0, {"t": Added("0", tuple(rows))}))
        assert run.stopped is None, run.stopped
        return {name: list(sink.epochs.values()) for name, sink in run.sinks.items()}
    finally:
        await run.close()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_changes_put_together_are_the_batch_result(job: Job, steps: list[tuple[list[dict[str, Any]], str]]) -> None:
    tables = asyncio.run(written(job, [([{"g": "x", "k": "a", "v": 1}], ""), *steps]))
    rows = [{"g": "x", "k": "a", "v": 1}, *(row for part, _ in steps for row in part)]
    for name, sql in QUERIES.items():
        assert folded(tables[name]) == in_batch(rows, sql), name
