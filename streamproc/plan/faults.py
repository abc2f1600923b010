"""What is wrong with the SQL of a job, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from sqlglot import exp


@dataclass(frozen=True, order=True)
class SqlFault:
    """`place` is `views.<name>` or `sinks.<name>.query`; `line` counts from 0 inside that SQL text."""

    place: str
    line: int
    message: str


class PlanFaults(Exception):  # the faults are the answer, not an accident
    """All faults of a job's SQL at once."""

    def __init__(self, faults: Iterable[SqlFault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        super().__init__("\n".join(f"{f.place}:{f.line}: {f.message}" for f in self.faults))


class LocatedError(Exception):
    """A fault while one SQL text is planned: at `line` (from 0), else at `node`, else where the compiler stands."""

    def __init__(self, message: str, node: exp.Expr | None = None, line: int | None = None) -> None:
        self.line = line if node is None else line_of(node)
        super().__init__(message)


class RefusedError(LocatedError):
    """A streaming query that cannot be run (yet): reported at the first line of the query."""

    def __init__(self, message: str) -> None:
        super().__init__(message, line=0)


class CircleError(LocatedError):
    """Views that read each other: reported at every view that leads there."""


class DependsOnFaultyViewError(Exception):
    """The fault is reported at the view itself, not again at each of its readers."""


def line_of(node: exp.Expr) -> int:
    """0-based line of the first token of `node` that the parser kept a position of."""
    lines = [n.meta["line"] for n in node.walk() if n.meta.get("line")]
    return min(lines) - 1 if lines else _line_of_parent(node)


def _line_of_parent(node: exp.Expr) -> int:
    parent = node.parent
    while parent is not None:
        lines = [n.meta["line"] for n in parent.walk() if n.meta.get("line")]
        if lines:
            return int(min(lines)) - 1
        parent = parent.parent
    return 0


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    names = {k.lower(): k for k in known}
    hits = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    return f"; did you mean {names[hits[0]]!r}?" if hits else ""
