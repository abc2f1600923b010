"""Which tasks over single shards a checkpoint knows, and which of them are over.

tasks/<generation>/<task>    TaskRecord, made before the task's first epoch
over/<generation>/<task>     empty: the task's newest commit says that its shard has ended
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from streamproc.checkpoint.records import TaskRecord, decode, encode
from streamproc.source import Shard
from streamproc.store import Exists, Missing, Store

ALL = "all"
"""The task over all shards."""


@dataclass(frozen=True, slots=True)
class TaskScope:
    """What a task reads: one `shard` of `source`, or (both None) every shard of every source."""

    name: str = ALL
    source: str | None = None
    shard: Shard | None = None

    @classmethod
    def of(cls, source: str, shard: Shard) -> TaskScope:
        """The task of one shard; its name is fit for an object's name."""
        return cls(task_name(source, shard.id), source, shard)


def task_name(source: str, shard: str) -> str:
    return f"{quote(source, safe='')}.{quote(shard, safe='')}"


@dataclass(frozen=True, slots=True)
class KnownTasks:
    """The tasks of one generation by name, and the names of those that are over."""

    scopes: Mapping[str, TaskScope] = field(default_factory=dict)
    over: frozenset[str] = frozenset()


class TaskRegister:
    """Reads and writes the records of one generation."""

    def __init__(self, store: Store, generation: int) -> None:
        self._store = store
        self.generation = generation
        self._known: dict[str, TaskScope] = {}

    async def read(self) -> KnownTasks:
        """Everything that is noted now; records are read once, they never change."""
        names = [entry.name.rpartition("/")[2] async for entry in self._store.list(f"tasks/{self.generation}/")]
        over = frozenset([entry.name.rpartition("/")[2] async for entry in self._store.list(f"over/{self.generation}/")])
        found = await asyncio.gather(*(self._read(name) for name in names if name not in self._known))
        self._known.update({scope.name: scope for scope in found if scope is not None})
        return KnownTasks({name: self._known[name] for name in names if name in self._known}, over)

    async def begin(self, scope: TaskScope) -> None:
        """Note a task; doing it again changes nothing."""
        assert scope.source is not None
        assert scope.shard is not None
        hashes = scope.shard.hash_range
        texts = (str(hashes[0]), str(hashes[1])) if hashes else None
        record = TaskRecord(source=scope.source, shard=scope.shard.id, parents=scope.shard.parents, hash_range=texts)
        with suppress(Exists):
            await self._store.put(f"tasks/{self.generation}/{scope.name}", encode(record))

    async def end(self, name: str) -> None:
        """Note that a task is over."""
        with suppress(Exists):
            await self._store.put(f"over/{self.generation}/{name}", b"{}")

    async def forget(self, name: str) -> None:
        """Remove what is noted of a task whose log is removed too."""
        await self._store.delete(f"tasks/{self.generation}/{name}")
        await self._store.delete(f"over/{self.generation}/{name}")
        self._known.pop(name, None)

    async def _read(self, name: str) -> TaskScope | None:
        path = f"tasks/{self.generation}/{name}"
        try:
            record = decode((await self._store.get(path)).data, TaskRecord, path)
        except Missing:
            return None
        hashes = (int(record.hash_range[0]), int(record.hash_range[1])) if record.hash_range else None
        return TaskScope(name, record.source, Shard(record.shard, record.parents, hashes))

    def __contains__(self, name: str) -> bool:
        """Whether the task was noted when `read` was called last."""
        return name in self._known

    def __repr__(self) -> str:
        return f"<TaskRegister generation {self.generation}, {len(self._known)} tasks read>"


async def remove_task(store: Store, register: TaskRegister, name: str) -> None:
    """A task that is over and that nothing begins from any more: its objects, then what is noted of it."""
    for generation in range(1, register.generation + 1):
        for prefix in (f"g{generation}/{name}/", f"state/{name}/", f"tables/{name}/"):
            async for entry in store.list(prefix):
                await store.delete(entry.name)
    await register.forget(name)
