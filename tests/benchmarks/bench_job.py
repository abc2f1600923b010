"""The whole job on Apache Kafka: windows into Parquet, beside the same query in Bytewax and in Quix Streams.

    python tests/benchmarks/bench_job.py [--records 5000000] [--rounds 3] [--peers bytewax,quix]

One broker, one topic (workload.py), one run after the other, everything on the same cores; printed are medians. Steady is from
the first record to the last, without start-up. `lost` are records that are in no window: dropped as late during the replay.
streamproc's windows are compared with a batch query over the same events; a difference ends the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import workload

HERE = Path(__file__).parent
COLUMNS = ("records_per_s", "records_per_cpu_s", "rss_mb", "windows", "lost")
POLL_S = 0.005
SEED = 7
PARTITIONS = 4


def run_streamproc(servers: str, topic: str, folder: Path, records: int) -> dict[str, Any]:
    """One run to the end of the topic; steady from the first epoch's begin, which is written once its rows are read."""
    job = folder / "job.yaml"
    job.write_text(workload.JOB.format(servers=servers, topic=topic, folder=folder))
    command = [sys.executable, "-m", "streamproc", "run", str(job), "--available-now", "--drain"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        worker = psutil.Process(process.pid)
        begin, cpu_before, rss, cpu = 0.0, 0.0, 0, 0.0
        while process.poll() is None:
            try:
                times, rss = worker.cpu_times(), max(rss, worker.memory_info().rss)
            except psutil.Error:
                break
            cpu = times.user + times.system
            if not begin and any((folder / "checkpoint").rglob("*1.begin")):
                begin, cpu_before = time.perf_counter(), cpu
            time.sleep(POLL_S)
        code, ended = process.wait(), time.perf_counter()
    if code != 0:
        raise SystemExit(f"streamproc ended with {code}:\n{(folder / 'log').read_text()[-2000:]}")
    windows, counted = duckdb.connect().sql(f"SELECT count(*), sum(n)::BIGINT FROM '{folder}/sums/**/*.parquet'").fetchall()[0]
    seconds = ended - begin
    return {
        "records_per_s": records / seconds, "records_per_cpu_s": records / (cpu - cpu_before), "rss_mb": rss / 2**20,
        "windows": windows, "lost": records - counted,
    }  # fmt: skip


def batch_query(folder: Path, records: int) -> Path:
    """The job's result by one query over all events."""
    rows = folder / "events.json"
    with rows.open("wb") as file:
        for partition in range(PARTITIONS):
            file.writelines(event + b"\n" for event in workload.events(records, SEED, partition, PARTITIONS))
    result = folder / "expected.parquet"
    read = f"read_ndjson('{rows}', columns={{page: 'VARCHAR', amount: 'BIGINT', ts: 'TIMESTAMP'}})"
    duckdb.connect().execute(f"""
        COPY (SELECT time_bucket(INTERVAL 10 SECONDS, ts)::VARCHAR AS start, page, count(*) AS n, sum(amount)::BIGINT AS total,
            max(amount) AS largest FROM {read} GROUP BY ALL) TO '{result}' (FORMAT parquet)""")
    rows.unlink()
    return result


def compare(folder: Path, expected: Path) -> None:
    """SystemExit if the windows in `folder` are not those of the batch query."""
    ours = f"SELECT start::TIMESTAMP::VARCHAR AS start, page, n, total, largest FROM '{folder}/sums/**/*.parquet'"
    theirs = f"SELECT start, page, n, total, largest FROM '{expected}'"
    sql = f"SELECT count(*) FROM (({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours}))"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    ((different,),) = connection.sql(sql).fetchall()
    if different:
        raise SystemExit(f"{different} windows differ from the batch query's")


def run_peer(python: str, name: str, servers: str, topic: str, folder: Path, records: int) -> dict[str, Any]:
    """One run of a peer's script, which reports by itself."""
    command = [python, str(HERE / "peers" / f"{name}_job.py"), servers, topic, str(folder), str(records)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{name} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def runs(arguments: argparse.Namespace, servers: str, topic: str, expected: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    peers = [name for name in arguments.peers.split(",") if name]
    python = subprocess.run([HERE / "peers" / "setup"], capture_output=True, text=True, check=True).stdout.strip() if peers else ""
    for round_ in range(arguments.rounds):
        for name in ["streamproc", *peers]:
            if name == "quix" and round_ > 0:
                continue  # minutes a run: once is enough
            with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
                if name == "streamproc":
                    figures = run_streamproc(servers, topic, Path(folder), arguments.records)
                    compare(Path(folder), expected)
                else:
                    figures = run_peer(python, name, servers, topic, Path(folder), arguments.records)
            print(f"round {round_ + 1}: {name}: {figures['records_per_s']:,.0f} records/s", file=sys.stderr)
            yield name, figures


def table(measured: dict[str, list[dict[str, Any]]]) -> str:
    """Medians, and how many times as fast streamproc is."""
    lines = [f"{'':12}" + "".join(f"{column:>20}" for column in COLUMNS) + f"{'streamproc is':>16}"]
    ours = statistics.median(f["records_per_s"] for f in measured["streamproc"])
    for name, figures in measured.items():
        medians = {column: statistics.median(f[column] for f in figures) for column in COLUMNS}
        shown = "".join(f"{medians[column]:>20,.0f}" for column in COLUMNS)
        lines.append(f"{name:12}{shown}{ours / medians['records_per_s']:>14,.1f} x")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="bytewax,quix", help="comma-separated; empty: none")
    arguments = parser.parse_args()
    kafka = runpy.run_path(str(HERE.parent / "servers" / "kafka" / "broker.py"))["ApacheKafka"]
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as data, kafka(Path(data)) as broker:
        asyncio.run(workload.load(broker.bootstrap_servers, "clicks", arguments.records, seed=SEED, partitions=PARTITIONS))
        expected = batch_query(Path(data), arguments.records)
        for name, figures in runs(arguments, broker.bootstrap_servers, "clicks", expected):
            measured.setdefault(name, []).append(figures)
    print(table(measured))


if __name__ == "__main__":
    main()
