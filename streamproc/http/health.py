"""Whether a worker lives and whether it does its work, judged from its last status."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from streamproc.clock import Clock
from streamproc.metrics import Metrics
from streamproc.status import Status

STUCK_AFTER_S = 300.0
"""A worker that reports nothing for so long, or an epoch that takes longer, hangs: to start again costs one epoch's replay."""


@dataclass(frozen=True, slots=True)
class Health:
    """Reasons in sentences. `stuck`: the process should be restarted. `waiting`: it lives, but does no work now."""

    stuck: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


class Retries:
    """When a job last tried a call again: what retries waits for a server and does not hang."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._count, self._seen_s = 0.0, -math.inf

    def ago_s(self) -> float:
        """Seconds since this last saw a retry; infinite if there was none."""
        count = sum(value for metric, _, value, _ in self._metrics.samples() if metric.name == "streamproc_retries_total")
        if count != self._count:
            self._count, self._seen_s = count, self._clock.monotonic_s()
        return self._clock.monotonic_s() - self._seen_s

    def __repr__(self) -> str:
        return f"<Retries {self._count:.0f}>"


def judge(status: Status | None, silent_s: float, retried_ago_s: float = math.inf, *, standby_is_ready: bool = False) -> Health:
    """Health by the last status and the seconds since it (since the start, where there is none yet), and since a call was
    last tried again. `standby_is_ready`: waiting for another worker's lease is work too.
    """
    stuck = () if retried_ago_s <= STUCK_AFTER_S else tuple(_stuck(status, silent_s))
    return Health(stuck, tuple(_waiting(status, standby_is_ready)))


def _stuck(status: Status | None, silent_s: float) -> Iterator[str]:
    if silent_s > STUCK_AFTER_S:
        yield f"the worker reported nothing for {silent_s:.0f} s"
    if status is not None and status.epoch_running_s > STUCK_AFTER_S:
        yield f"epoch {status.epoch + 1} has been running for {status.epoch_running_s:.0f} s"


def _waiting(status: Status | None, standby_is_ready: bool) -> Iterator[str]:
    if status is None:
        yield "starting"
        return
    if not status.lease_held and not standby_is_ready:
        yield f"the lease is held by {status.lease_owner or 'another worker'}"
    for source, reason in sorted(status.source_faults.items()):
        yield f"source {source} does not answer: {reason}"
