"""A worker's death as data: raised at a boundary between two steps of an epoch, caught by nobody but the test."""

from __future__ import annotations

from dataclasses import dataclass, field

BOUNDARIES = ("after_read", "after_begin", "after_run", "after_write", "before_commit", "after_commit")
"""Where a worker can die between the steps of engine/epoch.py, in their order (`before_commit` = the state is saved)."""


class Died(BaseException):
    """The worker is gone. Not an Exception: no retry and no policy may catch it."""


@dataclass
class Crash:
    """Armed with a boundary's name, the next epoch dies there, once. Hand it to a task as `boundary`."""

    armed: str | None = None
    passed: list[str] = field(default_factory=list)

    async def __call__(self, boundary: str) -> None:
        self.passed.append(boundary)
        if boundary == self.armed:
            self.armed = None
            raise Died(boundary)
