"""The running job as one `Status`: for the terminal and the pages of a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamproc.engine.epoch import END_OF_TIME_US
from streamproc.engine.feed import Feed
from streamproc.engine.job_worker import JobWorker
from streamproc.engine.task import Task
from streamproc.metrics import Metrics
from streamproc.state.runs import Run
from streamproc.state.watermark import inherited
from streamproc.status import ShardStatus, SinkStatus, Status, TaskStatus

RATE_WINDOW_S = 5.0
_LABELS = {"changes": "change", "failures": "call"}
SMOOTHING = 0.5
"""KCL's, for the bytes a second of a lease."""


@dataclass
class Progress:
    """Counts since this worker started, and rates over its last seconds."""

    worker: JobWorker
    _samples: deque[tuple[float, float, float, float]] = field(default_factory=deque)
    _read: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def _metrics(self) -> Metrics:
        return self.worker.world.metrics

    def status(self) -> Status:
        """A picture of now; also sets the metrics that are levels, not counts."""
        worker, metrics, clock = self.worker, self._metrics, self.worker.world.clock
        tasks = [running.task for running in worker.running.values() if running.task.started]
        sources, sinks = worker.job.planned.scans, worker.sink_names
        rows_in = sum(metrics.get("streamproc_rows_read_total", source=name) for name in sources)
        bytes_in = sum(metrics.get("streamproc_bytes_read_total", source=name) for name in sources)
        written = {name: int(metrics.get("streamproc_rows_written_total", sink=name)) for name in sinks}
        rates = self._rates(clock.monotonic_s(), rows_in, bytes_in, sum(written.values()))
        state = {name: list(_runs(tasks, name)) for name in worker.job.sinks}
        longest = max(tasks, key=lambda task: task.epoch_running_s, default=None)
        status = Status(
            job=worker.job.name,
            now_us=clock.now_us(),
            lease_held=any(task.lease.held for task in tasks),
            lease_owner=worker.owner,
            epoch=max((task.standing.epoch for task in tasks), default=0),
            epoch_running_s=longest.epoch_running_s if longest else 0.0,
            epochs=int(metrics.get("streamproc_epochs_total")),
            rows_in=int(rows_in),
            rows_out=sum(written.values()),
            rows_in_per_s=rates[0],
            bytes_in_per_s=rates[1],
            rows_out_per_s=rates[2],
            watermark_us=inherited([task.standing.commit.watermark_us for task in tasks]) if tasks else None,
            steps=dict(longest.runtime.steps) if longest else {},
            state_rows=sum(run.length for runs in state.values() for run in runs),
            state_bytes=sum(run.nbytes for runs in state.values() for run in runs),
            shards=tuple(self._shard(task, feed) for task in tasks for feed in task.feeds()),
            sinks=tuple(
                SinkStatus(name, rows, int(metrics.get("streamproc_late_rows_total", sink=name))) for name, rows in written.items()
            ),
            dead=sum(task.standing.commit.dead for task in tasks),
            source_faults={name: why for task in tasks for name, why in task.source_faults().items()} | worker.unlisted,
            tasks=tuple(_task(task) for task in tasks),
        )
        self._set_levels(status, tasks, state)
        self._measure_throughput(clock.monotonic_s())
        return status

    def _set_levels(self, status: Status, tasks: Sequence[Task], state: dict[str, list[Run]]) -> None:
        metrics, worker = self._metrics, self.worker
        for name in worker.job.planned.scans:
            metrics.set("streamproc_source_up", name not in status.source_faults, source=name)
        for name, runs in state.items():
            metrics.set("streamproc_state_rows", sum(run.length for run in runs), sink=name)
            metrics.set("streamproc_state_bytes", sum(run.nbytes for run in runs), sink=name)
        for (what, label), count in list(worker.lease_counts.items()):
            metrics.set(f"streamproc_lease_{what}_total", count, **{_LABELS[what]: label})
        metrics.set("streamproc_epoch", status.epoch)
        metrics.set("streamproc_lease_held", status.lease_held)
        metrics.set("streamproc_leases", len(worker.running))
        metrics.set("streamproc_tasks", len(tasks))
        metrics.set("streamproc_workers", worker.others + 1)
        metrics.set("streamproc_prefetch_bytes", worker.prefetch_nbytes)
        if status.watermark_us is not None and status.watermark_us < END_OF_TIME_US:
            metrics.set("streamproc_watermark_seconds", status.watermark_us / 1e6)
            metrics.set("streamproc_watermark_lag_seconds", (status.now_us - status.watermark_us) / 1e6)

    def _sink(self, name: str, rows: int) -> SinkStatus:
        return SinkStatus(name, rows, int(self._metrics.get("streamproc_late_rows_total", sink=name)))

    def _shard(self, task: Task, feed: Feed) -> ShardStatus:
        table = task.runtime.tables[feed.source_name]
        self._measure_lag(feed, table.source.lag_unit)
        end = task.standing.commit.shards.get(feed.source_name, {}).get(feed.shard.id)
        idle = bool(table.watermark and table.watermark.idle_us is not None and feed.idle_us >= table.watermark.idle_us)
        position, watermark_us = (end.end, end.watermark_us) if end else (None, None)
        return ShardStatus(feed.source_name, feed.shard.id, feed.lag, table.source.lag_unit, watermark_us, idle, position)

    def _measure_lag(self, feed: Feed, lag_unit: str) -> None:
        metrics, labels = self._metrics, {"source": feed.source_name, "shard": feed.shard.id}
        if feed.ended:
            metrics.drop("streamproc_lag_records", **labels)
            metrics.drop("streamproc_lag_seconds", **labels)
        elif feed.lag is not None and lag_unit == "ms":
            metrics.set("streamproc_lag_seconds", feed.lag / 1000, **labels)
        elif feed.lag is not None:
            metrics.set("streamproc_lag_records", feed.lag, **labels)

    def _measure_throughput(self, now_s: float) -> None:
        """Smoothed KiB a second of each lease, for the balance and for other programs that read the table."""
        for name, running in self.worker.running.items():
            nbytes = sum(feed.read_nbytes for feed in running.task.feeds())
            before_s, before = self._read.get(name, (now_s, nbytes))
            if name not in self._read or now_s >= before_s + RATE_WINDOW_S:
                if now_s > before_s:
                    kbps = max(0, nbytes - before) / 1024 / (now_s - before_s)
                    known = running.hold.kbps
                    running.hold.kbps = kbps if known is None else SMOOTHING * kbps + (1 - SMOOTHING) * known
                self._read[name] = (now_s, nbytes)

    def _rates(self, now_s: float, rows_in: float, bytes_in: float, rows_out: float) -> tuple[float, float, float]:
        self._samples.append((now_s, rows_in, bytes_in, rows_out))
        while len(self._samples) > 2 and self._samples[1][0] < now_s - RATE_WINDOW_S:
            self._samples.popleft()
        first, last = self._samples[0], self._samples[-1]
        seconds = max(last[0] - first[0], 1e-9)
        a, b, c = ((last[i] - first[i]) / seconds if last[0] > first[0] else 0.0 for i in (1, 2, 3))
        return a, b, c


def _task(task: Task) -> TaskStatus:
    standing = task.standing
    return TaskStatus(task.scope.name, standing.epoch, standing.commit.watermark_us, task.lease.held, task.epoch_running_s)


def _runs(tasks: Sequence[Task], sink: str) -> Iterator[Run]:
    for task in tasks:
        for operator, runs in task.standing.state.items():
            if operator.startswith(f"{sink}/"):
                yield from runs
