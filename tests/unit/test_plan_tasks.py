"""Which plans run as one task a shard: those whose every operator has the partition key among its keys, unchanged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from streamproc.job import load_job
from streamproc.plan.apply import ApplyInfo
from streamproc.plan.explain import explain
from streamproc.plan.lineage import Lineage
from streamproc.plan.plan import Operation, Plan, Watermark
from streamproc.plan.planner import BoundedInfo, SinkQuery, TableInfo, plan_job
from streamproc.plan.python_functions import FunctionInfo
from streamproc.schema import parse_ddl

CLICKS = parse_ddl("user STRING, page STRING, n INT, d DOUBLE, tags ARRAY<STRING>, ts TIMESTAMP")
TABLES = {
    "clicks": TableInfo(CLICKS, watermark=Watermark("ts", 30_000_000), partitioned_by="user"),
    "more": TableInfo(CLICKS, watermark=Watermark("ts"), partitioned_by="user"),
    "numbered": TableInfo(CLICKS, watermark=Watermark("ts"), partitioned_by="n"),
    "doubled": TableInfo(CLICKS, watermark=Watermark("ts"), partitioned_by="d"),
    "plain": TableInfo(CLICKS, watermark=Watermark("ts")),
}
VIEWS = {
    "renamed": "SELECT user AS who, ts, n FROM clicks WHERE n > 0",
    "again": "SELECT r.who AS whom, r.ts FROM renamed r",
    "shouted": "SELECT upper(user) AS user, ts FROM clicks",
    "either": "SELECT user, ts FROM clicks UNION ALL SELECT user, ts FROM more",
    "halves": "SELECT user, ts FROM clicks WHERE n > 0 UNION ALL SELECT user, ts FROM clicks WHERE n < 0",
    "mixed": "SELECT user AS k, ts FROM clicks UNION ALL SELECT page AS k, ts FROM clicks",
    "minutely": "SELECT window, user, count(*) AS n FROM clicks GROUP BY window(ts, '1 minute'), user",
}
BOUNDED = {"users": BoundedInfo(parse_ddl("user STRING, country STRING"))}
FUNCTIONS = {"twice": FunctionInfo(pa.int32(), deterministic=True)}
APPLIES = {"kept": ApplyInfo("clicks", ("user",), parse_ddl("user STRING, n INT"), deterministic=True)}


def plan(sql: str, mode: str = "append") -> Plan:
    return plan_job(TABLES, VIEWS, {"out": SinkQuery(sql, mode)}, bounded=BOUNDED, functions=FUNCTIONS, applies=APPLIES)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT upper(page) AS p FROM plain WHERE n > 1",
        "SELECT * FROM either",
        "SELECT c.page, u.country FROM plain c LEFT JOIN users u ON c.user = u.user",
        "SELECT twice(n) AS t FROM plain",
        "SELECT explode(tags) AS t FROM plain",
    ],
)
def test_rows_one_by_one_need_no_promise(sql):
    assert plan(sql).tasks.kind == "shards"
    assert plan(sql).tasks.key == {}


@pytest.mark.parametrize(
    ("sql", "mode", "key"),
    [
        ("SELECT user, count(*) AS n FROM clicks GROUP BY window(ts, '1 minute'), user", "append", {"out/aggregate": "k0"}),
        ("SELECT page, user, count(*) AS n FROM clicks GROUP BY page, user", "update", {"out/aggregate": "k1"}),
        ("SELECT who, count(*) AS n FROM renamed GROUP BY window(ts, '1 minute'), who", "append", {"out/aggregate": "k0"}),
        ("SELECT count(*) AS n FROM again GROUP BY window(ts, '1 minute'), whom", "append", {"out/aggregate": "k0"}),
        ("SELECT user, count(*) AS n FROM halves GROUP BY window(ts, '1 minute'), user", "append", {"out/aggregate": "k0"}),
        ("SELECT n, count(*) AS c FROM numbered GROUP BY window(ts, '1 minute'), n", "append", {"out/aggregate": "k0"}),
        ("SELECT user, count(*) AS n FROM clicks GROUP BY session_window(ts, '1 minute'), user", "append", {"out/aggregate": "k0"}),
        ("SELECT user, count(DISTINCT page) AS n FROM clicks GROUP BY window(ts, '1 minute'), user", "append", {"out/aggregate": "k0"}),
        ("SELECT c.user, count(u.country) AS n FROM clicks c LEFT JOIN users u USING (user) GROUP BY window(ts, '1 minute'), c.user",
         "append", {"out/aggregate": "k0"}),
        ("SELECT user, n AS t, count(*) AS c FROM (SELECT user, ts, twice(n) AS n FROM clicks) GROUP BY window(ts, '1 minute'), user, n",
         "append", {"out/aggregate": "k0"}),
        ("SELECT t, user, count(*) AS c FROM (SELECT user, ts, explode(tags) AS t FROM clicks) GROUP BY window(ts, '1 minute'), t, user",
         "append", {"out/aggregate": "k1"}),
        ("SELECT DISTINCT page, user FROM clicks", "append", {"out/dedup": "k1"}),
        ("SELECT page FROM drop_duplicates_within_watermark(clicks, 'user', 'page')", "append", {"out/dedup": "k0"}),
        ("SELECT user, count(*) AS n FROM drop_duplicates(clicks, 'user', 'page') GROUP BY window(ts, '1 minute'), user", "append",
         {"out/dedup": "k0", "out/aggregate": "k0"}),
        ("SELECT * FROM kept", "append", {"out/apply": "user"}),
        ("SELECT user, n, lag(n) OVER (PARTITION BY user ORDER BY ts) AS was FROM clicks", "append", {"out/release": "k0"}),
        ("SELECT user, n, sum(n) OVER (PARTITION BY user ORDER BY ts) AS total FROM clicks", "append", {"out/release": "k0"}),
        ("SELECT * FROM (SELECT user, n, row_number() OVER (PARTITION BY user ORDER BY n) AS rn FROM clicks) WHERE rn <= 3", "update",
         {"out/maintain": "e0"}),
        ("SELECT user, max(n) AS most FROM minutely GROUP BY user", "update", {"out/aggregate": "k0", "out/maintain": "k0"}),
        ("SELECT user, sum(n) AS all FROM minutely GROUP BY user", "update", {"out/aggregate": "k0", "out/aggregate2": "k0"}),
        ("SELECT user, sum(n) AS all FROM minutely GROUP BY window(window_time(window), '1 hour'), user", "append",
         {"out/aggregate": "k0", "out/aggregate2": "k0"}),
        ("SELECT user, page, count(*) AS n FROM clicks GROUP BY user, ROLLUP (page)", "update", {"out/aggregate": "k0"}),
    ],
)  # fmt: skip
def test_operators_over_the_partition_key_run_by_shard(sql, mode, key):
    made = plan(sql, mode)
    assert made.tasks.reasons == ()
    assert made.tasks.kind == "shards"
    assert made.tasks.key == key
    assert {f"out/{name}": column for name, column in made.queries["out"].partition_keys.items()} == key
    assert "tasks: one per shard" in explain(made)


@pytest.mark.parametrize(
    ("sql", "mode", "reason"),
    [
        ("SELECT page FROM clicks LIMIT 5", "append", "LIMIT counts"),
        ("SELECT user, count(*) AS n FROM clicks GROUP BY user", "complete", "mode complete"),
        ("SELECT a.user FROM clicks a JOIN more b ON a.user = b.user AND a.ts = b.ts", "append", "rows of two streams"),
        ("SELECT page, count(*) AS n FROM clicks GROUP BY window(ts, '1 minute'), page", "append",
         "GROUP BY page takes rows of all shards together: user, by which clicks is partitioned"),
        ("SELECT count(*) AS n FROM clicks GROUP BY window(ts, '1 minute')", "append", "an aggregate without a key"),
        ("SELECT count(*) AS n FROM clicks", "update", "an aggregate without a key"),
        ("SELECT user, count(*) AS n FROM plain GROUP BY window(ts, '1 minute'), user", "append", "plain does not say partitioned_by"),
        ("SELECT user, count(*) AS n FROM shouted GROUP BY window(ts, '1 minute'), user", "append", "unchanged"),
        ("SELECT k, count(*) AS n FROM mixed GROUP BY window(ts, '1 minute'), k", "append", "unchanged"),
        ("SELECT user, count(*) AS n FROM either GROUP BY window(ts, '1 minute'), user", "append", "clicks and more together"),
        ("SELECT u.user, count(*) AS n FROM clicks c LEFT JOIN users u ON c.user = u.user GROUP BY window(c.ts, '1 minute'), u.user",
         "append", "unchanged"),
        ("SELECT d, count(*) AS n FROM doubled GROUP BY window(ts, '1 minute'), d", "append", "a DOUBLE"),
        ("SELECT DISTINCT page FROM clicks", "append", "DISTINCT takes"),
        ("SELECT n, lag(n) OVER (ORDER BY ts) AS was FROM clicks", "append", "OVER takes"),
        ("SELECT sum(c) AS s FROM (SELECT user, n, count(*) AS c FROM clicks GROUP BY user, n) GROUP BY n", "update", "GROUP BY n takes"),
        ("SELECT user, page, count(*) AS n FROM clicks GROUP BY ROLLUP (user, page)", "update", "unchanged"),
        ("SELECT user, sum(n) AS s FROM kept GROUP BY user", "update", "unchanged"),
        ("SELECT m.user FROM minutely m JOIN more b ON m.user = b.user", "update", "a result over rows that change takes"),
    ],
)  # fmt: skip
def test_other_queries_are_one_task_and_say_why(sql, mode, reason):
    made = plan(sql, mode)
    assert made.tasks.kind == "all"
    assert any(f"sink out: {reason}" in one or reason in one for one in made.tasks.reasons), made.tasks.reasons
    assert made.tasks.reasons[0] in explain(made)


def test_one_query_that_needs_all_shards_decides_for_all():
    keyed = SinkQuery("SELECT user, count(*) AS n FROM clicks GROUP BY window(ts, '1 minute'), user", "append")
    made = plan_job(TABLES, {}, {"a": keyed, "b": SinkQuery("SELECT user FROM clicks LIMIT 1", "append")})
    assert made.tasks.kind == "all"
    assert made.tasks.reasons == ("sink b: LIMIT counts the rows of all shards",)


JOBS = Path(__file__).parent.parent / "golden" / "jobs"


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_statement_of_the_golden_jobs_is_understood(path):
    """Only joins, functions and what stands on them have columns of unknown origin."""
    made = load_job(path).planned
    lineage = Lineage(made.tables)
    for query in made.queries.values():
        for step in query.root.walk():
            names = [name.lower() for name, _ in lineage.of(step) if not name.startswith("#")]
            assert names == [name.lower() for name in step.schema.names if not name.startswith("#")], step
            if isinstance(step, Operation):
                lineage.keys(step)
