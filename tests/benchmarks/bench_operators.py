"""What an epoch costs operators that keep much: open sessions, keys of DISTINCT, rows that wait; and planning a large job.

Run it: `python tests/benchmarks/bench_operators.py [--kept 1000000] [--rows 100000] [--epochs 20]`. A query over one source is fed
`kept` rows of as many keys, then epochs of `rows` rows whose keys are old and new, while the watermark closes about as much
as comes. Times are of the executor alone, without source, sink and log.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import duckdb

from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.schema import parse_ddl

SCHEMA = parse_ddl("user STRING, n INT, ts TIMESTAMP")
HOUR_US, START_US = 3_600_000_000, 1_700_000_000_000_000
QUERIES = {
    "sessions": (
        "append",
        "SELECT session_window.start AS s, user, count(*) AS c, sum(n) AS t FROM a GROUP BY session_window(ts, '1 hour'), user",
    ),
    "sessions, update": (
        "update",
        "SELECT session_window.start AS s, user, count(*) AS c FROM a GROUP BY session_window(ts, '1 hour'), user",
    ),
    "distinct": ("append", "SELECT DISTINCT user FROM a"),
    "first of each key": ("append", "SELECT user, n FROM a QUALIFY row_number() OVER (PARTITION BY user ORDER BY ts) = 1"),
    "lag": ("append", "SELECT user, n, lag(n) OVER (PARTITION BY user ORDER BY ts) AS before FROM a"),
}


def rows(scan, first, count, keys, start_us, span_us):
    """Rows in the order of time, with keys that hash over `keys`."""
    sql = f"""SELECT '/user/' || (hash(range) % {keys}) AS user, (range % 100)::INTEGER AS n,
        make_timestamptz({start_us} + (range - {first}) * {span_us} // {count}) AS ts, '0' AS _shard, range::VARCHAR AS _offset
        FROM range({first}, {first + count})"""
    table = duckdb.connect().sql(sql).to_arrow_table()
    return table.select(scan.names).cast(scan)


async def cost(name, kept, count, epochs):
    mode, query = QUERIES[name]
    plan = plan_job({"a": TableInfo(SCHEMA, watermark=Watermark("ts"))}, {}, {"out": SinkQuery(query, mode)})
    executor, scan = Executor(plan), plan.scans["a"].schema
    state, limits = {}, {}
    at_us, step_us = START_US, HOUR_US * count // max(kept, 1)
    for first in range(0, kept, 500_000):
        table = rows(scan, first, min(500_000, kept - first), 2 * kept, at_us, HOUR_US * min(500_000, kept - first) // kept)
        output = await executor.run({"a": table}, EpochTime(first + 1, None, None), state, limits=limits)
        state, at_us = output.state, at_us + HOUR_US * min(500_000, kept - first) // kept
    watermark_us, took = at_us - HOUR_US, []
    for epoch in range(epochs):
        table = rows(scan, kept + epoch * count, count, 2 * kept, at_us, step_us)
        at_us += step_us
        started = time.perf_counter()
        output = await executor.run({"a": table}, EpochTime(10**9 + epoch, watermark_us, watermark_us + step_us), state, limits=limits)
        took.append(time.perf_counter() - started)
        state, watermark_us = output.state, watermark_us + step_us
    alive = sum(run.length for run in state["out/" + next(iter(state)).partition("/")[2]])
    await executor.close()
    median = statistics.median(took)
    print(f"{name:20} {median * 1000:8.0f} {max(took) * 1000:8.0f} {count / median / 1000:8.0f} {alive:12,}", flush=True)


def planning(views, sinks):
    chain = {f"v{i}": f"SELECT user, n + {i} AS n, ts FROM {'a' if i < 10 else f'v{i - 10}'} WHERE n > {i}" for i in range(views)}
    query = "SELECT window.start AS w, user, sum(n) AS t, max(n) AS m FROM v{} GROUP BY window(ts, '{} minutes'), user"
    asked = {f"s{i}": SinkQuery(query.format(views - 1 - i, i + 1), "append") for i in range(sinks)}
    took = []
    for _ in range(5):
        started = time.perf_counter()
        plan = plan_job({"a": TableInfo(SCHEMA, watermark=Watermark("ts"))}, chain, asked)
        middle = time.perf_counter()
        asyncio.run(Executor(plan).close())
        took.append((middle - started, time.perf_counter() - middle))
    planned, bound = (statistics.median(times) for times in zip(*took, strict=True))
    print(f"a job with {views} views and {sinks} sinks: planned in {planned:.2f} s, bound in {bound:.2f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("queries", nargs="*", default=list(QUERIES))
    given = parser.parse_args()
    print(
        f"epochs of {given.rows:,} rows above {given.kept:,} kept\n{'query':20} {'ms':>8} {'worst':>8} {'k rows/s':>8} {'state rows':>12}"
    )
    for name in given.queries:
        asyncio.run(cost(name, given.kept, given.rows, given.epochs))
    planning(50, 20)


if __name__ == "__main__":
    main()
