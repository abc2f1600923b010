"""Nexmark's queries: each job over the generated events, cut into epochs, ends with the rows of one batch query.

The batch queries stand in nexmark_reference.sql. The events come at 500 a second of event time, 2 ms apart, so that no two have
the same time and windows of 10 seconds close; 50,000 of them.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from streamproc.bounded import BoundedTable
from streamproc.check import check
from streamproc.engine.runtime import Registered
from streamproc.engine.worker import run_job
from streamproc.formats.nexmark import CYCLE, SCHEMAS, SLOTS, Nexmark
from streamproc.job import SinkSpec, TableSpec, load_job
from streamproc.sink import Sink
from streamproc.testing import run_job_tests
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_table import MemoryTable
from streamproc.testing.noida import NoidaBroker
from streamproc.world import World

FOLDER = Path(__file__).parents[2] / "deploy" / "jobs" / "nexmark"
FILL = Path(__file__).parents[1] / "benchmarks" / "nexmark_topics.py"
CYCLES, KAFKA_CYCLES, EVENTS_PER_SECOND, EPOCHS = 1000, 200, 500, 4
REFERENCES = dict(re.findall(r"^-- (\w+)\n(.*?)(?=^-- |\Z)", Path(__file__).with_name("nexmark_reference.sql").read_text(), re.S | re.M))
KEYS = {"q12": "bidder, starttime", "q15": "day", "q16": "channel, day", "q17": "auction, day"}
"""What a row of an update replaces."""
JOBS = [f"q{number}" for number in range(23)]


class Connected(Registered):
    """The job's own sources; tables and sinks in memory."""

    def __init__(self) -> None:
        self.written: dict[str, MemorySink] = {}

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        del spec, world
        return self.written.setdefault(name, MemorySink())

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        del world
        return MemoryTable(spec, schema, time_zone, lambda: [{"key": n, "value": f"value {n}"} for n in range(2000)])


@cache
def events(cycles: int) -> Mapping[str, pa.Table]:
    """All events of each kind, as the generator makes them."""
    made = {}
    for kind in SCHEMAS:
        world = Nexmark(kind, events_per_second=EVENTS_PER_SECOND)
        made[kind] = pa.table(world.columns(pa.arange(0, cycles * SLOTS[kind][1]), world.schema.names))
    return made


def database(cycles: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for kind, table in events(cycles).items():
        connection.register(kind, table)
    connection.execute(REFERENCES["views"])
    return connection


async def run(name: str, folder: Path) -> Connected:
    """The job from the first event to the end of time, in several epochs."""
    path = FOLDER / f"{name}.yaml"
    overrides = [f"checkpoint={folder}"]
    for source in load_job(path).sources:
        rows = CYCLES * SLOTS[source][1]
        settings = {"rows": rows, "events_per_second": EVENTS_PER_SECOND, "max_rows_per_epoch": rows // EPOCHS}
        overrides += [f"sources.{source}.{key}={value}" for key, value in settings.items()]
    connected = Connected()
    await run_job(load_job(path, overrides=overrides), available_now=True, drain=True, connectors=connected)
    return connected


def final(name: str, written: pa.Table) -> str:
    """SQL of the rows that stand once all of `written` is applied, each with how many times (`_times`)."""
    if name in KEYS:
        return f"""SELECT * EXCLUDE (_epoch), 1 AS _times FROM written
            QUALIFY row_number() OVER (PARTITION BY {KEYS[name]} ORDER BY _epoch DESC) = 1"""
    if "_op" in written.column_names:
        extra = "_op, _epoch" if "_epoch" in written.column_names else "_op"
        weight = "sum(CASE WHEN _op IN ('insert', 'update_after') THEN 1 ELSE -1 END)"
        return f"SELECT * EXCLUDE ({extra}), {weight} AS _times FROM written GROUP BY ALL HAVING _times <> 0"
    return "SELECT *, count(*) AS _times FROM written GROUP BY ALL"


def differences(name: str, written: pa.Table, cycles: int = CYCLES) -> list[Any]:
    """Rows that only one side has."""
    with database(cycles) as connection:
        connection.register("written", written)
        ours = connection.sql(final(name, written))
        theirs = connection.sql(f"SELECT *, count(*) AS _times FROM ({REFERENCES[name]}) GROUP BY ALL")
        assert sorted(ours.columns) == sorted(theirs.columns)
        assert len(theirs) > 0
        columns = ", ".join(f'"{column}"' for column in theirs.columns)
        sides = (ours.select(columns), theirs.select(columns))
        return [side for pair in (sides, sides[::-1]) for side in pair[0].except_(pair[1]).limit(5).fetchall()]


def test_the_jobs_have_no_faults() -> None:
    assert check([FOLDER / f"{name}.yaml" for name in (*JOBS, "kafka")], environment={}) == []


@pytest.mark.parametrize("name", JOBS)
def test_the_jobs_own_tests_pass(name: str) -> None:
    assert [result.failure for result in run_job_tests(FOLDER / f"{name}.yaml") if result.failure] == []


@pytest.mark.parametrize("name", JOBS)
async def test_a_job_ends_with_the_rows_of_the_batch_query(name: str, tmp_path: Path) -> None:
    connected = await run(name, tmp_path)
    assert len(connected.written[name].epochs) >= EPOCHS
    assert differences(name, connected.written[name].table()) == []


async def test_over_kafka_the_results_are_the_same(noida_broker: NoidaBroker, tmp_path: Path) -> None:
    fill = runpy.run_path(str(FILL))["fill"]
    await fill(noida_broker.bootstrap_servers, KAFKA_CYCLES * CYCLE, events_per_second=EVENTS_PER_SECOND)
    job = load_job(
        FOLDER / "kafka.yaml", overrides=[f"checkpoint={tmp_path}"], environment={"KAFKA_BOOTSTRAP_SERVERS": noida_broker.bootstrap_servers}
    )
    connected = Connected()
    await run_job(job, available_now=True, drain=True, connectors=connected)
    for name, written in connected.written.items():
        assert differences(name, written.table(), KAFKA_CYCLES) == [], name
