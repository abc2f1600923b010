"""The five kinds of error. Each kind is an instruction to whoever catches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class StreamprocError(Exception):
    """Root of every error this project raises on purpose."""


class Unavailable(StreamprocError):
    """A server, disk or network did not answer: retry with back-off. Never evidence against a row."""


class LeaseLost(StreamprocError):
    """Somebody else runs this task now: drop it at once and write nothing more."""


class InvalidJob(StreamprocError):
    """The job file or the command is wrong: show `faults` and exit with code 2.

    `faults` are sorted by file and line; each says what is wrong and what to write instead.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda f: (f.file, f.line, f.message)))
        super().__init__("\n".join(map(str, self.faults)))


class BadRecord(StreamprocError):
    """A record cannot be used: dead letter, skip or stop, as the job says. Names shard and offset."""


class Bug(StreamprocError):
    """Our own promise is broken: please report. Nothing was committed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a job file, printed as `file:line: message`."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"
