"""Queries with explode, posexplode, inline and stack give Spark's rows or are refused.

python tests/spark/test_generators.py record     # ask real Spark, write answers/generators.json
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.faults import PlanFaults
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.plan.types import spark_type

HERE = Path(__file__).parent
ANSWERS = HERE / "answers" / "generators.json"
CASES = yaml.load((HERE / "cases" / "generators.yaml").read_text(), yaml.BaseLoader)
QUERIES = [*CASES["equal"], *CASES["refused"]]
DIFFERENTIAL = runpy.run_path(str(HERE / "differential.py"))


@cache
def answers():
    return json.loads(ANSWERS.read_text())


@cache
def table():
    return DIFFERENTIAL["tables"]()["nested"]


def ours(sql):
    """Our answer in Spark's form: a type and rows, or why it is refused."""
    mode = "complete" if "GROUP BY" in sql else "append"
    try:
        plan = plan_job({"nested": TableInfo(table().schema)}, {}, {"q": SinkQuery(sql, mode)})
    except PlanFaults as error:
        return {"refused": error.faults[0].message}
    rows = asyncio.run(_run(plan))
    fields = ",".join(f"{f.name}:{spark_type(f.type)}" for f in rows.schema)
    encode = DIFFERENTIAL["encode"]
    values = [[encode(value, f.type) for value, f in zip(row.values(), rows.schema, strict=True)] for row in rows.to_pylist()]
    return {"type": f"struct<{fields}>", "rows": values}


async def _run(plan):
    rows = table()
    for name in ("_shard", "_offset"):
        rows = rows.append_column(name, [[str(1000 + n) for n in range(rows.num_rows)]])
    executor = Executor(plan, threads=1)
    try:
        read = rows.select(plan.scans["nested"].schema.names)
        output = await executor.run({"nested": read}, EpochTime(1, None, None), {}, limits={})
        assert not output.poison, output.poison
        return output.sinks["q"].rows
    finally:
        await executor.close()


def comparable(answer):
    kind = answer["type"].lower().replace(" ", "")
    return kind, sorted(json.dumps(row) for row in answer["rows"])


@pytest.mark.parametrize("sql", CASES["equal"])
def test_rows_are_sparks(sql):
    spark, mine = answers()[sql], ours(sql)
    if "refused" in spark or isinstance(spark["rows"], dict):
        assert "refused" in mine
    else:
        assert "refused" not in mine, mine
        assert comparable(mine) == comparable(spark)


@pytest.mark.parametrize("sql", CASES["refused"])
def test_what_is_refused(sql):
    assert "refused" in ours(sql)
    assert sql in answers()


@pytest.mark.spark
@pytest.mark.timeout(300)
def test_the_recorded_answers_are_sparks(spark):
    assert ask(spark) == answers()


def ask(session):
    session.register({"nested": table()})
    return dict(zip(QUERIES, session.query(QUERIES), strict=True))


if __name__ == "__main__" and sys.argv[1:] == ["record"]:
    with DIFFERENTIAL["spark_session"]() as session:
        ANSWERS.write_text(json.dumps(ask(session), indent=0, ensure_ascii=False) + "\n")
