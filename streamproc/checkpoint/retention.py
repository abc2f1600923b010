"""What of a checkpoint is kept, and the collector that removes the rest in an order that no sleeper can break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from streamproc.checkpoint.log import EpochLog
from streamproc.checkpoint.records import Commit, decode, encode
from streamproc.store import Exists

EPOCHS_KEPT = 100
SAVED_EVERY_US = 3600 * 10**6
SAVED_FOR_US = 24 * 3600 * 10**6
STATE_PREFIX = "state/"
TABLES_PREFIX = "tables/"


def floor_after(newest: int, kept: int = EPOCHS_KEPT) -> int:
    """The lowest epoch kept once `newest` is committed."""
    return max(0, newest - kept + 1)


def saves(previous_us: int | None, now_us: int) -> bool:
    """Whether the commit at `now_us` is copied to `saved/`: the first of each hour."""
    return previous_us is None or previous_us // SAVED_EVERY_US < now_us // SAVED_EVERY_US


def outlived(saved: Iterable[str], now_us: int) -> list[str]:
    """Names below `saved/` (`<now_us>-<epoch>.commit`) that are older than a day."""
    return [name for name in saved if int(name.rpartition("/")[2].partition("-")[0]) < now_us - SAVED_FOR_US]


def unreferenced(runs: Iterable[str], named: set[str], generation: int, newest: int) -> list[str]:
    """State and table objects of a task (`…/<generation>-<epoch>-…`) that no kept commit names and no running epoch can still
    come to name: those of epochs ≤ newest in this generation, and of older, closed generations.
    """

    def over(name: str) -> bool:
        wrote, epoch = (int(part) for part in name.rpartition("/")[2].split("-")[:2])
        return wrote < generation or (wrote == generation and epoch <= newest)

    return [name for name in runs if name not in named and over(name)]


class Collector:
    """Removes what retention no longer keeps of one task: nobody else names its objects. `epochs_kept` newest commits stay."""

    def __init__(self, log: EpochLog, epochs_kept: int = EPOCHS_KEPT) -> None:
        self.log = log
        self.epochs_kept = epochs_kept
        self._saved_us: int | None = None

    async def save_hourly(self, epoch: int, commit: Commit) -> None:
        """Copy an hour's first commit for rollback."""
        if not saves(self._saved_us, commit.now_us):
            return
        with suppress(Exists):
            await self.log.store.put(f"{self.log.line.prefix}/saved/{commit.now_us:020d}-{epoch}.commit", encode(commit))
        self._saved_us = commit.now_us

    async def collect(self, newest: int, now_us: int) -> None:
        """Raise the floor, then delete below it; then what the kept commits do not name."""
        floor = floor_after(newest, self.epochs_kept)
        await self.log.raise_floor(floor)
        below = sorted({n for kind in ("begin", "commit", "verdict", "rows") async for n in self.log.epochs(kind) if n < floor})
        if below:
            await self.log.drop(range(below[0], below[-1] + 1))
        saved = [entry.name async for entry in self.log.store.list(f"{self.log.line.prefix}/saved/")]
        await self._delete(outlived(saved, now_us))
        folders = (f"{prefix}{self.log.line.task}/" for prefix in (STATE_PREFIX, TABLES_PREFIX))
        runs = [entry.name for folder in folders async for entry in self.log.store.list(folder)]
        await self._delete(unreferenced(runs, await self._named(), self.log.line.generation, newest))

    async def _named(self) -> set[str]:
        """State and table objects that any kept or saved commit of the task names, in any generation."""
        names: set[str] = set()
        for generation in range(1, self.log.line.generation + 1):
            async for entry in self.log.store.list(f"g{generation}/{self.log.line.task}/"):
                if entry.name.endswith(".commit"):
                    commit = decode((await self.log.store.get(entry.name)).data, Commit, entry.name)
                    names.update(ref.name for refs in commit.state.values() for ref in refs)
                    names.update(ref.name for ref in commit.tables.values())
        return names

    async def _delete(self, names: list[str]) -> None:
        for at in range(0, len(names), 32):
            await asyncio.gather(*(self.log.store.delete(name) for name in names[at : at + 32]))
