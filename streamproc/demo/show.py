"""What the demo does, in its order, and what it tells about it on the terminal."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click
import pyarrow.parquet as pq

from streamproc.demo import job
from streamproc.demo.clickstream import ClickStream
from streamproc.demo.comparison import Comparison, compare
from streamproc.demo.producer import Channel, KafkaTopic, KinesisStream, Producer
from streamproc.demo.worker import Worker
from streamproc.errors import StreamprocError
from streamproc.testing.ministack import Ministack
from streamproc.testing.noida import NoidaBroker
from streamproc.world import World

RATES = {"kinesis": 2_000, "kafka": 10_000}
HISTORY_US = 10_000_000
"""The stream already holds so much when the worker starts: the first windows are final at once."""
WINDOW_US = job.WINDOW_S * 1_000_000
CLOSE_S = 60.0
RECOVER_S = 60.0
_PACKAGES = {"kinesis": ("ministack", "aiobotocore"), "kafka": ("noida_db", "aiokafka")}


def run_demo(*, source: str, seconds: int, kill: bool) -> int:
    """The exit code: 0 if the comparison at the end finds no difference. Every process it starts ends with it."""
    missing = [package for package in _PACKAGES[source] if find_spec(package) is None]
    if missing:
        raise StreamprocError(f"{', '.join(missing)} is not installed: run ./deploy/demo, or pip install 'streamproc[demo]'")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    folder = Path(tempfile.mkdtemp(prefix="streamproc-demo-"))
    keep = True
    try:
        with _server(source, folder) as (channel, environment, keys):
            demo = Demo(folder, source, channel, environment, keys, World())
            comparison = asyncio.run(demo.run(seconds, kill=kill))
        keep = not comparison.equal
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            click.echo(f"kept for a look: {folder} (job.yaml, the workers' logs, acknowledged.parquet, lake/, checkpoint/)")
    for example in comparison.examples:
        click.echo(f"  {example}")
    click.echo(f"demo: {comparison}")
    return 0 if comparison.equal else 1


@contextmanager
def _server(source: str, folder: Path) -> Iterator[tuple[Channel, dict[str, str], str]]:
    """The embedded server: where to send events, the environment of its clients, the keys of the job's source."""
    if source == "kafka":
        (folder / "broker").mkdir()
        with NoidaBroker(folder / "broker", bound=True) as broker:
            click.echo(f"Kafka: noida-db, an embedded broker, at {broker.bootstrap_servers}")
            yield KafkaTopic(job.STREAM, broker.bootstrap_servers), {}, job.kafka(broker.bootstrap_servers)
    else:
        with Ministack(bound=True) as server:
            click.echo(f"Kinesis: ministack, an emulator, at {server.endpoint_url}")
            environment = server.environment()
            yield KinesisStream(job.STREAM, environment), environment, job.kinesis()


