"""Nexmark from memory: events a second per core of every query, checkpoints on.

    python tests/benchmarks/bench_nexmark.py [q0 q5 …] [--events 1000000] [--rounds 3] [--profile]

Every run is a process of its own: the job file of deploy/jobs/nexmark with its generators (whose work counts), a checkpoint in a
folder, results thrown away. Counted are the events that the query reads (a query of persons and auctions alone is not given the
bids as well), over the CPU seconds of all threads, planning included, or over seconds. Epochs take 100,000 of them at most;
`epoch_s` is the longest of them but the first. Printed are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamproc import logs
from streamproc.bounded import BoundedTable
from streamproc.clock import SystemClock
from streamproc.engine.runtime import Registered
from streamproc.engine.worker import run_job
from streamproc.formats.nexmark import SLOTS
from streamproc.job import SinkSpec, TableSpec, load_job
from streamproc.memory import tune_allocator
from streamproc.sink import Change, EpochId, Sink
from streamproc.testing.memory_table import MemoryTable
from streamproc.world import World

FOLDER = Path(__file__).parents[2] / "deploy" / "jobs" / "nexmark"
EPOCH_EVENTS = 100_000
COLUMNS = ("events_per_cpu_s", "events_per_s", "epoch_s", "epochs", "rows_out", "rss_mb")


class Thrown(Sink):
    """Counts rows and notes when each epoch was written."""

    guarantee = "none"

    def __init__(self) -> None:
        self.rows = 0
        self.written: list[tuple[float, float]] = []

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        del epoch, change
        self.rows += rows.read_all().num_rows
        self.written.append((time.perf_counter(), time.process_time()))


class Measured(Registered):
    """The job's own sources; a table in memory, and a sink that keeps nothing."""

    def __init__(self) -> None:
        self.sink_ = Thrown()

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        del spec, name, world
        return self.sink_

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        del world
        return MemoryTable(spec, schema, time_zone, lambda: [{"key": n, "value": str(n)} for n in range(10_000)])


def settings(sources: list[str], events: int, folder: str) -> list[str]:
    """Overrides of the job file: so many events in all, in their proportions."""
    made = [f"checkpoint={folder}"]
    cycle = sum(_share(source) for source in sources)
    for source in sources:
        rows, limit = (count // cycle * _share(source) for count in (events, EPOCH_EVENTS))
        made += [f"sources.{source}.rows={rows}", f"sources.{source}.max_rows_per_epoch={limit}"]
    return made


def _share(source: str) -> int:
    """How many of 50 events it gives; sources are called by their kinds."""
    return SLOTS[source][1]  # type: ignore[index]


def measure(name: str, events: int) -> dict[str, float]:
    """One run in this process."""
    import resource

    path = FOLDER / f"{name}.yaml"
    sources = list(load_job(path).sources)
    connected = Measured()
    with tempfile.TemporaryDirectory(prefix="bench-nexmark-") as folder:
        job = load_job(path, overrides=settings(sources, events, folder))
        logs.configure(SystemClock(), (), terminal=True, job=name)
        tune_allocator()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        asyncio.run(run_job(job, available_now=True, connectors=connected))
        ended_s, ended_cpu_s = time.perf_counter(), time.process_time()
    times = [began_s, *(wall for wall, _ in connected.sink_.written)]
    return {
        "events_per_cpu_s": events / (ended_cpu_s - began_cpu_s), "events_per_s": events / (ended_s - began_s),
        "epoch_s": max(b - a for a, b in pairwise(times[1:])) if len(times) > 2 else times[-1] - times[0],
        "epochs": len(connected.sink_.written), "rows_out": connected.sink_.rows,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def run(name: str, events: int) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, name, "--events", str(events), "--once"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{name} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def profile(name: str, events: int) -> None:
    """Where the event loop's thread spends its time; the other threads are not seen."""
    import cProfile
    import pstats

    with cProfile.Profile() as profiler:
        print(measure(name, events))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def row(name: str, figures: dict[str, Any]) -> str:
    return f"{name:5}" + "".join(
        f"{figures[column]:>18,.2f}" if column == "epoch_s" else f"{figures[column]:>18,.0f}" for column in COLUMNS
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", help="all unless named")
    parser.add_argument("--events", type=int, default=1_000_000, help="that a query reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.queries or sorted((path.stem for path in FOLDER.glob("q*.yaml")), key=lambda name: int(name[1:]))
    if arguments.profile:
        profile(names[0], arguments.events)
        return
    if arguments.once:
        print(json.dumps(measure(names[0], arguments.events)))
        return
    print("     " + "".join(f"{column:>18}" for column in COLUMNS))
    for name in names:
        runs = [run(name, arguments.events) for _ in range(arguments.rounds)]
        print(row(name, {column: statistics.median(figures[column] for figures in runs) for column in COLUMNS}), flush=True)


if __name__ == "__main__":
    main()
