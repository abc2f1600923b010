"""Parquet tables brought to the declared schema: nothing is lost, or the column is named."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from streamproc.formats.parquet import conform
from streamproc.schema import parse_ddl


def cast(array, kind):
    return conform(pa.table({"c": array}), parse_ddl(f"c {kind}"))["c"]


def test_columns_go_by_name_and_missing_ones_are_null():
    table = conform(pa.table({"b": ["x"], "a": pa.array([1], pa.int64()), "z": [1.0]}), parse_ddl("a BIGINT, b STRING, c DATE"))
    assert table.schema == parse_ddl("a BIGINT, b STRING, c DATE")
    assert table.to_pylist() == [{"a": 1, "b": "x", "c": None}]
    assert conform(table, pa.schema([])).num_rows == 1


NS = pa.array([1_500, -1, None], pa.timestamp("ns"))


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array([1, None], pa.int32()), "BIGINT", [1, None]),
        (pa.array([255], pa.uint8()), "SMALLINT", [255]),
        (pa.array([7], pa.int32()), "DOUBLE", [7.0]),
        (pa.array([7], pa.int32()), "DECIMAL(12,2)", [Decimal("7.00")]),
        (pa.array([Decimal("1.5")], pa.decimal128(4, 1)), "DECIMAL(10,3)", [Decimal("1.500")]),
        (pa.array([0.5], pa.float32()), "DOUBLE", [0.5]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "STRING", ["a", None, "a"]),
        (pa.array(["a"], pa.large_string()), "STRING", ["a"]),
        (pa.array([b"a"]), "STRING", ["a"]),
        (pa.array([b"ab"], pa.binary(2)), "BINARY", [b"ab"]),
        (pa.array([1], pa.timestamp("ms", "Europe/Berlin")), "TIMESTAMP", [datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)]),
        (pa.array([1], pa.timestamp("s")), "TIMESTAMP_NTZ", [datetime.fromisoformat("1970-01-01T00:00:01")]),
        (NS, "TIMESTAMP", [datetime(1970, 1, 1, 0, 0, 0, 1, UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), None]),
        (pa.array([[1, 2], None, []], pa.list_(pa.int8())), "ARRAY<BIGINT>", [[1, 2], None, []]),
        (pa.array([[1], None], pa.large_list(pa.int64())), "ARRAY<BIGINT>", [[1], None]),
        (pa.array([{"b": 1, "a": "x"}, None]), "STRUCT<a: STRING, c: INT, b: BIGINT>", [{"a": "x", "c": None, "b": 1}, None]),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), "MAP<STRING, INT>", [[("k", 1)], None]),
        (pa.nulls(2), "INT", [None, None]),
    ],
)
def test_casts_that_lose_nothing(array, kind, values):
    assert cast(array, kind).to_pylist() == values
    assert cast(array[1:], kind).to_pylist() == values[1:]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([1], pa.int64()), "INT"),
        (pa.array([1], pa.uint64()), "BIGINT"),
        (pa.array([1], pa.int64()), "DOUBLE"),
        (pa.array([0.5]), "FLOAT"),
        (pa.array(["1"]), "INT"),
        (pa.array([1]), "STRING"),
        (pa.array([Decimal("1.5")]), "DECIMAL(1,0)"),
        (pa.array([1], pa.int64()), "DECIMAL(10,0)"),
        (pa.array([True]), "INT"),
        (pa.array([1], pa.timestamp("us", "UTC")), "TIMESTAMP_NTZ"),
        (pa.array([b"\xff"]), "STRING"),
        (pa.array([[1]]), "INT"),
        (pa.array([2**62], pa.timestamp("s")), "TIMESTAMP"),
        (pa.array([{"a": 1}]), "STRUCT<a: INT>"),
        (pa.array([["x"]]), "ARRAY<INT>"),
    ],
)
def test_others_name_the_column_and_both_types(array, kind):
    with pytest.raises(ValueError, match=r"column '(c|a|c\.element)'"):
        cast(array, kind)


def test_not_null_and_twice():
    with pytest.raises(ValueError, match="'c' is NOT NULL"):
        cast(pa.array([1, None], pa.int32()), "INT NOT NULL")
    with pytest.raises(ValueError, match="2 times"):
        conform(pa.table([[1], [2]], names=["c", "c"]), parse_ddl("c BIGINT"))
