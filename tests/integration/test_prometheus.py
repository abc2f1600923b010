"""A real Prometheus scrapes real workers under load: metrics pass its linter, every panel has data, alerts fire and clear."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamproc.demo.producer import KafkaTopic, KinesisStream
from streamproc.testing.noida import NoidaBroker
from streamproc.testing.parent_death import die_with_parent
from streamproc.testing.server_process import free_port

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(150)]

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "streamproc.json"
SERVER = runpy.run_path(str(ROOT / "tests" / "servers" / "prometheus" / "prometheus.py"))
WINDOW = "10s"
"""What stands for $__rate_interval."""

COUNTS = "SELECT window.start AS at, {key}, count(*) AS n FROM {table} GROUP BY window(ts, '1 second'), {key}"
VIEWS = f"""
sources:
  clicks: {{type: generator, rows_per_second: 2000, watermark: {{column: ts, delay: 1 second}}}}
sinks:
  views: {{type: files, path: lake/views, query: "{COUNTS.format(key="page", table="clicks")}"}}
trigger: 200 milliseconds
"""
ORDERS = f"""
sources:
  orders:
    type: kafka
    topic: orders
    bootstrap_servers: {{servers}}
    schema: item STRING, ts TIMESTAMP
    watermark: {{{{column: ts, delay: 1 second}}}}
    bad_records: dead_letter
tables:
  items: {{{{type: files, path: items, schema: 'item STRING, kind STRING', refresh: 1 second}}}}
views:
  known: SELECT o.*, i.kind FROM orders o LEFT JOIN items i ON o.item = i.item
sinks:
  counts:
    type: files
    path: lake/counts
    late: {{{{type: files, path: lake/late}}}}
    query: "{COUNTS.format(key="kind", table="known")}"
dead_letter: {{{{type: files, path: lake/dead}}}}
"""
INTAKE = """
sources:
  intake: {{type: files, path: inbox, schema: value STRING, bad_records: {bad_records}}}
sinks:
  kept: {{type: files, path: lake/kept, query: SELECT value FROM intake}}
"""
TELEMETRY = """
sources:
  telemetry: {type: kinesis, stream: telemetry, format: raw, schema: value STRING}
sinks:
  archive: {type: files, path: lake/archive, query: SELECT value FROM telemetry}
"""
RIGHT = [b'{"item": "a", "ts": "%s"}', b'{"item": "b", "ts": "%s"}']


def iso(seconds_ago: float = 0) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds_ago)).encode()


class Workers:
    """A folder with a `run` and a `worker` over jobs/, and what is sent to their sources."""

    def __init__(self, folder: Path, servers: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self.run_port, self.port = free_port(), free_port()
        self._environment = os.environ | environment
        for name in ("jobs", "items", "inbox"):
            (folder / name).mkdir()
        (folder / "items" / "1.json").write_text('{"item": "a", "kind": "odd"}\n')
        (folder / "views.yaml").write_text(f"{VIEWS}metrics: {{port: {self.run_port}}}\n")
        (folder / "jobs" / "orders.yaml").write_text(ORDERS.format(servers=servers))
        (folder / "jobs" / "telemetry.yaml").write_text(TELEMETRY)
        self.write_intake("fail")
        self.orders = KafkaTopic("orders", servers)
        self.telemetry = KinesisStream("telemetry", environment)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def write_intake(self, bad_records: str) -> None:
        (self.folder / "jobs" / "intake.yaml").write_text(INTAKE.format(bad_records=bad_records))

    def start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "streamproc", *arguments]
        self.processes[name] = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )

    def start_all(self) -> None:
        self.start("run", "run", "views.yaml")
        self.start("worker", "worker", "jobs", "--listen", f"127.0.0.1:{self.port}")

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def logs(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(self.folder.glob("*.log")))

    def page(self, port: int) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return bytes(answer.read())

    def targets(self) -> dict[str, list[dict[str, Any]]]:
        """Static configs: a job of `run` gets its name from its target, the worker's jobs bring theirs."""
        return {
            "streamproc": [{"targets": [f"127.0.0.1:{self.port}"]}],
            "streamproc-run": [{"targets": [f"127.0.0.1:{self.run_port}"], "labels": {"job": "views"}}],
        }

    async def produce(self) -> None:
        """Some rows a second to the topic and the stream, until it is cancelled."""
        while True:
            await self.orders.put(0, [row % iso() for row in RIGHT])
            await self.telemetry.put(0, [b"21.5"])
            await asyncio.sleep(0.2)


@asynccontextmanager
async def under_load(folder: Path, servers: str, environment: dict[str, str]) -> AsyncIterator[tuple[Workers, Any]]:
    async with AsyncExitStack() as stack:
        workers = Workers(folder, servers, environment)
        for channel in (workers.orders, workers.telemetry):
            await channel.open(1)
            stack.push_async_callback(channel.close)
        producing = asyncio.ensure_future(workers.produce())
        stack.callback(producing.cancel)
        stack.callback(workers.stop)
        workers.start_all()
        (folder / "prometheus").mkdir()
        try:
            yield workers, stack.enter_context(SERVER["Prometheus"](folder / "prometheus", programs(), workers.targets()))
        except BaseException:
            print(workers.logs())
            raise


