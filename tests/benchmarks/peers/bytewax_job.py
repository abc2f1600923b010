"""The workload in Bytewax: one worker, orjson, recovery on, windows to a file of JSON lines.

Arguments: bootstrap servers, topic, folder to write to, number of records in the topic. Reads all partitions
from their beginning to their end.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax.connectors.files import FileSink
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main
from figures import Figures

Event = tuple[datetime, float]
Sums = tuple[int, float, float]
DELAY, LENGTH, EPOCH = timedelta(seconds=5), timedelta(seconds=10), timedelta(seconds=10)
BATCH = 1_000  # small against the delay: larger ones let partitions drift apart, and rows are dropped as late

figures = Figures("bytewax")


def parse(messages: list[KafkaSourceMessage]) -> list[tuple[str, Event]]:
    figures.saw(len(messages))
    events = [orjson.loads(m.value) for m in messages]
    return [(e["page"], (datetime.fromisoformat(e["ts"]), e["amount"])) for e in events]


def fold(sums: Sums, event: Event) -> Sums:
    count, total, largest = sums
    amount = event[1]
    return count + 1, total + amount, amount if amount > largest else largest


def merge(a: Sums, b: Sums) -> Sums:
    return a[0] + b[0], a[1] + b[1], max(a[2], b[2])


def line(closed: tuple[str, tuple[int, Sums]]) -> tuple[str, str]:
    page, (window, (count, total, largest)) = closed
    figures.wrote(count)
    return page, orjson.dumps([window, page, count, total, largest]).decode()


def flow(bootstrap: str, topic: str, out: Path) -> Dataflow:
    job = Dataflow("peers")
    messages = op.input("in", job, KafkaSource(bootstrap.split(","), [topic], tail=False, batch_size=BATCH))
    events = op.flat_map_batch("parse", messages, parse)
    clock = EventClock(lambda event: event[0], wait_for_system_duration=DELAY)
    windower = TumblingWindower(length=LENGTH, align_to=datetime(2026, 1, 1, tzinfo=UTC))
    windows = fold_window("sums", events, clock, windower, lambda: (0, 0.0, float("-inf")), fold, merge)
    op.output("out", op.map("line", windows.down, line), FileSink(out / "windows.jsonl"))
    return job


def main() -> None:
    bootstrap, topic, folder = sys.argv[1:4]
    out = Path(folder)
    recovery = out / "recovery"
    recovery.mkdir(parents=True)
    init_db_dir(recovery, 1)
    cluster_main(flow(bootstrap, topic, out), [], 0, epoch_interval=EPOCH, recovery_config=RecoveryConfig(recovery))
    figures.report(lost=figures.records - figures.in_windows)  # every window is closed at the end


main()
