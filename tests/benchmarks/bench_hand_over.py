"""What it costs that a job's tasks go from worker to worker: after kill -9, when a worker joins or leaves, in a rolling restart.

    python tests/benchmarks/bench_hand_over.py [--part kill join restart] [--runs 5] [--rate 10000] [--lease-ttl 3] [--servers host:port]

Workers are processes of `streamproc run`; the job copies a topic of six partitions to files, a task a partition, an epoch every
200 ms, its leases an object in the checkpoint. A pause is the longest time between two commits of a task that moved. Delay is from
a row's making to its file. Without --servers an embedded broker (noida-db) is started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from streamproc.clock import SystemClock
from streamproc.demo.worker import Worker
from streamproc.engine.worker import lease_table
from streamproc.job import load_job
from streamproc.lease.lease import Lease
from streamproc.stores import open_store
from streamproc.testing.noida import NoidaBroker
from streamproc.world import World

PARTITIONS = 6
TICK_S = 0.02
DEADLINE_S = 120.0
JOB = """\
name: copy
sources:
  rows: {{type: kafka, bootstrap_servers: '{servers}', topic: {topic}, schema: 'p INT, n BIGINT, made BIGINT'}}
sinks:
  out: {{type: files, path: {folder}/out, query: 'SELECT p, n, made FROM rows'}}
trigger: 200 milliseconds
leases: {{type: object, lease_ttl: {ttl} seconds}}
checkpoint: {folder}/checkpoint
metrics: {{host: 127.0.0.1, port: 0}}
"""


@dataclass(frozen=True)
class Written:
    """A file: when it appeared, in seconds since 1970, its partition, and its rows' numbers and times of making in µs."""

    at_s: float
    partition: int
    numbers: np.ndarray[Any, Any]
    made_us: np.ndarray[Any, Any]


