"""Results of functions that are not deterministic: stored before anything is visible, and obeyed by whoever runs the epoch."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from streamproc.checkpoint.answers import Answers
from streamproc.checkpoint.records import Verdict
from streamproc.checkpoint.retention import Collector
from streamproc.job import Added, TestStep, load_job
from streamproc.testing.job_runner import JobRun
from streamproc.testing.manual_clock import START_US

TEXT = """\
sources:
  clicks: {type: kafka, topic: t, bootstrap_servers: b, schema: 'n INT', bad_records: skip}
functions:
  draw: {function: 'engine_test_functions:draw', returns: BIGINT, deterministic: DETERMINISTIC}
sinks:
  out: {type: console, query: 'SELECT n, draw(n) AS d FROM clicks WHERE n > 0'}
"""


@pytest.fixture
def functions() -> Iterator[ModuleType]:
    """`draw` gives every row another number at every call. It fails for those in `failing` until they come alone, and
    always for those in `broken`.
    """
    module = ModuleType("engine_test_functions")
    numbers, module.failing, module.broken = itertools.count(1), set(), set()  # type: ignore[attr-defined]

    def draw(values: pa.Array) -> pa.Array:
        for value in sorted(set(values.to_pylist()) & module.broken):
            raise ValueError(f"{value} is broken")
        for value in set(values.to_pylist()) & module.failing:
            if len(values) == 1:
                module.failing.remove(value)
            raise ValueError(f"not {value}, this time")
        return pa.array([next(numbers) for _ in values], pa.int64())

    module.draw = draw  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


async def started(*, deterministic: bool = False) -> JobRun:
    run = JobRun(load_job("functions.yaml", text=TEXT.replace("DETERMINISTIC", str(deterministic).lower())), START_US)
    await run.start()
    return run


async def add(run: JobRun, *numbers: int) -> None:
    step = TestStep("add", 1, {"clicks": Added("0", tuple({"n": n} for n in numbers))})
    assert await run.step(step) is None
    assert run.stopped is None, run.stopped


def written(run: JobRun) -> list[tuple[int, int]]:
    return [(row["n"], row["d"]) for row in run.sinks["out"].rows()]


async def names(run: JobRun, suffix: str) -> list[str]:
    return [entry.name async for entry in run.store.list() if entry.name.endswith(suffix)]


async def test_a_job_that_takes_no_bad_record_stops_with_function_and_row(functions: ModuleType) -> None:
    run = JobRun(load_job("functions.yaml", text=TEXT.replace("DETERMINISTIC", "true").replace("skip", "fail")), START_US)
    await run.start()
    functions.broken = {2, 3}  # type: ignore[attr-defined]
    await run.step(TestStep("add", 1, {"clicks": Added("0", ({"n": 1}, {"n": 2}, {"n": 3}))}))
    assert "source clicks, shard 0, offset 1: function draw: ValueError: 2 is broken (" in str(run.stopped)
    await run.close()


@pytest.mark.parametrize("boundary", ["after_run", "after_write", "before_commit"])
async def test_a_second_run_writes_what_the_first_has_stored(functions: ModuleType, boundary: str) -> None:
    run = await started()
    run.crash.armed = boundary
    await add(run, 1, -1, 2)
    assert run.crash.armed is None
    assert written(run) == [(1, 1), (2, 2)]
    await add(run, 3)
    assert written(run)[2:] == [(3, 3)]
    await run.close()


async def test_rows_that_failed_once_stay_out(functions: ModuleType) -> None:
    run = await started()
    functions.failing = {2}  # type: ignore[attr-defined]
    run.crash.armed = "after_run"
    await add(run, 1, 2, 3)
    assert [n for n, _ in written(run)] == [1, 3]
    assert await names(run, ".verdict") == []
    await run.close()


async def test_a_slice_that_fails_once_is_tried_again(functions: ModuleType) -> None:
    run, draw, calls = await started(), functions.draw, itertools.count()

    def failing_first(values: pa.Array) -> pa.Array:
        if next(calls) == 0:
            raise OSError("away for a moment")
        return draw(values)

    functions.draw = failing_first  # type: ignore[attr-defined]
    await run.step(TestStep("restart", 1, None))
    await add(run, 1, 2)
    assert [n for n, _ in written(run)] == [1, 2]
    await run.close()


async def test_of_two_workers_the_first_to_store_decides(functions: ModuleType) -> None:
    run = await started()
    put = run.store.put
    raced: list[str] = []

    async def racing(name: str, data: bytes, **kwargs: Any) -> str:
        if name.endswith(".rows") and not raced:
            raced.append(name)
            (call,) = Answers.from_bytes(data, name).tables
            theirs = Answers({call: pa.table({"draw(n)": pa.array([70, 90], pa.int64())})}, Verdict(writer="another"))
            await put(name, theirs.to_bytes())
        return await put(name, data, **kwargs)

    run.store.put = racing  # type: ignore[method-assign]
    await add(run, 7, 9)
    assert raced
    assert written(run) == [(7, 70), (9, 90)]
    await run.close()


async def test_only_what_must_be_is_stored_and_it_is_collected(functions: ModuleType) -> None:
    run = await started()
    await add(run, 1)
    await add(run, -1)
    await add(run, 2)
    assert [Path(name).name for name in await names(run, ".rows")] == ["0000000001.rows", "0000000003.rows"]
    collector = Collector(run._the_task()._log, epochs_kept=1)
    await collector.collect(3, START_US)
    assert [Path(name).name for name in await names(run, ".rows")] == ["0000000003.rows"]
    await run.close()
    sure = await started(deterministic=True)
    await add(sure, 1)
    assert await names(sure, ".rows") == []
    await sure.close()
