"""Disorder beyond the delay: which rows are late, and what is written of the others, exactly as a model row by row has it.

A row is late by the watermark at its epoch's start: the least of the shards' greatest event times, less the delay.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.job import Added, TestStep, load_job
from streamproc.testing.job_runner import JobRun

pytestmark = pytest.mark.timeout(43_200)  # thousands of examples in a soak run
START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
DELAY_S = 5
END_S = 10_000
QUERIES = {
    "tumbling": "SELECT window.start AS w, k, count(*) AS c, sum(n) AS total FROM a GROUP BY window(ts, '10 seconds'), k",
    "sliding": "SELECT window.start AS w, k, count(*) AS c, sum(n) AS total FROM a GROUP BY window(ts, '20 seconds', '5 seconds'), k",
    "sessions": """SELECT session_window.start AS w, session_window.end AS e, k, count(*) AS c
        FROM a GROUP BY session_window(ts, '7 seconds'), k""",
    "moments": "SELECT k, count(*) AS c, ts AS w FROM a GROUP BY k, ts",
    "distinct": "SELECT DISTINCT k, ts FROM a",
    "within": "SELECT k, count(*) AS c FROM drop_duplicates_within_watermark(a, 'k') GROUP BY k, window(ts, '1000 seconds')",
    "chained": """SELECT window.start AS w, sum(c) AS c FROM
        (SELECT window, k, count(*) AS c FROM a GROUP BY window(ts, '10 seconds'), k) GROUP BY window(window, '30 seconds')""",
    "grouping sets": "SELECT window.start AS w, k, count(*) AS c, grouping_id() AS g FROM a GROUP BY window(ts, '10 seconds'), ROLLUP (k)",
    "released": "SELECT k, ts, row_number() OVER (PARTITION BY k ORDER BY ts) AS rn FROM a",
    "top": """SELECT w.start AS w, n FROM (SELECT *, row_number() OVER (PARTITION BY w ORDER BY n DESC) AS rn FROM
        (SELECT window(ts, '10 seconds') AS w, n FROM a)) WHERE rn = 1""",
}
CRASHES = ("after_begin", "before_commit", "after_commit")

EXAMPLES = settings().max_examples if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else max(5, settings().max_examples // 6)
times = st.one_of(st.none(), st.integers(0, 120).map(lambda half: half / 2), st.sampled_from([0, 5, 10, 15, 20, 25, 30]))
rows = st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 9), times), max_size=6)
epochs = st.lists(st.tuples(rows, rows, st.sampled_from(["", "", "restart", *CRASHES])), max_size=8)


class Late(Exception):
    """A model's word for: the row is late."""


class Model:
    """Of one query. `add` a row (Late), then `close` at the epoch's end; `written` is what came out."""

    def __init__(self) -> None:
        self.late = 0
        self.written: list[tuple] = []
        self.open: dict = {}

    def epoch(self, found, begun, ended):
        """Rows of one epoch and the watermarks around it, in seconds."""
        for row in found:
            try:
                self.add(*row, begun)
            except Late:
                self.late += 1
        self.close(ended)

    def close(self, watermark):
        for group in [group for group in self.open if self.final(group) <= watermark]:
            self.written += self.result(group, self.open.pop(group))


