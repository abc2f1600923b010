"""A job shared by workers in virtual time: their engines and keepers as they are, one store, one lease table, one input and sink.

Each time a shard is opened it is looked whether it may be: everything before it is committed, and its parents are over.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from streamproc.bounded import BoundedTable
from streamproc.checkpoint.tasks import ALL, task_name
from streamproc.engine.job_worker import JobWorker
from streamproc.engine.trigger import Trigger
from streamproc.engine.worker import keeping_of, trigger_of
from streamproc.errors import BadRecord, Bug
from streamproc.job import Job, SinkSpec, SourceSpec, TableSpec, load_job
from streamproc.lease.keeping import InLoop
from streamproc.lease.lease import OUR_WORKERS, Listing
from streamproc.offset import Position
from streamproc.sink import EpochId, Sink
from streamproc.source import Reader, Shard, Source
from streamproc.state.hash_range import hash_of
from streamproc.testing import MemoryLeases, MemorySink, MemorySource, MemoryStore
from streamproc.testing.virtual_loop import VirtualClock, VirtualLoop, VirtualProcess
from streamproc.world import World

TTL_S = 10.0
HASHES = 2**128
TEXT = """
name: shared
sources:
  s: {{type: generator, schema: 'id BIGINT, key STRING', max_rows_per_epoch: 20{more}}}
sinks:
  out: {{type: console, mode: {mode}, query: '{query}'}}
