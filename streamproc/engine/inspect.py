"""Looking at a job's checkpoint and moving it back, without running the job."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from streamproc.checkpoint.log import EpochLog, Line
from streamproc.checkpoint.records import CLOSED, Commit, Root, decode, encode
from streamproc.checkpoint.root import OpenRoot, read_root, write_root
from streamproc.engine.runtime import Registered
from streamproc.engine.task import TASK
from streamproc.engine.worker import leased, open_checkpoint
from streamproc.errors import Fault, InvalidJob, StreamprocError
from streamproc.job import Job
from streamproc.state.runs import RunRef
from streamproc.store import Store
from streamproc.world import World


@dataclass(frozen=True, slots=True)
class Kept:
    """A commit that rollback can go back to."""

    epoch: int
    commit: Commit


async def status(job: Job, world: World | None = None) -> dict[str, Any]:
    """Where the job stands: checkpoint, newest epoch, watermarks, shards, state, counters. InvalidJob (exit 2) without one."""
    world = world or World()
    store, root = await _existing(job, world)
    log = _log(store, root.root, world)
    latest = await log.latest()
    await store.close()
    if latest is None:
        return {"job": job.name, "checkpoint": root.root.checkpoint, "epoch": None}
    commit = latest.commit
    return {
        "job": job.name,
        "checkpoint": root.root.checkpoint,
        "generation": root.root.generation,
        "epoch": latest.epoch,
        "committed": iso(commit.now_us),
        "begun": latest.begun is not None,
        "watermark": iso(commit.watermark_us),
        "held_back_by": held_back_by(job, commit),
        "watermarks": {name: iso(us) for name, us in commit.source_watermarks.items()},
        "shards": {name: {shard: _shard(end) for shard, end in ends.items()} for name, ends in commit.shards.items()},
        "state": {op: _state(refs) for op, refs in commit.state.items()},
        "written": commit.written,
        "late": commit.late,
        "dead": commit.dead,
        "job_text_is_current": commit.job == job.hash,
        "aborted": commit.aborted,
        "finished": commit.finished,
    }  # fmt: skip


def held_back_by(job: Job, commit: Commit) -> list[str]:
    """The shards with the least watermark of those that are not idle, `source/shard`: the job's watermark waits for them."""
    waiting: dict[str, int | None] = {}
    for name, watermark in job.planned.watermarks.items():
        for shard, end in commit.shards.get(name, {}).items():
            if not end.ended and (watermark.idle_us is None or end.idle_us < watermark.idle_us):
                waiting[f"{name}/{shard}"] = end.watermark_us
    silent = [shard for shard, us in waiting.items() if us is None]
    least = min((us for us in waiting.values() if us is not None), default=None)
    return silent or [shard for shard, us in waiting.items() if us == least]


def _shard(end: Any) -> dict[str, Any]:
    return {"end": end.end, "watermark": iso(end.watermark_us), "ended": end.ended}


def _state(refs: Sequence[RunRef]) -> dict[str, int]:
    return {"runs": len(refs), "rows": sum(r.length for r in refs), "bytes": sum(r.nbytes for r in refs)}


async def epochs(job: Job, world: World | None = None) -> list[str]:
    """A line for every epoch kept, oldest first: number, time, watermark, rows written, late, dead."""
    world = world or World()
    store, root = await _existing(job, world)
    kept = await _kept(store, _log(store, root.root, world))
    await store.close()
    return [_line(k) for k in kept]


def _line(kept: Kept) -> str:
    commit = kept.commit
    rows = ", ".join(f"{name} {n}" for name, n in sorted(commit.written.items())) or "nothing"
    aborted = f"  aborted: {commit.aborted}" if commit.aborted else ""
    late = sum(commit.late.values())
    counts = f"written {rows}  late {late}  dead {commit.dead}"
    return f"{kept.epoch:>8}  {iso(commit.now_us)}  watermark {iso(commit.watermark_us)}  {counts}{aborted}"


async def rollback(job: Job, to_us: int, yes: bool, world: World | None = None) -> list[str]:
    """Go back to the last commit at or before `to_us`: a new generation of the log begins there, the old line is closed.

    Sinks that cannot remove what was written since keep it and get the rows again: they are named, and nothing is done
    without `yes`. StreamprocError while the job runs or where no commit is old enough.
    """
    world = world or World()
    store, root = await _existing(job, world)
    log = _log(store, root.root, world)
    try:
        async with asyncio.timeout(30):
            async with leased(job, store, world, f"rollback:{socket.gethostname()}:{os.getpid()}", asyncio.Event()) as keeper:
                assert keeper is not None
                return await _roll_back(job, store, root, log, to_us, yes, world)
    except TimeoutError:
        raise StreamprocError(f"job {job.name} is running: stop it first") from None


async def _roll_back(job: Job, store: Store, root: OpenRoot, log: EpochLog, to_us: int, yes: bool, world: World) -> list[str]:
    kept = [k for k in await _kept(store, log) if k.commit.now_us <= to_us]
    if not kept:
        raise StreamprocError(f"no commit of {iso(to_us)} or before is kept; `streamproc epochs` lists those that are")
    target = kept[-1]
    said = [f"back to epoch {target.epoch} of {iso(target.commit.now_us)}"]
    stays = _staying(job, world)
    said += [f"sink {name}: {why}" for name, why in stays.items()]
    if stays and not yes:
        raise StreamprocError("\n".join([*said, "nothing was changed; say --yes to go on"]))
    line = Line(root.root.checkpoint, root.root.generation + 1, TASK)
    await store.put(f"{line.prefix}/epochs/{0:010d}.commit", encode(target.commit), overwrite=True)
    await log.raise_floor(CLOSED)
    undo = dict.fromkeys((*job.sinks, *(f"{n}.late" for n, s in job.sinks.items() if s.late), "dead_letter"), target.epoch)
    await write_root(
        store, Root(checkpoint=root.root.checkpoint, generation=line.generation, created_us=root.root.created_us, undo=undo), root.etag
    )
    return [*said, f"generation {line.generation} begins there; the next run removes what was written since"]


def _staying(job: Job, world: World) -> Mapping[str, str]:
    """Sinks that do not remove rows, and what they say of it."""
    said: dict[str, str] = {}
    for name, spec in job.sinks.items():
        sink = Registered().sink(spec, name, world)
        if not sink.undoes:
            said[name] = "rows written since then stay and come again"
    return said


async def _kept(store: Store, log: EpochLog) -> list[Kept]:
    """Every commit that is kept, in the log or hourly, oldest first."""
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


async def _existing(job: Job, world: World) -> tuple[Store, OpenRoot]:
    store = await open_checkpoint(job, world)
    root = await read_root(store)
    if root is None:
        raise InvalidJob([Fault(job.file, 1, f"there is no checkpoint at {job.checkpoint}: the job has not run yet")])
    return store, root


def _log(store: Store, root: Root, world: World) -> EpochLog:
    return EpochLog(store, Line(root.checkpoint, root.generation, TASK), world.new_id())


def iso(us: int | None) -> str | None:
    """ISO 8601 of microseconds since 1970; `end of time` for a drained watermark."""
    if us is None or us >= CLOSED:
        return None if us is None else "end of time"
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
