"""A job as a service of Faust's: what its worker sees of a job that fails, of a file with faults, and of a stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import faust
import pytest
import structlog

import streamproc.faust
from streamproc.errors import InvalidJob
from streamproc.faust.attach import JobService
from streamproc.testing import run_job_tests

EXAMPLE = Path(__file__).parents[2] / "deploy" / "faust" / "popular.yaml"

JOB = """
sources: {clicks: {type: generator, rows_per_second: 1000, schema: 'user STRING'}}
sinks: {rows: {type: console, query: SELECT QUERY FROM clicks}}
"""


@pytest.fixture
def attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the service of a job that selects something."""
    monkeypatch.chdir(tmp_path)
    structlog.reset_defaults()

    def service(selected: str) -> JobService:
        (tmp_path / "job.yaml").write_text(JOB.replace("QUERY", selected))
        app = faust.App("attached", web_enabled=False)
        streamproc.faust.attach(app, "job.yaml")
        (made,) = app._extra_services
        return made()

    yield service
    structlog.reset_defaults()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_stop_finishes_the_epoch(attached: Any, capsys: pytest.CaptureFixture[str]) -> None:
    service = attached("count(*) AS n")
    service.job_file.write_text(service.job_file.read_text().replace("type: console", "type: console, mode: complete"))
    await service.start()
    await until(lambda: service.status is not None and service.status.epoch > 2)
    await service.stop()
    assert service._running.done()
    assert not service.crashed
    assert "rows, epoch" in capsys.readouterr().out


async def test_a_job_that_fails_crashes_its_service(attached: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Faust then crashes the worker, as it does for any of its services."""
    service = attached("1 / (length(user) * 0) AS n")
    with caplog.at_level(logging.INFO):
        await service.start()
        await until(lambda: service.crashed)
        await service.stop()
    assert "ivi" in str(service.crash_reason)
    assert any(record.name.startswith("streamproc.") for record in caplog.records)


async def test_a_file_with_faults_does_not_start(attached: Any) -> None:
    with pytest.raises(InvalidJob, match=r"job\.yaml:3: .*'users'"):
        await attached("users").start()


async def test_a_program_with_its_own_structlog_keeps_it(attached: Any) -> None:
    own = structlog.testing.LogCapture()
    structlog.configure(processors=[own])
    service = attached("user")
    await service.start()
    await service.stop()
    assert structlog.get_config()["processors"] == [own]


def test_the_example_passes_its_own_tests() -> None:
    results = run_job_tests(EXAMPLE)
    assert results
    assert [(result.name, result.failure) for result in results if result.failure] == []
