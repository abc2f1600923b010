"""Looking at a job's checkpoint without running the job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from streamproc.checkpoint.log import EpochLog, Latest, Line
from streamproc.checkpoint.records import CLOSED, Commit, Root, ShardEnd, decode
from streamproc.checkpoint.root import OpenRoot, read_root
from streamproc.checkpoint.tasks import ALL, KnownTasks, TaskRegister
from streamproc.engine.epoch import added
from streamproc.engine.worker import open_checkpoint
from streamproc.errors import Fault, InvalidJob
from streamproc.job import Job
from streamproc.state.runs import RunRef
from streamproc.state.watermark import inherited
from streamproc.store import Store
from streamproc.world import World


@dataclass(frozen=True, slots=True)
class Kept:
    """A commit that rollback can go back to."""

    epoch: int
    commit: Commit


async def status(job: Job, world: World | None = None) -> dict[str, Any]:
    """Where the job stands: checkpoint, newest epoch, watermarks, shards, state, counters, over all tasks and each task's own.

    InvalidJob (exit 2) without a checkpoint.
    """
    world = world or World()
    store, opened = await existing(job, world)
    known = await known_tasks(store, opened.root)
    logs = {name: log_of(store, opened.root, name, world) for name in known.scopes or (ALL,)}
    found = dict(zip(logs, await asyncio.gather(*(log.latest() for log in logs.values())), strict=True))
    await store.close()
    latest = {name: one for name, one in found.items() if one is not None}
    where: dict[str, Any] = {"job": job.name, "checkpoint": opened.root.checkpoint}
    if not latest:
        return {**where, "epoch": None}
    where |= {"generation": opened.root.generation, "epoch": max(one.epoch for one in latest.values())}
    return {**where, **_standing(job, [one.commit for one in latest.values()], known, latest)}


def _standing(job: Job, commits: Sequence[Commit], known: KnownTasks, latest: dict[str, Latest]) -> dict[str, Any]:
    """The tasks together; ended ones hold no watermark back and have handed on their state."""
    going = [one.commit for name, one in latest.items() if name not in known.over] or list(commits)
    shards: dict[str, dict[str, ShardEnd]] = {}
    for commit in commits:
        for name, ends in commit.shards.items():
            shards.setdefault(name, {}).update(ends)
    sources = {name for commit in going for name in commit.source_watermarks}
    return {
        "committed": iso(max(commit.now_us for commit in commits)),
        "begun": any(one.begun is not None for one in latest.values()),
        "watermark": iso(inherited([commit.watermark_us for commit in going])),
        "held_back_by": held_back_by(job, shards),
        "watermarks": {name: iso(inherited([commit.source_watermarks.get(name) for commit in going])) for name in sorted(sources)},
        "shards": {name: {shard: _shard(end) for shard, end in ends.items()} for name, ends in shards.items()},
        "state": _state(commit.state for commit in going),
        "written": added(*(commit.written for commit in commits)),
        "late": added(*(commit.late for commit in commits)),
        "dead": sum(commit.dead for commit in commits),
        "job_text_is_current": all(commit.job == job.hash for commit in going),
        "aborted": next((commit.aborted for commit in going if commit.aborted), None),
        "finished": all(commit.finished for commit in going),
        "tasks": {name: _task(one, known) for name, one in latest.items()},
    }  # fmt: skip


def _task(latest: Latest, known: KnownTasks) -> dict[str, Any]:
    commit = latest.commit
    return {
        "epoch": latest.epoch,
        "committed": iso(commit.now_us),
        "watermark": iso(commit.watermark_us),
        "begun": latest.begun is not None,
    }


def held_back_by(job: Job, shards: dict[str, dict[str, ShardEnd]]) -> list[str]:
    """The shards with the least watermark of those that are not idle, `source/shard`: the job's watermark waits for them."""
    waiting: dict[str, int | None] = {}
    for name, watermark in job.planned.watermarks.items():
        for shard, end in shards.get(name, {}).items():
            if not end.ended and (watermark.idle_us is None or end.idle_us < watermark.idle_us):
                waiting[f"{name}/{shard}"] = end.watermark_us
    silent = [shard for shard, us in waiting.items() if us is None]
    least = min((us for us in waiting.values() if us is not None), default=None)
    return silent or [shard for shard, us in waiting.items() if us == least]


