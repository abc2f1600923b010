"""Joins of streams cut into epochs in any way, in disorder, restarted: the same rows as one batch query over what was not late."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.batch import TIMESTAMP
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.modes import SinkQuery
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import TableInfo, plan_job
from streamproc.state.files import from_bytes, to_bytes

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int32()), ("ts", TIMESTAMP)])
TABLES = {name: TableInfo(SCHEMA, watermark=Watermark("ts")) for name in ("l", "r")}
ON = "l.k = r.k AND r.ts BETWEEN l.ts - INTERVAL 3 SECONDS AND l.ts + INTERVAL 5 SECONDS AND l.v + r.v <> 3 AND l.v <> 4"
BATCH = "l.k = r.k AND r.t BETWEEN l.t - 3 AND l.t + 5 AND l.v + r.v <> 3 AND l.v <> 4"
CASES = {
    kind: (
        f"SELECT l.k AS a, l.v AS b, l.ts AS c, r.k AS d, r.v AS e, r.ts AS f FROM l {kind} JOIN r ON {ON}",
        f"SELECT l.k, l.v, l.t, r.k, r.v, r.t FROM l {kind} JOIN r ON {BATCH}",
    )
    for kind in ("INNER", "LEFT", "RIGHT", "FULL")
} | {
    kind: (f"SELECT l.k AS a, l.v AS b, l.ts FROM l LEFT {kind} JOIN r ON {ON}", f"SELECT l.k, l.v, l.t FROM l {kind} JOIN r ON {BATCH}")
    for kind in ("SEMI", "ANTI")
} | {
    "self": (
        "SELECT l.k AS a, l.ts AS c, m.ts AS d FROM l LEFT JOIN l m ON m.k = l.k AND m.ts > l.ts AND m.ts <= l.ts + INTERVAL 4 SECONDS",
        "SELECT l.k, l.t, m.t FROM l LEFT JOIN l m ON m.k = l.k AND m.t > l.t AND m.t <= l.t + 4",
    ),
    "three": (
        "SELECT l.k AS a, l.ts AS c, r.ts AS d, m.ts AS f FROM l JOIN r ON l.k = r.k AND r.ts >= l.ts AND r.ts < l.ts + INTERVAL 4 SECONDS "
        "LEFT JOIN r m ON m.k = l.k AND m.v = r.v AND l.ts BETWEEN m.ts - INTERVAL 2 SECONDS AND m.ts + INTERVAL 2 SECONDS",
        "SELECT l.k, l.t, r.t, m.t FROM l JOIN r ON l.k = r.k AND r.t >= l.t AND r.t < l.t + 4 "
        "LEFT JOIN r m ON m.k = l.k AND m.v = r.v AND l.t BETWEEN m.t - 2 AND m.t + 2",
    ),
    "counted": (
        f"SELECT window.start AS a, count(*) AS n, count(r.k) AS m FROM l LEFT JOIN r ON {ON} GROUP BY window(l.ts, '4 seconds')",
        f"SELECT l.t // 4 * 4, count(*), count(r.k) FROM l LEFT JOIN r ON {BATCH} WHERE l.t IS NOT NULL GROUP BY ALL",
    ),
    "of counts": (
        "SELECT x.window.end AS a, x.k AS b, x.n AS c, y.n AS d FROM "
        "(SELECT window, k, count(*) AS n FROM l GROUP BY window(ts, '4 seconds'), k) x "
        "FULL JOIN (SELECT window, k, count(*) AS n FROM r GROUP BY window(ts, '4 seconds'), k) y ON x.window = y.window AND x.k = y.k",
        "SELECT (x.w + 1) * 4, x.k, x.n, y.n FROM (SELECT t // 4 AS w, k, count(*) AS n FROM l WHERE t IS NOT NULL GROUP BY ALL) x "
        "FULL JOIN (SELECT t // 4 AS w, k, count(*) AS n FROM r WHERE t IS NOT NULL GROUP BY ALL) y ON x.w = y.w AND x.k = y.k",
    ),
}  # fmt: skip
PLANS = {name: plan_job(TABLES, {}, {"out": SinkQuery(sql, "append")}) for name, (sql, _) in CASES.items()}


@cache
def executor_of(name: str, merge_bytes: int) -> Executor:
    """It holds no epoch's data, so one serves all examples."""
    return Executor(PLANS[name], threads=1, slice_rows=3, merge_bytes_max=merge_bytes)


