"""The epoch log of one task: who did what, decided by create-if-absent.

    root                               Root: checkpoint id, generation, one task or one a shard
    jobs/<hash>                        JobText
    tasks/…, over/…                    which tasks there are (see tasks.py)
    g<generation>/<task>/floor         Floor
    g<generation>/<task>/epochs/<n>.begin | .verdict | .rows | .commit      n in 10 digits
    g<generation>/<task>/saved/<now_us>-<n>.commit                  one an hour, for rollback
    state/<task>/<generation>-<n>-<random>    runs (see state/files.py)
    tables/<task>/<generation>-<n>-<table>-<random>    versions of bounded tables, n the epoch that used it first

Leases decide who should run; this log decides who did. A name alone is never trusted: old names are deleted, and a
worker that slept through it could create one again. So the collector first raises `floor`, then deletes what lies
below it, and whoever created a `begin` reads `floor` before anything of the epoch becomes visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from streamproc.checkpoint.answers import Answers
from streamproc.checkpoint.records import Begin, Commit, Floor, R, Record, Verdict, decode, encode
from streamproc.errors import LeaseLost
from streamproc.store import Changed, Exists, Missing, Store


@dataclass(frozen=True, slots=True)
class Line:
    """One task's log in one generation of a checkpoint."""

    checkpoint: str
    generation: int
    task: str

    @property
    def prefix(self) -> str:
        return f"g{self.generation}/{self.task}"


@dataclass(frozen=True, slots=True)
class Latest:
    """Where a log stands: the newest commit, and the epoch begun after it that has no commit (recovery finishes it)."""

    epoch: int
    commit: Commit
    begun: Begin | None


class EpochLog:
    """Reads and writes the objects of one line. `writer` is this process' random id."""

    def __init__(self, store: Store, line: Line, writer: str) -> None:
        self.store = store
        self.line = line
        self.writer = writer

    async def begin(self, epoch: int, record: Begin) -> Begin:
        """Create `<epoch>.begin`; returns the one that stands: ours (also if only its answer was lost) or another's."""
        stands = await self._create(self._name(epoch, "begin"), record, Begin)
        if stands.writer == self.writer:
            await self._check_floor(epoch)
        return stands

    async def verdict(self, epoch: int, record: Verdict) -> Verdict:
        return await self._create(self._name(epoch, "verdict"), record, Verdict)

    async def answers(self, epoch: int, answers: Answers) -> Answers:
        """Create `<epoch>.rows`; returns those that stand, ours or another's."""
        name = self._name(epoch, "rows")
        try:
            await self.store.put(name, await asyncio.to_thread(answers.to_bytes))
        except Exists:
            stands = await self.read_answers(epoch)
            if stands is None:  # collected in between: we are the sleeper
                raise LeaseLost(f"{name} was made and collected by others") from None
            return stands
        return answers

    async def read_answers(self, epoch: int) -> Answers | None:
        name = self._name(epoch, "rows")
        try:
            data = (await self.store.get(name)).data
        except Missing:
            return None
        return await asyncio.to_thread(Answers.from_bytes, data, name)

    async def commit(self, epoch: int, record: Commit) -> Commit:
        """Create `<epoch>.commit`; returns the one that stands. A sleeper's commit below the floor counts for nobody;
        its next `begin` finds out and removes both.
        """
        return await self._create(self._name(epoch, "commit"), record, Commit)

    async def read_verdict(self, epoch: int) -> Verdict | None:
        return await self._read(self._name(epoch, "verdict"), Verdict)

    async def read_commit(self, epoch: int) -> Commit | None:
        return await self._read(self._name(epoch, "commit"), Commit)

    async def latest(self) -> Latest | None:
        """The newest commit at or above the floor, and the begin after it; None for a log that has no commit yet."""
        floor = await self.floor()
        newest = max([n async for n in self.epochs("commit") if n >= floor], default=None)
        if newest is None:
            return None
        commit = await self.read_commit(newest)
        if commit is None:  # collected between listing and reading: somebody else is far ahead
            raise LeaseLost(f"epoch {newest} of {self.line.prefix} was collected while it was read")
        return Latest(newest, commit, await self._read(self._name(newest + 1, "begin"), Begin))

    async def epochs(self, kind: str) -> AsyncIterator[int]:
        """Numbers of the epochs that have an object of this kind, ascending."""
        async for entry in self.store.list(f"{self.line.prefix}/epochs/"):
            stem, _, suffix = entry.name.rpartition("/")[2].partition(".")
            if suffix == kind:
                yield int(stem)

    async def floor(self) -> int:
        record = await self._read(f"{self.line.prefix}/floor", Floor)
        return record.epoch if record else 0

    async def raise_floor(self, epoch: int) -> None:
        """Make every epoch below void; never lowers it."""
        name = f"{self.line.prefix}/floor"
        while True:
            try:
                current = await self.store.get(name)
                if decode(current.data, Floor, name).epoch >= epoch:
                    return
                await self.store.put(name, encode(Floor(epoch=epoch)), if_match=current.etag)
            except Missing:
                await self._create(name, Floor(epoch=epoch), Floor)
            except Changed:
                continue

    async def drop(self, epochs: range) -> None:
        """Delete every object of these epochs (all below the floor)."""
        names = [self._name(n, kind) for n in epochs for kind in ("begin", "verdict", "rows", "commit")]
        for at in range(0, len(names), 32):
            await asyncio.gather(*(self.store.delete(name) for name in names[at : at + 32]))

    async def _check_floor(self, epoch: int) -> None:
        floor = await self.floor()
        if epoch < floor:
            await self.drop(range(epoch - 1, epoch + 1))
            raise LeaseLost(f"epoch {epoch} of {self.line.prefix} is below the floor {floor}: this worker slept while others went on")

    async def _create(self, name: str, record: Record, kind: type[R]) -> R:
        try:
            await self.store.put(name, encode(record))
        except Exists:
            stands = await self._read(name, kind)
            if stands is None:  # collected in between: we are the sleeper
                raise LeaseLost(f"{name} was made and collected by others") from None
            return stands
        assert isinstance(record, kind)
        return record

    async def _read(self, name: str, kind: type[R]) -> R | None:
        try:
            return decode((await self.store.get(name)).data, kind, name)
        except Missing:
            return None

    def _name(self, epoch: int, kind: str) -> str:
        return f"{self.line.prefix}/epochs/{epoch:010d}.{kind}"

    def __repr__(self) -> str:
        return f"<EpochLog {self.line.checkpoint} {self.line.prefix} writer {self.writer}>"
