"""A real Faust worker with the example app: an agent, the query, an agent; killed and started again. Nothing is lost, and what
comes twice behind the query is the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

EXAMPLE = Path(__file__).parents[2] / "deploy" / "faust"
START = datetime(2026, 1, 1, tzinfo=UTC)
PAGES = [f"/{n}" for n in range(5)]
USERS = [f"user-{n}" for n in range(20)]
TOPICS = {"requests": 1, "visits": 2, "popular": 2, "notices": 1}
SHORT_LEASE = "leases: {type: sqlite, lease_ttl: 2 seconds}\n"
QUICK_GROUP = {"CONSUMER_GROUP_INSTANCE_ID": "one", "BROKER_SESSION_TIMEOUT": "6", "BROKER_HEARTBEAT_INTERVAL": "1"}
"""Faust takes a minute to see that a killed worker has left its consumer group."""


class Shop:
    """The example in a folder of its own, with topics of its own on a broker."""

    command: tuple[str, ...] = ("-m", "faust", "-A", "shop")

    def __init__(self, folder: Path, servers: str) -> None:
        self.folder = folder
        self.servers = servers
        self.sent: list[tuple[str, str, str, datetime]] = []
        self.restarts = 0
        self._worker: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        shutil.copy(EXAMPLE / "shop.py", folder)
        (folder / "popular.yaml").write_text((EXAMPLE / "popular.yaml").read_text() + SHORT_LEASE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    async def create_topics(self, topics: Mapping[str, int] = TOPICS) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            for name, partitions in topics.items():
                await admin.create_topics([NewTopic(name, partitions, 1)])
        finally:
            await admin.close()

    def start(self) -> None:
        environment = os.environ | {"KAFKA": self.servers} | QUICK_GROUP
        command = [sys.executable, *self.command, "worker", "-l", "info", "--web-port", str(self.port)]
        command += ["--web-host", "127.0.0.1", "--web-bind", "127.0.0.1"]
        self.restarts += 1
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def stop(self) -> int:
        assert self._worker is not None
        self._worker.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        assert self._worker is not None
        return self._worker.wait(60)

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *error: object) -> None:
        if self._worker is not None and self._worker.poll() is None:
            self.kill()
        if error[0] is not None:
            print(self.log()[-6000:])

    def page(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
            return bytes(answer.read())

    async def epochs(self) -> int:
        """The newest commit that this worker shows; 0 while it does not answer."""
        assert self._worker is not None and self._worker.poll() is None, "the worker ended"
        with suppress(OSError):
            status = json.loads(await asyncio.to_thread(self.page, "/streamproc/")).get("popular")
            return int(status["epoch"]) if status else 0
        return 0

    async def working(self) -> None:
        await until(self.epochs, "the worker commits no epoch")

    async def send(self, first: int, seconds: int, a_second: int = 8) -> None:
        """Requests of `seconds` seconds of event time, and once a worker is quick enough some real ones too."""
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, acks="all")
        await producer.start()
        try:
            for n in range(first * a_second, (first + seconds) * a_second):
                visit = (f"r{n}", USERS[n * 7 % len(USERS)], PAGES[n * 3 % len(PAGES)], START + timedelta(seconds=n // a_second))
                await producer.send("requests", request(*visit))
                self.sent.append(visit)
        finally:
            await producer.stop()

    async def end(self) -> None:
        """Closes every window that was sent: a visit of each user, so in each partition, long after."""
        producer = AIOKafkaProducer(bootstrap_servers=self.servers, acks="all")
        await producer.start()
        for user in USERS:
            await producer.send_and_wait("requests", request(f"end-{user}", user, "/end", START + timedelta(days=1) - timedelta(minutes=1)))
        await producer.stop()

    def expected(self) -> set[tuple[str, str, int, int]]:
        groups: dict[tuple[datetime, str], list[tuple[str, str]]] = defaultdict(list)
        for id_, user, page, at in self.sent:
            groups[at.replace(second=0), page].append((id_, user))
        return {(str(minute), page, len(found), len({user for _, user in found})) for (minute, page), found in groups.items()}

    async def notices(self) -> list[tuple[str, str, int, int]]:
        """What the agent behind the query has written so far."""
        values = [value.decode() for value in await self.read("notices")]
        return [
            (f"{day} {at}".replace("T", " "), page, int(visits), int(visitors)) for day, at, page, visits, visitors in map(fields, values)
        ]

    async def read(self, topic: str) -> list[bytes]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            values = []
            while any([await consumer.position(at) < end for at, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    values += [record.value for record in batch]
            return values
        finally:
            await consumer.stop()


def request(id_: str, user: str, page: str, at: datetime) -> bytes:
    return json.dumps({"id": id_, "user": user, "url": f"{page}?q=1", "at": at.isoformat()}).encode()


def fields(notice: str) -> tuple[str, str, str, str, str]:
    moment, page, visits, visitors = notice.strip('"').rsplit(" ", 3)
    day, _, at = moment.replace("T", " ").replace("Z", "+00:00").partition(" ")
    return day, at, page, visits, visitors


async def until(condition: Any, what: str, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.2)


async def survives(shop: Shop, kills: int) -> None:
    await shop.create_topics()
    with shop:
        shop.start()
        for n in range(kills + 1):
            sending = asyncio.ensure_future(shop.send(n * 120, 120))
            await shop.working()
            await sending
            if n < kills:
                shop.kill()
                shop.start()
        await shop.end()

        async def complete() -> bool:
            return shop.expected() <= set(await shop.notices())

        await until(complete, "windows are missing")
        assert shop.stop() == 0
    seen = [notice for notice in await shop.notices() if notice[1] != "/end"]
    assert set(seen) == shop.expected()
    assert len(seen) <= len(shop.expected()) * (1 + kills)


INSIDE = """
import asyncio
import os
import faust
import streamproc.faust

