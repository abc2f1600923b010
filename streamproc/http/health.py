"""Whether a worker lives and whether it does its work, judged from its last status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamproc.status import Status

STUCK_AFTER_S = 300.0
"""An epoch loop that reports nothing for so long hangs: every wait and retry of the engine is far shorter."""


@dataclass(frozen=True, slots=True)
class Health:
    """Reasons in sentences. `stuck`: the process should be restarted. `waiting`: it lives, but does no work now."""

    stuck: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def judge(status: Status | None, silent_s: float) -> Health:
    """Health by the last status and the seconds since it (since the start, where there is none yet)."""
    stuck = (f"the epoch loop reported nothing for {silent_s:.0f} s",) if silent_s > STUCK_AFTER_S else ()
    return Health(stuck, tuple(_waiting(status)))


def _waiting(status: Status | None) -> Iterator[str]:
    if status is None:
        yield "starting"
        return
    if not status.lease_held:
        yield f"the lease is held by {status.lease_owner or 'another worker'}"
    for source, reason in sorted(status.source_faults.items()):
        yield f"source {source} does not answer: {reason}"
