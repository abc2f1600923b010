"""Grouped aggregates through the Executor: windows, output modes, late rows, groups of every type."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.errors import Bug
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.plan import Aggregate, Plan, Project, Query, Scan, StateColumn, Watermark
from windows.sliding import Sliding
from windows.tumbling import Tumbling

S = 1_000_000
TS = pa.timestamp("us", tz="UTC")
INPUT = pa.schema(
    [("ts", TS), ("k", pa.string()), ("v", pa.int64()), ("_source", pa.string()), ("_shard", pa.string()), ("_offset", pa.string())]
)
OUT = pa.schema([("start", pa.int64()), ("k", pa.string()), ("n", pa.int64()), ("total", pa.int64()), ("top", pa.int64())])
COUNT, SUM, MAX = (
    StateColumn("s0", "count_star"),
    StateColumn("s1", "sum", ("a0",), ("BIGINT",)),
    StateColumn("s2", "max", ("a0",), ("BIGINT",)),
)
PREPARE = "SELECT epoch_us(ts) AS _t, k AS k0, v AS a0 FROM input"


def aggregate(window, scan, post="SELECT _ws // 1000000 AS start, k0 AS k, s0 AS n, s1::BIGINT AS total, s2 AS top FROM input"):
    return Aggregate(scan, PREPARE, ("k0",), (COUNT, SUM, MAX), post, OUT, window)


def plan_of(root, mode, *, origin=False, time_zone="UTC"):
    scan = root
    while not isinstance(scan, Scan):
        scan = scan.input
    query = Query("out", root, mode, root.schema, carries_origin=origin)
    return Plan({scan.source: scan}, {"out": query}, {scan.source: Watermark("ts")}, time_zone)


def rows_of(rows):
    """(seconds or None, key, value), …"""
    us = [None if t is None else t * S for t, *_ in rows]
    return pa.table({
        "ts": pa.array(us, pa.int64()).cast(TS),
        "k": pa.array([r[1] for r in rows], pa.string()), "v": pa.array([r[2] for r in rows], pa.int64()),
        "_source": pa.array(["in"] * len(rows), pa.string()), "_shard": pa.array(["s0"] * len(rows), pa.string()),
        "_offset": pa.array([str(i) for i in range(len(rows))], pa.string()),
    })  # fmt: skip


class Job:
    """A plan run epoch after epoch; seconds for times."""

    def __init__(self, plan, **options):
        self.executor, self.state, self.limits, self.watermark, self.epochs = Executor(plan, **options), {}, {}, None, 0

    async def epoch(self, table, watermark=None):
        before, self.watermark, self.epochs = self.watermark, watermark if watermark is not None else self.watermark, self.epochs + 1
        time = EpochTime(
            self.epochs, before if before is None else before * S, self.watermark if self.watermark is None else self.watermark * S
        )
        self.output = await self.executor.run({"in": table}, time, self.state, limits=self.limits)
        self.state, self.limits = self.output.state, self.output.limits
        return self.output.sinks["out"]

    def state_rows(self):
        return self.executor.state_rows("out", self.state, self.watermark if self.watermark is None else self.watermark * S)


@pytest.fixture
async def job():
    jobs = []

    def make(plan, **options):
        jobs.append(Job(plan, **options))
        return jobs[-1]

    yield make
    for one in jobs:
        await one.executor.close()


def scan():
    return Scan("in", INPUT)


def brief(output):
    return [tuple(row.values()) for row in output.rows.to_pylist()]


# -- output modes


async def test_append_writes_a_window_once_when_the_watermark_has_passed_it(job):
    job = job(plan_of(aggregate(Tumbling(10 * S), scan()), "append"))
    assert brief(await job.epoch(rows_of([(5, "a", 1), (15, "a", 2), (6, "b", 5), (7, "a", 4)]), 9)) == []
    assert job.output.timer_us == 10 * S
    assert job.state_rows() == 3
    assert brief(await job.epoch(rows_of([]), 10)) == [(0, "a", 2, 5, 4), (0, "b", 1, 5, 5)]
    assert (job.state_rows(), job.output.timer_us) == (1, 20 * S)
    assert brief(await job.epoch(rows_of([]), 30)) == [(10, "a", 1, 2, 2)]
    assert (job.state_rows(), job.output.timer_us, job.state) == (0, None, {"out/aggregate": []})
    assert job.output.sinks["out"].change == "append"


async def test_update_writes_the_groups_that_an_epoch_touched(job):
    job = job(plan_of(aggregate(Tumbling(10 * S), scan()), "update"))
    assert brief(await job.epoch(rows_of([(5, "a", 1), (15, "a", 2)]), 0)) == [(0, "a", 1, 1, 1), (10, "a", 1, 2, 2)]
    assert brief(await job.epoch(rows_of([(6, "a", 3), (25, "b", 1)]), 12)) == [(0, "a", 2, 4, 3), (20, "b", 1, 1, 1)]
    assert job.state_rows() == 2  # [0, 10) is final: gone
    assert brief(await job.epoch(rows_of([]), 100)) == []
    assert (job.state_rows(), job.output.timer_us) == (0, None)
    assert job.output.sinks["out"].change == "upsert"


async def test_complete_writes_everything_and_ignores_the_watermark(job):
    job = job(plan_of(aggregate(Tumbling(10 * S), scan()), "complete"))
    await job.epoch(rows_of([(5, "a", 1), (15, "a", 2)]), 100)
    output = await job.epoch(rows_of([(1, "a", 1)]), 200)
    assert brief(output) == [(0, "a", 2, 2, 1), (10, "a", 1, 2, 2)]
    assert (output.late_rows, output.change, job.state_rows()) == (0, "replace", 2)


async def test_plain_keys_without_time(job):
    post = "SELECT 0 AS start, k0 AS k, s0 AS n, s1::BIGINT AS total, s2 AS top FROM input WHERE s0 > 1"
    job = job(plan_of(aggregate(None, scan(), post), "update"))
    assert brief(await job.epoch(rows_of([(5, "a", 1), (None, "b", 2)]), 50)) == []
    assert brief(await job.epoch(rows_of([(5, "a", 1)]), 60)) == [(0, "a", 2, 2, 1)]
    assert job.state_rows() == 2


# -- late rows


async def test_a_row_is_late_when_all_its_groups_are_final(job):
    job = job(plan_of(aggregate(Sliding(20 * S, 10 * S), scan()), "append", origin=True))
    await job.epoch(rows_of([]), 20)
    rows = [(9, "a", 1), (10, "a", 1), (-1, "a", 1), (None, "a", 1)]  # last windows end at 20, 30, 10
    output = await job.epoch(rows_of(rows), 20)
    assert output.late_rows == 2
    assert output.late.column("_offset").to_pylist() == ["0", "2"]
    assert output.late.drop_columns(["ts"]).to_pylist()[0] == {
        "k": "a", "v": 1, "_source": "in", "_shard": "s0", "_offset": "0", "_window": "[1970-01-01 00:00:00+00, 1970-01-01 00:00:20+00)",
        "_watermark": output.late.column("_watermark")[0].as_py(), "_reason": "late: every window of the row was final", "_sink": "out",
    }  # fmt: skip
    assert int(output.late.column("_watermark")[0].as_py().timestamp()) == 20
    assert brief(await job.epoch(rows_of([]), 100)) == [(10, "a", 1, 1, 1)]  # and only the open one of the window of 10


async def test_late_rows_are_counted_without_a_late_sink(job):
    job = job(plan_of(aggregate(Sliding(20 * S, 10 * S), scan()), "update"))
    await job.epoch(rows_of([]), 20)
    output = await job.epoch(rows_of([(1, "a", 1), (2, "b", 1), (15, "a", 1)]))
    assert (output.late_rows, output.late, brief(output)) == (2, None, [(10, "a", 1, 1, 1)])


async def test_an_exploded_source_row_is_late_once(job):
    exploded = Project(scan(), "SELECT * REPLACE (unnest([v, v + 1]) AS v) FROM input", INPUT)
    job = job(plan_of(aggregate(Tumbling(10 * S), exploded), "append", origin=True))
    await job.epoch(rows_of([]), 20)
    output = await job.epoch(rows_of([(1, "a", 1), (2, "a", 1)]))
    assert (output.late_rows, output.late.num_rows) == (2, 4)


async def test_rows_that_where_drops_are_never_late(job):
    job = job(plan_of(aggregate(Tumbling(10 * S), Project(scan(), "SELECT * FROM input WHERE v > 0", INPUT)), "append", origin=True))
    await job.epoch(rows_of([]), 20)
    assert (await job.epoch(rows_of([(1, "a", 0), (2, "a", 1)]))).late_rows == 1


async def test_a_grouped_event_time_is_final_at_the_watermark(job):
    schema = pa.schema([("ts", TS), ("n", pa.int64())])
    step = Aggregate(
        scan(), "SELECT ts AS k0 FROM input", ("k0",), (COUNT,), "SELECT k0 AS ts, s0 AS n FROM input", schema, time_key="epoch_us(k0)"
    )
    job = job(plan_of(step, "append", time_zone="Europe/Berlin"))
    assert brief(await job.epoch(rows_of([(5, "a", 1), (5, "b", 1), (7, "a", 1), (None, "a", 1)]), 4)) == []
    assert job.output.timer_us == 5 * S
    output = await job.epoch(rows_of([(4, "a", 1)]), 5)
    assert [(t.timestamp(), n) for t, n in brief(output)] == [(5, 2)]
    assert (output.late_rows, output.rows.schema, job.state_rows()) == (1, schema, 2)  # NULL is never final


async def test_windows_of_a_time_that_has_no_watermark_are_never_final(job):
    job = job(plan_of(replace(aggregate(Tumbling(10 * S), scan()), uses_watermark=False), "update"))
    await job.epoch(rows_of([(1, "a", 1)]), 100)
    output = await job.epoch(rows_of([(1, "a", 1)]), 200)
    assert (brief(output), output.late_rows, job.state_rows(), job.output.timer_us) == ([(0, "a", 2, 2, 1)], 0, 1, None)


# -- groups as in Spark

KEYS = [
    (pa.float64(), [math.nan, -0.0, 0.0, math.nan, None, None, 1.0], [None, 0.0, 1.0, math.nan], [2, 2, 1, 2]),
    (pa.float32(), [-0.0, 0.0, math.nan], [0.0, math.nan], [2, 1]),
    (pa.decimal128(10, 2), [Decimal("1.10"), Decimal("1.1"), None], [None, Decimal("1.10")], [1, 2]),
    (pa.binary(), [b"\x00", b"", b"\x00", None], [None, b"", b"\x00"], [1, 1, 2]),
    (pa.date32(), [date(1969, 1, 1), date(2026, 1, 1), date(1969, 1, 1)], [date(1969, 1, 1), date(2026, 1, 1)], [2, 1]),
    (pa.bool_(), [True, None, False, True], [None, False, True], [1, 1, 2]),
    (pa.list_(pa.int64()), [[1], [1, 2], [], [1], None], [None, [], [1], [1, 2]], [1, 1, 2, 1]),
    (pa.list_(pa.float64()), [[-0.0], [0.0]], [[0.0]], [2]),
    (pa.struct([("a", pa.list_(pa.list_(pa.float64())))]), [{"a": [[-0.0]]}, {"a": [[0.0]]}, None], [None, {"a": [[0.0]]}], [1, 2]),
    (pa.struct([("a", pa.string()), ("b", pa.int64())]), [{"a": "x", "b": None}] * 2 + [None], [None, {"a": "x", "b": None}], [1, 2]),
    (TS, [5, 5, None], [None, 5], [1, 2]),
]


@pytest.mark.parametrize(("kind", "values", "groups", "counts"), KEYS, ids=[str(case[0]) for case in KEYS])
@pytest.mark.parametrize("mode", ["update", "complete"])
async def test_groups_of_every_type(job, kind, values, groups, counts, mode):
    schema = pa.schema([("k", kind), ("n", pa.int64())])
    source = Scan("in", pa.schema([("k", kind)]))
    step = Aggregate(source, "SELECT k AS k0 FROM input", ("k0",), (COUNT,), "SELECT k0 AS k, s0 AS n FROM input", schema)
    job = job(plan_of(step, mode), slice_rows=2)
    for times in (1, 2, 3):
        output = (await job.epoch(pa.table({"k": pa.array(values, kind)}))).rows
        assert str(output.column("k").to_pylist()) == str(pa.array(groups, kind).to_pylist())
        assert output.column("n").to_pylist() == [n * times for n in counts]
    assert job.state_rows() == len(groups)


async def test_the_global_group_exists_without_rows(job):
    schema = pa.schema([("n", pa.int64()), ("total", pa.int64())])
    step = Aggregate(
        scan(), "SELECT v AS a0 FROM input", (), (COUNT, SUM), "SELECT s0 AS n, s1::BIGINT AS total FROM input", schema, global_group=True
    )
    complete, update = job(plan_of(step, "complete")), job(plan_of(step, "update"))
    assert brief(await complete.epoch(rows_of([]))) == brief(await update.epoch(rows_of([]))) == [(0, None)]
    assert brief(await complete.epoch(rows_of([(1, "a", 4)]))) == brief(await update.epoch(rows_of([(1, "a", 4)]))) == [(1, 4)]
    assert brief(await complete.epoch(rows_of([]))) == [(1, 4)]
    assert brief(await update.epoch(rows_of([]))) == []
    assert complete.state_rows() == update.state_rows() == 1


async def test_a_group_whose_result_fails_is_named(job):
    total = "CASE WHEN k0 = 'b' THEN s0 // (s0 - s0) ELSE 0 END"
    post = f"SELECT _ws // 1000000 AS start, k0 AS k, s0 AS n, {total} AS total, s2 AS top FROM input"
    step = replace(aggregate(Tumbling(10 * S), scan(), post), labels={"_ws": "window.start", "k0": "page"})
    job = job(plan_of(step, "update"))
    output = await job.epoch(rows_of([(1, "a", 1), (1, "b", 1), (1, "c", 1)]))
    assert [failure.key for failure in output.failures] == ["{'window.start': '1970-01-01T00:00:00+00:00', 'page': 'b'}"]
    assert output.rows.column("k").to_pylist() == ["a", "c"]
    assert job.state_rows() == 3


async def test_sql_that_does_not_bind_shows_at_once():
    with pytest.raises(Bug, match="nope"):
        Executor(plan_of(aggregate(Tumbling(S), scan(), "SELECT nope FROM input"), "append"))
    with pytest.raises(ValueError, match="mode is not supported"):
        Executor(plan_of(Aggregate(scan(), PREPARE, ("k0",), (StateColumn("s0", "mode", ("a0",), ("BIGINT",)),), "", OUT), "append"))


# -- against a model

_row = st.tuples(st.one_of(st.none(), st.integers(-30, 60)), st.sampled_from([None, "a", "b", "c"]), st.integers(-5, 5))
_epochs = st.lists(st.tuples(st.lists(_row, max_size=12), st.integers(0, 25)), min_size=1, max_size=6)


def model(epochs, mode, window):
    """(rows by epoch, late rows by epoch): the semantics, said in plain Python."""
    groups, watermark, written, late = defaultdict(list), None, [], []
    for rows, step in epochs:
        touched, refused = set(), 0
        for t, key, value in rows:
            if t is None:
                continue
            first = (t * S - window.size_us) // window.slide_us + 1
            starts = [n * window.slide_us // S for n in range(first, t * S // window.slide_us + 1)]
            ends = {start: start + window.size_us // S for start in starts}
            open_ = [s for s in starts if mode == "complete" or watermark is None or ends[s] > watermark]
            refused += not open_
            for start in open_:
                groups[(start, key)].append(value)
                touched.add((start, key))
        watermark = step - 10 if watermark is None else watermark + step
        final = {g for g in groups if mode != "complete" and g[0] + window.size_us // S <= watermark}
        shown = {"append": final, "update": touched, "complete": set(groups)}[mode]
        written.append(
            sorted(((*g, len(groups[g]), sum(groups[g]), max(groups[g])) for g in shown), key=lambda r: (r[0], r[1] is not None, r[1]))
        )
        for group in final:
            del groups[group]
        late.append(refused)
    return written, late, len(groups)


@settings(max_examples=15, deadline=None)
@given(
    _epochs, st.sampled_from(["append", "update", "complete"]), st.sampled_from([(10, 10), (20, 10), (20, 7)]), st.sampled_from([3, 100])
)
async def test_rows_are_those_of_the_model(epochs, mode, sizes, slice_rows):
    window = Sliding(sizes[0] * S, sizes[1] * S)
    job = Job(plan_of(aggregate(window, scan()), mode, origin=slice_rows == 3), slice_rows=slice_rows, merge_bytes_max=4000)
    try:
        written, late, open_groups = model(epochs, mode, window)
        watermark = None
        for (rows, step), expected, refused in zip(epochs, written, late, strict=True):
            watermark = step - 10 if watermark is None else watermark + step
            output = await job.epoch(rows_of(rows), watermark)
            assert brief(output) == expected
            assert output.late_rows == refused
        assert job.state_rows() == open_groups
    finally:
        await job.executor.close()
