"""`streamproc worker` as people run it: a process of its own, signals, HTTP, systemd's socket; generators into files, no server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner

from streamproc.cli import cli
from streamproc.engine import inspect
from streamproc.job import load_job

JOB = """
sources:
  clicks: {{type: generator, watermark: {{column: ts, delay: 2 seconds}}, {rows}}}
functions: {functions}
sinks:
  out:
    type: files
    path: {folder}/out-{name}
    query: SELECT window.start AS second, {key}, count(*) AS n FROM {clicks} GROUP BY window(ts, '1 second'), {key}
checkpoint: {folder}/checkpoint-{name}
trigger: {trigger}
"""
CODE = """
import pathlib, time

def hang(page):
    if len(page):
        time.sleep(600)
    return page

def fail(page):
    if len(page) and not pathlib.Path(__file__).with_name("mended").exists():
        raise ValueError("not mended")
    return page
"""


class Service:
    """A folder of job files and the process that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, folder / "jobs"
        self.jobs.mkdir()
        (self.jobs / "code.py").write_text(CODE)
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "log"

    def write(
        self, name: str, *, rows: str = "rows_per_second: 1000", key: str = "page", trigger: str = "200 milliseconds", calls: str = ""
    ) -> None:
        """A job that counts by `key`, or by what the function `calls` makes of the page."""
        functions = f"{{{calls}: {{function: 'code:{calls}', returns: STRING, deterministic: true}}}}" if calls else "{}"
        clicks = f"(SELECT ts, {calls}(page) AS page FROM clicks)" if calls else "clicks"
        text = JOB.format(name=name, folder=self.folder, rows=rows, key=key, clicks=clicks, functions=functions, trigger=trigger)
        (self.jobs / f"{name}.yaml").write_text(text)

    def start(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "streamproc", "worker", str(self.jobs), "--listen", "127.0.0.1:0", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, cwd=self.folder, env=os.environ | environment, text=True)
        self.url = until(lambda: re.search(r"http://127[\d.:]+", self.log.read_text()))[0]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, seconds: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def post(self, path: str, token: str) -> int:
        asked = urllib.request.Request(self.url + path, method="POST", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=40) as answer:
            return int(answer.status)

    def shown(self) -> dict[str, dict[str, Any]]:
        return {job["job"]: job for job in self.get("/jobs")[1]["jobs"]}

    def states(self) -> dict[str, str]:
        return {name: job["state"] for name, job in self.shown().items()}

    def events(self, job: str) -> list[str]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line["event"] for line in lines if line.get("job") == job]

    def rows(self, name: str) -> int:
        """Written by the job, as a plain reader of the folder finds them."""
        return int(ds.dataset(self.folder / f"out-{name}", format="parquet").count_rows())

    def standing(self, name: str) -> dict[str, Any]:
        """What the job's checkpoint says."""
        return asyncio.run(inspect.status(load_job(self.jobs / f"{name}.yaml")))


