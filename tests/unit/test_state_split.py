"""State divided by the hash of its partition key, and joined again: the tasks that go on with it write what one task would."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from hashlib import md5
from itertools import pairwise
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Bug
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.apply import ApplyInfo
from streamproc.plan.plan import Watermark
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.schema import parse_ddl
from streamproc.state.hash_range import WHOLE, inside
from streamproc.state.merge import chains, merge
from streamproc.state.runs import Run, next_chain
from streamproc.state.split import joined, split
from streamproc.state.watermark import Floor
from streamproc.stateful import Call, Result, StatefulFunction

MIDDLE = 2**127 - 1
HALVES = ((0, MIDDLE), (MIDDLE + 1, WHOLE[1]))
SECOND_US = 1_000_000


def hashed(key: object) -> int:
    """As Kinesis does it."""
    return int.from_bytes(md5(str(key).encode()).digest(), "big")


# -- the parts


@given(st.lists(st.text() | st.none()), st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1)).map(sorted))
def test_a_key_is_inside_where_its_md5_is(keys, hash_range):
    expected = [key is not None and hash_range[0] <= hashed(key) <= hash_range[1] for key in keys]
    assert inside(pa.array(keys, pa.string()), tuple(hash_range)).to_pylist() == expected


def test_whole_numbers_are_hashed_as_they_are_written():
    keys = [0, 7, -7, 2**63 - 1, None]
    expected = [key is not None and hashed(key) <= MIDDLE for key in keys]
    assert inside(pa.array(keys, pa.int64()), HALVES[0]).to_pylist() == expected
    assert inside(pa.array(keys, pa.int64()), WHOLE).to_pylist() == [True] * 4 + [False]
    assert inside(pa.chunked_array([], pa.int32()), HALVES[0]).to_pylist() == []


SCHEMA = pa.schema([("_we", pa.int64()), ("_h", pa.uint64()), ("k0", pa.string()), ("n", pa.int64())])
ORDER = [("_we", "ascending"), ("_h", "ascending")]
ROWS = st.lists(st.tuples(st.none() | st.integers(0, 50), st.integers(0, 2**64 - 1), st.text(max_size=3), st.integers(0, 9)), min_size=1)


def run_of(rows, chain: int) -> Run:
    return Run.of(pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA).sort_by(ORDER), chain)


def bag(runs) -> Counter:
    return Counter(tuple(row.values()) for run in runs for row in run.table.to_pylist())


def well_formed(runs) -> bool:
    """Chains have a number each, and are sorted runs."""
    groups = chains(list(runs))
    numbers = [group[0].chain for group in groups]
    tables = [pa.concat_tables([run.table for run in group]).select(["_we", "_h"]) for group in groups]
    return len(set(numbers)) == len(numbers) and all(table.equals(table.sort_by(ORDER)) for table in tables)


@given(st.lists(ROWS, max_size=6), st.lists(st.integers(1, 2**128 - 1), max_size=4, unique=True).map(sorted), st.integers(0, 4000))
def test_parts_of_a_state_joined_are_the_state(batches, cuts, merge_bytes):
    runs: list[Run] = []
    for batch in batches:
        runs = merge([*runs, run_of(batch, next_chain(runs))], lambda table: table.sort_by(ORDER), merge_bytes)
    ranges = list(zip([0, *cuts], [*(cut - 1 for cut in cuts), WHOLE[1]], strict=True))
    parts = [split({"out/a": runs}, {"out/a": "k0"}, one) for one in ranges]
    for part, (low, high) in zip(parts, ranges, strict=True):
        assert well_formed(part["out/a"])
        assert all(low <= hashed(row[2]) <= high for row in bag(part["out/a"]))
    whole = joined(parts)["out/a"]
    assert bag(whole) == bag(runs)
    assert well_formed(whole)
    assert all(run.name is None and run.merging == "" and run.length for run in whole)


def test_neighbours_of_several_tasks_are_no_sorted_run():
    one, other = run_of([(1, 5, "a", 1), (9, 5, "a", 1)], 0), run_of([(2, 3, "b", 1)], 0)
    whole = joined([{"x": [one]}, {"y": [other]}, {"x": [other]}])
    assert [run.chain for run in whole["x"]] == [0, 1]
    assert list(whole) == ["x", "y"]


def test_pieces_of_a_merge_under_way_are_saved_anew():
    runs = [
        replace(run_of([(1, 1, "a", 1)], 3), name="object", offset=7, merging="out"),
        replace(run_of([(2, 1, "a", 1)], 3), merging="out"),
    ]
    (first, second) = split({"x": runs}, {"x": "k0"}, WHOLE)["x"]
    assert (first.name, first.offset, first.merging, first.chain, second.chain) == (None, 0, "", 0, 0)


def test_state_without_a_partition_key_is_not_divided():
    with pytest.raises(Bug, match="out/dedup is not kept by partition key"):
        split({"out/dedup": [run_of([(1, 1, "a", 1)], 0)]}, {}, HALVES[0])
    with pytest.raises(Bug, match="k0 is NULL"):
        split({"out/dedup": [run_of([(1, 1, None, 1)], 0)]}, {"out/dedup": "k0"}, HALVES[0])
    assert split({"out/dedup": []}, {}, HALVES[0]) == {"out/dedup": []}


# -- the operators


class Totals(StatefulFunction):
    """Counts a user's rows; five seconds after a user's last one it says how many there were."""

    state = {"n": "BIGINT"}  # noqa: RUF012

    def process(self, call: Call) -> Result:
        counts = {row["user"]: row["n"] for row in call.state.to_pylist()}
        ended = [row["user"] for row in call.expired.to_pylist()]
        out = [{"user": user, "n": counts[user]} for user in dict.fromkeys(ended)]
        timers = []
        for row in call.rows.to_pylist():
            counts[row["user"]] = counts.get(row["user"], 0) + 1
            timers.append({"user": row["user"], "at": row["ts"]})
        state = pa.Table.from_pylist([{"user": user, "n": n} for user, n in counts.items()], schema=call.state.schema)
        rows = pa.Table.from_pylist(out, schema=pa.schema([("user", pa.string()), ("n", pa.int64())]))
        return Result(rows, state, pa.Table.from_pylist(timers, schema=call.expired.schema))


TABLES = {
    "t": TableInfo(parse_ddl("user STRING, page STRING, n INT, ts TIMESTAMP"), watermark=Watermark("ts", 0), partitioned_by="user"),
    "i": TableInfo(parse_ddl("user INT, ts TIMESTAMP"), watermark=Watermark("ts", 0), partitioned_by="user"),
}
QUERIES = {
    "windows": ("SELECT window.start AS w, user, count(*) AS c, sum(n) AS s FROM t GROUP BY window(ts, '5 seconds'), user", "append"),
    "sliding": ("SELECT window.start AS w, user, max(n) AS m FROM t GROUP BY window(ts, '6 seconds', '2 seconds'), user", "append"),
    "updates": ("SELECT user, page, count(*) AS c FROM t GROUP BY user, page", "update"),
    "distinct_values": ("SELECT user, window.end AS w, count(DISTINCT page) AS c FROM t GROUP BY user, window(ts, '7 seconds')", "append"),
    "sessions": ("SELECT user, count(*) AS c FROM t GROUP BY session_window(ts, '3 seconds'), user", "append"),
    "open_sessions": ("SELECT user, count(*) AS c FROM t GROUP BY session_window(ts, '3 seconds'), user", "update"),
    "dedup": ("SELECT user, page FROM drop_duplicates_within_watermark(t, 'page', 'user')", "append"),
    "dedup_for_ever": ("SELECT DISTINCT page, user FROM t", "append"),
    "top": ("SELECT * FROM (SELECT user, n, page, rank() OVER (PARTITION BY user ORDER BY n) AS r FROM t) WHERE r <= 2", "update"),
    "ranked": ("SELECT user, n, row_number() OVER (PARTITION BY user, window ORDER BY n, ts, page) AS r FROM "
               "(SELECT user, n, ts, page, window(ts, '4 seconds') AS window FROM t)", "append"),
    "running": ("SELECT user, ts, sum(n) OVER (PARTITION BY user ORDER BY ts) AS s FROM t", "append"),
    "before": ("SELECT user, ts, lag(n) OVER (PARTITION BY user ORDER BY ts, n, page) AS s FROM t", "append"),
    "stages": ("SELECT user, window.end AS w, sum(c) AS s FROM (SELECT user, window_time(window) AS at, count(*) AS c FROM t "
               "GROUP BY user, window(ts, '2 seconds')) GROUP BY user, window(at, '8 seconds')", "append"),
    "sums_of_changes": ("SELECT user, sum(c) AS s FROM counts GROUP BY user", "update"),
    "most_of_changes": ("SELECT user, max(c) AS s FROM counts GROUP BY user", "update"),
    "apply": ("SELECT * FROM totals", "append"),
    "finals": ("SELECT user, ts, n, rank() OVER (PARTITION BY user, ts ORDER BY n) AS r FROM t", "update"),
    "numbers": ("SELECT user, count(*) AS c FROM i GROUP BY user", "update"),
}  # fmt: skip
VIEWS = {"counts": "SELECT user, page, count(*) AS c FROM t GROUP BY user, page"}
APPLIES = {"totals": ApplyInfo("t", ("user",), parse_ddl("user STRING, n BIGINT"), deterministic=True)}


def source_of(name: str) -> str:
    return "i" if name == "numbers" else "t"


class Job:
    """One query, which all its tasks run."""

    def __init__(self, name: str) -> None:
        sql, mode = QUERIES[name]
        self.source = source_of(name)
        self.plan = plan_job(TABLES, VIEWS, {"out": SinkQuery(sql, mode, late=True)}, applies=APPLIES)
        assert self.plan.tasks.kind == "shards", self.plan.tasks.reasons
        self.executor = Executor(self.plan, stateful={"totals": Totals()}, threads=1, merge_bytes_max=3000)

    def inputs(self, rows):
        scans = self.plan.scans
        return {name: pa.Table.from_pylist(rows if name == self.source else [], schema=scan.schema) for name, scan in scans.items()}


class Task:
    """A task's epochs, one after the other: all that it wrote and refused."""

    def __init__(self, job: Job, state=None) -> None:
        self.job, self.state = job, state or {}
        self.written, self.late = Counter(), Counter()

    async def epoch(self, rows, time: EpochTime) -> None:
        output = await self.job.executor.run(self.job.inputs(rows), time, self.state, limits={})
        self.state = output.state
        out = output.sinks["out"]
        self.written += Counter((time.now_us, *map(str, row.values())) for row in out.rows.to_pylist())
        shown = [] if out.late is None else out.late.select(["user", "_offset"]).to_pylist()
        assert out.late_rows == len(shown)
        self.late += Counter((time.now_us, *map(str, row.values())) for row in shown)


