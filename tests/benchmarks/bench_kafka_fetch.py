"""Kafka fetch to Arrow values against `AIOKafkaConsumer.getmany`, side by side on Apache Kafka.

    python tests/benchmarks/bench_kafka_fetch.py [--rows 1000000] [--rounds 3] [--servers host:port --topic loaded]

Each run is a process of its own that reads all partitions from the start; printed are medians. Target: 6 x the records a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workload
from aiokafka import AIOKafkaConsumer, TopicPartition

from sources.kafka import Kafka, KafkaOptions
from streamproc.world import World

PARTITIONS = 4
RUNS = ("streamproc", "streamproc + key, timestamp", "getmany")


async def read_source(servers: str, topic: str, rows: int, wanted: frozenset[str]) -> int:
    source = Kafka(KafkaOptions(type="kafka", topic=topic, bootstrap_servers=servers), World(), "bench")
    source.wanted = wanted

    total = 0

    async def drain(shard):
        nonlocal total
        reader = await source.open(shard, "-1")
        while total < rows:
            chunk = await reader.read()
            total += chunk.rows.num_rows

    drains = [asyncio.create_task(drain(shard)) for shard in await source.shards()]
    await asyncio.wait(drains, return_when=asyncio.FIRST_COMPLETED)  # all rows are here: as getmany, without waiting at the end
    for task in drains:
        task.cancel()
    await asyncio.gather(*drains, return_exceptions=True)
    await source.close()
    return total


async def read_getmany(servers: str, topic: str, rows: int) -> int:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", isolation_level="read_committed", max_partition_fetch_bytes=2 << 20
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    total = 0
    while total < rows:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            total += len([record.value for record in records])
    await consumer.stop()
    return total


def once(kind: str, servers: str, topic: str, rows: int) -> dict[str, float]:
    wanted = frozenset({"_key", "_timestamp"} if "key" in kind else ())
    run = read_getmany(servers, topic, rows) if kind == "getmany" else read_source(servers, topic, rows, wanted)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    total = asyncio.run(run)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    assert total == rows, f"{kind} read {total} of {rows} rows"
    return {"rows_s": rows / wall_s, "cpu_us": cpu_s / rows * 1e6, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def compare(servers: str, topic: str, rows: int, rounds: int) -> None:
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in RUNS}
    for _ in range(rounds):
        for kind in RUNS:
            command = [sys.executable, __file__, "--once", kind, "--servers", servers, "--topic", topic, "--rows", str(rows)]
            results[kind].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{rows:,} records of {workload.EVENT_BYTES} bytes, {PARTITIONS} partitions, medians of {rounds}")
    print(f"{'':30}{'records/s':>12}{'µs CPU/record':>16}{'peak RSS MB':>14}")
    middle = {kind: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for kind, runs in results.items()}
    for kind, median in middle.items():
        print(f"{kind:30}{median['rows_s']:>12,.0f}{median['cpu_us']:>16.2f}{median['rss_mb']:>14.0f}")
    speed, cpu = (middle["streamproc"][key] / middle["getmany"][key] for key in ("rows_s", "cpu_us"))
    print(f"{speed:.1f} x the records a second, {1 / cpu:.1f} x the records a CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers")
    parser.add_argument("--topic", default="pageviews")
    parser.add_argument("--once")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.once, options.servers, options.topic, options.rows)))
        return
    if options.servers:
        compare(options.servers, options.topic, options.rows, options.rounds)
        return
    broker = runpy.run_path(str(Path(__file__).parents[1] / "servers" / "kafka" / "broker.py"))["ApacheKafka"]
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as kafka:
        asyncio.run(workload.load(kafka.bootstrap_servers, options.topic, options.rows, partitions=PARTITIONS))
        compare(kafka.bootstrap_servers, options.topic, options.rows, options.rounds)


if __name__ == "__main__":
    main()
