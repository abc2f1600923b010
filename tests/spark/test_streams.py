"""The same steps through Structured Streaming and through us: the rows that each step writes are equal.

Spark's answers are recorded in answers/streams.json; the marked test asks again. `python tests/spark/test_streams.py record`.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamproc.job import Added, TestStep, load_job
from streamproc.testing.job_runner import JobRun

HERE = Path(__file__).parent
GIVEN = yaml.safe_load((HERE / "streams.yaml").read_text())
ANSWERS = HERE / "answers" / "streams.json"
MODULE = runpy.run_path(str(HERE / "differential.py"))
START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {"a": ("k", "n", "ts"), "b": ("k", "m", "ts")}
ASKED = sorted(GIVEN["queries"])[::8]
"""Those that the marked test asks again: a query takes Spark some seconds."""


def steps_of(case):
    """The steps' rows by source, as JSON objects with times as text."""
    for step in GIVEN["steps"][case.get("steps", "one")]:
        yield {source: [_row(COLUMNS[source], values) for values in rows] for source, rows in step.items()}


def _row(names, values):
    row = dict(zip(names, values, strict=True))
    row["ts"] = (
        None if row["ts"] is None else (START + timedelta(seconds=row["ts"])).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )
    return {name: value for name, value in row.items() if value is not None}


def asked(name):
    case = GIVEN["queries"][name]
    used = {source for step in steps_of(case) for source in step}
    sources = {source: spec for source, spec in GIVEN["sources"].items() if source in used}
    more = {"dedup": case["dedup"]} if "dedup" in case else {}
    return {"sources": sources, "mode": case.get("mode", "append"), "query": case["query"], "steps": list(steps_of(case)), **more}


def job_of(name):
    case, question = GIVEN["queries"][name], asked(name)
    sources = {
        source: {
            "type": "kafka", "topic": source, "bootstrap_servers": "127.0.0.1:9092", "schema": spec["schema"],
            "watermark": {"column": spec["column"], "delay": spec["delay"], "idle": "never", "max_ahead": "1000 days"},
        }
        for source, spec in question["sources"].items()
    }  # fmt: skip
    sink = {"type": "console", "mode": question["mode"], "query": case.get("ours", case["query"])}
    return load_job("streams.yaml", text=yaml.safe_dump({"name": "streams", "sources": sources, "sinks": {"out": sink}}))


async def ours(name):
    job = job_of(name)
    run = JobRun(job, 1_767_225_600_000_000)
    schema, steps, seen = job.planned.queries["out"].schema, [], set()
    await run.start()
    try:
        for step in asked(name)["steps"]:
            added = {source: Added(shard="s", rows=tuple(rows)) for source, rows in step.items()}
            assert await run.step(TestStep("add", 0, added)) is None
            sink = run.sinks["out"]
            if GIVEN["queries"][name].get("mode") == "complete":
                rows = list(sink.rows())
            else:
                rows = [row for epoch, table in sink.epochs.items() if epoch not in seen for row in table.to_pylist()]
                seen |= set(sink.epochs)
            steps.append([[MODULE["encode"](row[field.name], field.type) for field in schema] for row in rows])
        assert run.stopped is None, run.stopped
        return steps
    finally:
        await run.close()


def same(theirs: Any, mine: Any, mode: str) -> None:
    """Rows by step, in any order; in complete Spark writes nothing where nothing changed."""
    for number, (spark, we) in enumerate(zip(theirs["steps"], mine, strict=True)):
        if mode == "complete":
            spark = spark[-len(we) :] if we else spark
        assert sorted(map(repr, spark)) == sorted(map(repr, we)), f"step {number}"


def _joined(steps):
    return [row for step in steps for row in step]


@pytest.mark.parametrize("name", sorted(GIVEN["queries"]))
def test_we_write_what_spark_wrote(name):
    answer = json.loads(ANSWERS.read_text())[name]
    assert "refused" not in answer, answer
    mine = asyncio.run(ours(name))
    if GIVEN["queries"][name].get("late"):
        answer, mine = {"steps": [_joined(answer["steps"])]}, [_joined(mine)]
    same(answer, mine, asked(name)["mode"])


@pytest.mark.spark
@pytest.mark.parametrize("name", ASKED)
def test_spark_still_says_so(spark, name):
    assert spark.stream(asked(name)) == json.loads(ANSWERS.read_text())[name]


def record(chosen):
    found = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    with MODULE["spark_session"]() as session:
        for name in chosen or GIVEN["queries"]:
            found[name] = session.stream(asked(name))
            print(name, str(found[name])[:300], flush=True)
            lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found.items()))
            ANSWERS.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    record(sys.argv[2:])
