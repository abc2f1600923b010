"""Rows a second of the files sink on local disk beside pyarrow's own Parquet writer, and the memory of one large epoch.

    python tests/benchmarks/bench_files_sink.py [--rows 2000000] [--rounds 5]

Rows are those of a windowed count: minute, page, country, views, total, largest. Medians of rounds that alternate.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.files import Files, FilesOptions
from streamproc.batch import TIMESTAMP
from streamproc.sink import EpochId
from streamproc.world import World

BATCH_ROWS = 50_000


def batch(first: int) -> pa.RecordBatch:
    numbers = range(first, first + BATCH_ROWS)
    return pa.record_batch(
        {
            "minute": pa.array([1_767_225_600_000_000 + n // 1000 * 60_000_000 for n in numbers], TIMESTAMP),
            "page": [f"/page/{n % 1000}" for n in numbers],
            "country": ["DE" if n % 3 else "FR" for n in numbers],
            "views": [n * 7919 % 1000 for n in numbers],
            "total": [n * 104729 % 100_000 / 100 for n in numbers],
            "largest": [n * 31 % 977 for n in numbers],
        }
    )


def sink(table: pa.Table, folder: Path, **keys: object) -> None:
    options = FilesOptions.model_validate({"type": "files", "path": str(folder)} | keys)
    asyncio.run(Files(options, World(), "out").write(EpochId("c", 0, "out", "t", 1, 1), table.to_reader(), "append"))


def measure(table: pa.Table, rounds: int) -> None:
    ways: dict[str, Callable[[Path], None]] = {
        "pyarrow.parquet.write_table (no fsync)": lambda folder: pq.write_table(table, folder / "x.parquet"),
        "files, parquet": lambda folder: sink(table, folder),
        "files, parquet, partition_by country": lambda folder: sink(table, folder, partition_by=["country"]),
        "files, json": lambda folder: sink(table, folder, format="json"),
        "files, csv": lambda folder: sink(table, folder, format="csv"),
    }
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, write in ways.items():
            folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
            start = time.perf_counter()
            write(folder)
            took_s[name].append(time.perf_counter() - start)
            shutil.rmtree(folder)
    print(f"{table.num_rows:,} rows of {table.num_columns} columns, median of {rounds}")
    for name, times in took_s.items():
        print(f"  {name:40} {table.num_rows / statistics.median(times) / 1e6:6.2f} M rows/s")


def memory(rows: int) -> None:
    """One epoch whose rows are made as they are taken."""
    made = [batch(at * BATCH_ROWS) for at in range(10)]
    process, most = psutil.Process(), 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for at in range(rows // BATCH_ROWS):
            most = max(most, process.memory_info().rss)
            yield made[at % len(made)]

    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    before, start = process.memory_info().rss, time.perf_counter()
    stream = pa.RecordBatchReader.from_batches(made[0].schema, batches())
    options = FilesOptions(type="files", path=str(folder))
    asyncio.run(Files(options, World(), "out").write(EpochId("c", 0, "out", "t", 1, 1), stream, "append"))
    took_s = time.perf_counter() - start
    shutil.rmtree(folder)
    print(f"one epoch of {rows:,} rows: {rows / took_s / 1e6:.2f} M rows/s, {(most - before) / 2**20:+.0f} MB of memory while writing")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    memory(5_000_000)
    measure(pa.Table.from_batches([batch(first) for first in range(0, arguments.rows, BATCH_ROWS)]), arguments.rounds)