def programs() -> Path:
    """The folder of promtool and Prometheus; skips without them."""
    try:
        found: Path = SERVER["programs"]()
    except SERVER["Unobtainable"] as error:
        pytest.skip(str(error))
    return found


async def until(happened: Callable[[], Any], what: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(happened):
        assert time.monotonic() < deadline, f"within {seconds} s not so: {what}"
        await asyncio.sleep(0.2)


def expressions() -> dict[str, str]:
    """Of every target of every panel, by the panel's title: all jobs, rates over the last seconds."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = {f"{p['title']} ({p['id']} {t['refId']})": t["expr"] for p in panels for t in p.get("targets", ())}
    return {name: e.replace("$__rate_interval", WINDOW).replace("$job", ".*") for name, e in asked.items()}


CHECKS = ("check config prometheus.yaml", "check rules streamproc.rules.yaml", "test rules streamproc.rules.test.yaml")


@pytest.mark.parametrize("check", CHECKS)
def test_promtool_accepts_configuration_and_rules(check: str) -> None:
    checked = subprocess.run([programs() / "promtool", *check.split()], cwd=SERVER["DEPLOYED"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


async def test_panels_have_data_and_alerts_fire_and_clear(tmp_path: Path, noida_broker: NoidaBroker, kinesis: dict[str, str]) -> None:
    async with under_load(tmp_path, noida_broker.bootstrap_servers, kinesis) as (workers, prometheus):
        await every_job_is_scraped(prometheus)
        metrics_pass_the_linter(workers)
        await poison_is_an_alert(workers, prometheus)
        await every_panel_has_data(prometheus)
        await a_failing_job_is_an_alert(workers, prometheus)
        await a_stopped_worker_is_an_alert(workers, prometheus)
        assert prometheus.query("ALERTS{alertname=~'Streamproc(SourceDown|EpochAge|RowsLost|HashRangeHoles)'}") == []


async def every_job_is_scraped(prometheus: Any) -> None:
    """Jobs keep their own names, also those of one address; Prometheus' own series keep the scrape's."""

    def jobs() -> set[str]:
        return {series["metric"]["job"] for series in prometheus.query("streamproc_epochs_total")}

    await until(lambda: jobs() == {"views", "orders", "telemetry"}, "every job commits")
    assert prometheus.query('{__name__=~"streamproc_.*", exported_job!=""}') == []
    assert {series["metric"]["job"] for series in prometheus.query("up == 1")} == {"streamproc", "views"}


def metrics_pass_the_linter(workers: Workers) -> None:
    for port in (workers.port, workers.run_port):
        checked = subprocess.run([programs() / "promtool", "check", "metrics"], input=workers.page(port), capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def poison_is_an_alert(workers: Workers, prometheus: Any) -> None:
    """It ends by itself when the last refused record is older than its window."""
    await workers.orders.put(0, [b"not json", b'{"item": "late", "ts": "%s"}' % iso(3600)])
    await until(lambda: prometheus.firing(job="orders") >= {"StreamprocDeadLetters"}, "dead letters are an alert")
    late = 'job_sink:streamproc_late_rows:increase10m{job="orders"} == 1'
    await until(lambda: prometheus.query(late), "the late row is counted")
    await until(lambda: "StreamprocDeadLetters" not in prometheus.firing(), "the alert of dead letters ends")


async def every_panel_has_data(prometheus: Any) -> None:
    asked = expressions()
    assert len(asked) > 30

    def empty() -> dict[str, str]:
        return {name: expression for name, expression in asked.items() if not prometheus.query(expression)}

    await until(lambda: not empty(), "no panel is empty", 15)


async def a_failing_job_is_an_alert(workers: Workers, prometheus: Any) -> None:
    """A record that the job does not accept; it runs again when its file says to skip such records."""
    (workers.folder / "inbox" / "1.json").write_text("not json\n")
    await until(lambda: prometheus.firing(job="intake") >= {"StreamprocJobFailing"}, "a job that fails is an alert")
    assert prometheus.query('sum(streamproc_job_failures_total{job="intake"}) >= 1')
    workers.write_intake("skip")
    workers.processes["worker"].send_signal(signal.SIGHUP)
    await until(lambda: not prometheus.firing(job="intake"), "the alert of the failed job ends")


async def a_stopped_worker_is_an_alert(workers: Workers, prometheus: Any) -> None:
    workers.processes["worker"].send_signal(signal.SIGSTOP)
    await until(lambda: prometheus.firing(job="streamproc") == {"StreamprocWorkerDown"}, "a worker that hangs is an alert")
    await until(lambda: "StreamprocJobUnattended" in prometheus.firing(job="orders"), "nobody runs its jobs")
    assert "StreamprocJobUnattended" not in prometheus.firing(job="views")
    workers.processes["worker"].send_signal(signal.SIGCONT)
    gone = {"StreamprocWorkerDown", "StreamprocJobUnattended"}
    await until(lambda: not gone & prometheus.firing(), "the alerts of the worker end")
