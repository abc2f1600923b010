"""When an epoch begins: a plain function over values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Trigger:
    """`asap`: as soon as there is something to do. `interval`: at most one epoch in `interval_us`; an epoch that took
    longer is followed at once. `available_now`: as asap, and it ends once all that was there at its start is committed.
    """

    kind: Literal["asap", "interval", "available_now"] = "asap"
    interval_us: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What the task sees when it decides. `work`: rows are waiting, a shard ended, or a new watermark makes something
    final. `exhausted`: every shard has been read to the end that was there at the start (available_now).
    """

    now_us: int
    begun_us: int | None
    work: bool
    exhausted: bool = False
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`begin` an epoch; `finish` for good; or `wait` for news, at most `wait_us` (None: until news comes)."""

    action: Literal["begin", "wait", "finish"]
    wait_us: int | None = None


def decide(trigger: Trigger, view: View) -> Decision:
    """What to do now. A stop lets nothing new begin: what is read and not begun stays in the source."""
    if view.stopping:
        return Decision("finish")
    due_us = 0 if trigger.kind != "interval" or view.begun_us is None else view.begun_us + trigger.interval_us
    if view.work:
        return Decision("begin") if view.now_us >= due_us else Decision("wait", due_us - view.now_us)
    return Decision("finish") if trigger.kind == "available_now" and view.exhausted else Decision("wait")