@pytest.fixture(scope="module")
def jobs():
    """Made once: most of the time goes into statements that are run for the first time."""
    made: dict[str, Job] = {}
    yield made
    for job in made.values():
        asyncio.run(job.executor.close())


@pytest.fixture(params=QUERIES)
def job(request, jobs):
    name = request.param
    return jobs[name] if name in jobs else jobs.setdefault(name, Job(name))


def epochs(source: str, count: int = 6):
    """Rows of each epoch, and its time: some rows are late."""
    random, watermark_us = Random(3), None
    for epoch in range(count):
        end_us = (epoch + 1) * 3 * SECOND_US
        yield rows_between(source, random, epoch * 3 - 4, epoch * 3 + 8), EpochTime(epoch, watermark_us, end_us)
        watermark_us = end_us


def rows_between(source: str, random: Random, first_s: int, last_s: int, count: int = 60):
    users = [random.randrange(20) for _ in range(count)]
    return [
        {"user": user if source == "i" else f"u{user}", "page": random.choice("abcd"), "n": random.randrange(100),
         "ts": max(0, random.randrange(first_s, last_s)) * SECOND_US, "_offset": f"{random.randrange(10**9):09}", "_shard": "s"}
        for user in users
    ]  # fmt: skip


def of_range(rows, hash_range):
    return [row for row in rows if hash_range[0] <= hashed(row["user"]) <= hash_range[1]]


