"""The commands on real jobs, as a user runs them: a generator, files on a local disk, a process of its own where signals count."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner, Result

from streamproc.cli import cli
from streamproc.job_tests import TestRun

JOB = """
name: views
sources:
  clicks: {{type: generator, watermark: {{column: ts, delay: 2 seconds}}, {generator}}}
sinks:
  views:
    type: files
    path: {folder}/views
    query: SELECT window.start AS minute, page, count(*) AS n FROM clicks GROUP BY window(ts, '1 second'), page
checkpoint: {folder}/checkpoint
{more}
"""
TESTS = """
tests:
  - name: a window closes
    steps:
      - add: {{clicks: [{{page: /a, ts: 2026-01-01T00:00:01Z}}, {{page: /a, ts: 2026-01-01T00:00:14Z}}]}}
      - expect: {{views: [{{page: /a, n: {n}}}]}}
"""


class Runs:
    """A folder with a job file, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.job = folder, folder / "job.yaml"
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, generator: str = "rows: 50000", more: str = "") -> None:
        self.job.write_text(JOB.format(folder=self.folder, generator=generator, more=more))

    def streamproc(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "streamproc", "run", str(self.job), *arguments]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.folder))
        return self.processes[-1]

    def rows(self) -> int:
        return sum(ds.dataset(self.folder / "views", format="parquet").to_table()["n"].to_pylist())


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_bounded_run_ends_by_itself_and_can_be_looked_at(runs: Runs) -> None:
    runs.write()
    process = runs.start("--available-now", "--drain")
    logs = process.communicate(timeout=30)[1]
    assert process.returncode == 0, logs
    assert all("event" in json.loads(line) for line in logs.splitlines())
    assert runs.rows() == 50_000
    status = json.loads(runs.streamproc("status", str(runs.job), "--json").stdout)
    assert status["finished"]
    assert status["epoch"] >= 1
    assert "epoch: " in runs.streamproc("status", str(runs.job)).stdout
    assert len(runs.streamproc("epochs", str(runs.job)).stdout.splitlines()) == status["epoch"] + 1


def test_a_drained_job_is_finished(runs: Runs) -> None:
    runs.write("rows: 100")
    assert [runs.streamproc("run", str(runs.job), "--available-now", "--drain").exit_code for _ in range(2)] == [0, 2]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_epoch_and_the_next_run_goes_on(runs: Runs, stop: signal.Signals) -> None:
    runs.write("rows: 20000, max_rows_per_epoch: 1000", "trigger: 100 milliseconds")
    process = runs.start()
    until(lambda: (runs.folder / "views").is_dir() and any((runs.folder / "views").rglob("*.parquet")))
    process.send_signal(stop)
    logs = process.communicate(timeout=20)[1]
    assert process.returncode == 0, logs
    assert "stopping after this epoch" in logs
    assert 0 < runs.rows() < 20_000
    rest = runs.start("--available-now", "--drain")
    logs = rest.communicate(timeout=30)[1]
    assert (rest.returncode, runs.rows()) == (0, 20_000), logs


def test_metrics_and_readiness_while_it_runs(runs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runs.write("rows_per_second: 1000", f"metrics: {{port: {port}}}")
    runs.start()

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    until(ready)

    def counted() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return 'streamproc_rows_read_total{source="clicks"}' in answer.read().decode()

    until(counted)


def test_a_missing_checkpoint_exits_2(runs: Runs) -> None:
    runs.write()
    for command in (["status"], ["epochs"], ["rollback", "--to", "2026-01-01"]):
        result = runs.streamproc(*command, str(runs.job))
        assert result.exit_code == 2, result.stderr
        assert "there is no checkpoint at" in result.stderr


def test_set_changes_a_key(runs: Runs) -> None:
    runs.write()
    result = runs.streamproc("check", str(runs.job), "--set", "sources.clicks.type=nothing")
    assert result.exit_code == 2
    assert "unknown source type 'nothing'" in result.stdout


def test_explain_shows_plan_guarantees_and_writes(runs: Runs) -> None:
    runs.write(more="trigger: 10 seconds")
    result = runs.streamproc("explain", str(runs.job), "--set", "checkpoint=s3://b/c", "--set", "sinks.views.path=s3://b/v")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[:3] == ["job views", "checkpoint s3://b/c", "trigger every 10 s"]
    assert "source clicks" in lines
    assert "views (files): exactly once" in lines
    assert lines[-1].startswith("to object stores: at least 4 puts an epoch, 24 a minute")


def test_check_shows_every_fault_of_every_file(runs: Runs) -> None:
    (runs.folder / "a.yaml").write_text("sources: {c: {type: genrator}}\n")
    (runs.folder / "b.yaml").write_text("- not a mapping\n")
    result = runs.streamproc("check", str(runs.folder))
    assert result.exit_code == 2
    lines = [line.removeprefix(f"{runs.folder}/") for line in result.stdout.splitlines()]
    assert [line.partition(": ")[0] for line in lines] == ["a.yaml:1", "a.yaml:1", "b.yaml:1"]


def test_check_connect_names_what_cannot_be_had(runs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runs.write(f"rows: 1}}\n  k: {{type: kafka, topic: t, bootstrap_servers: '127.0.0.1:{port}', schema: ts TIMESTAMP")
    result = runs.streamproc("check", str(runs.job), "--connect")
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.stdout
    assert runs.streamproc("check", str(runs.job)).exit_code == 0


def test_tests_pass_or_fail_with_a_line_and_what_differed(runs: Runs) -> None:
    junit = runs.folder / "junit.xml"
    runs.write(more=TESTS.format(n=1))
    passed = runs.streamproc("test", str(runs.job), "--junit", str(junit))
    assert (passed.exit_code, passed.stdout) == (0, f"passed  {runs.job}: a window closes\n1 passed, 0 failed\n")
    assert ElementTree.parse(junit).getroot()[0].attrib == {"name": str(runs.job), "tests": "1", "failures": "0"}
    runs.write(more=TESTS.format(n=2))
    failed = runs.streamproc("test", str(runs.job), "--junit", str(junit))
    assert failed.exit_code == 1
    assert failed.stdout.startswith(f"FAILED  {runs.job}:16: a window closes\n    ")
    assert ElementTree.parse(junit).find(".//failure") is not None


def test_a_wrong_file_is_no_failed_test(runs: Runs) -> None:
    runs.write("rows: many")
    assert runs.streamproc("test", str(runs.job)).exit_code == 2


async def test_watch_runs_again_after_a_change(runs: Runs) -> None:
    said: list[str] = []
    runs.write(more=TESTS.format(n=1))
    watching = asyncio.ensure_future(TestRun([str(runs.job)], (), None, said.append).watch())

    async def says(text: str) -> None:
        async with asyncio.timeout(20):
            while text not in said:
                await asyncio.sleep(0.02)

    await says("1 passed, 0 failed")
    runs.write(more=TESTS.format(n=22))
    await says("0 passed, 1 failed")
    watching.cancel()
