"""Stream-stream join with many buffered rows: seconds of CPU an epoch takes.

python tests/benchmarks/bench_join.py [--rows 5000000] [--epoch 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.modes import SinkQuery
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import TableInfo, plan_job
from streamproc.state.runs import Run

SCHEMA = pa.schema([("ad", pa.int64()), ("user", pa.string()), ("price", pa.int64()), ("ts", TIMESTAMP)])
ON = "l.ad = r.ad AND r.ts BETWEEN l.ts - INTERVAL 1 HOUR AND l.ts + INTERVAL 1 HOUR"
KINDS = ("INNER", "LEFT", "FULL", "LEFT SEMI")


def rows(random: np.random.Generator, count: int, start_s: float, seconds: float, keys: int) -> pa.Table:
    """Rows of some seconds, nearly in order."""
    at = (start_s + np.sort(random.random(count)) * seconds) * 1e6
    ads = random.integers(0, keys, count)
    users = pa.array(np.char.add("user-", random.integers(0, 100_000, count).astype(str)))
    return pa.table(
        [pa.array(ads), users, pa.array(random.integers(0, 1000, count)), pa.array(at.astype("int64")).cast(TIMESTAMP)], schema=SCHEMA
    )


async def bench(kind: str, buffered: int, epoch: int) -> list[float]:
    """Seconds of CPU of each epoch once that many rows are kept."""
    names = "l.ad, l.price" if "SEMI" in kind else "l.ad, l.price, r.user, r.ts"
    tables = {name: TableInfo(SCHEMA, watermark=Watermark("ts")) for name in ("l", "r")}
    plan = plan_job(tables, {}, {"out": SinkQuery(f"SELECT {names} FROM l {kind} JOIN r ON {ON}", "append")})
    executor, random, seconds = Executor(plan), np.random.default_rng(1), list[float]()
    state: Mapping[str, Sequence[Run]] = {}
    size, took, watermark = 500_000, epoch * 3600 / buffered, None
    try:
        filling = [size] * (buffered // size)
        start = 0.0
        for count in [*filling, *[epoch] * 10]:
            width = count * 3600 / buffered if count == size else took
            inputs: Mapping[str, pa.Table] = {
                name: rows(random, count // 2, start, width, buffered).select(plan.scans[name].schema.names) for name in ("l", "r")
            }
            start += width
            begun, now = watermark, int(start * 1e6)
            clock = time.process_time()
            output = await executor.run(inputs, EpochTime(0, begun, now), state, limits={})
            if count == epoch:
                seconds.append(time.process_time() - clock)
            state, watermark = output.state, now
        kept = executor.state_rows("out", state, watermark)
        print(f"{kind:10} {kept:10,} {output.sinks['out'].rows.num_rows:10,}", end=" ")
    finally:
        await executor.close()
    return seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=5_000_000)
    arguments.add_argument("--epoch", type=int, default=100_000)
    given = arguments.parse_args()
    print(f"{'kind':10} {'kept':>10} {'written':>10} {'median s':>9} {'max s':>7}   (an epoch of {given.epoch:,} rows)")
    for kind in KINDS:
        seconds = asyncio.run(bench(kind, given.rows, given.epoch))
        print(f"{statistics.median(seconds):9.3f} {max(seconds):7.3f}")


if __name__ == "__main__":
    main()
