"""The windows that ship, over the conformance suite, and Spark's alignment of each."""

from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.testing.window_suite import WindowConformance
from windows.cumulate import Cumulate
from windows.session import Session
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


def test_windows_of_one_start_end_a_step_apart_up_to_the_size():
    cumulate = Cumulate(20, 60)
    connection = duckdb.connect()
    for time, keys in (
        (0, [20, 40, 60]),
        (19, [20, 40, 60]),
        (20, [40, 60]),
        (59, [60]),
        (60, [80, 100, 120]),
        (-1, [0]),
        (-60, [-40, -20, 0]),
    ):
        (found,) = connection.execute(f"SELECT {cumulate.assign(f'({time})::BIGINT')}").fetchone()
        ends, starts, last, pane = connection.execute(
            f"SELECT list_transform($keys, lambda k: {cumulate.end('k')}), list_transform($keys, lambda k: {cumulate.begin('k')}),"
            f" {cumulate.assign_one(f'({time})::BIGINT')}, {cumulate.assign(cumulate.pane(f'({time})::BIGINT'))}",
            {"keys": keys},
        ).fetchone()
        assert (found, ends, last, pane) == (keys, keys, keys[-1], keys)
        assert {start <= time < end for start, end in zip(starts, ends, strict=True)} == {True}
        assert set(starts) == {time // 60 * 60}


@pytest.mark.parametrize(("step", "size"), [(0, 60), (7, 60), (20, 0)])
def test_a_step_divides_the_size(step, size):
    with pytest.raises(ValueError, match="cumulate_window"):
        Cumulate(step, size)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-50, 50), st.integers(1, 12)), min_size=1, max_size=30))
def test_intervals_that_overlap_or_touch_are_one_session(rows):
    connection = duckdb.connect()
    sql = Session().numbered("SELECT unnest($k) AS k, unnest($s) AS _ws, unnest($e) AS _we", ["k"])
    values = {"k": [k for k, _, _ in rows], "s": [s for _, s, _ in rows], "e": [s + gap for _, s, gap in rows]}
    found = connection.execute(f"SELECT k, min(_ws), max(_we) FROM ({sql}) GROUP BY k, _s ORDER BY ALL", values).fetchall()
    expected = []
    for k, start, end in sorted((k, s, s + gap) for k, s, gap in rows):
        if expected and expected[-1][0] == k and start <= expected[-1][2]:
            expected[-1] = (k, expected[-1][1], max(end, expected[-1][2]))
        else:
            expected.append((k, start, end))
    assert found == expected
