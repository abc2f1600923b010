"""A lease table, workers that keep leases of it, and a watch over them, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from streamproc.errors import Unavailable
from streamproc.lease.balance import Unit
from streamproc.lease.hold import Hold
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.keeping import InLoop
from streamproc.lease.lease import OUR_WORKERS, Lease, Mark
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.testing.virtual_loop import VirtualClock, VirtualLoop, VirtualProcess
from streamproc.world import World

TTL_S = 10.0
CHANGES = ("take", "request", "renew", "release", "give")
CALLS = (*CHANGES, "list", "get", "beat")


class Table(MemoryLeases):
    """The fake, in which the next call of a name may be made to fail, and that counts its calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: Counter[str] = Counter()
        self.failing: list[tuple[str, str, BaseException]] = []
        for name in CALLS:
            setattr(self, name, partial(self._called, name, getattr(self, name)))

    def fail(self, name: str, when: str, error: BaseException | None = None) -> None:
        self.failing.append((name, when, error or Unavailable("injected")))

    def row(self, key: str) -> Lease:
        return self._rows.get(key, Lease(key, None, 0))

    def owners(self) -> dict[str, str | None]:
        return {key: row.owner and row.owner.removeprefix(OUR_WORKERS) for key, row in self._rows.items()}

    async def _called(self, name: str, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self.calls[name] += 1
        found = next((each for each in self.failing if each[0] == name), None)
        if found is not None:
            self.failing.remove(found)
        await asyncio.sleep(0.01)
        if found is not None:
            if found[1] == "after":
                await call(*arguments)
            raise found[2]
        answer = await call(*arguments)
        await asyncio.sleep(0.01)
        return answer


class Worker:
    """Does with its keeper's holds what a worker does: an epoch that runs ends after `epoch_s`, then comes the hand-over."""

    def __init__(self, scene: Scene, name: str, units: Sequence[Unit], epoch_s: float, process: VirtualProcess) -> None:
        self.name, self.id, self.units, self.epoch_s, self.process = name, f"{OUR_WORKERS}{name}", units, epoch_s, process
        self.released_s: dict[str, float] = {}
        self.lost: set[str] = set()
        self._scene = scene
        self._stopping, self._news = asyncio.Event(), asyncio.Event()
        self._handing: dict[str, asyncio.Future[None]] = {}
        self.keeping: InLoop
        self.ended = process.start(self._run())

    @property
    def keeper(self) -> LeaseKeeper:
        return self.keeping.keeper

    @property
    def alive(self) -> bool:
        return self.process.state != "dead" and not self.ended.done()

    def hold(self, unit: str) -> Hold:
        return self.keeper.holds[unit]

    @property
    def held(self) -> list[str]:
        if not self.alive or not hasattr(self, "keeping"):
            return []
        return sorted(name for name, hold in self.keeper.holds.items() if hold.held)

    async def stop(self) -> None:
        self._stopping.set()
        self._news.set()
        await self.ended

    def want(self, *units: Unit) -> None:
        self.keeper.wanted = units
        self.keeping.wake()

    def _make(self, changed: Callable[[], None]) -> LeaseKeeper:
        clock = VirtualClock(self._scene.loop, self.process, origin_s=self._scene.chance.uniform(0, 1000))
        world = World(clock=clock, random=random.Random(self.name))
        keeper = LeaseKeeper(self._scene.table, self.id, TTL_S, world, changed)
        keeper.wanted = tuple(self.units)
        return keeper

    async def _run(self) -> None:
        self.keeping = InLoop(self._make, self._news.set)
        while not self._stopping.is_set():
            await self._news.wait()
            self._news.clear()
            for name, hold in list(self.keeper.holds.items()):
                if (hold.lost or (hold.asked and hold.ready)) and name not in self._handing:
                    self._handing[name] = asyncio.ensure_future(self._hand(name, hold))
        await asyncio.gather(*self._handing.values())
        await self.keeping.stop()

    async def _hand(self, name: str, hold: Hold) -> None:
        if not hold.lost:
            await asyncio.sleep(self.epoch_s)
        if hold.lost or not hold.held:
            self.lost.add(name)
            await self.keeper.let_go(name)
        else:
            await self.keeper.release(name, {key: Mark(f"{self.name}'s last") for key in hold.rows})
            self.released_s[name] = self._scene.loop.time()
        del self._handing[name]


class Scene:
    """A table, its workers, and a watch over the promise that no two of them hold a unit at once."""

    def __init__(self, seed: int, *, keeps_marks: bool = False) -> None:
        self.loop = VirtualLoop(random.Random(seed))
        self.chance = random.Random(seed)
        self.table = Table(keeps_marks=keeps_marks)
        self.workers: list[Worker] = []
        self.twice: set[tuple[str, ...]] = set()

    def play(self, course: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        async def watched() -> None:
            watch = asyncio.ensure_future(self._watch())
            await course(self)
            watch.cancel()
            for worker in self.workers:
                if worker.alive and worker.process.state == "runs":
                    await worker.stop()

        try:
            self.loop.run_until_complete(watched())
        finally:
            self._end()
        assert not self.twice

    def _end(self) -> None:
        """What a dead process leaves in memory is taken away too."""
        for worker in self.workers:
            worker.process.state = "runs"
            self.loop.is_ready(worker.process)
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(left)) if left else None
        self.loop.close()

    def join(self, name: str, units: Iterable[Unit], epoch_s: float = 0.5) -> Worker:
        self.workers.append(Worker(self, name, list(units), epoch_s, VirtualProcess(self.loop, name)))
        return self.workers[-1]

    async def until(self, reached: Callable[[], Any], bound_s: float) -> float:
        """Seconds until it was so."""
        began_s = self.loop.time()
        while not reached():
            assert self.loop.time() < began_s + bound_s, f"not within {bound_s} s: {self.table.owners()} {self.workers}"
            await asyncio.sleep(0.01)
        return self.loop.time() - began_s

    def shares(self) -> list[int]:
        return sorted(len(worker.held) for worker in self.workers if worker.alive)

    async def _watch(self) -> None:
        while True:
            self.twice |= {(unit, *holders) for unit, holders in self._holders().items() if len(holders) > 1}
            await asyncio.sleep(0.01)

    def _holders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for worker in self.workers:
            for unit in worker.held:
                found.setdefault(unit, []).append(worker.name)
        return found


def units(count: int, rows: int = 1) -> list[Unit]:
    return [Unit(f"u{i}", tuple(f"job/u{i}{'abc'[row] if rows > 1 else ''}" for row in range(rows))) for i in range(count)]


def scene(seed: int = 1, **options: Any) -> Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]:
    """Run the coroutine that follows as the course of a scene."""
    return Scene(seed, **options).play


# -- one worker
