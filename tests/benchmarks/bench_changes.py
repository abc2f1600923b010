"""What an epoch costs when 10 k rows touch results that change, while 10 k, 100 k and 1 M groups are alive: a second stage over
a first one (large groups and small), and top-n. Run it: `python tests/benchmarks/bench_changes.py [--epochs 12]`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time

import duckdb
import pyarrow as pa

from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job

TOUCHED = 10_000
INPUT = pa.schema([("k", pa.int64()), ("g", pa.int64()), ("v", pa.int64())])
BEST = "SELECT g, k, max(v) AS v FROM t GROUP BY g, k"
QUERIES = {
    "one stage": f"SELECT * FROM ({BEST})",
    "one stage, HAVING": f"{BEST} HAVING max(v) > 10",
    "two stages, 10 rows a group": f"SELECT k // 10 AS d, avg(v) AS a FROM ({BEST}) GROUP BY k // 10".replace("//", "div"),
    "two stages, 100 groups": f"SELECT g, avg(v) AS a FROM ({BEST}) GROUP BY g",
    "top 3 by key of rows": "SELECT k, v FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY v DESC) <= 3",
    "top 10 of all groups' maxima": f"SELECT k, v FROM ({BEST}) QUALIFY row_number() OVER (ORDER BY v DESC) <= 10",
}


def rows(count, alive, seed):
    key = f"hash(range + {seed * count}) % {alive}" if seed else "range"
    sql = f"SELECT k, k % 100 AS g, (hash(k + {seed}) % 100000)::BIGINT AS v FROM (SELECT ({key})::BIGINT AS k FROM range({count}))"
    return duckdb.connect().sql(sql).to_arrow_table().cast(INPUT)


async def cost(label, query, alive, epochs):
    plan = plan_job({"t": TableInfo(INPUT)}, {}, {"out": SinkQuery(query, "update")})
    executor = Executor(plan)
    output = await executor.run({"t": rows(alive, alive, 0)}, EpochTime(0, None, None), {}, limits={})
    took, written = [], []
    for epoch in range(1, epochs + 1):
        table, start = rows(TOUCHED, alive, epoch), time.perf_counter()
        output = await executor.run({"t": table}, EpochTime(epoch, None, None), output.state, limits={})
        took.append((time.perf_counter() - start) * 1000), written.append(output.sinks["out"].rows.num_rows)
    kept = sum(run.length for runs in output.state.values() for run in runs)
    await executor.close()
    print(
        f"{label:<30} {alive:>10,} {statistics.median(took):8.0f} {max(took):8.0f} {statistics.median(written):>9,.0f} {kept:>11,}",
        flush=True,
    )


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    epochs = parser.parse_args().epochs
    print(f"{TOUCHED:,} rows an epoch, {epochs} epochs, update mode")
    print(f"{'':<30} {'alive':>10} {'ms':>8} {'max':>8} {'rows out':>9} {'rows kept':>11}")
    for label, query in QUERIES.items():
        for alive in (10_000, 100_000, 1_000_000):
            await cost(label, query, alive, epochs)
    print(f"\npeak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    asyncio.run(main())
