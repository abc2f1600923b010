"""Logs: one JSON object a line, the world's time, no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from streamproc import logs
from streamproc.clock import Clock
from streamproc.options import Options, Secret


class Still(Clock):
    def now_us(self) -> int:
        return 1_767_225_600_250_000

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a logger does not wait")


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_event_level_time_job_and_epoch() -> None:
    stream = io.StringIO()
    logs.configure(Still(), stream=stream, job="views")
    logs.bind(epoch=7)
    where = {"job": "views", "epoch": 7}
    structlog.get_logger("streamproc.engine").info("committed", rows=3)
    logging.getLogger("streamproc.library").info("connected to %s", "b1", extra={"rows": 3})
    time = "2026-01-01T00:00:00.250Z"
    assert lines(stream) == [
        {"event": "committed", "level": "info", "time": time, "logger": "streamproc.engine", "rows": 3, **where},
        {"event": "connected to b1", "level": "info", "time": time, "logger": "streamproc.library", "rows": 3, **where},
    ]


def test_a_secret_is_blanked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter22")
    stream = io.StringIO()
    logs.configure(Still(), [Secret("secret://env/PASSWORD"), Secret("${KEY}", "k3y-value"), Secret("secret://env/UNSET")], stream=stream)
    log = logging.getLogger("x")
    log.warning("login as %s failed", "hunter22", extra={"options": {"deep": ["k3y-value", 5]}})
    try:
        raise ValueError("url http://u:hunter22@host")
    except ValueError:
        log.exception("broke")
    assert "hunter22" not in stream.getvalue()
    assert "k3y-value" not in stream.getvalue()
    assert lines(stream)[0]["options"] == {"deep": ["[secret]", 5]}
    assert "ValueError: url http://u:[secret]@host" in lines(stream)[1]["exception"]


def test_an_error_of_ours_shows_its_cause() -> None:
    stream = io.StringIO()
    logs.configure(Still(), stream=stream)
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().exception("broke", step="run")
    assert lines(stream)[0]["exception"].endswith("ValueError: why")


def test_a_short_value_does_not_blank_ordinary_text() -> None:
    assert logs.Redaction([Secret("${V}", "a")]).hide("a cat") == "a cat"


def test_libraries_are_quiet_below_warning() -> None:
    stream = io.StringIO()
    logs.configure(Still(), stream=stream)
    logging.getLogger("aiokafka.consumer").info("heartbeat")
    logging.getLogger("aiokafka.consumer").warning("broker away")
    assert [line["event"] for line in lines(stream)] == ["broker away"]


def test_a_terminal_shows_warnings_as_text() -> None:
    stream = io.StringIO()
    logs.configure(Still(), stream=stream, terminal=True, job="views")
    logging.getLogger("streamproc").info("committed")
    logging.getLogger("streamproc").warning("%d bad records", 2, extra={"source": "clicks"})
    assert stream.getvalue() == "warning: 2 bad records source=clicks\n"


def test_secrets_of_a_job_are_found_however_deep() -> None:
    class Security(Options):
        password: Secret

    class Source(Options):
        security: Security
        others: list[dict[str, Secret]]

    @dataclass(frozen=True)
    class Spec:
        options: Source

    job = {"sources": [Spec(Source(security={"password": "secret://env/A"}, others=[{"x": "secret://file/B"}]))]}
    assert [s.reference for s in logs.secrets_in(job)] == ["secret://env/A", "secret://file/B"]