@cache
def reference() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


Row = tuple[str | None, int, int | None]
rows = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4), st.one_of(st.integers(0, 25), st.integers(0, 25), st.none()))
epochs = st.lists(st.tuples(st.lists(rows, max_size=5), st.lists(rows, max_size=5), st.booleans(), st.integers(0, 6)), max_size=7)


def final(name: str, t: int) -> int:
    """The watermark (s) at which a row of that time is late."""
    return (t // 4 + 1) * 4 if name == "of counts" else t


def table(rows: list[Row]) -> pa.Table:
    times = [None if t is None else t * 1_000_000 for _, _, t in rows]
    columns = [
        pa.array([k for k, _, _ in rows], pa.string()),
        pa.array([v for _, v, _ in rows], pa.int32()),
        pa.array(times, pa.int64()).cast(TIMESTAMP),
    ]
    return pa.table(columns, schema=SCHEMA)


def reads(source: str, plan: Any, rows: list[Row]) -> pa.Table:
    """Rows as the scan yields them."""
    made, schema = table(rows), plan.scans[source].schema
    count = len(rows)
    extra = {"_shard": pa.array(["0"] * count, pa.string()), "_offset": pa.array([str(i) for i in range(count)], pa.string())}
    return pa.table([made.column(f.name) if f.name in SCHEMA.names else extra[f.name] for f in schema], schema=schema)


async def streamed(
    name: str, cuts: list[tuple[list[Row], list[Row], bool, int]], merge_bytes: int
) -> tuple[list[Any], dict[str, list[Row]]]:
    """What the epochs write, and the rows that were not late."""
    plan, written, on_time = PLANS[name], [], {"l": list[Row](), "r": list[Row]()}
    executor, state, watermark, seen = executor_of(name, merge_bytes), {}, None, {"l": -1, "r": -1}
    for left, right, restart, delay in [*cuts, ([], [], False, -1000)]:
        begun = watermark
        for source, rows in (("l", left), ("r", right)):
            on_time[source] += [row for row in rows if row[2] is None or begun is None or final(name, row[2]) * 1_000_000 > begun]
            seen[source] = max([seen[source], *(t for _, _, t in rows if t is not None)])
        now = (min(seen.values()) - delay) * 1_000_000
        if min(seen.values()) >= 0 or delay < 0:
            watermark = now if watermark is None else max(watermark, now)
        inputs = {source: reads(source, plan, rows) for source, rows in (("l", left), ("r", right))}
        output = await executor.run(inputs, EpochTime(0, begun, watermark), state, limits={})
        written.append(output.sinks["out"].rows)
        state = output.state
        if restart:
            state = {op: [replace(run, table=from_bytes(to_bytes(run.table), "")) for run in runs] for op, runs in state.items()}
    assert executor.state_rows("out", state, watermark) == 0
    return [row for rows in written for row in plain(rows)], on_time


def plain(rows: pa.Table) -> list[tuple[Any, ...]]:
    columns = [c.cast(pa.int64()).to_pylist() if pa.types.is_timestamp(c.type) else c.to_pylist() for c in rows.columns]
    seconds = [
        [None if x is None else x // 1_000_000 for x in c] if pa.types.is_timestamp(rows.column(i).type) else c
        for i, c in enumerate(columns)
    ]
    return list(zip(*seconds, strict=True))


def batch(sql: str, on_time: dict[str, list[Row]]) -> list[tuple[Any, ...]]:
    for source, rows in on_time.items():
        columns = {"k": [k for k, _, _ in rows], "v": [v for _, v, _ in rows], "t": [t for _, _, t in rows]}
        reference().register(source, pa.table(columns, schema=pa.schema([("k", pa.string()), ("v", pa.int32()), ("t", pa.int64())])))
    return reference().execute(sql).fetchall()


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=epochs, merge_bytes=st.sampled_from([64, 1 << 20]))
def test_a_join_in_epochs_is_the_join_of_all_rows(name: str, cuts: list[tuple[list[Row], list[Row], bool, int]], merge_bytes: int) -> None:
    written, on_time = asyncio.run(streamed(name, cuts, merge_bytes))
    assert sorted(written, key=repr) == sorted(batch(CASES[name][1], on_time), key=repr)
