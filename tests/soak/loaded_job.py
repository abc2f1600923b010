"""A job under load: a producer sends to a real server, workers run the job, and whoever likes kills them. At the end the
rows must equal a batch query over what the server acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq
from pyarrow import fs

from streamproc.demo import job
from streamproc.demo.clickstream import ClickStream
from streamproc.demo.comparison import Comparison, compare
from streamproc.demo.producer import Channel, KafkaTopic, KinesisStream, Producer
from streamproc.demo.worker import Worker
from streamproc.world import World

WINDOW_S = 2
RECOVERY_S = 90.0
HISTORY_US = 10_000_000


class Broker(Protocol):
    """A server that can be killed and comes back with what it had."""

    def stop(self, kill: bool = False) -> None: ...
    def start(self) -> object: ...


class LoadedJob:
    """The job in `folder`, with its producer running, as an async context manager.

    `channel` and `source` (the job's keys) belong together; `bucket_url` is where sink and checkpoint go, default local
    folders. `environment` is that of the workers. `recoveries_s` are the seconds from a worker's start to its first commit.
    """

    def __init__(
        self,
        folder: Path,
        channel: Channel,
        source: str,
        environment: Mapping[str, str],
        *,
        bucket_url: str | None = None,
        rate: int = 2_000,
        rows_per_epoch: int = 100_000,
        more: str = "",
        seed: int = 1,
    ) -> None:
        self.folder, self.environment, self.channel = folder, environment, channel
        self.random = random.Random(seed)
        self.recoveries_s: list[float] = []
        self.workers: list[Worker] = []
        self._world = World()
        self._url = bucket_url and f"{bucket_url}/{uuid.uuid4().hex}"
        root = self._url or str(folder)
        source += f"\n    max_rows_per_epoch: {rows_per_epoch}"
        self.job = job.write_job(
            folder / "job.yaml",
            source,
            f"{root}/lake",
            f"{root}/checkpoint",
            window_s=WINDOW_S,
            delay="1500 milliseconds",
            more=f"{more}\n",
        )
        now_us = time.time_ns() // 1000
        self.producer = Producer(channel, ClickStream(seed=seed, rate=rate, since_us=now_us - HISTORY_US), self._world)
        self._producing: asyncio.Future[None] | None = None

    async def __aenter__(self) -> LoadedJob:
        await self.channel.open(4)
        self._producing = asyncio.ensure_future(self.producer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producing is not None:
            self._producing.cancel()
        for worker in self.workers:
            worker.kill()
        await self.channel.close()

    def start_worker(self, *arguments: str) -> Worker:
        log = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(Worker(self.job, log, self.environment, *arguments, clock=self._world.clock))
        return self.workers[-1]

    async def recovered(self, worker: Worker) -> None:
        """Wait for the first commit of a worker that was just started."""
        began_s = time.monotonic()
        assert await worker.committed(RECOVERY_S), f"no commit within {RECOVERY_S} s: {worker}\n{worker.log.read_text()[-3000:]}"
        self.recoveries_s.append(time.monotonic() - began_s)

    async def kill_workers(self, kills: int) -> None:
        """kill -9 at random moments, each of another worker: most while it works, some while it starts or recovers."""
        for _ in range(kills):
            worker = self.start_worker()
            if self.random.random() < 0.25:
                await asyncio.sleep(self.random.uniform(0.3, 2.0))
            else:
                await self.recovered(worker)
                await asyncio.sleep(self.random.uniform(0, 1.0))
            assert worker.running, f"it ended by itself with {worker.process.returncode}:\n{worker.log.read_text()[-3000:]}"
            worker.kill()

    async def kill_broker(self, broker: Broker, away_s: float) -> None:
        """kill -9 of the broker under a worker that runs: it must wait and say so, and go on when the broker is back."""
        worker = self.workers[-1]
        await asyncio.to_thread(broker.stop, kill=True)
        try:
            await self.until(worker, lambda ready, page: not ready and "source clicks does not answer" in page)
            await asyncio.sleep(away_s)
            metrics = await worker.metrics()
            assert metrics["streamproc_source_up"] == 0
        finally:
            await asyncio.to_thread(broker.start)
        before = metrics["streamproc_epochs_total"]
        began_s = time.monotonic()
        await self.until(worker, lambda ready, page: ready)
        while (await worker.metrics())["streamproc_epochs_total"] <= before:
            assert time.monotonic() - began_s < RECOVERY_S, "no commit after the broker came back"
            await asyncio.sleep(0.05)
        self.recoveries_s.append(time.monotonic() - began_s)

    async def until(self, worker: Worker, condition: Callable[[bool, str], bool]) -> None:
        """Poll /readyz: `condition` gets whether it is ready and what the page says."""
        deadline_s = time.monotonic() + RECOVERY_S
        while True:
            status, page = await worker.page("readyz")
            if status and condition(status == 200, page):
                return
            assert worker.running, worker.log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, f"still {status} {page}"
            await asyncio.sleep(0.05)

    async def stop_producing(self) -> None:
        """What has been sent is all there is."""
        assert self._producing is not None
        self.producer.until_us = time.time_ns() // 1000
        await self._producing

    async def drain(self) -> Comparison:
        """Stop producing, let one more worker take the rest and close every window, compare."""
        await self.stop_producing()
        worker = self.start_worker("--available-now", "--drain")
        code = await asyncio.to_thread(worker.process.wait, RECOVERY_S)
        assert code == 0, f"the last worker ended with {code}:\n{worker.log.read_text()[-3000:]}"
        return await asyncio.to_thread(self.compare)

    def epochs(self) -> tuple[int, bool]:
        """What the checkpoint says: the newest epoch committed, and whether another is begun."""
        found = self._files().get_file_info(fs.FileSelector(f"{self._root}/checkpoint/g1/all/epochs"))
        commits, begins = (
            [int(info.base_name.partition(".")[0]) for info in found if info.extension == kind] for kind in ("commit", "begin")
        )
        return max(commits), max(begins, default=0) > max(commits)

    def compare(self) -> Comparison:
        """Acknowledged events against the lake; both are kept in `folder`."""
        lake = self.folder / "lake"
        if self._url:
            fs.copy_files(f"{self._root}/lake", str(lake), source_filesystem=self._files())
        events = self.producer.acknowledged.table()
        pq.write_table(events, self.folder / "acknowledged.parquet")
        return compare(events, lake, WINDOW_S * 1_000_000)

    @property
    def _root(self) -> str:
        return self._url.removeprefix("s3://") if self._url else str(self.folder)

    def _files(self) -> fs.FileSystem:
        if not self._url:
            return fs.LocalFileSystem()
        return fs.S3FileSystem(
            endpoint_override=self.environment["AWS_ENDPOINT_URL"].removeprefix("http://"),
            scheme="http",
            access_key=self.environment["AWS_ACCESS_KEY_ID"],
            secret_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region=self.environment["AWS_REGION"],
        )


def on_kafka(folder: Path, servers: str, environment: Mapping[str, str] | None = None, **more: object) -> LoadedJob:
    """A job on a new topic of the broker."""
    topic = f"clicks-{uuid.uuid4().hex}"
    source = job.kafka(servers).replace("topic: clicks", f"topic: {topic}")
    return LoadedJob(folder, KafkaTopic(topic, servers), source, environment or {}, **more)  # type: ignore[arg-type]


def on_kinesis(folder: Path, server: dict[str, str], environment: Mapping[str, str] | None = None, **more: object) -> LoadedJob:
    """A job on a new stream of `server` (the environment of its clients); S3 may be another one, which `environment` names."""
    stream = f"clicks-{uuid.uuid4().hex}"
    source = job.kinesis().replace("stream: clicks", f"stream: {stream}").replace("${AWS_ENDPOINT_URL:-}", server["AWS_ENDPOINT_URL"])
    return LoadedJob(folder, KinesisStream(stream, server), source, environment or server, **more)  # type: ignore[arg-type]
