"""The jobs of a service together: started, re-read, shown, drained. Their runs are the test's; the files are real."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from streamproc.errors import Unavailable
from streamproc.job import Job
from streamproc.options import Secret
from streamproc.service.fleet import Fleet
from streamproc.service.job_files import read_jobs
from streamproc.status import ShardStatus, SinkStatus, Status, TaskStatus
from streamproc.testing import ManualClock
from streamproc.world import World

JOB = """
sources: {{clicks: {{type: {source}}}}}
sinks: {{out: {{type: console, rows: {shown}, mode: update, query: 'SELECT {key}, count(*) AS n FROM clicks GROUP BY {key}'}}}}
checkpoint: {folder}/cp-{file}
"""
KAFKA = """kafka, topic: t, bootstrap_servers: h:1, schema: page STRING,
  security: {protocol: SASL_SSL, mechanism: PLAIN, username: u, password: secret://env/KAFKA}"""


class Service:
    """A folder of jobs `good` and `bad`; runs of the bad one fail at once, the others go on until they are stopped."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self.world = World(clock)
        self.fleet = Fleet([str(folder)], (), self.world, self.run, drain_s=30, token=Secret.of("secret://env/ADMIN"))

    def write(self, file: str, key: str = "page", shown: int = 20, source: str = "generator, rows: 1") -> None:
        text = JOB.format(source=source, key=key, shown=shown, file=file, folder=self.folder.parent)
        (self.folder / f"{file}.yaml").write_text(text)

    async def run(self, job: Job, world: World, stop: asyncio.Event, take: Callable[[Status], None]) -> None:
        self.ran.append(job.name)
        structlog.get_logger().info("the run begins")
        if job.name == "bad":
            raise Unavailable("h:1 refused kafka-password for u")
        world.metrics.add("streamproc_rows_read_total", 7, source="clicks")
        take(status(job.name, world))
        await stop.wait()

    async def read(self) -> dict[str, Any]:
        said = dict(await self.fleet.reload())
        await self.step()
        return said

    async def step(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def states(self) -> dict[str, str]:
        return {one["job"]: one["state"] for one in self.fleet.pictures()["jobs"]}


def status(name: str, world: World) -> Status:
    return Status(
        name, world.clock.now_us(), lease_held=True, lease_owner="streamproc:w1", epoch=4, rows_in=7, watermark_us=1_000_000,
        tasks=(TaskStatus("clicks.0", 4, 1_000_000, True), TaskStatus("clicks.1", 3)),
        shards=(ShardStatus("clicks", "0", 12, watermark_us=1_000_000, position="41"),), sinks=(SinkStatus("out", 3, 1),),
    )  # fmt: skip


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the service logs; the logging of the test run is put back."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    yield stream
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO) -> AsyncIterator[Service]:
    monkeypatch.setenv("KAFKA", "kafka-password")
    monkeypatch.setenv("ADMIN", "admin-token")
    monkeypatch.setattr("sys.stderr", logged)
    (tmp_path / "jobs").mkdir()
    made = Service(tmp_path / "jobs", ManualClock())
    made.write("good")
    made.write("bad", source=KAFKA)
    made.fleet.start(read_jobs([str(made.folder)]))
    await made.step()
    yield made
    await made.fleet.drain()


async def test_a_job_that_fails_costs_the_others_nothing(service: Service) -> None:
    assert service.states() == {"bad": "failed", "good": "running"}
    assert service.fleet.health().waiting == ("job bad: failed (Unavailable), is tried again after a pause",)
    assert service.fleet.health().stuck == ()
    assert service.fleet.summary() == "2 jobs: 1 failed, 1 running (bad)"
    families = {f.name: f for f in text_string_to_metric_families(service.fleet.exposition().decode())}
    assert {s.labels["job"]: s.value for s in families["streamproc_job_up"].samples} == {"bad": 0, "good": 1}
    assert [s.labels for s in families["streamproc_job_failures"].samples] == [{"job": "bad", "kind": "Unavailable"}]
    assert [s.labels["job"] for s in families["streamproc_rows_read"].samples] == ["good"]


async def test_a_job_is_shown_with_its_tasks_and_shards(service: Service) -> None:
    shown = service.fleet.picture("good")
    assert shown is not None
    json.dumps(shown)
    assert (shown["file"], shown["failures"], shown["last_error"], shown["next_try"]) == (f"{service.folder}/good.yaml", 0, None, None)
    assert (shown["epoch"], shown["rows_in"], shown["watermark"]) == (4, 7, "1970-01-01T00:00:01Z")
    first = {
        "task": "clicks.0",
        "epoch": 4,
        "watermark": "1970-01-01T00:00:01Z",
        "lease_held": True,
        "owner": "streamproc:w1",
        "epoch_running_s": 0,
    }
    assert shown["tasks"] == [first, first | {"task": "clicks.1", "epoch": 3, "watermark": None, "lease_held": False, "owner": None}]
    assert shown["shards"] == [
        {
            "source": "clicks",
            "shard": "0",
            "position": "41",
            "lag": 12,
            "lag_unit": "records",
            "watermark": "1970-01-01T00:00:01Z",
            "idle": False,
        }
    ]
    assert shown["sinks"] == [{"name": "out", "rows": 3, "late": 1}]
    assert service.fleet.picture("nobody") is None


async def test_no_secret_is_shown_or_logged(service: Service, logged: io.StringIO) -> None:
    shown = service.fleet.picture("bad")
    assert shown is not None
    assert shown["last_error"]["error"] == "h:1 refused [secret] for u"
    structlog.get_logger().info("somebody logs admin-token")
    assert "h:1 refused [secret] for u" in logged.getvalue()
    assert "kafka-password" not in logged.getvalue()
    assert "admin-token" not in logged.getvalue()


async def test_every_line_of_a_run_names_its_job(service: Service, logged: io.StringIO) -> None:
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert {line["job"] for line in lines if line["event"] == "the run begins"} == {"bad", "good"}
    assert {line["job"] for line in lines if line["event"] == "the job failed"} == {"bad"}


async def test_a_second_reading_does_only_what_changed(service: Service) -> None:
    service.write("good", shown=5)
    service.write("more")
    said = await service.read()
    assert said == {"started": ["more"], "stopped": [], "restarted": ["good"], "kept": {}, "faults": []}
    assert service.states() == {"bad": "failed", "good": "running", "more": "running"}
    (service.folder / "more.yaml").unlink()
    assert (await service.read())["stopped"] == ["more"]
    assert service.states() == {"bad": "failed", "good": "running"}
    assert (service.ran.count("good"), service.ran.count("more")) == (2, 1)


async def test_what_cannot_be_followed_keeps_running_and_says_why(service: Service) -> None:
    service.write("good", key="user")
    (service.folder / "new.yaml").write_text("sources: {c: {type: genrator}}\n")
    said = await service.read()
    assert (said["started"], said["restarted"], list(said["kept"])) == ([], [], ["good"])
    shown = service.fleet.picture("good")
    assert shown is not None
    assert (shown["state"], service.ran.count("good")) == ("running", 1)
    assert "sinks.out.query" in shown["refused_edit"][0]
    assert all(fault.startswith(f"{service.folder}/new.yaml:1: ") for fault in service.fleet.pictures()["faults"])
    service.write("good")
    (service.folder / "new.yaml").unlink()
    await service.read()
    shown = service.fleet.picture("good")
    assert shown is not None
    assert (shown["refused_edit"], service.ran.count("good"), service.fleet.pictures()["faults"]) == ([], 1, [])


async def test_a_reading_tries_again_what_waits(service: Service) -> None:
    await service.read()
    assert service.ran.count("bad") == 2


async def test_a_restart_is_of_one_job(service: Service) -> None:
    assert service.fleet.restart("good")
    assert not service.fleet.restart("nobody")
    await service.step()
    assert (service.ran.count("good"), service.ran.count("bad")) == (2, 1)


async def test_a_drain_ends_all_and_nothing_begins_after(service: Service) -> None:
    assert (await service.fleet.drain(), service.fleet.left_behind) == ([], False)
    assert service.states() == {"bad": "stopped", "good": "stopped"}
    service.write("more")
    assert await service.read() == {}
    assert not service.fleet.restart("good")
    assert set(service.states()) == {"bad", "good"}
