"""The window contract: which windows a row belongs to, as an expression DuckDB evaluates.

Times are microseconds since 1970 UTC as BIGINT; a window is [start, end). A kind of window is one class in
`windows/`, named in `registry.py` by the SQL function that makes it. It is pure and adds no state of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window(ABC):
    """A frozen rule that assigns event times to windows. A window is known by its key: its start, or, where several windows
    begin together, its end.

    Promises, each with a test of its name in `streamproc.testing.WindowConformance`:
    - every assigned window contains its time: start ≤ t < end.
    - assignment depends on the time alone, before 1970 as after.
    - `assign` is a DuckDB expression over the BIGINT expression `time`, of type BIGINT[]: the keys, ascending.
    - the end of the window with key k is `end(k)`; from its `begin(k)` that is at most `length_us` (but where the clock of a
      time zone changes).
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
        """True if every time has exactly one window (then `assign_one` may be used: no list is built) and keys are starts."""

    @abstractmethod
    def assign(self, time: str) -> str: ...

    @abstractmethod
    def assign_one(self, time: str) -> str:
        """DuckDB BIGINT expression of the (last) window's key."""

    def begin(self, key: str) -> str:
        """DuckDB BIGINT expression of the start of the window with this key."""
        return key

    def end(self, key: str) -> str:
        """DuckDB BIGINT expression of the end of the window with this key."""
        return f"({key}) + {self.length_us}"

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


class MergingWindow(ABC):
    """A rule by which the intervals of rows become windows: one alone does not say which. Promises:
    - intervals that overlap or touch are in one window, in whatever order and pieces they come;
    - a window reaches from the least start to the greatest end of its intervals.
    """

    @abstractmethod
    def numbered(self, rows: str, keys: Sequence[str]) -> str:
        """`SELECT *, … AS _s FROM rows`: for each combination of `keys` the number of the window of every interval, whose start
        and end are the BIGINT columns `_ws` and `_we`.
        """


def aligned(time: str, step_us: int, offset_us: int = 0) -> str:
    """DuckDB BIGINT expression of the last of offset + n·step (for every whole n, also below 0) that is not after `time`."""
    since = f"(({time}) - ({offset_us}))"
    # % truncates towards zero: times before the origin need one step less
    return f"(({time}) - {since} % {step_us} - CASE WHEN {since} % {step_us} < 0 THEN {step_us} ELSE 0 END)"