app = faust.App("inside", broker=f"kafka://{os.environ['KAFKA']}")
rows = app.channel()
seen = app.topic("seen", value_type=str)

@app.agent(rows)
async def note(stream):
    async for row in stream:
        await (await seen.send(value=str(row["n"])))
        await asyncio.sleep(0.005)

streamproc.faust.attach(app, "job.yaml")

if __name__ == "__main__":
    app.main()
"""
INSIDE_JOB = """
leases: {{type: sqlite, lease_ttl: 2 seconds}}
sources: {{clicks: {{type: generator, rows: {rows}, schema: 'user STRING'}}}}
sinks: {{rows: {{type: faust, app: 'inside:app', channel: rows, query: SELECT _offset AS n FROM clicks}}}}
"""


class Inside(Shop):
    """A program that is its own worker, with a job whose rows go to an agent in its memory."""

    command = ("inside.py",)

    def __init__(self, folder: Path, servers: str, job: str) -> None:
        super().__init__(folder, servers)
        (folder / "inside.py").write_text(INSIDE)
        (folder / "job.yaml").write_text(job)

    async def seen(self) -> list[int]:
        return [int(value.decode().strip('"')) for value in await self.read("seen")]


async def test_rows_of_a_channel_are_finished_by_its_agent_before_they_are_committed(tmp_path: Path, noida_broker: Any) -> None:
    rows = 600
    with Inside(tmp_path, noida_broker.bootstrap_servers, INSIDE_JOB.format(rows=rows)) as inside:
        await inside.create_topics({"seen": 1})
        inside.start()

        async def some(count: int) -> bool:
            return len(set(await inside.seen())) >= count

        await until(partial(some, 50), "the agent gets no rows")
        inside.kill()
        assert len(set(await inside.seen())) < rows, "killed too late to show anything"
        inside.start()
        await until(partial(some, rows), "rows are lost")

        async def shown() -> bool:
            status = json.loads(await asyncio.to_thread(inside.page, "/streamproc/"))["job"]
            metrics = (await asyncio.to_thread(inside.page, "/streamproc/metrics")).decode()
            return status is not None and status["job"] == "job" and 'streamproc_rows_written_total{job="job"' in metrics

        await until(shown, "the web server does not show the job")
        assert inside.stop() == 0
    seen = await inside.seen()
    assert set(seen) == set(range(rows))


@pytest.mark.kafka
async def test_agents_before_and_after_a_query_survive_kills_on_apache_kafka(tmp_path: Path, apache_kafka: Any) -> None:
    await survives(Shop(tmp_path / "shop", apache_kafka.bootstrap_servers), kills=3)
