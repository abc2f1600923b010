"""The workload in Quix Streams: exactly once, windows to a topic.

Its windows are by message key and the workload's records have none, so `group_by` sends them through a topic first.
Arguments: bootstrap servers, topic, folder for state, number of records in the topic.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from figures import Figures
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Sum

DELAY_MS, LENGTH_MS = 5_000, 10_000

figures = Figures("quix")


def event_time_ms(value: Any, headers: Any, timestamp: float, timestamp_type: Any) -> int:
    del headers, timestamp, timestamp_type
    return round(datetime.fromisoformat(value["ts"]).timestamp() * 1000)


def main() -> None:
    bootstrap, topic, folder, records = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    app = Application(
        bootstrap,
        consumer_group=f"peers-{uuid4()}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=Path(folder, "state"),
        loglevel="WARNING",
    )

    def seen(_value: Any) -> None:
        figures.saw(1)
        if figures.records == records:
            app.stop()

    late = 0

    def on_late(*_: Any) -> bool:
        nonlocal late
        late += 1
        return False  # not logged, record by record

    clicks = app.topic(topic, value_deserializer="json", timestamp_extractor=event_time_ms)
    windows = app.topic(f"{topic}-quix-{uuid4()}", value_serializer="json")
    frame = app.dataframe(clicks).update(lambda _: figures.saw(0))
    windowed = frame.group_by("page").update(seen).tumbling_window(LENGTH_MS, grace_ms=DELAY_MS, on_late=on_late)
    sums = windowed.agg(count=Count(), sum=Sum("amount"), max=Max("amount"))
    closed = sums.final(closing_strategy="partition").update(lambda window: figures.wrote(window["count"]))
    closed.to_topic(windows)
    app.run()
    figures.report(lost=late)


main()
