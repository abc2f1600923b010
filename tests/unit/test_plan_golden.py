"""Spark SQL → plan text, as pairs of files: tests/golden/plan/<name>.sql and .txt.

A file holds statements by their place, `-- sinks.out append late` or `-- views.real`, over the sources below.
`UPDATE_GOLDEN=1` writes the .txt files anew.
"""

import os
from pathlib import Path

import pytest

from streamproc.plan.explain import explain
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import PlanFaults, SinkQuery, TableInfo, plan_job
from streamproc.schema import parse_ddl

GOLDEN = Path(__file__).parent.parent / "golden" / "plan"
TABLES = {
    "clicks": TableInfo(
        parse_ddl("user STRING, page STRING, amount DECIMAL(10,2), n INT, d DOUBLE, tags ARRAY<STRING>, ts TIMESTAMP"),
        watermark=Watermark("ts", 30_000_000),
    ),
    "plain": TableInfo(parse_ddl("id BIGINT, ts TIMESTAMP")),
}
JOBS = sorted(p.stem for p in GOLDEN.glob("*.sql") if p.stem not in ("expressions", "faults", "dialect"))


def statements(text):
    found = []
    for line in text.splitlines(keepends=True):
        if line.startswith(("-- sinks.", "-- views.")):
            found.append((line[3:].split(), ""))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def plan_text(text, tables=TABLES):
    views, sinks = {}, {}
    for (place, *options), sql in statements(text):
        kind, name = place.split(".")
        if kind == "views":
            views[name] = sql
        else:
            sinks[name] = SinkQuery(sql, options[0] if options else "append", "late" in options)
    try:
        return explain(plan_job(tables, views, sinks))
    except PlanFaults as faults:
        return f"{faults}\n"


@pytest.mark.parametrize("name", JOBS)
def test_plan(name):
    got, expected = plan_text((GOLDEN / f"{name}.sql").read_text()), GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(got)
    assert got == expected.read_text()


def fault_cases():
    blocks = (GOLDEN / "faults.sql").read_text().strip().split("\n\n")
    return [tuple(block.split("\n=> ", 1)) for block in blocks]


@pytest.mark.parametrize(("sql", "expected"), fault_cases(), ids=lambda text: text[:60].replace("\n", " "))
def test_fault(sql, expected):
    text = sql if sql.startswith("-- ") else f"-- sinks.out append\n{sql}"
    assert plan_text(text).strip() == expected.replace("\n=> ", "\n")