trigger: 200 milliseconds
leases: {{type: object, lease_ttl: 10 seconds}}
checkpoint: s3://memory/checkpoint
"""
COUNTS = "SELECT key, count(*) AS n FROM s GROUP BY key"
PROMISED = ", partitioned_by: key"


def job(query: str = "SELECT id, key FROM s", mode: str = "append", more: str = "") -> Job:
    return load_job("shared.yaml", text=TEXT.format(query=query, mode=mode, more=more))


class Input(MemorySource):
    """Notes which shards are opened where, and what is wrong about it."""

    def __init__(self, cluster: Cluster, *shards: str) -> None:
        super().__init__(*shards, clock=VirtualClock(cluster.loop, cluster.loop.server))
        self.opened: list[tuple[str, Position]] = []
        self.wrong: list[str] = []
        self._cluster = cluster

    async def open(self, shard: Shard, after: Position) -> Reader:
        self.opened.append((shard.id, after))
        for task in (task_name("s", shard.id), ALL):
            begun, committed = self._cluster.newest(task)
            if begun > committed:
                self.wrong.append(f"{shard.id} is opened while epoch {begun} of {task} is begun and not committed")
        for parent in shard.parents:
            if not self._cluster.end(parent).get("ended"):
                self.wrong.append(f"{shard.id} is opened, but {parent} is not over")
        return await super().open(shard, after)


class Worker:
    def __init__(self, cluster: Cluster, name: str, job: Job, trigger: Trigger) -> None:
        self.name = name
        self.process = VirtualProcess(cluster.loop, name)
        world = World(clock=VirtualClock(cluster.loop, self.process), random=random.Random(name))
        keeping = keeping_of(job, cluster.store, world, OUR_WORKERS + name, InLoop, lambda *_: cluster.leases)
        self.engine = JobWorker(job, cluster.store, world, keeping, connectors=cluster, trigger=trigger)
        self._stop = asyncio.Event()
        self.ends = self.process.start(self.engine.run(self._stop))

    @property
    def alive(self) -> bool:
        return self.process.state != "dead" and not self.ends.done()

    @property
    def tasks(self) -> set[str]:
        return {name for name, running in self.engine.running.items() if running.hold.held} if self.alive else set()

    async def leave(self) -> None:
        self._stop.set()
        await self.ends


class Cluster:
    """What the workers share; it is their connectors."""

    def __init__(self, *shards: str) -> None:
        self.loop = VirtualLoop(random.Random(1))
        self.store = MemoryStore(World(clock=VirtualClock(self.loop, self.loop.server)))
        self.leases = MemoryLeases()
        self.input = Input(self, *shards)
        self.output = MemorySink()
        self.workers: list[Worker] = []
        self.sent = 0

    def source(self, spec: SourceSpec, world: World) -> Source:
        return self.input

    def table(self, spec: TableSpec, schema: pa.Schema, time_zone: str, world: World) -> BoundedTable:
        raise NotImplementedError

    def sink(self, spec: SinkSpec, name: str, world: World) -> Sink:
        return self.output

    def play(self, course: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
        async def played() -> None:
            await course(self)
            for worker in self.workers:
                if worker.alive:
                    await worker.leave()

        try:
            self.loop.run_until_complete(played())
        finally:
            self._end()
        assert self.input.wrong == []

    def _end(self) -> None:
        for worker in self.workers:
            worker.process.state = "runs"
            self.loop.is_ready(worker.process)
        if left := asyncio.all_tasks(self.loop):
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(left))
        self.loop.close()

    def join(self, shared: Job | None = None, trigger: Trigger | None = None) -> Worker:
        shared = shared or job()
        self.workers.append(Worker(self, f"w{len(self.workers)}", shared, trigger or trigger_of(shared)))
        return self.workers[-1]

    def put(self, shard: str, *keys: str) -> None:
        rows = [json.dumps({"id": self.sent + at, "key": key}).encode() for at, key in enumerate(keys)]
        self.sent += len(keys)
        self.input.put(shard, rows, keys=[key.encode() for key in keys])

    @contextmanager
    def load(self, *shards: str, every_s: float = 0.1) -> Iterator[list[str]]:
        """Rows again and again into each of the shards, which may change meanwhile."""
        into = list(shards)

        async def put() -> None:
            while True:
                for shard in into:
                    self.put(shard, "a", "b")
                await asyncio.sleep(every_s)

        putting = asyncio.ensure_future(put())
        try:
            yield into
        finally:
            putting.cancel()

    async def until(self, reached: Callable[[], Any], bound_s: float) -> float:
        began_s = self.loop.time()
        while not reached():
            for worker in self.workers:
                assert not worker.ends.done() or worker.ends.exception() is None, worker.ends.exception()
            assert self.loop.time() < began_s + bound_s, f"not within {bound_s} s: {self.shares()}, {len(self.output.rows())} rows"
            await asyncio.sleep(0.05)
        return self.loop.time() - began_s

    async def all_written(self, bound_s: float = 10.0) -> None:
        await self.until(lambda: len(self.output.rows()) >= self.sent, bound_s)
        assert self.ids() == list(range(self.sent))

    def ids(self) -> list[int]:
        return sorted(row["id"] for row in self.output.rows())

    def shares(self) -> list[int]:
        return sorted(len(worker.tasks) for worker in self.workers if worker.alive)

    def counts(self) -> dict[str, int]:
        """Of a sink in update mode, the newest of each key."""
        return {row["key"]: row["n"] for row in self.output.rows()}

    def newest(self, task: str) -> tuple[int, int]:
        """The newest epoch that is begun and the newest that is committed; -1: none."""
        found = {"begin": -1, "commit": -1}
        for name in self.store.names:
            if name.startswith(f"g1/{task}/epochs/"):
                number, _, kind = name.rpartition("/")[2].partition(".")
                found[kind] = max(found[kind], int(number))
        return found["begin"], found["commit"]

    def commit(self, task: str) -> dict[str, Any]:
        name = next(name for name in reversed(self.store.names) if name.startswith(f"g1/{task}/epochs/") and name.endswith(".commit"))
        return dict(json.loads(self.store._objects[name][0]))

    def end(self, shard: str) -> dict[str, Any]:
        return dict(self.commit(task_name("s", shard))["shards"]["s"][shard])

    @property
    def kind(self) -> str:
        """What the checkpoint says of its tasks."""
        root = json.loads(next(self.store._objects[name][0] for name in self.store.names if "root" in name))
        return str(root.get("tasks", ALL))


def cluster(*shards: str) -> Callable[[Callable[[Cluster], Coroutine[Any, Any, None]]], None]:
    """Run the coroutine that follows on a new cluster."""
    return Cluster(*shards).play


def hashed(cluster: Cluster, count: int) -> None:
    for at in range(count):
        cluster.input.add_shard(str(at), (), (at * HASHES // count, (at + 1) * HASHES // count - 1))


# -- shared


def test_tasks_over_single_shards_are_spread_evenly_and_every_row_is_written_once() -> None:
    @cluster(*"012345")
    async def _(cluster: Cluster) -> None:
        for _ in range(3):
            cluster.join()
        with cluster.load(*"012345", every_s=0.2):
            await cluster.until(lambda: cluster.shares() == [2, 2, 2], 30)
            await asyncio.sleep(3)
        await cluster.all_written()
        assert {epoch.task for epoch in cluster.output.epochs} == {f"s.{shard}" for shard in "012345"}


def test_a_worker_that_joins_is_handed_its_part_while_rows_flow_and_none_is_read_twice() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        cluster.join()
        with cluster.load(*"0123"):
            await cluster.until(lambda: cluster.shares() == [4], 10)
            await asyncio.sleep(2)
            cluster.join()
            await cluster.until(lambda: cluster.shares() == [2, 2], 15)
            await asyncio.sleep(2)
        await cluster.all_written()
        assert len(cluster.input.opened) == 6
        moved = cluster.input.opened[4:]
        assert all(int(after) > 0 for _, after in moved)


def test_the_pause_of_a_task_that_is_handed_over_is_short() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        written: dict[str, list[float]] = {}

        def note(epoch: EpochId) -> None:
            written.setdefault(epoch.task, []).append(cluster.loop.time())

        cluster.output.on_write = note
        cluster.join()
        with cluster.load(*"0123"):
            await cluster.until(lambda: cluster.shares() == [4], 10)
            cluster.join()
            await cluster.until(lambda: cluster.shares() == [2, 2], 15)
            await asyncio.sleep(2)
        pauses = [later - at for times in written.values() for at, later in itertools.pairwise(times)]
        assert max(pauses) < 1.0


@pytest.mark.parametrize("goes", ["leaves", "is killed"])
def test_the_tasks_of_a_worker_that_goes_are_taken_over(goes: str) -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        first, _ = cluster.join(), cluster.join()
        with cluster.load(*"0123", every_s=0.4):
            await cluster.until(lambda: cluster.shares() == [2, 2], 30)
            if goes == "leaves":
                await first.leave()
                assert await cluster.until(lambda: cluster.shares() == [4], 5) < 2
            else:
                first.process.kill()
                assert await cluster.until(lambda: cluster.shares() == [4], 20) < TTL_S + 1.5
                cluster.input.wrong.clear()  # the dead one's epochs are finished by who comes next
            await asyncio.sleep(1)
        await cluster.all_written()


def test_a_worker_that_slept_longer_than_its_lease_adds_nothing_and_takes_part_again() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        first, second = cluster.join(), cluster.join()
        with cluster.load(*"0123", every_s=1.0):
            await cluster.until(lambda: cluster.shares() == [2, 2], 30)
            first.process.pause(2 * TTL_S)
            await cluster.until(lambda: len(second.tasks) == 4, TTL_S + 3)
            cluster.input.wrong.clear()
            await cluster.until(lambda: cluster.shares() == [2, 2], 4 * TTL_S)
        await cluster.all_written()


# -- shards that come and end


def test_children_are_read_after_their_parents_wherever_they_run() -> None:
    @cluster()
    async def _(cluster: Cluster) -> None:
        hashed(cluster, 2)
        cluster.join()
        cluster.join()
        with cluster.load(*"01", every_s=0.2) as into:
            await cluster.until(lambda: cluster.shares() == [1, 1], 30)
            cluster.input.split("0", ["2", "3"])
            into[:] = ["1", "2", "3"]
            await cluster.until(lambda: sum(cluster.shares()) == 3, 30)
            cluster.input.merge(["1", "2"], "4")
            cluster.input.split("3", ["5", "6"])
            into[:] = ["4", "5", "6"]
            await cluster.until(lambda: sum(cluster.shares()) == 3 and "s.4" in set.union(*(w.tasks for w in cluster.workers)), 30)
            await asyncio.sleep(2)
        await cluster.all_written()
        over = [name.rpartition("/")[2] for name in cluster.store.names if name.startswith("over/")]
        assert sorted(over) == ["s.0", "s.1", "s.2", "s.3"]
        await cluster.until(lambda: set(cluster.leases._rows) == {"shared/s.4", "shared/s.5", "shared/s.6"}, 2 * TTL_S)


def test_counts_of_a_key_go_with_it_to_the_child_that_has_it() -> None:
    @cluster()
    async def _(cluster: Cluster) -> None:
        keys = [f"k{n}" for n in range(20)]
        hashed(cluster, 1)
        keyed = job(COUNTS, "update", PROMISED)
        cluster.join(keyed)
        cluster.join(keyed)
        cluster.put("0", *keys)
        await cluster.until(lambda: cluster.counts() == dict.fromkeys(keys, 1), 20)
        cluster.input.split("0", ["1", "2"])
        await cluster.until(lambda: cluster.shares() == [1, 1], 40)
        for key in keys:
            cluster.put("1" if int(hash_of(key), 16) < HASHES // 2 else "2", key)
        await cluster.until(lambda: cluster.counts() == dict.fromkeys(keys, 2), 20)


def test_partitions_added_under_a_keyed_query_make_one_task_of_all() -> None:
    @cluster(*"01")
    async def _(cluster: Cluster) -> None:
        keyed = job(COUNTS, "update", PROMISED)
        cluster.join(keyed)
        cluster.join(keyed)
        cluster.put("0", *"aab")
        cluster.put("1", *"ccd")
        await cluster.until(lambda: cluster.counts() == {"a": 2, "b": 1, "c": 2, "d": 1}, 20)
        assert cluster.kind == "shards"
        cluster.input.add_shard("2")
        cluster.put("2", *"ad")  # these keys have moved
        cluster.put("0", "b")
        await cluster.until(lambda: cluster.counts() == {"a": 3, "b": 2, "c": 2, "d": 2}, 60)
        assert cluster.kind == "all"
        assert {frozenset(worker.tasks) for worker in cluster.workers} == {frozenset(), frozenset({ALL})}
        await cluster.until(lambda: set(cluster.leases._rows) == {"shared/all"}, 3 * TTL_S)


def test_an_edit_that_needs_all_shards_makes_one_task_of_them_and_the_counts_go_on() -> None:
    @cluster(*"01")
    async def _(cluster: Cluster) -> None:
        keyed = job(COUNTS, "update", PROMISED)
        first, second = cluster.join(keyed), cluster.join(keyed)
        cluster.put("0", *"aab")
        cluster.put("1", *"c")
        await cluster.until(lambda: cluster.counts() == {"a": 2, "b": 1, "c": 1}, 20)
        edited = job(COUNTS, "update")
        await first.leave()
        cluster.join(edited)
        await asyncio.sleep(5)
        await second.leave()
        cluster.join(edited)
        cluster.put("1", *"ac")
        await cluster.until(lambda: cluster.counts() == {"a": 3, "b": 1, "c": 2}, 60)
        assert cluster.kind == "all"


# -- how it ends


def test_available_now_ends_in_every_worker_when_all_is_read() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        for shard in "0123":
            cluster.put(shard, *"abcdefgh" * 10)
        workers = [cluster.join(trigger=Trigger("available_now")) for _ in range(2)]
        async with asyncio.timeout(120):
            for worker in workers:
                await worker.ends
        assert cluster.ids() == list(range(cluster.sent))
        assert {row.owner for row in cluster.leases._rows.values()} <= {None}


def test_a_task_that_fails_ends_the_job_here_and_its_leases_are_given_back() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        worker = cluster.join()
        with cluster.load(*"0123"):
            await cluster.until(lambda: cluster.shares() == [4], 10)
            cluster.input.put("2", [b"no JSON"])
            with pytest.raises(BadRecord, match="shard 2"):
                async with asyncio.timeout(30):
                    await worker.ends
        assert {row.owner for row in cluster.leases._rows.values()} == {None}
        for shard in "013":
            begun, committed = cluster.newest(f"s.{shard}")
            assert begun == committed, "the other tasks finished their epochs"


def test_a_keeper_that_crashes_ends_the_job_with_its_reason() -> None:
    @cluster(*"01")
    async def _(cluster: Cluster) -> None:
        worker = cluster.join()
        await cluster.until(lambda: cluster.shares() == [2], 10)

        async def broken() -> Listing:
            raise ValueError("a row that is no row")

        cluster.leases.list = broken  # type: ignore[method-assign]
        with pytest.raises(Bug, match="a row that is no row"):
            async with asyncio.timeout(60):
                await worker.ends
        assert {row.owner for row in cluster.leases._rows.values()} == {None}


def test_a_source_that_is_away_at_the_start_is_waited_for() -> None:
    @cluster(*"01")
    async def _(cluster: Cluster) -> None:
        cluster.input.fail()
        worker = cluster.join()
        await asyncio.sleep(5)
        assert worker.engine.unlisted["s"]
        cluster.input.recover()
        await cluster.until(lambda: cluster.shares() == [2], 10)
        assert not worker.engine.unlisted


def test_no_more_tasks_than_max_leases() -> None:
    @cluster(*"0123")
    async def _(cluster: Cluster) -> None:
        free = job()
        assert free.leases is not None
        modest = replace(free, leases=free.leases.model_copy(update={"max_leases": 1}))
        cluster.join(modest)
        with cluster.load(*"0123", every_s=2.0):
            await cluster.until(lambda: cluster.shares() == [1], 10)
            await asyncio.sleep(TTL_S)
            assert cluster.shares() == [1]
            cluster.join(free)
            await cluster.until(lambda: cluster.shares() == [1, 3], 40)
        await cluster.all_written(20)
