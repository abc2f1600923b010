"""The window contract: which windows a row belongs to, as an expression DuckDB evaluates.

Times are microseconds since 1970 UTC as BIGINT; a window is [start, end). A kind of window is one class in
`windows/`, named in `registry.py` by the SQL function that makes it. It is pure and adds no state of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Window(ABC):
    """A frozen rule that assigns event times to windows.

    Promises, each with a test of its name in `streamproc.testing.WindowConformance`:
    - every assigned window contains its time: start ≤ t < end.
    - assignment depends on the time alone, before 1970 as after.
    - `assign` is a DuckDB expression over the BIGINT expression `time`, of type BIGINT[]: the starts, ascending.
    - the end of the window that starts at s is `end(s)`, which is s + `length_us` but where the clock of a time zone changes.
    - `pane` of a time has the same windows as the time.
    - a window is closed at watermark w when its end ≤ w, and closed stays closed.
    """

    @property
    @abstractmethod
    def length_us(self) -> int: ...

    @property
    def step_us(self) -> int:
        """From the start of a window to that of the next."""
        return self.length_us

    @property
    @abstractmethod
    def single(self) -> bool:
        """True if every time has exactly one window (then `assign_one` may be used: no list is built)."""

    @abstractmethod
    def assign(self, time: str) -> str: ...

    @abstractmethod
    def assign_one(self, time: str) -> str:
        """DuckDB BIGINT expression of the (last) window's start."""

    def end(self, start: str) -> str:
        """DuckDB BIGINT expression of the end of the window that starts at `start`."""
        return f"({start}) + {self.length_us}"

    def start(self, end: str) -> str:
        """DuckDB BIGINT expression of the start of the window that ends at `end`."""
        return f"({end}) - {self.length_us}"

    def pane(self, time: str) -> str | None:
        """DuckDB BIGINT expression of a time that stands for all times with the same windows, in the last of them; None if
        there is no cheap one. With panes, rows are grouped once and not once a window.
        """
        del time
        return None

    def closed(self, end_us: int, watermark_us: int) -> bool:
        return end_us <= watermark_us