def _shard(end: ShardEnd) -> dict[str, Any]:
    return {"end": end.end, "watermark": iso(end.watermark_us), "ended": end.ended}


def _state(states: Iterable[dict[str, list[RunRef]]]) -> dict[str, dict[str, int]]:
    refs: dict[str, list[RunRef]] = {}
    for state in states:
        for operator, runs in state.items():
            refs.setdefault(operator, []).extend(runs)
    return {op: {"runs": len(rs), "rows": sum(r.length for r in rs), "bytes": sum(r.nbytes for r in rs)} for op, rs in refs.items()}


async def epochs(job: Job, world: World | None = None) -> list[str]:
    """A line for every epoch kept, oldest first: number, time, watermark, rows written, late, dead; the task where there are several."""
    world = world or World()
    store, opened = await existing(job, world)
    names = list((await known_tasks(store, opened.root)).scopes) or [ALL]
    found = [(name, kept) for name in names for kept in await kept_commits(store, log_of(store, opened.root, name, world))]
    await store.close()
    found.sort(key=lambda one: (one[1].commit.now_us, one[1].epoch))
    return [_line(kept) + (f"  {name}" if len(names) > 1 else "") for name, kept in found]


def _line(kept: Kept) -> str:
    commit = kept.commit
    rows = ", ".join(f"{name} {n}" for name, n in sorted(commit.written.items())) or "nothing"
    aborted = f"  aborted: {commit.aborted}" if commit.aborted else ""
    late = sum(commit.late.values())
    counts = f"written {rows}  late {late}  dead {commit.dead}"
    return f"{kept.epoch:>8}  {iso(commit.now_us)}  watermark {iso(commit.watermark_us)}  {counts}{aborted}"


async def kept_commits(store: Store, log: EpochLog) -> list[Kept]:
    """Every commit of a task that is kept, in the log or hourly, oldest first."""
    floor = await log.floor()
    found = {}
    if floor < CLOSED:
        for epoch in [n async for n in log.epochs("commit") if n >= floor]:
            commit = await log.read_commit(epoch)
            if commit is not None:
                found[epoch] = commit
    else:  # an interrupted rollback: its old line may still be gone back to
        found.update({n: c async for n in log.epochs("commit") if (c := await log.read_commit(n)) is not None})
    async for entry in store.list(f"{log.line.prefix}/saved/"):
        epoch = int(entry.name.rpartition("-")[2].removesuffix(".commit"))
        found.setdefault(epoch, decode((await store.get(entry.name)).data, Commit, entry.name))
    return [Kept(n, found[n]) for n in sorted(found)]


async def known_tasks(store: Store, root: Root) -> KnownTasks:
    """The tasks of a checkpoint that has one a shard."""
    return await TaskRegister(store, root.generation).read() if root.tasks == "shards" else KnownTasks()


async def existing(job: Job, world: World) -> tuple[Store, OpenRoot]:
    """The job's checkpoint; InvalidJob if there is none."""
    store = await open_checkpoint(job, world, asyncio.Event())
    assert store is not None
    root = await read_root(store)
    if root is None:
        raise InvalidJob([Fault(job.file, 1, f"there is no checkpoint at {job.checkpoint}: the job has not run yet")])
    return store, root


def log_of(store: Store, root: Root, task: str, world: World) -> EpochLog:
    return EpochLog(store, Line(root.checkpoint, root.generation, task), world.new_id())


def iso(us: int | None) -> str | None:
    """ISO 8601 of microseconds since 1970; `end of time` for a drained watermark."""
    if us is None or us >= CLOSED:
        return None if us is None else "end of time"
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