class Demo:
    """One run in `folder`, from the first event to the comparison."""

    def __init__(self, folder: Path, source: str, channel: Channel, environment: dict[str, str], keys: str, world: World) -> None:
        self._folder, self._channel, self._environment, self._clock = folder, channel, environment, world.clock
        self._lake = folder / "lake"
        self._job = job.write_job(folder / "job.yaml", keys, str(self._lake), str(folder / "checkpoint"))
        now_us = self._clock.now_us()
        self._stream = ClickStream(seed=now_us, rate=RATES[source], since_us=now_us - HISTORY_US)
        self._producer = Producer(channel, self._stream, world)
        self._started_s = self._clock.monotonic_s()
        self._workers: list[Worker] = []
        self._before: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self._windows: dict[Path, int] = {}
        self._first_windows = False

    async def run(self, seconds: int, *, kill: bool) -> Comparison:
        """Produce for `seconds`, let the windows close, stop the worker, compare."""
        try:
            await self._channel.open(self._stream.shards)
            producing = asyncio.ensure_future(self._producer.run())
            self._start_worker()
            await self._produce(producing, seconds, kill=kill)
            await self._close_windows()
            await self._stop_worker()
        finally:
            for worker in self._workers:
                worker.kill()
            await self._channel.close()
        events = self._producer.acknowledged.table()
        pq.write_table(events, self._folder / "acknowledged.parquet")
        click.echo("comparing the Parquet files with a batch query over the acknowledged events")
        return compare(events, self._lake, WINDOW_US)

    def _start_worker(self) -> None:
        log = self._folder / f"worker-{len(self._workers) + 1}.log"
        self._workers.append(Worker(self._job, log, self._environment, clock=self._clock))
        click.echo(f"worker: streamproc run {self._job} (process {self._workers[-1].process.pid})")

    async def _produce(self, producing: asyncio.Future[None], seconds: int, *, kill: bool) -> None:
        """Until the end of the window in which `seconds` are over, a line a second."""
        end_us = self._clock.now_us() + seconds * 1_000_000
        self._producer.until_us = -(-end_us // WINDOW_US) * WINDOW_US
        kill_at_s = self._clock.monotonic_s() + seconds / 2
        while kill or not producing.done():
            if kill and self._clock.monotonic_s() >= kill_at_s and self._metrics.get("streamproc_epochs_total"):
                kill = False
                await self._kill_worker()
            await self._tell()
        await producing
        click.echo(f"the producer has stopped: {self._producer.acknowledged.count:,} events acknowledged; the last windows close by idle")

    async def _kill_worker(self) -> None:
        """SIGKILL in the middle of whatever it does; start another and measure until it has committed."""
        self._before = {name: self._total(name) for name in self._metrics}
        self._metrics = {}
        self._workers[-1].kill()
        click.echo(f"worker: kill -9 of process {self._workers[-1].process.pid}")
        began_s = self._clock.monotonic_s()
        self._start_worker()
        if not await self._workers[-1].committed(RECOVER_S):
            raise StreamprocError(f"the worker did not recover within {RECOVER_S:.0f} s; see {self._workers[-1].log}")
        click.echo(f"worker: recovered, first commit {self._clock.monotonic_s() - began_s:.1f} s after the start")

    async def _close_windows(self) -> None:
        assert self._producer.until_us is not None
        ends_s = self._producer.until_us / 1e6
        deadline_s = self._clock.monotonic_s() + CLOSE_S
        while self._metrics.get("streamproc_watermark_seconds", 0) < ends_s:
            if self._clock.monotonic_s() > deadline_s:
                click.echo(f"the last windows did not close within {CLOSE_S:.0f} s")
                return
            await self._tell()

    async def _stop_worker(self) -> None:
        code = await self._workers[-1].stop()
        if code != 0:
            raise StreamprocError(f"the worker ended with {code} on SIGTERM; see {self._workers[-1].log}")
        click.echo("worker: stopped by SIGTERM, exit code 0")

    async def _ask(self) -> dict[str, float]:
        worker = self._workers[-1]
        if not worker.running:
            raise StreamprocError(f"the worker ended with {worker.process.returncode}:\n{worker.log.read_text()[-2000:]}")
        self._metrics = await worker.metrics() or self._metrics
        return self._metrics

    async def _tell(self) -> None:
        """Wait a second, then one line of what is known."""
        await self._clock.sleep(1.0)
        metrics = await self._ask()
        windows = self._count_windows()
        passed_s = self._clock.monotonic_s() - self._started_s
        facts = [
            f"{passed_s:3.0f} s",
            f"sent {self._producer.acknowledged.count:9,}",
            f"read {self._total('streamproc_rows_read_total'):9,.0f}",
            f"windows {windows:5,}",
            f"late {self._total('streamproc_late_rows_total'):3.0f}",
            f"dead {self._total('streamproc_dead_letters_total'):3.0f}",
            _lag(metrics),
            _watermark(metrics, self._clock.now_us()),
        ]
        click.echo("  ".join(facts))
        if windows and not self._first_windows:
            self._first_windows = True
            click.echo(f"first windows after {passed_s:.0f} s: {self._lake / 'views'}")

    def _total(self, counter: str) -> float:
        """Over all workers so far; what a killed one did after it was last asked is missing."""
        return self._before.get(counter, 0) + self._metrics.get(counter, 0)

    def _count_windows(self) -> int:
        for path in (self._lake / "views").glob("part-*.parquet"):
            if path not in self._windows:
                self._windows[path] = pq.read_metadata(path).num_rows
        return sum(self._windows.values())


def _lag(metrics: dict[str, float]) -> str:
    if "streamproc_lag_records" in metrics:
        return f"lag {metrics['streamproc_lag_records']:6,.0f} records"
    return f"lag {metrics.get('streamproc_lag_seconds', 0):4.1f} s"


def _watermark(metrics: dict[str, float], now_us: int) -> str:
    if "streamproc_watermark_seconds" not in metrics:
        return "watermark none yet"
    at_s = metrics["streamproc_watermark_seconds"]
    return f"watermark {datetime.fromtimestamp(at_s, UTC):%H:%M:%S}, {now_us / 1e6 - at_s:.1f} s ago"
