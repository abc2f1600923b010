"""Outages, drift and idle shards: event time moves by what was read, never by what could not be read."""

from __future__ import annotations

import asyncio

import pytest

from streamproc.job import load_job
from streamproc.testing import JobRun

S = 1_000_000
START_US = 1_767_225_600_000_000
TEXT = """
name: time
sources:
  clicks:
    type: generator
    schema: user STRING, ts TIMESTAMP
    watermark: {column: ts, delay: 5 seconds, idle: 1 minute}
    max_rows_per_epoch: %d
sinks:
  out: {type: console, query: "SELECT window.start AS w, count(*) AS n FROM clicks GROUP BY window(ts, '10 seconds')"}
"""


def start(rows_max: int = 100_000) -> JobRun:
    return JobRun(load_job("time.yaml", text=TEXT % rows_max), START_US)


def put(run: JobRun, shard: str, *seconds: float) -> None:
    rows = [f'{{"user":"u","ts":"2026-01-01T00:{int(s // 60):02d}:{s % 60:06.3f}Z"}}'.encode() for s in seconds]
    run.sources["clicks"].put(shard, rows)


async def tick(run: JobRun, seconds: float) -> None:
    """Time passes in small steps, as between real reads."""
    for _ in range(int(seconds)):
        run.clock.advance(S)
        for _ in range(20):
            await asyncio.sleep(0)
        if not run.sources["clicks"]._failing:
            await run.process()


def late(run: JobRun) -> int:
    return run._the_task().standing.commit.late.get("out", 0)


def counts(run: JobRun) -> dict[int, int]:
    return {round(r["w"].timestamp() - START_US / S): r["n"] for r in run.sinks["out"].rows()}


async def test_a_broker_that_is_down_for_ten_minutes_makes_no_row_late():
    run = start()
    await run.start()
    put(run, "0", 1, 2)
    put(run, "1", 1, 2)
    await run.process()
    await tick(run, 5)
    watermark = run._the_task().watermark_us()
    run.sources["clicks"].fail()
    await tick(run, 600)
    run.sources["clicks"].recover()
    put(run, "0", 3, 4)
    put(run, "1", 3, 4)  # written while the broker was away for us
    await tick(run, 10)
    assert late(run) == 0
    assert run._the_task().watermark_us() == watermark + 2 * S
    put(run, "0", 100)
    put(run, "1", 100)
    await run.process()
    assert counts(run) == {0: 8}
    await run.close()


async def test_a_quiet_broker_for_ten_minutes_closes_the_last_window():
    run = start()
    await run.start()
    put(run, "0", 1, 2)
    await run.process()
    await tick(run, 600)
    assert counts(run) == {0: 2}
    await run.close()


@pytest.mark.parametrize("rows_max", [100_000, 64, 7])
async def test_a_replay_in_which_shards_drift_apart_loses_no_event(rows_max):
    """Ten minutes of history, one shard far larger than the other and read far ahead: the minimum over shards waits."""
    run = start(rows_max)
    await run.start()
    for second in range(0, 600, 2):
        put(run, "1", second + 0.5)
    for second in range(0, 600, 20):
        put(run, "0", *(second + i for i in range(20)))
    await run.process()
    assert late(run) == 0
    put(run, "0", 1200)
    put(run, "1", 1200)
    await run.process()
    assert late(run) == 0
    assert counts(run) == dict.fromkeys(range(0, 600, 10), 15)
    await run.close()


async def test_a_row_that_comes_after_all_were_idle_is_judged_by_the_time_counted():
    run = start()
    await run.start()
    put(run, "0", 3)
    await run.process()
    await tick(run, 120)  # idle after one minute; the watermark moves on by the other
    put(run, "0", 5)
    await run.process()
    assert late(run) == 1
    await run.close()


async def test_idle_time_is_counted_once_when_a_limit_cuts_the_rows_that_end_it():
    run = start(rows_max=1)
    await run.start()
    put(run, "0", 3)
    await run.process()
    await tick(run, 120)
    watermark = run._the_task().watermark_us()
    assert watermark == START_US + (3 - 5 + 60) * S
    put(run, "0", 61, 62, 30)
    await run.process()
    assert run._the_task().watermark_us() == watermark
    assert late(run) == 1
    await run.close()


async def test_absurdly_early_clocks_close_no_window():
    run = start()
    await run.start()
    put(run, "0", 1)
    run.sources["clicks"].put("0", [b'{"user":"u","ts":"2099-01-01T00:00:00Z"}'])
    put(run, "0", 2)
    await run.process()
    assert run._the_task().watermark_us() == START_US + 2 * S - 5 * S
    assert counts(run) == {}
    assert run.world.metrics.get("streamproc_dead_letters_total", source="clicks", reason="event_time_ahead") == 1
    await run.close()
