"""Golden job files: the clauses of the job file's semantics and cases of other engines' suites, in our own test format."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamproc.job import Job, TestCase, load_job
from streamproc.testing import run_test

FOLDER = Path(__file__).parent / "jobs"


def cases() -> list[object]:
    jobs = [load_job(path) for path in sorted(FOLDER.glob("*.yaml"))]
    return [pytest.param(job, case, id=f"{job.name}: {case.name}") for job in jobs for case in job.tests]


@pytest.mark.parametrize(("job", "case"), cases())
def test_golden_job(job: Job, case: TestCase) -> None:
    result = asyncio.run(run_test(job, case))
    assert result.failure is None, f"{job.file}:{result.line}\n{result.failure}"
