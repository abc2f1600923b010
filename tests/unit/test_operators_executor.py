"""The Executor: determinism, poison rows, LIMIT, ORDER BY, several sinks, the epoch's clock, what SQL may not do."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from streamproc.errors import BadRecord, Bug, StreamprocError
from streamproc.operators.duck import Duck, nested
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.plan import Aggregate, Batch, Limit, Plan, Project, Query, Scan, StateColumn
from streamproc.state.files import to_bytes
from windows.tumbling import Tumbling

SCHEMA = pa.schema([("t", pa.int64()), ("k", pa.string()), ("x", pa.float64()), ("text", pa.string())])
SCAN = Scan("in", SCHEMA)
TIME = EpochTime(1_000_000, None, None)
NUMBERS = pa.schema([("n", pa.int32())])
CAST = Project(SCAN, "SELECT CAST(text AS INTEGER) AS n FROM input", NUMBERS)
SUMS = pa.schema([("k", pa.string()), ("total", pa.float64()), ("mean", pa.float64()), ("first", pa.float64()), ("n", pa.int64())])
SUM = Aggregate(
    SCAN, "SELECT t AS _t, k AS k0, x AS a0, t AS a1 FROM input", ("k0",),
    (
        StateColumn("s0", "sum", ("a0",), ("DOUBLE",)), StateColumn("s1", "avg", ("a0",), ("DOUBLE",)),
        StateColumn("s2", "first", ("a0",), ("DOUBLE",), order=(("a1", "ASC NULLS LAST"),)), StateColumn("s3", "count_star"),
    ),
    "SELECT k0 AS k, s0 AS total, s1 AS mean, s2 AS first, s3 AS n FROM input", SUMS, Tumbling(1000),
)  # fmt: skip


def plan(**roots):
    queries = {name: Query(name, root, mode, root.schema) for name, (root, mode) in roots.items()}
    return Plan({"in": SCAN}, queries, {})


def rows(n, seed=1):
    random = Random(seed)
    return pa.table({
        "t": [random.randrange(3000) for _ in range(n)], "k": [random.choice("abcdefgh") * random.randrange(3) for _ in range(n)],
        "x": [random.random() * 10 ** random.randrange(9) for _ in range(n)], "text": [str(i) for i in range(n)],
    }).cast(SCHEMA)  # fmt: skip


@pytest.fixture
async def executor():
    made = []

    def make(plan, **options):
        made.append(Executor(plan, **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def run(executor, table, time=TIME, state=None, limits=None, poison=()):
    return await executor.run({"in": table}, time, state or {}, limits=limits or {}, poison=poison)


@pytest.mark.parametrize("mode", ["append", "update", "complete"])
async def test_the_same_epochs_give_the_same_bytes_with_any_number_of_threads(executor, mode):
    seen = []
    for threads in (1, 3):
        one = executor(plan(out=(SUM, mode), all=(SCAN, "append")), threads=threads, slice_rows=150, merge_bytes_max=5000)
        state, written = {}, []
        for epoch in range(6):
            output = await run(one, rows(430, seed=epoch), EpochTime(epoch, None, epoch * 300), state)
            state = output.state
            written += [to_bytes(output.sinks["out"].rows), to_bytes(output.sinks["all"].rows)]
            written += [to_bytes(run.table) for run in state["out/aggregate"]]
        seen.append(written)
    assert seen[0] == seen[1]


async def test_stateless_rows_keep_the_order_of_the_input_also_when_exploded(executor):
    exploded = Project(SCAN, "SELECT unnest([t, -t]) AS n FROM input WHERE t % 2 = 0", pa.schema([("n", pa.int64())]))
    table = rows(500)
    output = await run(executor(plan(out=(exploded, "append")), slice_rows=64), table)
    assert output.sinks["out"].rows.column("n").to_pylist() == [n for t in table.column("t").to_pylist() if t % 2 == 0 for n in (t, -t)]


async def test_projects_nest(executor):
    twice = Project(
        Project(CAST, "SELECT n + 1 AS n FROM input WHERE n > 1", NUMBERS), "WITH x AS (SELECT n * 2 AS n FROM input) FROM x", NUMBERS
    )
    assert (await run(executor(plan(out=(twice, "append"))), rows(4))).sinks["out"].rows.column("n").to_pylist() == [6, 8]


# -- poison


async def test_rows_that_fail_are_found_and_left_out_of_every_sink(executor):
    table = rows(1000)
    bad = {3, 64, 65, 66, 999}
    text = ["x" if i in bad else str(i) for i in range(1000)]
    table = table.set_column(3, "text", pa.array(text))
    one = executor(plan(cast=(CAST, "append"), all=(SCAN, "append"), sums=(SUM, "update")), slice_rows=128)
    output = await run(one, table)
    assert [(found.source, found.row) for found in output.poison] == [("in", row) for row in sorted(bad)]
    assert all("Could not convert string 'x'" in found.error for found in output.poison)
    assert output.sinks["cast"].rows.column("n").to_pylist() == [i for i in range(1000) if i not in bad]
    assert output.sinks["all"].rows.num_rows == 995
    assert sum(output.sinks["sums"].rows.column("n").to_pylist()) == 995
    replayed = await run(one, table, poison=output.poison)
    assert replayed.poison == []
    assert [to_bytes(replayed.sinks[name].rows) for name in output.sinks] == [to_bytes(out.rows) for out in output.sinks.values()]


async def test_a_row_that_divides_by_zero_inside_an_aggregate_is_poison(executor):
    step = Aggregate(
        SCAN, "SELECT k AS k0, 10 // t AS a0 FROM input", ("k0",), (StateColumn("s0", "sum", ("a0",), ("BIGINT",)),),
        "SELECT k0 AS k, s0::BIGINT AS n FROM input", pa.schema([("k", pa.string()), ("n", pa.int64())]),
    )  # fmt: skip
    table = pa.table({"t": [1, 0, 5], "k": ["a", "a", "a"], "x": [0.0] * 3, "text": [""] * 3}).cast(SCHEMA)
    output = await run(executor(plan(out=(step, "update"))), table)
    assert [found.row for found in output.poison] == [1]
    assert output.sinks["out"].rows.to_pylist() == [{"k": "a", "n": 12}]


async def test_finding_poison_costs_few_statements(executor, monkeypatch):
    calls = []
    query_all = Duck.query_all
    monkeypatch.setattr(Duck, "query_all", lambda self, sql, **tables: calls.append(sql) or query_all(self, sql, **tables))
    one = executor(plan(out=(CAST, "append")))
    calls.clear()
    table = rows(4096).set_column(3, "text", pa.array(["x" if i == 1234 else "1" for i in range(4096)]))
    assert len((await run(one, table)).poison) == 1
    assert len(calls) <= 2 * 12 + 2


async def test_rows_that_fail_only_together_stop_with_a_clear_error(executor):
    whole = Project(SCAN, "SELECT CASE WHEN count(*) > 1 THEN error('together') ELSE 1 END::INTEGER AS n FROM input", NUMBERS)
    with pytest.raises(BadRecord, match=r"source in: rows \d to \d fail together, not alone: .*together"):
        await run(executor(plan(out=(whole, "append"))), rows(4))


# -- LIMIT and ORDER BY


async def test_limit_is_the_first_rows_of_the_jobs_life(executor):
    limited = Project(Limit(CAST, 5, NUMBERS), "SELECT n * 10 AS n FROM input", NUMBERS)
    one = executor(plan(out=(limited, "append")), slice_rows=2)
    first = await run(one, rows(3))
    second = await run(one, rows(3), limits=first.limits)
    third = await run(one, rows(3), limits=second.limits)
    assert [output.limits for output in (first, second, third)] == [{"out/limit": left} for left in (2, 0, 0)]
    assert [output.sinks["out"].rows.column("n").to_pylist() for output in (first, second, third)] == [[0, 10, 20], [0, 10], []]


async def test_order_by_in_complete(executor):
    ordered = Batch((SUM,), ("SELECT * FROM input",), "SELECT * FROM input ORDER BY n DESC, k LIMIT 2", SUMS)
    one = executor(plan(out=(ordered, "complete")), slice_rows=10)
    output = await run(one, rows(100))
    everything = await run(executor(plan(out=(SUM, "complete")), slice_rows=10), rows(100))
    expected = sorted(everything.sinks["out"].rows.to_pylist(), key=lambda row: (-row["n"], row["k"]))[:2]
    assert output.sinks["out"].rows.to_pylist() == expected
    assert one.state_rows("out", output.state, None) == everything.sinks["out"].rows.num_rows


# -- several sinks, the clock, the engine


async def test_equal_statements_over_one_source_run_once(executor, monkeypatch):
    statements = []
    query_all = Duck.query_all
    one = executor(plan(a=(CAST, "append"), b=(CAST, "append"), c=(SCAN, "append")), slice_rows=100)
    monkeypatch.setattr(Duck, "query_all", lambda self, sql, **tables: statements.append(len(sql)) or query_all(self, sql, **tables))
    output = await run(one, rows(250))
    assert statements == [2, 2, 2]
    assert output.sinks["a"].rows.equals(output.sinks["b"].rows)


async def test_epoch_now_is_the_epochs_time_and_zone_that_of_the_job(executor):
    schema = pa.schema([("now", pa.timestamp("us", tz="UTC")), ("hour", pa.int64())])
    sql = "SELECT getvariable('epoch_now') AS now, hour(getvariable('epoch_now')::TIMESTAMPTZ) AS hour FROM input"
    one = executor(Plan({"in": SCAN}, {"out": Query("out", Project(SCAN, sql, schema), "append", schema)}, {}, "Europe/Berlin"), threads=1)
    for second in (1, 2, 7200):
        row = (await run(one, rows(1), EpochTime(second * 1_000_000, None, None))).sinks["out"].rows.to_pylist()[0]
        assert (row["now"].timestamp(), row["hour"]) == (second, 1 + second // 3600)


async def test_a_statement_that_yields_other_columns_than_the_plan_is_a_bug():
    with pytest.raises(Bug, match=r"sink out: a statement yields columns \['m'\], the plan says \['n'\]"):
        Executor(plan(out=(Project(SCAN, "SELECT 1 AS m FROM input", NUMBERS), "append")))


@pytest.mark.parametrize("sql", ["SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM here", "COPY (SELECT 1) TO '/tmp/x.csv'"])
def test_sql_reaches_no_file_and_no_python_variable(sql):
    here = pa.table({"a": [1]})
    duck = Duck()
    with pytest.raises(Bug):
        duck.query(sql)
    with pytest.raises(StreamprocError, match="locked"):
        duck.query("SET threads = 4")
    assert duck.query(nested("SELECT 1 AS a", "SELECT a + 1 AS a FROM input")).to_pylist() == [{"a": 2}]
    assert here.num_rows == 1
    duck.close()


async def test_what_waits_is_counted_and_timed_over_all_sinks(executor):
    one = executor(plan(a=(SUM, "append"), u=(SUM, "update"), s=(CAST, "append")))
    output = await run(one, rows(50), EpochTime(1, None, 1000))
    assert set(output.state) == set(one.state_schemas) == {"a/aggregate", "u/aggregate"}
    assert output.timer_us == one.timer_us(output.state) == 2000
    assert one.state_rows("a", output.state, 1000) > one.state_rows("a", output.state, 2000) > one.state_rows("a", output.state, 3000) == 0
    assert one.state_rows("s", output.state, 1000) == 0
    assert all(run.table.schema.equals(one.state_schemas[name]) for name, runs in output.state.items() for run in runs)
