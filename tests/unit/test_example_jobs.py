"""The example jobs are right, cover what a job file can test, and do what their own tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.check import check, examine
from streamproc.testing.job_runner import run_job_tests

JOBS = sorted(Path(__file__).parents[2].joinpath("deploy", "jobs").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_jobs_own_tests_pass(path: Path) -> None:
    failed = [f"{path}:{result.line}: {result.name}: {result.failure}" for result in run_job_tests(path) if result.failure]
    assert failed == []


def test_there_are_no_faults() -> None:
    assert len(JOBS) >= 5
    assert check(JOBS, environment={}) == []


def test_together_they_show_what_a_job_can_say() -> None:
    jobs = [checked.job for checked in examine(JOBS, environment={}) if checked.job]
    assert {source.type for job in jobs for source in job.sources.values()} >= {"kinesis", "kafka"}
    assert {sink.mode for job in jobs for sink in job.sinks.values()} == {"append", "update", "complete"}
    assert {source.options.format for job in jobs for source in job.sources.values()} == {"json", "csv", "raw"}
    steps = {step.kind for job in jobs for test in job.tests for step in test.steps}
    assert steps >= {"add", "expect", "watermark", "state_rows", "late", "dead", "reshard", "crash", "tick", "restart"}


def test_a_wrong_expectation_fails(tmp_path: Path) -> None:
    path = tmp_path / "page-views.yaml"
    path.write_text(JOBS[1].read_text(encoding="utf-8").replace("page: /, views: 1}]", "page: /, views: 2}]", 1), encoding="utf-8")
    failures = [result for result in run_job_tests(path) if result.failure]
    assert len(failures) == 1
    assert "views: 2" in str(failures[0].failure)
