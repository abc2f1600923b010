"""The running job as one `Status`: for the terminal, `/healthz` and `/readyz`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from streamproc.engine.feed import Feed
from streamproc.engine.task import Task
from streamproc.status import ShardStatus, SinkStatus, Status

RATE_WINDOW_S = 5.0


@dataclass
class Progress:
    """Counts since this worker started, and rates over its last seconds."""

    task: Task
    owner: str
    _samples: deque[tuple[float, float, float, float]] = field(default_factory=deque)

    def status(self) -> Status:
        """A picture of now; also sets the metrics that are levels, not counts."""
        task, rt, commit = self.task, self.task.runtime, self.task.standing.commit
        metrics = task.world.metrics
        rows_in = sum(metrics.get("streamproc_rows_read_total", source=name) for name in rt.tables)
        bytes_in = sum(metrics.get("streamproc_bytes_read_total", source=name) for name in rt.tables)
        written = {name: int(metrics.get("streamproc_rows_written_total", sink=name)) for name in rt.sinks}
        rates = self._rates(task.world.clock.monotonic_s(), rows_in, bytes_in, sum(written.values()))
        feeds, faults = task.feeds(), task.source_faults()
        for name in rt.tables:
            metrics.set("streamproc_source_up", name not in faults, source=name)
        metrics.set("streamproc_epoch", task.standing.epoch)
        metrics.set("streamproc_lease_held", task.lease.held)
        metrics.set("streamproc_prefetch_bytes", sum(p.nbytes for feed in feeds for p in feed.queue))
        return Status(
            job=rt.job_name,
            now_us=task.world.clock.now_us(),
            lease_held=task.lease.held,
            lease_owner=self.owner,
            epoch=task.standing.epoch,
            epoch_running_s=task.epoch_running_s,
            epochs=int(metrics.get("streamproc_epochs_total")),
            rows_in=int(rows_in),
            rows_out=sum(written.values()),
            rows_in_per_s=rates[0],
            bytes_in_per_s=rates[1],
            rows_out_per_s=rates[2],
            watermark_us=commit.watermark_us,
            steps=dict(rt.steps),
            state_rows=int(sum(metrics.get("streamproc_state_rows", sink=name) for name in rt.sinks)),
            state_bytes=int(sum(metrics.get("streamproc_state_bytes", sink=name) for name in rt.sinks)),
            shards=tuple(self._shard(feed, rt.tables[feed.source_name].source.lag_unit) for feed in feeds),
            sinks=tuple(self._sink(name, rows) for name, rows in written.items()),
            dead=commit.dead,
            source_faults=faults,
        )

    def _shard(self, feed: Feed, lag_unit: str) -> ShardStatus:
        self._measure_lag(feed, lag_unit)
        end = self.task.standing.commit.shards.get(feed.source_name, {}).get(feed.shard.id)
        limit = self.task.runtime.tables[feed.source_name].watermark
        idle = bool(limit and limit.idle_us is not None and feed.idle_us >= limit.idle_us)
        return ShardStatus(feed.source_name, feed.shard.id, feed.lag, lag_unit, end.watermark_us if end else None, idle)

    def _measure_lag(self, feed: Feed, lag_unit: str) -> None:
        metrics, labels = self.task.world.metrics, {"source": feed.source_name, "shard": feed.shard.id}
        if feed.ended:
            metrics.drop("streamproc_lag_records", **labels)
            metrics.drop("streamproc_lag_seconds", **labels)
        elif feed.lag is not None and lag_unit == "ms":
            metrics.set("streamproc_lag_seconds", feed.lag / 1000, **labels)
        elif feed.lag is not None:
            metrics.set("streamproc_lag_records", feed.lag, **labels)

    def _sink(self, name: str, rows: int) -> SinkStatus:
        return SinkStatus(name, rows, int(self.task.world.metrics.get("streamproc_late_rows_total", sink=name)))

    def _rates(self, now_s: float, rows_in: float, bytes_in: float, rows_out: float) -> tuple[float, float, float]:
        self._samples.append((now_s, rows_in, bytes_in, rows_out))
        while len(self._samples) > 2 and self._samples[1][0] < now_s - RATE_WINDOW_S:
            self._samples.popleft()
        first, last = self._samples[0], self._samples[-1]
        seconds = max(last[0] - first[0], 1e-9)
        a, b, c = ((last[i] - first[i]) / seconds if last[0] > first[0] else 0.0 for i in (1, 2, 3))
        return a, b, c
