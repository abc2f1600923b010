"""What a running job tells about itself: the engine fills it, the terminal, `/healthz` and `/readyz` show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard. `lag` is in the source's own unit, `records` or `ms`; None = unknown. `watermark_us` None: no data yet.
    `position` is where the newest commit ends, as the source writes it.
    """

    source: str
    shard: str
    lag: int | None = None
    lag_unit: str = "records"
    watermark_us: int | None = None
    idle: bool = False
    position: str | None = None


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """One sink since this worker started: rows written, source rows refused as late."""

    name: str
    rows: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task of the job in this worker. `epoch` is its newest commit; `epoch_running_s` is 0 while no epoch runs."""

    task: str
    epoch: int = 0
    watermark_us: int | None = None
    lease_held: bool = False
    epoch_running_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """One picture of a job, taken at `now_us` (µs since 1970 UTC) by the worker that runs it.

    Totals count since this worker started; rates are over its last seconds. `steps` are the last epoch's seconds by
    step, in the order of the steps; `epoch_running_s` is how long the running one takes so far (0: none runs).
    `source_faults` maps a source that does not answer to the reason.
    """

    job: str
    now_us: int
    lease_held: bool = False
    lease_owner: str | None = None
    epoch: int = 0
    epochs: int = 0
    epoch_running_s: float = 0.0
    rows_in: int = 0
    rows_out: int = 0
    rows_in_per_s: float = 0.0
    bytes_in_per_s: float = 0.0
    rows_out_per_s: float = 0.0
    watermark_us: int | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    state_rows: int = 0
    state_bytes: int = 0
    shards: tuple[ShardStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    dead: int = 0
    source_faults: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[TaskStatus, ...] = ()
