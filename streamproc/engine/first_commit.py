"""Where a log begins: epoch 0 of a checkpoint, of a task over one shard, and of one task that goes on for many.

Each is created if absent and depends on nothing but the log and, for the checkpoint's own, the moment it was made in; so
whoever comes first makes it, and everybody else goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import structlog
from msgspec import structs

from streamproc.checkpoint.log import EpochLog, Line
from streamproc.checkpoint.records import Commit, Inherited, ShardEnd
from streamproc.checkpoint.tasks import ALL, TaskScope
from streamproc.engine.epoch import added
from streamproc.engine.marks import Marks, starting_at
from streamproc.engine.retry import Leased, retried
from streamproc.engine.runtime import Connected
from streamproc.offset import EARLIEST
from streamproc.state import files, split
from streamproc.state.runs import Run, RunRef
from streamproc.state.watermark import inherited, raised
from streamproc.store import Store

log = structlog.get_logger()
JOINED_EPOCH = 1
"""In the log over all shards, which the tasks of single shards begin from: epoch 0 is where the checkpoint began."""


class Beginning:
    """Makes the first commits of one checkpoint's tasks, for the worker that writes as `writer`."""

    def __init__(self, connected: Connected, store: Store, line: Line, writer: str) -> None:
        self._connected = connected
        self._store = store
        self._line = line
        self._writer = writer

    async def checkpoint(self, around: Leased, marks: Marks) -> Commit:
        """Epoch 0 over all shards: where those that exist now are read from, fixed before any read."""
        whole = self.log_of(ALL)
        stands = await retried(around, "checkpoint", lambda: whole.read_commit(0))
        if stands is not None:
            return stands
        names = self._connected.tables
        shards = {name: await retried(around, name, partial(self._positions, name, marks)) for name in names}
        stands = await retried(around, "checkpoint", lambda: whole.commit(0, self._commit(shards)))
        for name, sink in self._connected.sinks.items():
            if said := await retried(around, name, partial(sink.foreign, self._line.checkpoint)):
                log.warning("the sink holds rows of another checkpoint", sink=name, found=said)
        return stands

    async def of_shard(
        self, around: Leased, scope: TaskScope, parents: Sequence[TaskScope], marks: Marks, *, closed: bool = False
    ) -> Commit:  # fmt: skip
        """Epoch 0 of a task over one shard: where the checkpoint began, or where its parents' tasks ended. `closed`: if it has not
        begun, it never does.
        """
        source, shard = scope.source, scope.shard
        assert source is not None
        assert shard is not None
        began = (await self.checkpoint(around, marks)).shards.get(source, {}).get(shard.id)
        ended = [(parent, commit) for parent in parents if (commit := await self._last(around, parent.name))]
        if began is None:
            end = await retried(around, source, partial(self._connected.tables[source].source.position, shard, EARLIEST))
            began = ShardEnd(end=end, parents=shard.parents)
        shard_us = inherited([commit.shards[source][parent.shard.id].watermark_us for parent, commit in ended if parent.shard])
        began = structs.replace(began, watermark_us=shard_us)
        first = self._commit({name: {} for name in self._connected.tables} | {source: {shard.id: began}}, [commit for _, commit in ended])
        if ended:
            first = await self._inherited(around, scope, first, ended)
        first = structs.replace(first, closed=closed)
        return await retried(around, "checkpoint", lambda: self.log_of(scope.name).commit(0, first))

    async def joined(self, around: Leased, scopes: Sequence[TaskScope]) -> Commit:
        """Epoch 1 over all shards: the ends, state and counters of tasks that are closed, together."""
        found = [(scope, commit) for scope in scopes if (commit := await self._last(around, scope.name))]
        commits = [commit for _, commit in found]
        shards: dict[str, dict[str, ShardEnd]] = {name: {} for name in self._connected.tables}
        for commit in commits:
            for name, ends in commit.shards.items():
                shards[name] |= ends
        state = split.joined([await self._state(around, commit) for commit in commits])
        timed = [commit for scope, commit in found if scope.source in self._connected.plan.watermarks]
        first = structs.replace(self._commit(shards, commits), watermark_us=inherited([commit.watermark_us for commit in timed]))
        whole = structs.replace(
            first,
            floors=_floors(found, first.watermark_us),
            state=await self._saved(around, ALL, JOINED_EPOCH, state),
            late=added(*(commit.late for commit in commits)),
            written=added(*(commit.written for commit in commits)),
            dead=sum(commit.dead for commit in commits),
        )
        return await retried(around, "checkpoint", lambda: self.log_of(ALL).commit(JOINED_EPOCH, whole))

    def log_of(self, task: str) -> EpochLog:
        return EpochLog(self._store, Line(self._line.checkpoint, self._line.generation, task), self._writer)

    async def _positions(self, name: str, marks: Marks) -> dict[str, ShardEnd]:
        source, start = self._connected.tables[name].source, self._connected.job.sources[name].options.start
        return {shard.id: await starting_at(source, shard, start, marks.get((name, shard.id))) for shard in await source.shards()}

    def _commit(self, shards: dict[str, dict[str, ShardEnd]], before: Sequence[Commit] = ()) -> Commit:
        """With the least watermark of what it goes on from, and above their times."""
        now_us = max([self._connected.world.clock.now_us(), *(commit.now_us for commit in before)])
        sources = {name for commit in before for name in commit.source_watermarks}
        return Commit(
            writer=self._writer, job=before[0].job if before else self._connected.job.hash, now_us=now_us, shards=shards,
            watermark_us=inherited([commit.watermark_us for commit in before]),
            source_watermarks={name: inherited([commit.source_watermarks.get(name) for commit in before]) for name in sorted(sources)},
        )  # fmt: skip

    async def _inherited(self, around: Leased, scope: TaskScope, first: Commit, ended: Sequence[tuple[TaskScope, Commit]]) -> Commit:
        """With the part of its parents' state that is the child's, and their watermarks where they are above its own."""
        assert scope.shard is not None
        state = split.joined([await self._state(around, commit) for _, commit in ended])
        if state and scope.shard.hash_range is not None:
            key = self._connected.plan.tasks.key
            state = split.split(state, key, scope.shard.hash_range)
        return structs.replace(first, state=await self._saved(around, scope.name, 0, state), floors=_floors(ended, first.watermark_us))

    async def _last(self, around: Leased, task: str) -> Commit | None:
        latest = await retried(around, "checkpoint", self.log_of(task).latest)
        return latest.commit if latest else None

    async def _state(self, around: Leased, commit: Commit) -> Mapping[str, Sequence[Run]]:
        schemas = self._connected.executor.state_schemas
        return await retried(around, "checkpoint", lambda: files.load(commit.state, self._store, schemas))

    async def _saved(self, around: Leased, task: str, epoch: int, state: Mapping[str, Sequence[Run]]) -> dict[str, list[RunRef]]:
        """Written anew under the task's own name: no run belongs to two logs."""
        prefix, world = f"state/{task}/{self._line.generation}-{epoch}-", self._connected.world
        saved = await retried(around, "checkpoint", lambda: files.save(state, self._store, lambda: prefix + world.new_id()))
        return {operator: [RunRef.of(run) for run in runs] for operator, runs in saved.items()}

    def __repr__(self) -> str:
        return f"<Beginning {self._line.checkpoint} generation {self._line.generation}>"


def _floors(before: Iterable[tuple[TaskScope, Commit]], watermark_us: int | None) -> tuple[Inherited, ...]:
    """Watermarks of tasks before that are above the one of the task that goes on for them."""
    floors = [floor for scope, commit in before for floor in (*commit.floors, *_floor(scope, commit))]
    return tuple(floor for floor in floors if raised(floor.watermark_us, watermark_us) != watermark_us)


def _floor(scope: TaskScope, commit: Commit) -> Iterator[Inherited]:
    if scope.shard is not None and scope.shard.hash_range is not None and commit.watermark_us is not None:
        first, last = scope.shard.hash_range
        yield Inherited(first=str(first), last=str(last), watermark_us=commit.watermark_us)
