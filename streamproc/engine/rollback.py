"""Going back to a time: every task to its last commit before it, in a new generation of the logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streamproc.checkpoint.log import Line
from streamproc.checkpoint.records import CLOSED, Commit, Root, TaskSet, encode
from streamproc.checkpoint.root import OpenRoot, write_root
from streamproc.checkpoint.tasks import ALL, TaskRegister, TaskScope
from streamproc.engine.inspect import Kept, existing, iso, kept_commits, log_of
from streamproc.engine.lease_rows import LeaseRows
from streamproc.engine.runtime import Registered, connect
from streamproc.engine.worker import keeping_of, worker_id
from streamproc.errors import StreamprocError
from streamproc.job import Job
from streamproc.lease.balance import Unit
from streamproc.store import Store
from streamproc.world import World

WAIT_S = 30.0
"""For the leases of a job that has just been stopped."""


@dataclass(frozen=True)
class Target:
    """What is gone back to: the commit of each task (None: it began later and disappears)."""

    kind: TaskSet
    scopes: Mapping[str, TaskScope]
    commits: Mapping[str, Kept | None]


async def rollback(job: Job, to_us: int, yes: bool, world: World | None = None) -> list[str]:
    """Go back to the last commits at or before `to_us`: a new generation of the logs begins there, the old lines are closed.

    Sinks that cannot remove what was written since keep it and get the rows again: they are named, and nothing is done
    without `yes`. StreamprocError while the job runs or where no commit is old enough.
    """
    world = world or World()
    store, opened = await existing(job, world)
    scopes = {ALL: TaskScope(), **(await TaskRegister(store, opened.root.generation).read()).scopes}
    try:
        async with asyncio.timeout(WAIT_S), all_held(job, store, scopes, world):
            return await _roll_back(job, store, opened, scopes, to_us, yes, world)
    except TimeoutError:
        raise StreamprocError(f"job {job.name} is running: stop it first") from None
    finally:
        await store.close()


@asynccontextmanager
async def all_held(job: Job, store: Store, scopes: Mapping[str, TaskScope], world: World) -> AsyncIterator[None]:
    """Every lease of the job while the block runs."""
    changed = asyncio.Event()
    connected = connect(job, job.planned, world, Registered())
    keeping = keeping_of(job, store, world, worker_id(world))(changed.set)
    try:
        rows, listed = LeaseRows(job, connected.tables), {}
        if keeping.keeper.table.keeps_marks:
            await rows.learn(keeping.keeper.table)
            listed = {name: await table.source.shards() for name, table in connected.tables.items()}
        keys = dict.fromkeys(key for scope in scopes.values() for key in rows.of(scope, listed))
        keeping.keeper.wanted = tuple(Unit(key, (key,)) for key in keys)
        keeping.wake()
        while not all((hold := keeping.keeper.holds.get(key)) is not None and hold.held for key in keys):
            await changed.wait()
            changed.clear()
        yield
    finally:
        await keeping.stop()
        await connected.close()


async def _roll_back(
    job: Job, store: Store, opened: OpenRoot, scopes: Mapping[str, TaskScope], to_us: int, yes: bool, world: World
) -> list[str]:
    target = await _target(store, opened.root, scopes, to_us, world)
    said = [f"back to {_named(name, kept, target)}" for name, kept in target.commits.items() if kept is not None]
    said += [f"{name} began later and disappears" for name, kept in target.commits.items() if kept is None]
    stays = _staying(job, world)
    said += [f"sink {name}: {why}" for name, why in stays.items()]
    if stays and not yes:
        raise StreamprocError("\n".join([*said, "nothing was changed; say --yes to go on"]))
    root = opened.root
    await _begin_generation(store, root, target, world)
    sinks = (*job.sinks, *(f"{n}.late" for n, s in job.sinks.items() if s.late), "dead_letter")
    undo = {name: dict.fromkeys(sinks, kept.epoch if kept else -1) for name, kept in target.commits.items()}
    fresh = Root(
        checkpoint=root.checkpoint, generation=root.generation + 1, created_us=root.created_us, tasks=target.kind, undo=undo,
    )  # fmt: skip
    await write_root(store, fresh, opened.etag)
    return [*said, f"generation {fresh.generation} begins there; the next run removes what was written since"]


async def _target(store: Store, root: Root, scopes: Mapping[str, TaskScope], to_us: int, world: World) -> Target:
    """Before the tasks became one (epoch 1 of the log over all) they return."""
    kept = {name: await kept_commits(store, log_of(store, root, name, world)) for name in scopes}
    before = {name: [one for one in commits if one.commit.now_us <= to_us] for name, commits in kept.items()}
    shards = {name: commits for name, commits in before.items() if name != ALL}
    joined = [one for one in before[ALL] if one.epoch > 0 or not shards]
    kind: TaskSet = "all" if joined or not shards else "shards"
    chosen = {ALL: joined} if kind == "all" else shards
    if not any(chosen.values()):
        raise StreamprocError(f"no commit of {iso(to_us)} or before is kept; `streamproc epochs` lists those that are")
    return Target(kind, scopes, {name: commits[-1] if commits else None for name, commits in chosen.items()})


async def _begin_generation(store: Store, root: Root, target: Target, world: World) -> None:
    """The commits gone back to are epoch 0 of the new lines; nothing can be added to the old ones."""
    register = TaskRegister(store, root.generation + 1)
    for name, kept in target.commits.items():
        if kept is not None:
            if target.kind == "shards":
                await register.begin(target.scopes[name])
            await _put_first(store, Line(root.checkpoint, root.generation + 1, name), kept.commit)
            if target.kind == "shards" and _ended(target.scopes[name], kept.commit):
                await register.end(name)
    if target.kind == "shards":
        began = await log_of(store, root, ALL, world).read_commit(0)
        if began is not None:
            await _put_first(store, Line(root.checkpoint, root.generation + 1, ALL), began)
    for name in target.scopes:
        await log_of(store, root, name, world).raise_floor(CLOSED)


async def _put_first(store: Store, line: Line, commit: Commit) -> None:
    await store.put(f"{line.prefix}/epochs/{0:010d}.commit", encode(commit), overwrite=True)


def _ended(scope: TaskScope, commit: Commit) -> bool:
    end = commit.shards.get(scope.source or "", {}).get(scope.shard.id if scope.shard else "")
    return end is not None and end.ended


def _named(name: str, kept: Kept, target: Target) -> str:
    return f"epoch {kept.epoch} of {iso(kept.commit.now_us)}" + ("" if target.kind == "all" else f", task {name}")


def _staying(job: Job, world: World) -> Mapping[str, str]:
    """Sinks that do not remove rows, and what they say of it."""
    said: dict[str, str] = {}
    for name, spec in job.sinks.items():
        sink = Registered().sink(spec, name, world)
        if not sink.undoes:
            said[name] = "rows written since then stay and come again"
    return said
