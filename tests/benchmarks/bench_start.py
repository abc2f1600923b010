"""Small things of a worker on Apache Kafka: its start, its memory and CPU while idle, and the way of a single row.

    python tests/benchmarks/bench_start.py [--runs 10] [--idle 20] [--rows 100] [--servers host:port]

Start is from exec to the first commit that holds rows, with bytecode and page cache warm. Latency is from a row's produce
call to its file, one row every 100 ms. Without --servers a broker is started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import workload

HERE = Path(__file__).parent
JOB = f"""{workload.JOB}  rows:
    type: files
    path: {{folder}}/rows
    query: SELECT page, amount FROM clicks
"""
POLL_S = 0.002
PAUSE_S = 0.1


@contextmanager
def worker(servers: str, topic: str) -> Iterator[tuple[psutil.Process, Path]]:
    """A worker from exec on, in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="bench-start-") as name:
        folder = Path(name)
        (folder / "job.yaml").write_text(JOB.format(servers=servers, topic=topic, folder=folder))
        # with bytecode, as an installed package has it
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-m", "streamproc", "run", str(folder / "job.yaml")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
            try:
                yield psutil.Process(process.pid), folder
            finally:
                process.terminate()


def first_commit(folder: Path) -> None:
    deadline = time.perf_counter() + 60
    while not any((folder / "checkpoint").glob("*/*/epochs/*1.commit")):
        if time.perf_counter() > deadline:
            raise SystemExit("no commit within a minute")
        time.sleep(POLL_S)


def start_s(servers: str, topic: str) -> tuple[float, float]:
    """Wall and CPU seconds from exec to the first commit."""
    began = time.perf_counter()
    with worker(servers, topic) as (process, folder):
        first_commit(folder)
        times = process.cpu_times()
        return time.perf_counter() - began, times.user + times.system


def idle(servers: str, topic: str, seconds: float) -> tuple[float, float]:
    """Percent of a core and MB of a worker whose topic is quiet."""
    with worker(servers, topic) as (process, folder):
        first_commit(folder)
        time.sleep(3)
        before, began = process.cpu_times(), time.perf_counter()
        time.sleep(seconds)
        after = process.cpu_times()
        used_s = after.user + after.system - before.user - before.system
        return used_s / (time.perf_counter() - began) * 100, process.memory_info().rss / 2**20


async def latencies_ms(servers: str, topic: str, rows: int) -> list[float]:
    """Milliseconds from produce to file, of single rows."""
    from aiokafka import AIOKafkaProducer

    sent: dict[int, float] = {}
    found: dict[str, float] = {}
    with worker(servers, topic) as (_, folder):
        first_commit(folder)
        async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=0) as producer:
            for amount in range(-rows, 0):
                sent[amount] = time.perf_counter()
                await producer.send(topic, workload.event(1, 1, amount, "2026-01-01T00:09:59.0Z", 1, 200), partition=0)
                await seen(folder / "rows", found, sent[amount] + PAUSE_S)
            await seen(folder / "rows", found, time.perf_counter() + 2)
        done: list[float] = []
        for name, at_s in found.items():
            amounts = ds.dataset(str(folder / "rows" / name)).to_table(["amount"])["amount"].to_pylist()
            done += [(at_s - sent[amount]) * 1000 for amount in amounts if amount in sent]
    if len(done) < rows:
        raise SystemExit(f"{rows - len(done)} rows were not written")
    return done


async def seen(folder: Path, found: dict[str, float], until_s: float) -> None:
    """Note when files appear."""
    while time.perf_counter() < until_s:
        for name in os.listdir(folder) if folder.exists() else ():
            if name.endswith(".parquet"):
                found.setdefault(name, time.perf_counter())
        await asyncio.sleep(POLL_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--servers")
    arguments = parser.parse_args()
    topic = f"start-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        servers = arguments.servers
        if servers is None:
            kafka = runpy.run_path(str(HERE.parent / "servers" / "kafka" / "broker.py"))["ApacheKafka"]
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-kafka-"))
            servers = stack.enter_context(kafka(Path(data))).bootstrap_servers
        asyncio.run(workload.load(servers, topic, 10_000))
        start_s(servers, topic)  # writes the bytecode
        starts = [start_s(servers, topic) for _ in range(arguments.runs)]
        percent, rss_mb = idle(servers, topic, arguments.idle)
        delays = sorted(asyncio.run(latencies_ms(servers, topic, arguments.rows)))
    wall, cpu = zip(*starts, strict=True)
    print(f"{'exec to first commit, s':32}{statistics.median(wall):8.2f} median {max(wall):8.2f} max {statistics.median(cpu):8.2f} CPU")
    print(f"{'idle':32}{percent:8.2f} % of a core {rss_mb:8.0f} MB")
    print(f"{'one row, produce to file, ms':32}{statistics.median(delays):8.0f} median {delays[len(delays) * 99 // 100]:8.0f} p99")


if __name__ == "__main__":
    main()
