"""Every metric of the project in one table, and the box that counts them.

The engine and connectors call `Metrics.add` / `Metrics.set` with a name of the table; `http/` serves the box in
Prometheus' text format. Labels are bounded by what a job file names (sinks, sources, shards, steps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: counters end in `_total`, units come last in the name."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


METRICS: tuple[Metric, ...] = (
    Metric("streamproc_rows_read_total", "counter", ("source",), "Records read from the source."),
    Metric("streamproc_bytes_read_total", "counter", ("source",), "Payload bytes read from the source."),
    Metric(
        "streamproc_lost_rows_total", "counter", ("source",), "Records that were removed before they were read (on_data_loss: earliest)."
    ),
    Metric("streamproc_rows_written_total", "counter", ("sink",), "Rows written to the sink."),
    Metric("streamproc_lag_records", "gauge", ("source", "shard"), "Records left to read in the shard."),
    Metric("streamproc_lag_seconds", "gauge", ("source", "shard"), "Age of the next record (Kinesis MillisBehindLatest)."),
    Metric("streamproc_watermark_seconds", "gauge", (), "The task's watermark, seconds since 1970."),
    Metric("streamproc_watermark_lag_seconds", "gauge", (), "Clock minus watermark."),
    Metric("streamproc_epoch", "gauge", (), "Newest committed epoch."),
    Metric("streamproc_epochs_total", "counter", (), "Epochs committed."),
    Metric("streamproc_epoch_seconds", "histogram", ("step",), "Duration of an epoch by step."),
    Metric("streamproc_committed_timestamp_seconds", "gauge", (), "When the newest epoch was committed."),
    Metric("streamproc_state_rows", "gauge", ("sink",), "Rows in keyed state."),
    Metric("streamproc_state_bytes", "gauge", ("sink",), "Bytes of keyed state."),
    Metric("streamproc_late_rows_total", "counter", ("sink",), "Source rows refused as late by the sink's query."),
    Metric("streamproc_dead_letters_total", "counter", ("source", "reason"), "Records refused, by reason."),
    Metric("streamproc_outside_hash_range_total", "counter", ("source",), "User records of KPL aggregates that hash outside their shard."),
    Metric("streamproc_table_rows", "gauge", ("table",), "Rows of the bounded table."),
    Metric("streamproc_table_read_timestamp_seconds", "gauge", ("table",), "When the bounded table was read, or found unchanged."),
    Metric("streamproc_table_refresh_failures_total", "counter", ("table",), "Refreshes of the bounded table that failed."),
    Metric("streamproc_retries_total", "counter", ("what",), "Retried calls: source, sink or store."),
    Metric("streamproc_prefetch_bytes", "gauge", (), "Bytes read ahead and not yet in an epoch."),
    Metric("streamproc_lease_held", "gauge", (), "1 while this worker holds a lease of the job."),
    Metric("streamproc_leases", "gauge", (), "Leases of tasks that this worker holds."),
    Metric("streamproc_lease_changes_total", "counter", ("change",), "Leases taken, requested, lost, released, given."),
    Metric("streamproc_lease_failures_total", "counter", ("call",), "Calls of the lease table that failed or were too slow."),
    Metric("streamproc_workers", "gauge", (), "Workers that share the job, as this one sees it."),
    Metric("streamproc_tasks", "gauge", (), "Tasks of the job that run in this worker."),
    Metric("streamproc_job_up", "gauge", (), "1 while the job runs or stands by, 0 while it waits to be started again after a failure."),
    Metric("streamproc_job_failures_total", "counter", ("kind",), "Failures that ended a run of the job, by kind of error."),
    Metric("streamproc_hash_range_holes", "gauge", ("source",), "Gaps in the hash range of the source's open shards."),
    Metric("streamproc_fan_out_fallback", "gauge", ("source",), "1 while the source polls although the job says fan_out."),
    Metric("streamproc_source_up", "gauge", ("source",), "1 while the source answers."),
)
_BY_NAME = {metric.name: metric for metric in METRICS}
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Values by metric and labels. Cheap (a dict), used from the event loop only."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], list[int]] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        key = self._key(name, labels)
        self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        self._values[self._key(name, labels)] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Count one duration in a histogram (its sum is kept like a counter's value)."""
        key = self._key(name, labels)
        counts = self._counts.setdefault(key, [0] * (len(BUCKETS_S) + 1))
        counts[next((i for i, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))] += 1
        self._values[key] = self._values.get(key, 0.0) + seconds

    def get(self, name: str, **labels: str) -> float:
        return self._values.get(self._key(name, labels), 0.0)

    def drop(self, name: str, **labels: str) -> None:
        """Forget one series (a shard that ended)."""
        self._values.pop(self._key(name, labels), None)

    def samples(self) -> Iterator[tuple[Metric, tuple[str, ...], float, list[int] | None]]:
        """Metric, label values in the metric's order, value (a histogram's sum), a histogram's bucket counts."""
        for (name, labels), value in sorted(self._values.items()):
            yield _BY_NAME[name], labels, value, self._counts.get((name, labels))

    def _key(self, name: str, labels: dict[str, str]) -> tuple[str, tuple[str, ...]]:
        return name, tuple(labels[label] for label in _BY_NAME[name].labels)

    def __repr__(self) -> str:
        return f"<Metrics {len(self._values)} series>"
