"""Calls of Python functions: what the planner refuses, and what a function may return."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from streamproc.errors import BadRecord, Unavailable
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.operators.python_calls import Called, Functions, Memo
from streamproc.plan.faults import PlanFaults
from streamproc.plan.plan import Evaluate, FunctionCall, Plan, Scan
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.plan.python_functions import FunctionInfo
from streamproc.schema import parse_ddl

TABLES = {"t": TableInfo(parse_ddl("a STRING, b INT, c ARRAY<STRING>, d STRING"))}
FUNCTIONS = {"geo": FunctionInfo(pa.string(), True), "dice": FunctionInfo(pa.int32())}


def plan(sql: str, mode: Any = "append") -> Plan:
    return plan_job(TABLES, {}, {"out": SinkQuery(sql, mode)}, functions=FUNCTIONS)


def calls(made: Plan) -> list[tuple[str, ...]]:
    steps = [step for step in made.queries["out"].root.walk() if isinstance(step, Evaluate)]
    return [tuple(call.result for call in step.calls) for step in steps]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT geo(a) AS x, geo(a) AS y, geo(d) AS z FROM t", [("geo(a)", "geo(d)")]),
        ("SELECT geo(geo(a)) AS x FROM t", [("geo(a)",), ("geo(geo(a))",)]),
        ("SELECT GEO(a) AS x FROM t WHERE geo(d) = 'x' AND b > 1", [("geo(d)",), ("geo(a)",)]),
        ("SELECT b FROM t WHERE b = 1 OR geo(a) = 'x'", [("geo(a)",)]),
        ("SELECT x FROM t LATERAL VIEW explode(split(geo(a), ',')) e AS x WHERE geo(x) = 'y'", [("geo(a)",), ("geo(x)",)]),
        ("SELECT x FROM (SELECT geo(a) AS x FROM t) WHERE x = 'y'", [("geo(a)",)]),
        ("SELECT geo(`geo(a)`) AS x FROM (SELECT geo(a) FROM t)", [("geo(a)",), ("geo(geo(a))",)]),
        ("SELECT a FROM t", []),
    ],
)
def test_calls_become_steps(sql: str, found: list[tuple[str, ...]]) -> None:
    assert calls(plan(sql)) == found


def test_only_columns_that_the_query_names_are_decoded() -> None:
    assert [n for n in plan("SELECT geo(a) AS x, b FROM t").scans["t"].schema.names if not n.startswith("_")] == ["a", "b"]
    assert [n for n in plan("SELECT geo(a) AS x, * FROM t").scans["t"].schema.names if not n.startswith("_")] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT geo() AS x FROM t", "geo() needs an argument: it is called with one array for each"),
        ("SELECT geo(max(a)) AS x FROM t", "geo() is called on rows, not on aggregates: aggregate in a view, and call it over that"),
        ("SELECT transform(c, x -> geo(x)) AS y FROM t", "geo() cannot stand in a lambda; explode() the array and call it on its elements"),
        ("SELECT dice(n) AS x FROM (SELECT count(*) AS n FROM t)", "dice() is not deterministic and cannot be called over rows that were"),
        ("SELECT geo(nothing) AS x FROM t", "there is no column 'nothing' in t; the columns are a, b, c, d"),
        ("SELECT geoo(a) AS x FROM t", "function geoo() is not supported"),
    ],
)
def test_what_cannot_be_called_is_refused(sql: str, says: str) -> None:
    with pytest.raises(PlanFaults) as caught:
        plan(sql, "update" if "max" in sql or "count" in sql else "append")
    assert says in caught.value.faults[0].message


def evaluate(function: Callable[..., Any], kind: pa.DataType, *, deterministic: bool = True, memo: Memo | None = None) -> list[Any]:
    rows = pa.table({"a": [1, None, 3], "x": ["r", "s", "t"]})
    call = FunctionCall("f", ("a",), "f(a)", kind, deterministic)
    step = Evaluate(Scan("t", rows.schema), (call,), pa.schema([("x", pa.string()), ("f(a)", kind)]))
    found = Functions({"f": function}).evaluate(Called("SELECT", step), rows, memo or Memo())
    assert found.column("x").to_pylist() == ["r", "s", "t"]
    values: list[Any] = found.column("f(a)").to_pylist()
    return values


def boom(_: pa.Array) -> pa.Array:
    raise KeyError("boom")


def test_what_may_stand_for_the_declared_type() -> None:
    assert evaluate(lambda a: a, pa.int32()) == [1, None, 3]
    assert evaluate(lambda a: pa.chunked_array([a]), pa.int64()) == [1, None, 3]
    assert evaluate(lambda a: pa.nulls(3), pa.string()) == [None] * 3
    assert evaluate(lambda a: pa.array(["x"] * 3, pa.large_string()), pa.string()) == ["x"] * 3
    assert evaluate(lambda a: pa.array([[1]] * 3), pa.list_(pa.int32())) == [[1]] * 3


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (boom, r"function f: KeyError: 'boom' \(.*test_python_calls.py:\d+\)"),
        (lambda a: [1, 2, 3], "function f returned list, not an Arrow array"),
        (lambda a: a[:2], "function f returned 2 values for 3 rows"),
        (lambda a: a.cast(pa.string()), "function f returned string, declared is INT"),
        (lambda a: pa.array([1, 2, 2**40]), "function f returned int64, which does not fit INT: Integer value 1099511627776"),
    ],
)
def test_what_else_it_does_is_a_fault_of_the_rows(function: Callable[..., Any], says: str) -> None:
    with pytest.raises(BadRecord, match=says):
        evaluate(function, pa.int32())


def test_a_function_may_ask_for_another_try() -> None:
    def away(_: pa.Array) -> pa.Array:
        raise Unavailable("the service is away")

    with pytest.raises(Unavailable):
        evaluate(away, pa.int32())


def test_results_that_are_known_are_not_asked_for_again() -> None:
    memo = Memo()
    assert evaluate(lambda a: pa.array([7, 8, 9]), pa.int64(), deterministic=False, memo=memo) == [7, 8, 9]
    replay = Memo(answers=dict(memo.answers))
    assert evaluate(boom, pa.int64(), deterministic=False, memo=replay) == [7, 8, 9]


async def test_every_slice_gets_its_own_results_again() -> None:
    schema = parse_ddl("b INT")
    made = plan_job({"t": TableInfo(schema)}, {}, {"out": SinkQuery("SELECT b, dice(b) AS d FROM t", "append")}, functions=FUNCTIONS)
    scanned = made.scans["t"].schema
    data: dict[str, list[Any]] = {name: [str(n) for n in range(7)] for name in scanned.names}
    rows = pa.table({**data, "b": list(range(7))}).cast(scanned)
    drawn = itertools.count(100)
    first = Executor(made, {"dice": lambda b: pa.array([next(drawn) for _ in b])}, slice_rows=3)
    again = Executor(made, {"dice": boom}, slice_rows=3)
    time = EpochTime(1, None, None)
    output = await first.run({"t": rows}, time, {}, limits={})
    replayed = await again.run({"t": rows}, time, {}, limits={}, answers=output.answers)
    assert [len(table) for table in output.answers.values()] == [3, 3, 1]
    assert sorted(output.sinks["out"].rows.column("d").to_pylist()) == list(range(100, 107))
    assert replayed.sinks["out"].rows.equals(output.sinks["out"].rows)
    await first.close()
    await again.close()
