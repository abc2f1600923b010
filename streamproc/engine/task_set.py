"""Which tasks a job has and which may run now: plain functions over what is listed and what is noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from streamproc.checkpoint.tasks import KnownTasks, TaskScope, task_name
from streamproc.plan.plan import TaskSplit
from streamproc.source import Shard

Listed = Mapping[str, Sequence[Shard]]
"""Shards that can be read now, by source."""


def scopes_of(listed: Listed, known: KnownTasks) -> dict[str, TaskScope]:
    """Every task over one shard by name: those that are noted, and those of shards that are listed."""
    found = [TaskScope.of(source, shard) for source, shards in listed.items() for shard in shards]
    return {scope.name: scope for scope in found} | dict(known.scopes)


def parents_of(scope: TaskScope, scopes: Mapping[str, TaskScope]) -> list[TaskScope]:
    """The tasks that `scope` begins after, as far as they are known: a parent that is gone for good has been read or never was ours."""
    if scope.source is None or scope.shard is None:
        return []
    names = (task_name(scope.source, parent) for parent in scope.shard.parents)
    return [scopes[name] for name in names if name in scopes]


def runnable(scopes: Mapping[str, TaskScope], over: Set[str]) -> list[TaskScope]:
    """Tasks that have not ended and whose parents have, in order of name."""
    return [
        scope for name, scope in sorted(scopes.items())
        if name not in over and all(parent.name in over for parent in parents_of(scope, scopes))
    ]  # fmt: skip


def children_of(scope: TaskScope, scopes: Iterable[TaskScope]) -> list[Shard]:
    """The shards that follow a task's."""
    return [
        other.shard for other in scopes
        if scope.shard is not None and other.source == scope.source and other.shard is not None and scope.shard.id in other.shard.parents
    ]  # fmt: skip


def must_join(split: TaskSplit, scopes: Mapping[str, TaskScope], began: Mapping[str, Iterable[str]]) -> bool:
    """Whether tasks over single shards are to go on as one: an edited query needs all shards, or keys may have moved to partitions
    that were added. `began`: the shards that there were when the checkpoint began, empty before that.
    """
    return split.kind == "all" or bool(split.key and began and grown(scopes, began))


def grown(scopes: Mapping[str, TaskScope], began: Mapping[str, Iterable[str]]) -> list[str]:
    """Tasks of shards that came out of nothing after the checkpoint began: partitions were added, keys may have moved to them."""
    return [
        name for name, scope in scopes.items()
        if scope.source is not None and scope.shard is not None and not scope.shard.parents and scope.shard.hash_range is None
        and scope.shard.id not in set(began.get(scope.source, ()))
    ]  # fmt: skip