async def test_a_task_divided_in_two_and_joined_again_writes_what_one_would(job):
    whole, parent = Task(job), Task(job)
    steps = list(epochs(job.source))
    for rows, time in steps:
        await whole.epoch(rows, time)
    for rows, time in steps[:2]:
        await parent.epoch(rows, time)
    children = [Task(job, split(parent.state, job.plan.tasks.key, half)) for half in HALVES]
    for rows, time in steps[2:4]:
        for child, half in zip(children, HALVES, strict=True):
            await child.epoch(of_range(rows, half), time)
    last = Task(job, joined([child.state for child in children]))
    for rows, time in steps[4:]:
        await last.epoch(rows, time)
    tasks = [parent, *children, last]
    assert sum((task.written for task in tasks), Counter()) == whole.written
    assert sum((task.late for task in tasks), Counter()) == whole.late
    assert any(len(task.written) for task in children)
    assert any(parent.state.values())


AHEAD_S, BEHIND_S = 20, 8
WATERMARKS_S = (BEHIND_S, 16, 22, 27)


async def test_tasks_at_different_watermarks_merged_write_what_they_would_apart(job):
    """What the one ahead has written is not written again: its rows stay late up to its own watermark."""
    random = Random(5)
    apart = [Task(job), Task(job)]
    for task, half, end_s in zip(apart, HALVES, (AHEAD_S, BEHIND_S), strict=True):
        await task.epoch(of_range(rows_between(job.source, random, 0, 25), half), EpochTime(0, None, end_s * SECOND_US))
        await task.epoch([], EpochTime(1, end_s * SECOND_US, end_s * SECOND_US))  # timers that are due by now
    merged = Task(job, joined([task.state for task in apart]))
    merged.written, merged.late = sum((task.written for task in apart), Counter()), sum((task.late for task in apart), Counter())
    floors = (Floor(HALVES[0], AHEAD_S * SECOND_US),)
    for epoch, (start_s, end_s) in enumerate(pairwise(WATERMARKS_S), 2):
        rows = rows_between(job.source, random, start_s - 4, end_s + 14)
        for task, half, own_s in zip(apart, HALVES, (AHEAD_S, 0), strict=True):
            time = EpochTime(epoch, max(own_s, start_s) * SECOND_US, max(own_s, end_s) * SECOND_US)
            await task.epoch(of_range(rows, half), time)
        await merged.epoch(rows, EpochTime(epoch, start_s * SECOND_US, end_s * SECOND_US, floors if start_s < AHEAD_S else ()))
    assert merged.written == sum((task.written for task in apart), Counter())
    assert merged.late == sum((task.late for task in apart), Counter())


