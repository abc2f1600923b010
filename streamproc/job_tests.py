"""`streamproc test`: the tests inside job files, shown to people, to CI, and again whenever a file changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from streamproc.clock import Clock, SystemClock
from streamproc.errors import InvalidJob
from streamproc.testing import TestResult, run_job_tests

POLL_S = 0.3
Say = Callable[[str], None]


def run_all(job_files: Sequence[str], junit: str | None, say: Say) -> bool:
    """Run the tests of every file, say what came of each; whether all passed.

    InvalidJob if a file is wrong, with the faults of all of them.
    """
    results = {job_file: run_job_tests(job_file) for job_file in _valid(job_files)}
    for job_file, of_file in results.items():
        for result in of_file:
            say(_line(job_file, result))
    every = [result for of_file in results.values() for result in of_file]
    failed = sum(result.failure is not None for result in every)
    say(f"{len(every) - failed} passed, {failed} failed" if every else "no tests in " + ", ".join(job_files))
    if junit is not None:
        Path(junit).write_bytes(_junit(results))
    return not failed


def _valid(job_files: Sequence[str]) -> Sequence[str]:
    from streamproc.check import check

    faults = [fault for job_file in job_files for fault in check(job_file)]
    if faults:
        raise InvalidJob(faults)
    return job_files


async def watch(job_files: Sequence[str], junit: str | None, say: Say, clock: Clock | None = None) -> None:
    """Run the tests at once and after every change of a file, until interrupted."""
    clock, seen = clock or SystemClock(), None
    while True:
        if (now := [_changed(job_file) for job_file in job_files]) != seen:
            seen = now
            try:
                run_all(job_files, junit, say)
            except InvalidJob as wrong:
                say(str(wrong))
        await clock.sleep(POLL_S)


def _changed(job_file: str) -> tuple[int, int] | None:
    try:
        stat = Path(job_file).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _line(job_file: str, result: TestResult) -> str:
    if result.failure is None:
        return f"passed  {job_file}: {result.name}"
    return f"FAILED  {job_file}:{result.line}: {result.name}\n" + "\n".join(f"    {line}" for line in result.failure.splitlines())


def _junit(results: dict[str, Sequence[TestResult]]) -> bytes:
    """https://github.com/testmoapp/junitxml: a suite a file, a case a test."""
    root = ElementTree.Element("testsuites")
    for job_file, of_file in results.items():
        failures = sum(result.failure is not None for result in of_file)
        suite = ElementTree.SubElement(root, "testsuite", name=job_file, tests=str(len(of_file)), failures=str(failures))
        for result in of_file:
            case = ElementTree.SubElement(suite, "testcase", classname=job_file, name=result.name, line=str(result.line))
            if result.failure is not None:
                ElementTree.SubElement(case, "failure", message=result.failure.splitlines()[0]).text = result.failure
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
