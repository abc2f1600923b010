"""Every expression of tests/golden/plan/expressions.sql gives Spark's type and value."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from streamproc.plan.faults import PlanFaults
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.schema import ddl_type, parse_ddl

GOLDEN = Path(__file__).parent.parent / "golden" / "plan"
DDL = (
    "n INT, z INT, s STRING, e STRING, d DOUBLE, nan DOUBLE, dec DECIMAL(10,2), b BOOLEAN, ts TIMESTAMP, day DATE, a ARRAY<INT>, "
    "m MAP<STRING, INT>, st STRUCT<x: INT, y: STRING>, nil INT"
)
ROW = {
    "n": 7, "z": 0, "s": "Spark", "e": "", "d": 2.5, "nan": float("nan"), "dec": Decimal("12.34"), "b": True,
    "ts": dt.datetime(2026, 3, 1, 12, 34, 56, 789000, dt.UTC), "day": dt.date(2026, 3, 1), "a": [3, 1, None], "m": [("k", 1)],
    "st": {"x": 1, "y": "v"}, "nil": None,
}  # fmt: skip
TABLES = {"t": TableInfo(parse_ddl(DDL))}


def pairs(name):
    text = "\n".join(line for line in (GOLDEN / name).read_text().splitlines() if not line.startswith("--"))
    return [tuple(block.split("\n", 1)) for block in text.strip("\n").split("\n\n")]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect(config={"threads": 1}) as made:
        made.execute("SET TimeZone = 'UTC'")
        made.execute("SET VARIABLE epoch_now = TIMESTAMPTZ '2026-01-01 00:00:00+00'")
        made.register("input", pa.Table.from_pylist([ROW], schema=TABLES["t"].schema))
        yield made


def evaluate(connection, expression, zone="UTC"):
    query = plan_job(TABLES, {}, {"out": SinkQuery(f"SELECT {expression} AS x FROM t", "append")}, time_zone=zone).queries["out"]
    value = connection.sql(query.root.sql).fetchall()[0][0]
    if isinstance(value, dt.datetime):
        value = value.astimezone(dt.UTC)
    return f"{ddl_type(query.schema.field('x').type)} {'NULL' if value is None else value}"


@pytest.mark.parametrize(("expression", "expected"), pairs("expressions.sql"), ids=lambda text: text[:60])
def test_expression(connection, expression, expected):
    if expected == "ERROR":
        with pytest.raises((duckdb.DataError, duckdb.InvalidInputException, PlanFaults)):
            evaluate(connection, expression)
    else:
        assert evaluate(connection, expression) == expected
