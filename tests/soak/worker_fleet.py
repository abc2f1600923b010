"""Three `streamproc worker` processes that share a folder of jobs; they are killed, put to sleep and started again, while the shards of
the stream change.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared_jobs import JOBS, Outcome, compare, write_jobs
from shared_stream import KafkaPartitions, KinesisShards, Purchases

from streamproc.testing.parent_death import die_with_parent

RECOVERY_S = 120.0
POLL_S = 0.1
STOP_S = 90


class Service:
    """One `streamproc worker` of the folder `jobs`, its log in `log`."""

    def __init__(self, jobs: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        command = [sys.executable, "-m", "streamproc", "worker", str(jobs), "--listen", "127.0.0.1:0"]
        self.process = _started(command, log, environment)
        self._url = ""

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def jobs(self) -> dict[str, dict[str, Any]]:
        """What /jobs says of each; {} while it does not answer."""
        if not self._url:
            listening = [line for line in self.logged() if line.get("event") == "listening"]
            self._url = listening[0]["url"] if listening else ""
        return await asyncio.to_thread(_get_jobs, self._url) if self._url else {}

    def logged(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]

    def __repr__(self) -> str:
        return f"<Service {self.process.pid} {'running' if self.running else f'ended with {self.process.returncode}'}>"


class WorkerFleet:
    """Three workers and their stream, as an async context manager. `leases` of the jobs has `{name}` where a job's name belongs.

    `recoveries_s`: seconds from a kill, a sleep or a change of shards until every task has committed again.
    """

    def __init__(self, folder: Path, purchases: Purchases, leases: str, environment: Mapping[str, str], *, shards: int, seed: int) -> None:
        self.folder, self.purchases, self.environment = folder, purchases, environment
        self.jobs = write_jobs(folder, purchases.stream.source(), leases)
        self.random = random.Random(seed)
        self.recoveries_s: list[float] = []
        self.done: Counter[str] = Counter()
        self.services: list[Service] = []
        self._shards = shards
        self._all: list[Service] = []

    async def __aenter__(self) -> WorkerFleet:
        await self.purchases.stream.open(self._shards)
        self.purchases.start()
        self.services = [self._start() for _ in range(3)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.purchases.cancel()
        for service in self._all:
            service.kill()
        await self.purchases.stream.close()

    def _start(self) -> Service:
        self._all.append(Service(self.jobs, self.folder / f"worker-{len(self._all)}.log", self.environment))
        return self._all[-1]

    # -- what happens to them

    async def kill(self) -> None:
        """kill -9 of any worker, which is started again at once; three times of four the next fault waits for the recovery."""
        number = self.random.randrange(len(self.services))
        self.services[number].kill()
        killed_s = time.monotonic()
        self.services[number] = self._start()
        self.done["kills"] += 1
        if self.random.random() < 0.75:
            await self.recovered(killed_s)
        await asyncio.sleep(self.random.uniform(0, 1.5))

    async def zombie(self, seconds: float) -> None:
        """A worker sleeps for longer than its leases last, the others take over, it wakes up in the middle of what it did."""
        sleeper = self.random.choice(self.services)
        await self.settled()
        sleeper.send(signal.SIGSTOP)
        slept_s = time.monotonic()
        await self.recovered(slept_s)
        await asyncio.sleep(max(0.0, slept_s + seconds - time.monotonic()))
        sleeper.send(signal.SIGCONT)
        self.done["zombies"] += 1
        await asyncio.sleep(self.random.uniform(0, 2))

    async def split(self) -> None:
        assert isinstance(self.purchases.stream, KinesisShards)
        if await self.purchases.stream.split(self.purchases.users, self.random):
            self.done["splits"] += 1

    async def merge(self) -> None:
        assert isinstance(self.purchases.stream, KinesisShards)
        if await self.purchases.stream.merge(self.random):
            self.done["merges"] += 1

    async def grow(self) -> None:
        """Add a partition; rows go there once each job reads it."""
        assert isinstance(self.purchases.stream, KafkaPartitions)
        added = await self.purchases.stream.add_partition()
        await self._until(lambda seen: all(added in shards for shards in seen.values()), f"not every job reads partition {added}")
        await self.purchases.stream.use_added()
        self.done["growths"] += 1

    async def _until(self, condition: Callable[[Mapping[str, set[str]]], bool], fault: str) -> None:
        """`condition` gets the shards that some worker reads, by job."""
        deadline_s = time.monotonic() + RECOVERY_S
        while True:
            seen: dict[str, set[str]] = {name: set() for name in JOBS}
            for service in self.services:
                for name, shown in (await service.jobs()).items():
                    seen[name] |= {shard["shard"] for shard in shown.get("shards", [])}
            if condition(seen):
                return
            self._check()
            assert time.monotonic() < deadline_s, f"{fault}: {seen}"
            await asyncio.sleep(POLL_S)

    # -- what is asked of them

    async def started(self) -> None:
        """Until every job has committed something."""
        began_s = time.monotonic()
        while not all(any(task[0] == name for task in self.epochs()) for name in JOBS):
            self._check()
            assert time.monotonic() - began_s < RECOVERY_S, f"no job after {RECOVERY_S} s: {self.epochs()}"
            await asyncio.sleep(POLL_S)
        await self.recovered(began_s, note=False)

    async def settled(self) -> None:
        """Until every worker answers: one that has just been started heeds no signal, and has nothing to lose."""
        while not all([await service.jobs() for service in self.services]):
            self._check()
            await asyncio.sleep(POLL_S)

    async def recovered(self, since_s: float, *, note: bool = True) -> None:
        """Until each task that goes on has committed once more than now."""
        before = self.epochs()
        while waiting := [task for task, epoch in self.epochs().items() if epoch <= before.get(task, -1) and self._goes_on(*task)]:
            self._check()
            assert time.monotonic() - since_s < RECOVERY_S, f"no commit within {RECOVERY_S} s: {waiting}"
            await asyncio.sleep(POLL_S)
        if note:
            self.recoveries_s.append(time.monotonic() - since_s)

    def epochs(self) -> dict[tuple[str, str], int]:
        """The newest commit of every task, by job and task."""
        found: dict[tuple[str, str], int] = {}
        for path in (self.folder / "checkpoint").glob("*/g1/*/epochs/*.commit"):
            task = path.parts[-5], path.parts[-3]
            found[task] = max(found.get(task, -1), int(path.name.partition(".")[0]))
        return found

    def _goes_on(self, job: str, task: str) -> bool:
        """Not after its shard has ended, nor as a part of another task; epoch 0 of `all` may say where other tasks began."""
        if task == "all" and json.loads((self.folder / "checkpoint" / job / "root").read_bytes()).get("tasks") == "shards":
            return False
        paths = (self.folder / "checkpoint" / job / "g1" / task / "epochs").glob("*.commit")
        newest = max(paths, key=lambda path: int(path.name.partition(".")[0]), default=None)
        if newest is None:
            return False
        commit = json.loads(newest.read_bytes())
        ended = all(end.get("ended") for ends in commit["shards"].values() for end in ends.values())
        return not (commit.get("closed") or (task != "all" and ended))

    def _check(self) -> None:
        self.purchases.check()
        for service in self.services:
            assert service.running, f"{service!r} by itself:\n{service.log.read_text()[-3000:]}"

    async def drain(self) -> Outcome:
        """Stop sending, stop the workers, close all windows with one process for each job, compare."""
        await self.purchases.stop()
        await self.settled()
        for service in self.services:
            service.send(signal.SIGTERM)
        codes = [await asyncio.to_thread(service.process.wait, STOP_S) for service in self.services]
        assert codes == [0, 0, 0], f"workers ended with {codes}"
        await asyncio.gather(*(asyncio.to_thread(self._drain, name) for name in JOBS))
        return await asyncio.to_thread(compare, self.folder, self.purchases.acknowledged())

    def _drain(self, name: str) -> None:
        log = self.folder / f"drain-{name}.log"
        command = [sys.executable, "-m", "streamproc", "run", str(self.jobs / f"{name}.yaml"), "--available-now", "--drain"]
        code = _started(command, log, self.environment).wait(RECOVERY_S)
        assert code == 0, f"the end of {name} failed with {code}:\n{log.read_text()[-3000:]}"

    def complaints(self) -> Counter[str]:
        """What workers logged as errors, and failures of jobs."""
        lines = [line for service in self._all for line in service.logged() if line.get("level") in ("error", "critical")]
        return Counter(f"{line.get('job')}: {line['event']}: {line.get('error', '')}"[:300] for line in lines)


def _started(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | environment,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # one system call, no lock
        )  # fmt: skip


def _get_jobs(url: str) -> dict[str, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return {job["job"]: job for job in json.loads(answer.read())["jobs"]}
    except OSError:
        return {}
