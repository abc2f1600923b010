"""A worker dies between any two steps, and the next one goes on: the rows are those of a run without deaths.

Memory source, sink and store, the engine as it is. Each query's answer is also held against a batch computation.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from streamproc.job import load_job
from streamproc.testing import BOUNDARIES, JobRun

S = 1_000_000
START_US = 1_767_225_600_000_000
QUERIES = {
    "append": "SELECT window.start AS w, page, count(*) AS n, sum(amount) AS total FROM clicks GROUP BY window(ts, '10 seconds'), page",
    "update": "SELECT page, count(*) AS n, sum(amount) AS total FROM clicks GROUP BY page",
    "complete": "SELECT page, count(*) AS n, sum(amount) AS total FROM clicks GROUP BY page",
    "stateless": "SELECT user, page, amount FROM clicks WHERE page <> '/health'",
}


def job(kind: str):
    text = f"""
name: crash
sources:
  clicks:
    type: generator
    schema: user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP
    watermark: {{column: ts, delay: 5 seconds}}
    bad_records: dead_letter
    max_rows_per_epoch: 17
sinks:
  out:
    type: console
    mode: {"append" if kind == "stateless" else kind}
    query: {QUERIES[kind]}
dead_letter: {{type: console}}
"""
    return load_job("crash.yaml", text=text)


def row(i: int) -> bytes:
    ts = f"2026-01-01T00:00:{i % 60:02d}Z" if i < 60 else f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z"
    return f'{{"user":"u{i}","page":"/{i % 3}","amount":{i}.25,"ts":"{ts}"}}'.encode()


async def put_rows(run: JobRun, first: int, last: int) -> None:
    for i in range(first, last):
        payload = b"{broken" if i % 13 == 12 else row(i)
        run.sources["clicks"].put(str(i % 2), [payload])


def good(last: int) -> list[int]:
    return [i for i in range(last) if i % 13 != 12]


def check(kind: str, run: JobRun, last: int) -> None:
    rows = run.sinks["out"].rows()
    if kind == "stateless":
        assert Counter(r["user"] for r in rows) == Counter(f"u{i}" for i in good(last))
    elif kind == "append":
        watermark_s = min(max(i for i in good(last) if i % 2 == shard) for shard in (0, 1)) - 5
        want = Counter()
        for i in good(last):
            want[(i // 10 * 10, f"/{i % 3}")] += 1
        closed = {key: n for key, n in want.items() if key[0] + 10 <= watermark_s}
        got = Counter({((r["w"].timestamp() - START_US / S), r["page"]): r["n"] for r in rows})
        assert got == closed
        assert len(rows) == len(closed)
    else:
        newest = {r["page"]: r for r in rows}
        for page in range(3):
            mine = [i for i in good(last) if i % 3 == page]
            assert newest[f"/{page}"]["n"] == len(mine)
            assert newest[f"/{page}"]["total"] == sum(Decimal(i) + Decimal("0.25") for i in mine)
    letters = run.sinks["dead_letter"].rows()
    assert Counter(letter["raw"] for letter in letters) == Counter({b"{broken": last - len(good(last))})
    assert len({(letter["shard"], letter["offset"]) for letter in letters}) == len(letters)


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("boundary", [None, *BOUNDARIES])
async def test_a_death_at_a_boundary_changes_no_row(kind, boundary):
    run = JobRun(job(kind), START_US)
    await run.start()
    for part in range(3):
        run.crash.armed = boundary
        await put_rows(run, part * 30, part * 30 + 30)
        await run.process()
        assert run.stopped is None
        assert run.crash.armed is None
    check(kind, run, 90)
    await run.close()


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("prefix", ["g1/all/epochs", "state/", "jobs/", "root"])
async def test_a_store_that_loses_answers_changes_no_row(kind, when, prefix):
    run = JobRun(job(kind), START_US)
    run.store.fail_next_put(when, prefix)
    await _with_ticks(run, run.start())
    for part in range(3):
        await put_rows(run, part * 30, part * 30 + 30)
        run.store.fail_next_put(when, prefix)
        await _with_ticks(run, run.process())
    check(kind, run, 90)
    await run.close()


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_sink_that_loses_answers_gets_each_row_once(kind, when):
    run = JobRun(job(kind), START_US)
    await run.start()
    for part in range(3):
        await put_rows(run, part * 30, part * 30 + 30)
        run.sinks["out"].fail_next(when)
        await _with_ticks(run, run.process())
    check(kind, run, 90)
    await run.close()


async def _with_ticks(run: JobRun, work) -> None:
    """Run `work` while the clock moves, so that pauses between tries pass."""
    import asyncio

    done = asyncio.ensure_future(work)
    while not done.done():
        await asyncio.sleep(0.001)
        run.clock.advance(100_000)
    await done
