"""Conformance suite of the window contract: subclass it with `windows = [...]` and let pytest collect it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import duckdb

from streamproc.window import Window

_DAY_US = 86_400_000_000


class WindowConformance:
    """The promises of `streamproc.window.Window`, one test each."""

    windows: ClassVar[Sequence[Window]] = ()
    """The windows to try: a few sizes of one kind."""

    def test_every_assigned_window_contains_its_time(self) -> None:
        for window in self.windows:
            for time, starts, _ in _assigned(window, _times(window)):
                assert starts, f"{window}: time {time} is in no window"
                assert all(start <= time < start + window.length_us for start in starts), f"{window}: {time} not in {starts}"

    def test_assignment_depends_on_the_time_alone_before_1970_as_after(self) -> None:
        for window in self.windows:
            times = _times(window)
            once = _assigned(window, times)
            assert _assigned(window, times[::-1]) == once[::-1]
            assert {time < 0 for time, _, _ in once} == {True, False}
            counts = [len(starts) for _, starts, _ in once]
            assert max(counts) - min(counts) <= 1, f"{window}: {min(counts)} to {max(counts)} windows a time"

    def test_a_time_is_in_every_window_that_contains_it(self) -> None:
        for window in self.windows:
            known = {start for _, starts, _ in _assigned(window, _times(window)) for start in starts}
            for time, starts, _ in _assigned(window, _times(window)):
                assert {start for start in known if start <= time < start + window.length_us} <= set(starts)

    def test_assign_gives_starts_ascending_and_assign_one_the_last(self) -> None:
        for window in self.windows:
            for _, starts, last in _assigned(window, _times(window)):
                assert starts == sorted(set(starts))
                assert last == starts[-1]
                assert not window.single or len(starts) == 1

    def test_a_pane_has_the_windows_of_its_times(self) -> None:
        for window in self.windows:
            if window.pane("t") is not None:
                panes = _evaluated(str(window.pane("t")), _times(window))
                assert [starts for _, starts, _ in _assigned(window, panes)] == [
                    starts for _, starts, _ in _assigned(window, _times(window))
                ]

    def test_closed_when_the_end_is_at_or_below_the_watermark_and_stays_closed(self) -> None:
        for window in self.windows:
            end = window.length_us
            assert [window.closed(end, watermark) for watermark in (end - 1, end, end + 1, end + _DAY_US)] == [False, True, True, True]

    def test_equal_windows_are_equal_and_hashable(self) -> None:
        assert len(set(self.windows)) == len(self.windows)


def _times(window: Window) -> list[int]:
    """Times around the edges of windows, before 1970, at it and after."""
    step = max(window.length_us // 7, 1)
    near = [base + shift for base in (-400 * _DAY_US, -window.length_us, 0, window.length_us, 20_000 * _DAY_US) for shift in (-1, 0, 1)]
    return [*near, *range(-3 * window.length_us, 3 * window.length_us, step)]


def _evaluated(sql: str, times: list[int]) -> list[int]:
    connection = duckdb.connect(":memory:")
    rows = connection.execute(f"SELECT {sql} FROM (SELECT unnest($times::BIGINT[]) AS t)", {"times": times}).fetchall()
    connection.close()
    return [row[0] for row in rows]


def _assigned(window: Window, times: list[int]) -> list[tuple[int, list[int], int]]:
    connection = duckdb.connect(":memory:")
    assigned = window.assign("t")
    sql = f"SELECT t, {assigned}, {window.assign_one('t')}, typeof({assigned}) FROM (SELECT unnest($times::BIGINT[]) AS t)"
    rows = connection.execute(sql, {"times": times}).fetchall()
    connection.close()
    assert all(kind == "BIGINT[]" for *_, kind in rows), f"{window}: assign must be BIGINT[]"
    return [(time, list(starts), last) for time, starts, last, _ in rows]