class Windows(Model):
    """Groups of windows: `groups` says to which ones a row goes."""

    def groups(self, k, t):
        return [(t // 10 * 10, k)]

    size_s = 10

    def final(self, group):
        return group[0] + self.size_s

    def add(self, k, n, t, watermark):
        if t is None:
            return
        groups = [group for group in self.groups(k, t) if self.final(group) > watermark]
        if not groups:
            raise Late
        for group in groups:
            self.open.setdefault(group, []).append((n, t))

    def result(self, group, found):
        return [(*group, len(found), sum(n for n, _ in found))]


class Sliding(Windows):
    size_s = 20

    def groups(self, k, t):
        return [(t // 5 * 5 - back, k) for back in (0, 5, 10, 15)]


class Moments(Windows):
    size_s = 0

    def groups(self, k, t):
        return [(t, k)]

    def result(self, group, found):
        return [(group[1], len(found), group[0])]


class Rollup(Windows):
    def groups(self, k, t):
        return [(t // 10 * 10, k, 0), (t // 10 * 10, None, 1)]

    def result(self, group, found):
        return [(*group[:2], len(found), group[2])]


class Top(Windows):
    def groups(self, k, t):
        return [(t // 10 * 10,)]

    def result(self, group, found):
        return [(*group, max(n for n, _ in found))]


class Chained(Model):
    """Windows of 10 seconds, and those of 30 over them."""

    def __init__(self) -> None:
        super().__init__()
        self.below = Windows()

    def epoch(self, found, begun, ended):
        self.below.epoch(found, begun, ended)
        for w, _, c, _ in self.below.written:
            self.open[w // 30 * 30] = self.open.get(w // 30 * 30, 0) + c
        self.below.written = []
        self.late = self.below.late
        self.close(ended)

    def final(self, group):
        return group + 30

    def result(self, group, found):
        return [(group, found)]


class Sessions(Model):
    def __init__(self) -> None:
        super().__init__()
        self.open: dict = {"p": [], "q": [], "end": []}

    def add(self, k, n, t, watermark):
        del n
        if t is None:
            return
        if t + 7 <= watermark:
            raise Late
        start, end, count = t, t + 7, 1
        for s, e, c in [session for session in self.open[k] if session[0] <= t + 7 and t <= session[1]]:
            self.open[k].remove((s, e, c))
            start, end, count = min(start, s), max(end, e), count + c
        self.open[k].append((start, end, count))

    def close(self, watermark):
        for k, sessions in self.open.items():
            self.written += [(s, e, k, c) for s, e, c in sessions if e <= watermark]
            self.open[k] = [session for session in sessions if session[1] > watermark]


class Distinct(Model):
    def add(self, k, n, t, watermark):
        del n
        if t is not None and t <= watermark:
            raise Late
        if (k, t) not in self.open:
            self.open[k, t] = True
            self.written.append((k, t))

    def close(self, watermark):
        self.open = {key: True for key in self.open if key[1] is None or key[1] > watermark}


class Within(Model):
    """Keys are kept for the delay after their first time; what passes is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: Counter = Counter()

    def add(self, k, n, t, watermark):
        del n
        if t is not None and t <= watermark:
            raise Late
        if k not in self.open:
            self.open[k] = None if t is None else t + DELAY_S
            self.passed[k] += t is not None

    def close(self, watermark):
        self.open = {k: end for k, end in self.open.items() if end is None or end > watermark}
        if watermark >= 1_000:
            self.written, self.passed = self.written + [(k, c) for k, c in self.passed.items() if c and k != "end"], Counter()


class Released(Model):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple] = []
        self.numbers: Counter = Counter()

    def add(self, k, n, t, watermark):
        del n
        if t is not None and t <= watermark:
            raise Late
        self.waiting += [] if t is None else [(t, k)]

    def close(self, watermark):
        for t, k in sorted(row for row in self.waiting if row[0] <= watermark):
            self.numbers[k] += 1
            self.written.append((k, t, self.numbers[k]))
        self.waiting = [row for row in self.waiting if row[0] > watermark]


MODELS = {
    "tumbling": Windows, "sliding": Sliding, "sessions": Sessions, "moments": Moments, "distinct": Distinct, "within": Within,
    "chained": Chained, "grouping sets": Rollup, "released": Released, "top": Top,
}  # fmt: skip


class Watermark:
    """The least of the known shards' greatest event times, less the delay; it never goes back."""

    def __init__(self) -> None:
        self.s = float("-inf")
        self.shards: dict[str, float] = {}

    def see(self, part):
        for shard, found in part.items():
            seen = [t for _, _, t in found if t is not None]
            self.shards[shard] = max([self.shards.get(shard, float("-inf")), *seen])
        self.s = max(self.s, min(self.shards.values(), default=float("-inf")) - DELAY_S)
        return self.s


def sink_of(name):
    return name.replace(" ", "_")


@cache
def job():
    source = (
        "{type: kafka, topic: a, bootstrap_servers: 127.0.0.1:9092, schema: 'k STRING, n INT, ts TIMESTAMP', "
        f"watermark: {{column: ts, delay: {DELAY_S} seconds, idle: never}}}}"
    )
    sinks = [f'  {sink_of(name)}: {{type: console, query: "{" ".join(sql.split())}"}}' for name, sql in QUERIES.items()]
    return load_job("late.yaml", text="\n".join(["name: late", f"sources: {{a: {source}}}", "sinks:", *sinks, ""]))


def steps_of(cuts):
    """What happens first, and each shard's rows of an epoch; then rows that end all windows."""
    for x, y, event in cuts:
        yield event, {shard: found for shard, found in (("x", x), ("y", y)) if found}
    yield "", {"x": [("end", 0, END_S)], "y": [("end", 0, END_S)]}


class LateRun(JobRun):
    async def put(self, part):
        """The rows of all shards come before the next epoch."""
        for shard, found in part.items():
            made = tuple({"k": k, "n": n, "ts": None if t is None else START + timedelta(seconds=t)} for k, n, t in found)
            await self._add({"a": Added(shard=shard, rows=made)})
        await self.process()


async def check(cuts):
    run, watermark, models = LateRun(job(), START_US), Watermark(), {name: MODELS[name]() for name in QUERIES}
    await run.start()
    try:
        for event, part in steps_of(cuts):
            if event in CRASHES:
                await run.step(TestStep("crash", 0, event))
            begun, ended = watermark.s, watermark.see(part)
            await run.put(part)
            assert run.stopped is None, run.stopped
            for model in models.values():
                model.epoch([row for shard in sorted(part) for row in part[shard]], begun, ended)
            late = {sink_of(name): model.late for name, model in models.items()}
            assert await run.step(TestStep("late", 0, late)) is None, late
            if event == "restart":
                await run.step(TestStep("restart", 0, {}))
        for name, model in models.items():
            tables = run.sinks[sink_of(name)].epochs.values()
            assert counted(row.values() for table in tables for row in table.to_pylist()) == counted(model.written), name
    finally:
        await run.close()


def counted(found):
    return Counter(row for row in map(tuple, ([plain(value) for value in row] for row in found)) if "end" not in row)


def plain(value):
    return float((value - START).total_seconds()) if isinstance(value, datetime) else value


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=EXAMPLES)
@given(epochs)
def test_late_rows_are_those_of_the_model(cuts):
    asyncio.run(check(cuts))


def test_shards_that_run_apart():
    fast, slow = [("p", 1, 50), ("p", 2, 3)], [("q", 3, 12), ("q", 4, 30)]
    asyncio.run(check([(fast, [], ""), ([("p", 5, 44), ("p", 9, 45)], slow, "before_commit"), (slow, fast, "restart"), (fast, slow, "")]))


@pytest.mark.parametrize("event", CRASHES)
def test_a_crash_counts_no_late_row_twice(event):
    first, second = ([("p", 1, 60)], [("q", 1, 60)], ""), ([("p", 2, 1), ("p", 2, 52)], [("q", 3, 40)], event)
    asyncio.run(check([first, second, ([("p", 1, 2)], [], event)]))
