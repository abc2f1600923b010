"""Bugs put in on purpose: the simulation must find each within a few seeds. Without them the same seeds keep every promise."""

from __future__ import annotations

import asyncio

import pytest

from streamproc.checkpoint.log import EpochLog
from streamproc.checkpoint.records import encode
from streamproc.engine import epoch, first_commit, intake, job_worker, task
from streamproc.lease.hold import Hold
from streamproc.lease.keeper import LeaseKeeper
from streamproc.state import watermark
from streamproc.testing import simulate
from streamproc.testing.virtual_loop import HERE

SEEDS_MAX = 60
CAUGHT = {
    "create-if-absent skipped": {"two owners never both commit", "each row is counted once", "the same epoch gives the same rows"},
    "committed before the sink is written": {"sinks are written before the commit", "each row is counted once"},
    "child read before its parent": {"parents are read to their end first", "each row is counted once", "no row is late"},
    "renewal in the data path": {"one worker at a time holds a lease"},
    "the greatest watermark instead of the least": {"no row is late", "the watermark never goes back"},
}


def first_caught(wanted: set[str]) -> int:
    """The first seed that breaks one of these promises."""
    others = []
    for seed in range(SEEDS_MAX):
        violation = simulate(seed).violation
        if violation is not None and violation.invariant in wanted:
            return seed
        others.append(violation)
    pytest.fail(f"not caught within {SEEDS_MAX} seeds; other violations: {[v for v in others if v]}")


def test_create_if_absent_skipped(monkeypatch):
    async def create(self, name, record, kind):
        await self.store.put(name, encode(record), overwrite=True)
        return record

    monkeypatch.setattr(EpochLog, "_create", create)
    first_caught(CAUGHT["create-if-absent skipped"])


def test_committed_before_the_sink_is_written(monkeypatch):
    write, commit = epoch.write_sinks, epoch.log_commit
    waiting = {}

    async def write_later(rt, output, letters, of):
        waiting[rt.line.task, rt.writer] = (rt, output, letters, of)
        return {name: out.rows.num_rows for name, out in rt.addressed(output, letters, of.epoch).items()}

    async def commit_first(rt, number, record):
        await commit(rt, number, record)
        await write(*waiting.pop((rt.line.task, rt.writer)))

    monkeypatch.setattr(epoch, "write_sinks", write_later)
    monkeypatch.setattr(epoch, "log_commit", commit_first)
    first_caught(CAUGHT["committed before the sink is written"])


def test_child_read_before_its_parent(monkeypatch):
    def at_once(scopes, over):
        return [scope for name, scope in sorted(scopes.items()) if name not in over]

    def all_listed(shards, ends):
        return [shard for shard in shards if not (shard.id in ends and ends[shard.id].ended)]

    monkeypatch.setattr(job_worker, "runnable", at_once)
    monkeypatch.setattr(intake, "readable", all_listed)
    first_caught(CAUGHT["child read before its parent"])


def test_renewal_in_the_data_path(monkeypatch):
    """An epoch keeps its worker from renewing, and the holder believes that it holds until it is told otherwise."""
    busy = {}
    run, renew = task.run_epoch, LeaseKeeper._renew

    async def run_epoch(*args, **kwargs):
        here = HERE.get()
        busy[here] = busy.get(here, 0) + 1
        try:
            return await run(*args, **kwargs)
        finally:
            busy[here] -= 1

    async def renew_between_epochs(self, hold):
        while busy.get(HERE.get()):
            await asyncio.sleep(0.05)
        return await renew(self, hold)

    monkeypatch.setattr(task, "run_epoch", run_epoch)
    monkeypatch.setattr(LeaseKeeper, "_renew", renew_between_epochs)
    monkeypatch.setattr(Hold, "held", property(lambda hold: hold.ready and not hold.lost))
    first_caught(CAUGHT["renewal in the data path"])


def test_the_greatest_watermark_instead_of_the_least(monkeypatch):
    def greatest(known):
        return max((w for w in known if w is not None), default=None)

    monkeypatch.setattr(watermark, "inherited", greatest)
    monkeypatch.setattr(epoch, "inherited", greatest)
    monkeypatch.setattr(first_commit, "inherited", greatest)
    first_caught(CAUGHT["the greatest watermark instead of the least"])
