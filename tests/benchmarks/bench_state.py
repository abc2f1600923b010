"""What an epoch and its checkpoint cost when 10 k groups change while 10 k, 100 k and 1 M are alive; and the speed of
partial aggregation. Run it: `python tests/benchmarks/bench_state.py [--epochs 60]`."""

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
from streamproc.plan.plan import Aggregate, Plan, Query, Scan, StateColumn, Watermark
from streamproc.state import files
from streamproc.state.merge import chains
from streamproc.store import Store
from windows.sliding import Sliding
from windows.tumbling import Tumbling

TOUCHED = 10_000
INPUT = pa.schema([("ts", pa.timestamp("us", tz="UTC")), ("page", pa.string()), ("amount", pa.float64())])
OUT = pa.schema([("start", pa.int64()), ("page", pa.string()), ("n", pa.int64()), ("total", pa.float64()), ("top", pa.float64())])
STATES = (
    StateColumn("s0", "count_star"), StateColumn("s1", "sum", ("a0",), ("DOUBLE",)), StateColumn("s2", "max", ("a0",), ("DOUBLE",)),
)  # fmt: skip


def plan(window, mode):
    scan, start = Scan("clicks", INPUT), "_ws" if window else "0"
    step = Aggregate(
        scan, "SELECT epoch_us(ts) AS _t, page AS k0, amount AS a0 FROM input", ("k0",), STATES,
        f"SELECT {start} AS start, k0 AS page, s0 AS n, s1 AS total, s2 AS top FROM input", OUT, window,
    )  # fmt: skip
    return Plan({"clicks": scan}, {"out": Query("out", step, mode, OUT)}, {"clicks": Watermark("ts")})


def clicks(rows, pages, seed, seconds=60):
    sql = f"""SELECT make_timestamptz(1700000000000000 + range * {seconds} * 1000000 // {rows}) AS ts,
        '/page/' || (hash(range + {seed * rows}) % {pages}) AS page, (hash(range) % 100000) / 100.0 AS amount FROM range({rows})"""
    return duckdb.connect().sql(sql).to_arrow_table().cast(INPUT)


class Counting(Store):
    """Keeps nothing, counts bytes."""

    written = 0

    async def put(self, name, data, *, if_match=None, overwrite=False):
        self.written += len(data)
        return ""

    async def get(self, name): ...
    async def delete(self, name): ...
    def list(self, prefix=""): ...


async def state_cost(alive, epochs):
    executor, store, state, names = Executor(plan(None, "update")), Counting(), {}, iter(range(10**9))
    name = lambda: f"state/{next(names)}"  # noqa: E731
    everything = clicks(alive, 10**12, 0).set_column(
        1, "page", duckdb.connect().sql(f"SELECT '/page/' || range AS p FROM range({alive})").to_arrow_table()["p"]
    )
    output = await executor.run({"clicks": everything}, EpochTime(0, None, None), {}, limits={})
    state = await files.save(output.state, store, name)
    first, took, saved, written = store.written, [], [], []
    for epoch in range(1, epochs + 1):
        table, store.written, start = clicks(TOUCHED, alive, epoch), 0, time.perf_counter()
        output = await executor.run({"clicks": table}, EpochTime(epoch, None, None), state, limits={})
        middle = time.perf_counter()
        state = await files.save(output.state, store, name)
        took.append(middle - start), saved.append(time.perf_counter() - middle), written.append(store.written)
    runs = state["out/aggregate"]
    rows, sorted_runs, size = sum(run.length for run in runs), len(chains(runs)), sum(run.nbytes for run in runs)
    await executor.close()
    ms = [f"{value * 1000:8.0f}" for value in (statistics.median(took), max(took), statistics.median(saved), max(saved))]
    mb = [f"{value / 1e6:8.2f}" for value in (first, statistics.median(written), statistics.mean(written), max(written), size)]
    print(f"{alive:>10,} {' '.join(ms)} {' '.join(mb)} {rows:>10,} {sorted_runs:>5} {len(runs):>5}")


async def throughput(label, window, rows, pages, seconds=60):
    executor, table = Executor(plan(window, "append")), clicks(rows, pages, 0, seconds)
    took, cpu = [], []
    for epoch in range(9):
        start, used = time.perf_counter(), time.process_time()
        await executor.run({"clicks": table}, EpochTime(epoch, None, None), {}, limits={})
        took.append(time.perf_counter() - start), cpu.append(time.process_time() - used)
    await executor.close()
    each = statistics.median(took) / rows * 1e6, statistics.median(cpu) / rows * 1e6
    print(f"{label:<44} {each[0]:8.3f} {each[1]:8.3f} {statistics.median(took) * 1000:10.1f}")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    epochs = parser.parse_args().epochs
    print(f"{'partial aggregation, 3 aggregates':<44} {'us/row':>8} {'cpu us':>8} {'ms/epoch':>10}")
    await throughput("100 k rows, 1,000 groups, 60 s window", Tumbling(60_000_000), 100_000, 1000)
    await throughput("500 k rows, 1,000 pages, 10 s window", Tumbling(10_000_000), 500_000, 1000)
    await throughput("500 k rows, 1,000 pages, 60 s every 10 s", Sliding(60_000_000, 10_000_000), 500_000, 1000)
    await throughput("500 k rows, no window", None, 500_000, 1000)
    await throughput("5 rows, 10 s window", Tumbling(10_000_000), 5, 5)
    print(f"\n{TOUCHED:,} groups change an epoch, {epochs} epochs, update mode")
    megabytes = " ".join(f"{label:>8}" for label in ("MB first", "median", "mean", "max", "state"))
    print(f"{'alive':>10} {'epoch ms, max':>17} {'save ms, max':>17} {megabytes} {'rows':>10}  runs files")
    for alive in (10_000, 100_000, 1_000_000):
        await state_cost(alive, epochs)
    print(f"\npeak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    asyncio.run(main())
