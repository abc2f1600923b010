"""Holes and overlaps of hash ranges, by hand and against a model that looks at every place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.hash_ranges import HASHES, holes, leaves, overlaps

TOP = HASHES - 1
HALF = HASHES // 2
STEP = HASHES // 64
RANGES = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 63)).map(lambda ends: (min(ends), max(ends))), max_size=8)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], [(0, TOP)]),
        ([(0, TOP)], []),
        ([(HALF, TOP), (0, HALF - 1)], []),
        ([(1, TOP)], [(0, 0)]),
        ([(0, HALF - 2), (HALF, TOP)], [(HALF - 1, HALF - 1)]),
        ([(0, 10), (20, 30)], [(11, 19), (31, TOP)]),
        ([(0, HALF), (5, 7), (HALF + 1, TOP)], []),
        ([(0, TOP - 1)], [(TOP, TOP)]),
    ],
)
def test_holes_are_what_nobody_covers(ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert holes(ranges) == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(0, HALF - 1), (HALF, TOP)], []),
        ([(0, HALF), (HALF, TOP)], [(HALF, HALF)]),
        ([(0, TOP), (3, 5), (4, 9), (20, 21)], [(3, 9), (20, 21)]),
        ([(0, 9), (0, 9)], [(0, 9)]),
    ],
)
def test_overlaps_are_what_two_cover(ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert overlaps(ranges) == expected


@given(RANGES)
def test_every_place_is_covered_by_nobody_one_or_more(places: list[tuple[int, int]]) -> None:
    ranges = [(low * STEP, (high + 1) * STEP - 1) for low, high in places]
    for place in range(64):
        covering = sum(low <= place <= high for low, high in places)
        assert any(low <= place * STEP <= high for low, high in holes(ranges)) == (covering == 0)
        assert any(low <= place * STEP <= high for low, high in overlaps(ranges)) == (covering > 1)


def test_leaves_are_the_shards_without_children() -> None:
    assert leaves([("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c")), ("e", ("gone",))]) == {"d", "e"}
