"""Whether a worker lives and whether it does its work, judged from its last status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamproc.status import Status

STUCK_AFTER_S = 300.0
"""A worker that reports nothing for so long, or an epoch that takes longer, hangs: to start again costs one epoch's replay."""


@dataclass(frozen=True, slots=True)
class Health:
    """Reasons in sentences. `stuck`: the process should be restarted. `waiting`: it lives, but does no work now."""

    stuck: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def judge(status: Status | None, silent_s: float) -> Health:
    """Health by the last status and the seconds since it (since the start, where there is none yet)."""
    return Health(tuple(_stuck(status, silent_s)), tuple(_waiting(status)))


def _stuck(status: Status | None, silent_s: float) -> Iterator[str]:
    if silent_s > STUCK_AFTER_S:
        yield f"the worker reported nothing for {silent_s:.0f} s"
    if status is not None and status.epoch_running_s > STUCK_AFTER_S:
        yield f"epoch {status.epoch + 1} has been running for {status.epoch_running_s:.0f} s"


def _waiting(status: Status | None) -> Iterator[str]:
    if status is None:
        yield "starting"
        return
    if not status.lease_held:
        yield f"the lease is held by {status.lease_owner or 'another worker'}"
    for source, reason in sorted(status.source_faults.items()):
        yield f"source {source} does not answer: {reason}"
