"""The rows of a lease table that stand for a job's tasks, and what they say.

Where other programs read the table too (KCL's), a shard of an input they know has a row in their layout: its key is the shard's
id, in a job with several such inputs `<input>:<shard>`. Every other task has one row of its own, `<job>/<task>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from streamproc.checkpoint.records import ShardEnd
from streamproc.checkpoint.tasks import TaskScope
from streamproc.engine.intake import shard_order
from streamproc.engine.marks import SENTINELS, Marks, shown
from streamproc.engine.unbounded import Table
from streamproc.job import Job
from streamproc.lease.balance import Observed, Unit
from streamproc.lease.lease import SHARD_END, LeaseTable, Mark
from streamproc.source import Shard

Listed = Mapping[str, Sequence[Shard]]


class LeaseRows:
    """Keys of one job's rows. `learn` first."""

    def __init__(self, job: Job, tables: Mapping[str, Table]) -> None:
        self._job = job
        self._tables = tables
        self._inputs: dict[str, str] = {}
        self._ended: set[tuple[str, str]] = set()

    async def learn(self, table: LeaseTable) -> None:
        """Ask the sources what other programs call them. Unavailable."""
        if table.keeps_marks and not self._inputs:
            named = {name: await one.source.shared_name() for name, one in self._tables.items()}
            self._inputs = {name: shared for name, shared in named.items() if shared is not None}

    def of(self, scope: TaskScope, listed: Listed) -> tuple[str, ...]:
        """The keys of a task's rows in shard order."""
        if scope.source is not None and scope.shard is not None:
            return (self._key(scope.source, scope.shard.id) if scope.source in self._inputs else self._own(scope),)
        shards = [
            (name, shard.id) for name in sorted(self._inputs) for shard in sorted(listed.get(name, ()), key=lambda s: shard_order(s.id))
        ]
        return tuple(self._key(*each) for each in shards if each not in self._ended) or (self._own(scope),)

    def shared(self, unit: Unit) -> bool:
        """Whether other programs read the unit's rows."""
        return bool(self._inputs) and "/" not in unit.rows[0]

    def marks(self, rows: Mapping[str, Mark]) -> Marks:
        """Marks of rows by source and shard."""
        return {self._named(key): mark for key, mark in rows.items() if "/" not in key}

    def marks_of(self, ends: Mapping[str, Mapping[str, ShardEnd]], listed: Listed) -> dict[str, Mark]:
        """What the rows are to say after a commit."""
        found: dict[str, Mark] = {}
        for name in self._inputs:
            shards = {shard.id: shard for shard in listed.get(name, ())}
            for shard, end in ends.get(name, {}).items():
                children = tuple(other.id for other in shards.values() if shard in other.parents)
                if children or not end.ended:  # whoever reads SHARD_END looks for the rows of its children
                    found[self._key(name, shard)] = shown(end, children, shards.get(shard))
        return found

    def note_ended(self, ends: Mapping[str, Mapping[str, ShardEnd]], listed: Listed) -> None:
        """Shards whose rows are no part of the task over all of them any more."""
        for name in self._inputs:
            parents = {parent for shard in listed.get(name, ()) for parent in shard.parents}
            self._ended |= {(name, shard) for shard, end in ends.get(name, {}).items() if end.ended and shard in parents}

    def first_marks(self, listed: Listed) -> dict[str, Mark]:
        """What new rows say: a shard with parents is read from its first record, others from where the job says."""
        return {
            self._key(name, shard.id): Mark(self._first(name, shard), shard.parents, (), shard.hash_range)
            for name in self._inputs for shard in listed.get(name, ())
        }  # fmt: skip

    def _first(self, name: str, shard: Shard) -> str:
        kind = "earliest" if shard.parents else self._job.sources[name].options.start.kind
        return {"earliest": "TRIM_HORIZON", "latest": "LATEST", "timestamp": "AT_TIMESTAMP"}[kind]

    def foreign_owner(self, unit: Unit, observed: Observed) -> str | None:
        """Another program's worker that was seen alive on a row of the unit."""
        rows = [observed.rows[key] for key in unit.rows if key in observed.rows]
        return next((row.lease.owner for row in rows if row.lease.foreign and row.changed), None)

    def children(self, scope: TaskScope, listed: Listed) -> dict[str, Mark]:
        """Rows for the shards that follow a task's, not read yet."""
        name, shard = scope.source, scope.shard
        if name not in self._inputs or shard is None:
            return {}
        after = [other for other in listed.get(name, ()) if shard.id in other.parents]
        return {self._key(name, other.id): Mark("TRIM_HORIZON", other.parents, (), other.hash_range) for other in after}

    def left_behind(self, scopes: Mapping[str, TaskScope], over: Set[str], observed: Observed, *, cut: bool) -> frozenset[str]:
        """Keys of rows that stand for nothing any more: of tasks that are over or (not `cut`) went on as one; of shards that other
        programs know too only by KCL's rule, once all their children have been begun.
        """
        if not cut:
            return frozenset(self._own(scope) for scope in scopes.values() if scope.shard is not None)
        own = {self._own(scope) for name, scope in scopes.items() if name in over and scope.source not in self._inputs}
        return frozenset(own | {key for key, row in observed.rows.items() if "/" not in key and _finished(row.lease.mark, key, observed)})

    def _own(self, scope: TaskScope) -> str:
        return f"{self._job.name}/{scope.name}"

    def _key(self, source: str, shard: str) -> str:
        return shard if len(self._inputs) == 1 else f"{self._inputs[source]}:{shard}"

    def _named(self, key: str) -> tuple[str, str]:
        if len(self._inputs) == 1:
            return next(iter(self._inputs)), key
        shared, _, shard = key.rpartition(":")
        return next(name for name, called in self._inputs.items() if called == shared), shard

    def __repr__(self) -> str:
        return f"<LeaseRows {self._job.name}, shared: {', '.join(self._inputs) or 'none'}>"


def _finished(mark: Mark | None, key: str, observed: Observed) -> bool:
    """A row of a shard whose children have all left their beginnings (KCL's LeaseCleanupManager)."""
    if mark is None or mark.position != SHARD_END or not mark.children:
        return False
    prefix = key.rpartition(":")[0]
    rows = [observed.rows.get(f"{prefix}:{child}" if prefix else child) for child in mark.children]
    return all(row is not None and row.lease.mark is not None and row.lease.mark.position not in (None, *SENTINELS) for row in rows)
