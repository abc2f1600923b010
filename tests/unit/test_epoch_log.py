"""The epoch log decides who did an epoch: every race that a paused or slow worker can run, over a memory store."""

from __future__ import annotations

import pytest

from streamproc.checkpoint.log import EpochLog, Line
from streamproc.checkpoint.records import Begin, Commit, Verdict
from streamproc.checkpoint.retention import EPOCHS_KEPT, Collector, floor_after, outlived, saves, unreferenced
from streamproc.errors import LeaseLost
from streamproc.state.runs import RunRef
from streamproc.testing import MemoryStore

LINE = Line("c1", 1, "all")


def begin(writer: str, now: int = 0) -> Begin:
    return Begin(writer=writer, job="j", now_us=now, shards={})


def commit(writer: str, state: dict[str, list[RunRef]] | None = None, now: int = 0) -> Commit:
    return Commit(writer=writer, job="j", now_us=now, shards={}, state=state or {})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def a(store: MemoryStore) -> EpochLog:
    return EpochLog(store, LINE, "a")


@pytest.fixture
def b(store: MemoryStore) -> EpochLog:
    return EpochLog(store, LINE, "b")


async def test_the_first_to_create_a_begin_wins_and_the_other_reads_it(a, b):
    assert (await a.begin(1, begin("a"))).writer == "a"
    assert (await b.begin(1, begin("b"))).writer == "a"


@pytest.mark.parametrize("kind", ["begin", "commit", "verdict"])
async def test_a_lost_answer_is_recognised_by_the_writers_own_id(store, a, kind):
    record = {"begin": begin("a"), "commit": commit("a"), "verdict": Verdict(writer="a")}[kind]
    await getattr(a, kind)(1, record)  # it happened, the answer was lost, it is tried again
    assert (await getattr(a, kind)(1, record)).writer == "a"


async def test_a_verdict_is_decided_once(a, b):
    await a.verdict(1, Verdict(writer="a", abort="poison"))
    assert (await b.verdict(1, Verdict(writer="b"))).abort == "poison"
    assert (await b.read_verdict(1)).abort == "poison"
    assert await b.read_verdict(2) is None


async def test_an_empty_log_has_no_latest(a):
    assert await a.latest() is None


async def test_latest_is_the_newest_commit_and_the_begin_after_it(a, b):
    await a.commit(0, commit("a"))
    await a.begin(1, begin("a"))
    await a.commit(1, commit("a"))
    await b.begin(2, begin("b"))
    latest = await a.latest()
    assert (latest.epoch, latest.commit.writer, latest.begun.writer) == (1, "a", "b")


async def _others_went_on(a: EpochLog, b: EpochLog, epochs: int) -> None:
    for n in range(epochs):
        await b.begin(n, begin("b"))
        await b.commit(n, commit("b", now=n))
    await Collector(b).collect(epochs - 1, now_us=0)


async def test_a_sleeper_that_creates_a_collected_begin_again_gives_up_and_removes_it(store, a, b):
    await _others_went_on(a, b, 2 * EPOCHS_KEPT)
    with pytest.raises(LeaseLost, match="slept"):
        await a.begin(5, begin("a"))
    assert not [name for name in store.names if "0000000005" in name]


async def test_a_sleeper_between_begin_and_commit_commits_nothing_that_counts(store, a, b):
    await a.begin(5, begin("a"))
    await _others_went_on(a, b, 2 * EPOCHS_KEPT)
    await a.commit(5, commit("a"))  # its name was deleted, so the create succeeds
    latest = await b.latest()
    assert (latest.epoch, latest.commit.writer) == (2 * EPOCHS_KEPT - 1, "b")
    with pytest.raises(LeaseLost):
        await a.begin(6, begin("a"))
    assert not [name for name in store.names if "0000000005" in name or "0000000006" in name]


async def test_a_closed_line_takes_no_epoch(a, b):
    await a.commit(0, commit("a"))
    await b.raise_floor(2**62)
    with pytest.raises(LeaseLost):
        await a.begin(1, begin("a"))
    assert await a.latest() is None


async def test_the_floor_never_falls_and_survives_a_race(store, a, b):
    await a.raise_floor(10)
    await b.raise_floor(7)
    assert await a.floor() == 10
    await b.raise_floor(12)
    assert await a.floor() == 12


async def test_another_generation_is_another_log(store, a):
    await a.commit(0, commit("a"))
    assert await EpochLog(store, Line("c1", 2, "all"), "a").latest() is None


async def test_the_collector_keeps_what_a_kept_commit_names_and_what_a_slower_writer_may_still_name(store, a):
    newest = 2 * EPOCHS_KEPT
    for name in (
        "state/all/1-3-old",
        "state/all/1-150-kept",
        f"state/all/1-{newest}-lost",
        f"state/all/1-{newest + 1}-slow",
        "state/all/0-999-before",
    ):
        await store.put(name, b"x")
    for n in range(newest + 1):
        await a.commit(n, commit("a", {"op": [RunRef(name="state/all/1-150-kept", length=1, nbytes=1)]}))
    await Collector(a).collect(newest, now_us=0)
    assert [n for n in store.names if n.startswith("state/")] == ["state/all/1-150-kept", f"state/all/1-{newest + 1}-slow"]
    assert [n async for n in a.epochs("commit")] == list(range(floor_after(newest), newest + 1))


async def test_runs_of_a_saved_commit_stay(store, a):
    await store.put("state/all/1-1-saved", b"x")
    collector = Collector(a)
    await collector.save_hourly(1, commit("a", {"op": [RunRef(name="state/all/1-1-saved", length=1, nbytes=1)]}, now=5))
    for n in range(2 * EPOCHS_KEPT):
        await a.commit(n, commit("a"))
    await collector.collect(2 * EPOCHS_KEPT - 1, now_us=3600 * 10**6)
    assert "state/all/1-1-saved" in store.names
    await collector.collect(2 * EPOCHS_KEPT - 1, now_us=48 * 3600 * 10**6)
    assert "state/all/1-1-saved" not in store.names


def test_one_commit_an_hour_is_saved_and_kept_for_a_day():
    hour = 3600 * 10**6
    assert saves(None, 5) and saves(hour - 1, hour) and not saves(hour, 2 * hour - 1)
    assert outlived([f"g1/all/saved/{5:020d}-1.commit"], 24 * hour + 6) and not outlived([f"g1/all/saved/{5:020d}-1.commit"], 24 * hour)


def test_runs_of_epochs_above_the_newest_commit_are_never_removed():
    assert unreferenced(["state/all/1-9-x", "state/all/1-10-y"], set(), 1, 9) == ["state/all/1-9-x"]