def until(happened: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def test_jobs_come_change_and_go_and_sigterm_drains(service: Service) -> None:
    service.write("a")
    service.write("b")
    service.write("done", rows="rows: 1000", trigger="available_now")
    service.start()
    until(lambda: service.states() == {"a": "running", "b": "running", "done": "finished"})
    assert service.get("/readyz") == (200, {"ok": True, "reasons": []})
    until(lambda: min(service.shown()[name]["epoch"] for name in "ab") > 1)

    service.write("a", trigger="100 milliseconds")  # fits
    service.write("b", key="user")  # does not
    service.write("c")
    (service.jobs / "done.yaml").unlink()
    service.send(signal.SIGHUP)
    until(lambda: service.states() == {"a": "running", "b": "running", "c": "running"})
    assert "sinks.out.query" in service.shown()["b"]["refused_edit"][0]
    assert [service.events(name).count("the log was read") for name in "abc"] == [2, 1, 1]
    until(lambda: min(service.shown()[name]["rows_out"] for name in "abc") > 0)
    shown = service.shown()["a"]
    assert [(task["task"], task["lease_held"], task["owner"]) for task in shown["tasks"]] == [("all", True, shown["worker"])]
    assert [int(shard["position"]) > 0 for shard in shown["shards"]] == [True]

    service.send(signal.SIGTERM)
    assert service.ended() == 0
    assert "every job has stopped" in service.log.read_text()
    for name in "abc":
        standing = service.standing(name)
        assert standing["begun"] is False
        assert service.rows(name) == standing["written"]["out"] > 0


def test_a_failing_job_costs_the_others_nothing_and_the_token_restarts_it(service: Service) -> None:
    service.write("good")
    service.write("bad", calls="fail")
    service.start("--admin-token", "secret://env/ADMIN", ADMIN="sesame-sesame")
    until(lambda: service.states() == {"bad": "failed", "good": "running"})
    status, said = service.get("/readyz")
    assert (status, len(said["reasons"])) == (503, 1)
    assert service.get("/healthz")[0] == 200
    before = service.shown()["good"]["epoch"]
    until(lambda: service.shown()["good"]["epoch"] > before + 1)
    assert "not mended" in service.shown()["bad"]["last_error"]["error"]
    (service.jobs / "mended").touch()
    assert service.post("/jobs/bad/restart", "sesame-sesame") == 202
    until(lambda: service.states()["bad"] == "running")
    assert service.get("/readyz")[0] == 200
    service.send(signal.SIGINT)
    assert service.ended() == 0
    assert "sesame" not in service.log.read_text()


def test_a_job_that_does_not_stop_is_named_and_the_others_are_drained(service: Service) -> None:
    service.write("good")
    service.write("hung", calls="hang")
    service.start("--drain-timeout", "1s")
    until(lambda: service.shown()["good"].get("epoch", 0) > 1)
    until(lambda: service.shown()["hung"].get("epoch_running_s", 0) > 0.5)
    before = service.shown()["good"]["epoch"]
    until(lambda: service.shown()["good"]["epoch"] > before + 1)  # a hung function starves nobody
    service.send(signal.SIGTERM)
    assert service.ended() == 1
    last = [json.loads(line) for line in service.log.read_text().splitlines()][-1]
    assert (last["event"], last["jobs"]) == ("not every job stopped in time", ["hung"])
    assert service.standing("good")["begun"] is False


def test_a_second_signal_ends_it_at_once(service: Service) -> None:
    service.write("hung", calls="hang")
    service.start()
    until(lambda: service.shown()["hung"].get("epoch_running_s", 0) > 0.1)
    service.send(signal.SIGTERM)
    until(lambda: "again to stop at once" in service.log.read_text())
    service.send(signal.SIGINT)
    assert service.ended(20) == -signal.SIGINT


def test_systemd_hears_of_start_reload_watchdog_and_stop(service: Service) -> None:
    service.write("a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(service.folder / "notify"))
        systemd.settimeout(60)
        service.start(NOTIFY_SOCKET=str(service.folder / "notify"), WATCHDOG_USEC="400000")

        def hears(state: str) -> str:
            while not (said := systemd.recv(4096).decode()).startswith(state):
                pass
            return said

        assert hears("READY=1") in ("READY=1\nSTATUS=1 jobs: 1 standby", "READY=1\nSTATUS=1 jobs: 1 running")
        hears("WATCHDOG=1")
        service.send(signal.SIGHUP)
        assert int(hears("RELOADING=1").rpartition("=")[2]) <= time.monotonic_ns() // 1000
        hears("READY=1")
        hears("WATCHDOG=1")
        service.send(signal.SIGTERM)
        hears("STOPPING=1")
    assert service.ended() == 0


def test_a_wrong_file_stops_the_start_with_every_fault(service: Service) -> None:
    service.write("a")
    (service.jobs / "b.yaml").write_text("sources: {c: {type: genrator}}\n")
    (service.jobs / "c.yaml").write_text("- no mapping\n")
    ended = CliRunner().invoke(cli, ["worker", str(service.jobs)])
    files = [line.removeprefix(f"{service.jobs}/").partition(": ")[0] for line in ended.stderr.splitlines()]
    assert (ended.exit_code, files) == (2, ["b.yaml:1", "b.yaml:1", "c.yaml:1"])