class SharedJob:
    """The job in `folder` on a new topic, into which `rate` rows a second flow; its workers."""

    def __init__(self, folder: Path, servers: str, rate: int, ttl_s: float) -> None:
        self.folder, self.sent = folder, [0] * PARTITIONS
        self._servers, self._topic, self._rate = servers, f"rows-{uuid.uuid4().hex[:8]}", rate
        self._file = folder / "job.yaml"
        self._file.write_text(JOB.format(servers=servers, topic=self._topic, folder=folder, ttl=ttl_s))
        self._workers: list[Worker] = []
        self._enough = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SharedJob]:
        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.create_topics([NewTopic(self._topic, PARTITIONS, 1)])
        await admin.close()
        job = load_job(self._file)
        self._store = open_store(job.checkpoint, World())
        self._leases = lease_table(job, self._store)
        async with AIOKafkaProducer(bootstrap_servers=self._servers, max_batch_size=1 << 20) as producer:
            self._producing = asyncio.ensure_future(self._produce(producer))
            try:
                yield self
            finally:
                self._producing.cancel()
                for worker in self._workers:
                    worker.kill()

    async def _produce(self, producer: Any) -> None:
        began_s = time.monotonic()
        while not self._enough:
            due = int((time.monotonic() - began_s) * self._rate / PARTITIONS)
            now_us = time.time_ns() // 1000
            await asyncio.gather(*(self._send(producer, partition, due, now_us) for partition in range(PARTITIONS)))
            await asyncio.sleep(TICK_S)

    async def _send(self, producer: Any, partition: int, due: int, now_us: int) -> None:
        batch = producer.create_batch()
        first = self.sent[partition]
        for n in range(first, due):
            if batch.append(key=None, value=b'{"p":%d,"n":%d,"made":%d}' % (partition, n, now_us), timestamp=None) is None:
                break  # full: the rest comes with the next one
        if due > first:
            rows = batch.record_count()
            await (await producer.send_batch(batch, self._topic, partition=partition))
            self.sent[partition] += rows

    async def stop_producing(self) -> None:
        """What is sent is acknowledged."""
        self._enough = True
        await self._producing

    def start(self) -> Worker:
        self._workers.append(Worker(self._file, self.folder / f"worker-{len(self._workers)}.log", {}, clock=SystemClock()))
        return self._workers[-1]

    async def rows(self) -> Sequence[Lease]:
        return (await self._leases.list()).leases

    async def shares(self) -> dict[int, set[str]]:
        """Which tasks a process has; nothing counts that is still handed over."""
        found: dict[int, set[str]] = {}
        for lease in await self.rows():
            if lease.owner and lease.checkpoint_owner is None:
                found.setdefault(int(lease.owner.split(":")[2]), set()).add(lease.key.rpartition(".")[2])
        return found

    async def spread(self, workers: Sequence[Worker]) -> dict[int, set[str]]:
        """Wait until the workers, and nobody else, share all tasks evenly, and have committed in every one."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            shares = await self.shares()
            wanted = {worker.process.pid: PARTITIONS // len(workers) for worker in workers}
            if {pid: len(tasks) for pid, tasks in shares.items()} == wanted:
                return shares
            if time.monotonic() > deadline_s:
                raise SystemExit(f"not spread over {wanted} within {DEADLINE_S:.0f} s: {shares}; see {self.folder}")
            await asyncio.sleep(0.05)

    async def drained(self) -> None:
        """Wait until every row that was sent is written."""
        deadline_s = time.monotonic() + DEADLINE_S
        while sum(len(written.numbers) for written in self.written()) < sum(self.sent):
            if time.monotonic() > deadline_s:
                return
            await asyncio.sleep(1)

    def written(self) -> list[Written]:
        """Every file in the order in which they appeared."""
        found = []
        for path in (self.folder / "out").glob("**/*.parquet"):
            table = pq.read_table(path)
            at_s = os.stat(path).st_ctime_ns / 1e9
            found.append(Written(at_s, table["p"][0].as_py(), table["n"].to_numpy(), table["made"].to_numpy()))
        return sorted(found, key=lambda each: each.at_s)


def pauses_s(written: Sequence[Written], since_s: float, until_s: float, tasks: Callable[[int], bool]) -> list[float]:
    """The longest time between two commits of each of the tasks, of which one lies in the time asked for."""
    longest = []
    for partition in filter(tasks, range(PARTITIONS)):
        times = [each.at_s for each in written if each.partition == partition]
        gaps = [later - before for before, later in pairwise(times) if later > since_s and before < until_s]
        longest.append(max(gaps, default=float("inf")))
    return longest


async def killed(job: SharedJob) -> list[float]:
    """Seconds from kill -9 of one of two workers until each of its tasks has committed again."""
    both = [job.start(), job.start()]
    shares = await job.spread(both)
    await asyncio.sleep(2)
    killed_s = time.time()
    both[0].kill()
    await job.spread(both[1:])
    await asyncio.sleep(2)
    written = job.written()
    theirs = {int(task) for task in shares[both[0].process.pid]}
    return [min(each.at_s for each in written if each.partition == task and each.at_s > killed_s + 0.1) - killed_s for task in theirs]


async def joined(job: SharedJob) -> tuple[list[float], list[float], list[float]]:
    """Pauses of tasks that move when a worker joins, of those that move back when it leaves, and of those that stay."""
    first = job.start()
    await job.spread([first])
    await asyncio.sleep(3)
    joined_s = time.time()
    second = job.start()
    shares = await job.spread([first, second])
    await asyncio.sleep(3)
    left_s = time.time()
    await second.stop()
    await job.spread([first])
    await asyncio.sleep(3)
    moved = {int(task) for task in shares[second.process.pid]}
    written = job.written()
    return (
        pauses_s(written, joined_s, left_s, moved.__contains__),
        pauses_s(written, left_s, time.time(), moved.__contains__),
        pauses_s(written, joined_s, time.time(), lambda task: task not in moved),
    )


async def restarted(job: SharedJob) -> tuple[int, int, int, list[float]]:
    """Rows, rows twice, rows lost, and the delays in seconds of those made while three workers were restarted one by one."""
    workers = [job.start() for _ in range(3)]
    await job.spread(workers)
    await asyncio.sleep(2)
    began_us = time.time_ns() // 1000
    for place in range(3):
        await workers[place].stop()
        workers[place] = job.start()
        await job.spread(workers)
    ended_us = time.time_ns() // 1000
    await asyncio.sleep(1)
    await job.stop_producing()
    await job.drained()
    twice = lost = 0
    written = job.written()
    for partition in range(PARTITIONS):
        counts = np.bincount(
            np.concatenate([each.numbers for each in written if each.partition == partition]), minlength=job.sent[partition]
        )
        twice += int((counts > 1).sum())
        lost += int((counts == 0).sum())
    delays = [each.at_s - each.made_us[(each.made_us >= began_us) & (each.made_us < ended_us)] / 1e6 for each in written]
    return sum(job.sent), twice, lost, sorted(np.concatenate(delays).tolist())


async def measure(arguments: argparse.Namespace, servers: str) -> None:
    async def each(course: Callable[[SharedJob], Any], runs: int, rate: int) -> list[Any]:
        found = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="bench-hand-over-") as name:
                async with SharedJob(Path(name), servers, rate, arguments.lease_ttl).running() as job:
                    found.append(await course(job))
        return found

    if "kill" in arguments.part:
        took = [seconds for run in await each(killed, arguments.runs, 1000) for seconds in run]
        line(f"kill -9 to the next commit, s (ttl {arguments.lease_ttl:g})", took)
    if "join" in arguments.part:
        names = ("pause of a task when a worker joins, s", "pause of a task when a worker leaves, s", "pause of a task that stays, s")
        for name, pauses in zip(names, zip(*await each(joined, arguments.runs, arguments.rate), strict=True), strict=True):
            line(name, [pause for run in pauses for pause in run])
    if "restart" in arguments.part:
        [(rows, twice, lost, delays)] = await each(restarted, 1, arguments.rate)
        line("rolling restart of 3, delay of a row, s", delays)
        print(f"{'':44}{rows} rows, {twice} twice, {lost} lost", flush=True)


def line(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[len(ordered) * 99 // 100]
    print(f"{name:44}{statistics.median(ordered):8.2f} median {p99:8.2f} p99 {ordered[-1]:8.2f} max {len(ordered):9} of them", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=("kill", "join", "restart"), default=("kill", "join", "restart"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=int, default=10_000, help="rows a second")
    parser.add_argument("--lease-ttl", type=float, default=3.0, help="seconds")
    parser.add_argument("--servers")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        servers = arguments.servers or stack.enter_context(NoidaBroker()).bootstrap_servers
        asyncio.run(measure(arguments, servers))


if __name__ == "__main__":
    main()