LATE_QUERIES = ["windows", "sessions", "dedup", "running", "apply", "finals"]


@pytest.mark.parametrize("job", LATE_QUERIES, indirect=True)
@pytest.mark.parametrize("watermark_us", [None, BEHIND_S * SECOND_US])
async def test_a_floor_makes_rows_of_its_keys_late_and_says_its_watermark(job, watermark_us):
    low, high = (next(f"u{i}" for i in range(20) if of_range([{"user": f"u{i}"}], half)) for half in HALVES)
    rows = [{"user": user, "page": "a", "n": 1, "ts": 9 * SECOND_US, "_offset": user, "_shard": "s"} for user in (low, high)]
    floors = (Floor(HALVES[0], AHEAD_S * SECOND_US), Floor((0, 1), 10**15))
    output = await job.executor.run(job.inputs(rows), EpochTime(1, watermark_us, watermark_us, floors), {}, limits={})
    out = output.sinks["out"]
    assert out.late_rows == 1
    assert out.late.column("user").to_pylist() == [low]
    assert out.late.column("_watermark").cast(pa.int64()).to_pylist() == [AHEAD_S * SECOND_US]
    without = await job.executor.run(job.inputs(rows), EpochTime(2, watermark_us, watermark_us), {}, limits={})
    assert without.sinks["out"].late_rows == 0
