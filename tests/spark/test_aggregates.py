"""Aggregates give Spark's values and types or are refused: against recorded answers, and against Spark itself.

python tests/spark/test_aggregates.py record     # ask real Spark, write answers/aggregates.json
python tests/spark/test_aggregates.py show       # each case's verdict now
"""

from __future__ import annotations

import ast
import asyncio
import json
import math
import runpy
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.faults import PlanFaults
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.plan.types import spark_type
from streamproc.schema import parse_ddl

HERE = Path(__file__).parent
ANSWERS = HERE / "answers" / "aggregates.json"
DIFFERENTIAL = runpy.run_path(str(HERE / "differential.py"))
EPOCHS = 3


@cache
def cases():
    return yaml.load((HERE / "cases" / "aggregates.yaml").read_text(), yaml.BaseLoader)


@cache
def table():
    return DIFFERENTIAL["table"](parse_ddl(cases()["ddl"]), cases()["rows"])


def calls(*sections):
    return [call for section in sections for call in cases()[section]]


def asked():
    """Every case as a query whose first column is the group; a query's rows have no group."""
    return {call: f"SELECT g, {call} AS x FROM t GROUP BY g" for call in calls("equal", "approx", "refused")} | {
        query: query for query in cases()["queries"]
    }


def ask(session):
    """Spark's answers by case: rows as lists, or the groups one by one where one of them fails."""
    session.register({"t": table()})
    queries = asked()
    found = dict(zip(queries, session.query(list(queries.values())), strict=True))
    for call, answer in found.items():
        if isinstance(answer.get("rows"), dict):
            groups = sorted({row.as_py() for row in table()["g"]})
            alone = session.query([f"SELECT g, {call} AS x FROM t WHERE g = '{g}' GROUP BY g" for g in groups])
            answer["rows"] = [
                one["rows"][0] if isinstance(one["rows"], list) else [g, one["rows"]] for g, one in zip(groups, alone, strict=True)
            ]
    return found


async def ours(queries):
    """Our answers in Spark's form, the rows in `EPOCHS` epochs."""
    refused, sinks = {}, {f"q{n}": SinkQuery(sql, "complete") for n, sql in enumerate(queries.values())}
    while True:
        try:
            plan = plan_job({"t": TableInfo(table().schema)}, {}, {k: q for k, q in sinks.items() if k not in refused})
            break
        except PlanFaults as faults:
            refused |= {fault.place.split(".")[1]: fault.message for fault in faults.faults}
    outputs = await _run(plan)
    return {case: {"refused": refused[k]} if k in refused else _answer(outputs[k]) for case, k in zip(queries, sinks, strict=True)}


async def _run(plan):
    executor, state, size = Executor(plan, threads=1, slice_rows=4), {}, math.ceil(table().num_rows / EPOCHS)
    rows = table()
    for name, values in {"_shard": ["0"] * rows.num_rows, "_offset": [str(1000 + n) for n in range(rows.num_rows)]}.items():
        rows = rows.append_column(name, [values])
    rows = rows.select(plan.scans["t"].schema.names)
    try:
        for epoch in range(EPOCHS):
            output = await executor.run({"t": rows.slice(epoch * size, size)}, EpochTime(epoch + 1, None, None), state, limits={})
            assert not output.poison, output.poison
            state = output.state
        return output.sinks
    finally:
        await executor.close()


def _answer(output):
    schema = output.rows.schema
    fields = ",".join(f"{f.name}:{spark_type(f.type)}" for f in schema)
    rows = [[DIFFERENTIAL["encode"](row[f.name], f.type) for f in schema] for row in output.rows.to_pylist()]
    return {"type": f"struct<{fields}>", "rows": rows + [[ast.literal_eval(f.key)["g"], {"error": f.error}] for f in output.failures]}


def verdict(spark, mine, *, approx=False, groups=True):
    """`equal`, `refused`, or what differs."""
    if "refused" in mine:
        return "refused" if "refused" not in spark else "equal"
    if "refused" in spark:
        return f"Spark refuses it: {spark['refused']}; ours is {mine['type']}"
    if _spelled(spark["type"]) != _spelled(mine["type"]):
        return f"type: Spark {spark['type']}, ours {mine['type']}"
    ordered = [sorted(answer["rows"], key=lambda row: row[0] if groups else json.dumps(row)) for answer in (spark, mine)]
    wrong = (
        [f"Spark {a}, ours {b}" for a, b in zip(*ordered, strict=True) if not _same(a, b, approx)]
        if len(ordered[0]) == len(ordered[1])
        else [str(ordered)]
    )
    return "; ".join(wrong) or "equal"


def _spelled(kind):
    return kind.lower().replace(" ", "").replace("void", "string")


def _same(a, b, approx):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y, approx) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) or isinstance(b, dict):
        return isinstance(a, dict) and isinstance(b, dict)
    if isinstance(a, str) and isinstance(b, str) and a != b:
        try:
            x, y = float(a), float(b)
        except ValueError:
            return False
        return x == y or (approx and math.isclose(x, y, rel_tol=1e-7, abs_tol=1e-12))  # Spark's spreads lose digits far from 0
    return a == b


def verdicts(answers):
    mine, approximate = asyncio.run(ours(asked())), set(cases()["approx"])
    for case, got in mine.items():
        yield case, verdict(answers[case], got, approx=case in approximate, groups=case not in cases()["queries"])


def test_every_aggregate_has_its_verdict():
    answers, refused = json.loads(ANSWERS.read_text()), set(cases()["refused"])
    found = dict(verdicts(answers))
    assert {case: kind for case, kind in found.items() if kind not in (("equal", "refused") if case in refused else ("equal",))} == {}
    print(f"Spark aggregates: {Counter(found.values())}")


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_the_recorded_answers_of_aggregates_are_sparks(spark):
    recorded, fresh = json.loads(ANSWERS.read_text()), ask(spark)
    assert {case: answer for case, answer in fresh.items() if recorded.get(case) != answer} == {}
    assert set(recorded) == set(fresh)


def record():
    with DIFFERENTIAL["spark_session"]() as session:
        answers = ask(session)
    lines = ",\n".join(f" {json.dumps(case)}: {json.dumps(answer)}" for case, answer in answers.items())
    ANSWERS.write_text(f"{{\n{lines}\n}}\n")


def show():
    for case, kind in verdicts(json.loads(ANSWERS.read_text())):
        print(f"{case}    -- {kind}")


if __name__ == "__main__":
    {"record": record, "show": show}[sys.argv[1]]()
