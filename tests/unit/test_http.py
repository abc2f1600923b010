"""/metrics, /healthz and /readyz over a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamproc.errors import Unavailable
from streamproc.http.exposition import exposition, exposition_of_jobs
from streamproc.http.health import STUCK_AFTER_S, Health, Retries, judge
from streamproc.http.server import Server, serve
from streamproc.metrics import BUCKETS_S, METRICS, Metrics
from streamproc.status import Status
from streamproc.testing import ManualClock


class Worker:
    """What the server looks at: its box of metrics and its health."""

    def __init__(self) -> None:
        self.metrics, self.health = Metrics(), Health()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def server(worker: Worker) -> AsyncIterator[Server]:
    running = await serve("127.0.0.1", 0, partial(exposition, worker.metrics), lambda: worker.health)
    yield running
    await running.close()


async def get(server: Server, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_prometheus_text(server: Server, worker: Worker) -> None:
    worker.metrics.add("streamproc_rows_read_total", 7, source="clicks")
    worker.metrics.set("streamproc_lag_records", 3, source="clicks", shard='odd "name"\n')
    status, kind, text = await get(server, "/metrics")
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert families["streamproc_rows_read"].samples[0].value == 7
    assert families["streamproc_lag_records"].samples[0].labels == {"source": "clicks", "shard": 'odd "name"\n'}


def test_every_metric_has_help_and_type() -> None:
    families = {f.name: f for f in text_string_to_metric_families(exposition(Metrics()).decode())}
    described = {(f.name, f.type, f.documentation) for f in families.values()}
    assert described == {(m.name.removesuffix("_total"), m.kind, m.help) for m in METRICS}


def test_several_jobs_have_the_label_job() -> None:
    jobs = {"a": Metrics(), "b": Metrics()}
    for number, metrics in enumerate(jobs.values(), 1):
        metrics.add("streamproc_rows_read_total", number, source="clicks")
        metrics.observe("streamproc_epoch_seconds", number, step="run")
    families = {f.name: f for f in text_string_to_metric_families(exposition_of_jobs(jobs).decode())}
    assert {f.name for f in families.values()} == {m.name.removesuffix("_total") for m in METRICS}
    read = {(s.labels["job"], s.labels["source"]): s.value for s in families["streamproc_rows_read"].samples}
    assert read == {("a", "clicks"): 1, ("b", "clicks"): 2}
    assert {s.labels["job"] for s in families["streamproc_epoch_seconds"].samples} == {"a", "b"}


def test_histogram_buckets_are_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.02, 0.02, 99):
        metrics.observe("streamproc_epoch_seconds", seconds, step="run")
    family = next(f for f in text_string_to_metric_families(exposition(metrics).decode()) if f.name == "streamproc_epoch_seconds")
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert len(buckets) == len(BUCKETS_S) + 1
    assert (buckets["0.005"], buckets["0.025"], buckets["60.0"], buckets["+Inf"]) == (1, 3, 3, 4)
    assert next(s.value for s in family.samples if s.name.endswith("_sum")) == pytest.approx(99.044)


async def test_health_and_readiness_differ(server: Server, worker: Worker) -> None:
    assert [(await get(server, p))[0] for p in ("/healthz", "/readyz")] == [200, 200]
    worker.health = Health(waiting=("the lease is held by w2",))
    assert [(await get(server, p))[0] for p in ("/healthz", "/readyz")] == [200, 503]
    worker.health = Health(stuck=("hangs",))
    assert [(await get(server, p))[0] for p in ("/healthz", "/readyz")] == [503, 503]
    assert (await get(server, "/readyz"))[2] == '{"ok": false, "reasons": ["hangs"]}'


async def test_answers_are_not_kept_or_guessed_at(server: Server) -> None:
    for path in ("/healthz", "/nothing"):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as answer:
            assert (answer.headers["X-Content-Type-Options"], answer.headers["Cache-Control"]) == ("nosniff", "no-store")


async def test_a_taken_port_says_what_to_do(server: Server) -> None:
    for key in ("metrics.port", "--listen"):
        with pytest.raises(Unavailable, match=rf"cannot listen on 127\.0\.0\.1:\d+ .*choose another {key}, or port 0"):
            await serve("127.0.0.1", server.port, bytes, Health, key=key)


async def test_close_frees_the_port() -> None:
    running = await serve("127.0.0.1", 0, bytes, Health)
    await running.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


@pytest.mark.parametrize(
    ("status", "silent_s", "health"),
    [
        (None, 0, Health(waiting=("starting",))),
        (Status("j", 0, lease_held=True), 1, Health()),
        (Status("j", 0, lease_owner="w2"), 1, Health(waiting=("the lease is held by w2",))),
        (Status("j", 0, True, source_faults={"k": "refused"}), 1, Health(waiting=("source k does not answer: refused",))),
        (Status("j", 0, True), STUCK_AFTER_S + 1, Health(stuck=("the worker reported nothing for 301 s",))),
        (Status("j", 0, True, epoch=6, epoch_running_s=400), 1, Health(stuck=("epoch 7 has been running for 400 s",))),
    ],
)
def test_judge(status: Status | None, silent_s: float, health: Health) -> None:
    assert judge(status, silent_s) == health


def test_standing_by_is_ready_where_many_jobs_share_a_process() -> None:
    assert judge(Status("j", 0, lease_owner="w2"), 1, standby_is_ready=True) == Health()


def test_an_epoch_that_is_tried_again_does_not_hang() -> None:
    clock, metrics = ManualClock(), Metrics()
    retries, long = Retries(metrics, clock), Status("j", 0, True, epoch_running_s=STUCK_AFTER_S * 3)
    assert judge(long, 0, retries.ago_s()).stuck
    metrics.add("streamproc_retries_total", what="views")
    assert not judge(long, 0, retries.ago_s()).stuck
    clock.advance(int((STUCK_AFTER_S + 1) * 1e6))
    assert judge(long, 0, retries.ago_s()).stuck
