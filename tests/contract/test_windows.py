"""The windows that ship, over the conformance suite, and Spark's alignment of each."""

from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.testing.window_suite import WindowConformance
from windows.sliding import Sliding
from windows.tumbling import Tumbling
from windows.zoned import Zoned

MINUTE = 60_000_000


class TestTumbling(WindowConformance):
    windows = (Tumbling(MINUTE), Tumbling(MINUTE, 7_000_000), Tumbling(MINUTE, -7_000_000), Tumbling(1), Tumbling(86_400_000_000))


def test_days_of_a_time_zone_begin_at_its_midnight():
    berlin = Zoned(Tumbling(86_400_000_000), "Europe/Berlin")
    assert starts(berlin, "2026-03-28T22:59:59", "2026-03-28T23:00:00", "2026-03-29T21:59:59", "2026-03-29T22:00:00") == [
        "2026-03-27 23:00:00", "2026-03-28 23:00:00", "2026-03-28 23:00:00", "2026-03-29 22:00:00",
    ]  # fmt: skip
    assert starts(berlin, "1969-12-31T23:30:00", "1969-12-31T22:30:00") == ["1969-12-31 23:00:00", "1969-12-30 23:00:00"]


class TestZoned(WindowConformance):
    windows = (Zoned(Tumbling(86_400_000_000), "Asia/Kolkata"), Zoned(Sliding(2 * 86_400_000_000, 86_400_000_000), "Asia/Kolkata"))


class TestSliding(WindowConformance):
    windows = (
        Sliding(10 * MINUTE, 5 * MINUTE), Sliding(10 * MINUTE, 3 * MINUTE), Sliding(10 * MINUTE, 5 * MINUTE, MINUTE),
        Sliding(MINUTE, MINUTE), Sliding(7, 2, -1),
    )  # fmt: skip


def starts(window, *times):
    us = [(datetime.fromisoformat(t).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6 for t in times]
    rows = duckdb.execute(
        f"SELECT make_timestamp(unnest({window.assign('t')}))::VARCHAR FROM (SELECT unnest($1::BIGINT[]) t)", [us]
    ).fetchall()
    return [row[0] for row in rows]


def test_alignment_is_sparks():
    assert starts(Tumbling(7 * MINUTE), "1970-01-01T00:00:00", "1969-12-31T23:59:59", "2026-01-01T00:03:00") == [
        "1970-01-01 00:00:00", "1969-12-31 23:53:00", "2026-01-01 00:00:00",
    ]  # fmt: skip
    assert starts(Tumbling(60 * MINUTE, 15 * MINUTE), "2026-01-01T00:10:00", "2026-01-01T00:15:00") == [
        "2025-12-31 23:15:00",
        "2026-01-01 00:15:00",
    ]
    assert starts(Sliding(10 * MINUTE, 5 * MINUTE), "2026-01-01T00:07:00", "1969-12-31T23:59:59") == [
        "2026-01-01 00:00:00", "2026-01-01 00:05:00", "1969-12-31 23:50:00", "1969-12-31 23:55:00",
    ]  # fmt: skip


@given(st.integers(-(2**60), 2**60), st.integers(1, 2**40), st.integers(1, 2**40), st.integers(0, 2**40))
def test_sliding_gives_exactly_the_windows_that_contain_the_time(time, size, slide, offset):
    slide = max(min(slide, size), size // 50 + 1)
    offset %= slide
    first = (time - offset - size) // slide + 1
    expected = [offset + n * slide for n in range(first, (time - offset) // slide + 1)]
    assert duckdb.execute(f"SELECT {Sliding(size, slide, offset).assign('t')} FROM (SELECT {time}::BIGINT AS t)").fetchone()[0] == expected


@pytest.mark.parametrize(
    "make", [lambda: Tumbling(0), lambda: Tumbling(5, 5), lambda: Sliding(5, 6), lambda: Sliding(5, 0), lambda: Sliding(5, 2, 2)]
)
def test_impossible_windows_are_refused(make):
    with pytest.raises(ValueError, match="window"):
        make()
