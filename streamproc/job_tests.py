"""`streamproc test`: the tests inside job files, shown to people, to CI, and again whenever a file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from streamproc.check import examine, job_files
from streamproc.clock import Clock, SystemClock
from streamproc.errors import InvalidJob
from streamproc.testing import TestResult, run_job_tests

POLL_S = 0.3


@dataclass(frozen=True)
class TestRun:
    """Job files or folders of them, where JUnit XML goes (None: nowhere), and who is told line by line."""

    __test__ = False  # not for pytest
    paths: Sequence[str]
    overrides: Sequence[str]
    junit: str | None
    say: Callable[[str], None]

    def passed(self) -> bool:
        """Run every test, say what came of it; whether all passed. InvalidJob with the faults of all files, if any is wrong."""
        results = {str(file): run_job_tests(file, self.overrides) for file in self._valid()}
        for file, of_file in results.items():
            for result in of_file:
                self.say(_line(file, result))
        every = [result for of_file in results.values() for result in of_file]
        failed = sum(result.failure is not None for result in every)
        self.say(f"{len(every) - failed} passed, {failed} failed" if every else f"no tests in {', '.join(self.paths)}")
        if self.junit is not None:
            Path(self.junit).write_bytes(_junit(results))
        return not failed

    def _valid(self) -> Sequence[str]:
        checked = examine(self.paths, self.overrides)
        faults = [fault for one in checked for fault in one.faults]
        if faults:
            raise InvalidJob(faults)
        return [one.file for one in checked]

    async def watch(self, clock: Clock | None = None) -> None:
        """Run the tests at once and after every change of a file, until interrupted."""
        clock, seen = clock or SystemClock(), None
        while True:
            if (now := self._versions()) != seen:
                seen = now
                try:
                    await asyncio.to_thread(self.passed)
                except InvalidJob as wrong:
                    self.say(str(wrong))
            await clock.sleep(POLL_S)

    def _versions(self) -> Sequence[tuple[Path, int, int] | None]:
        return [_version(file) for path in self.paths for file in job_files(path)]


def _version(file: Path) -> tuple[Path, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return file, stat.st_mtime_ns, stat.st_size


def _line(file: str, result: TestResult) -> str:
    if result.failure is None:
        return f"passed  {file}: {result.name}"
    return f"FAILED  {file}:{result.line}: {result.name}\n" + "\n".join(f"    {line}" for line in result.failure.splitlines())


def _junit(results: Mapping[str, Sequence[TestResult]]) -> bytes:
    """JUnit XML, a suite a file and a case a test: https://github.com/testmoapp/junitxml."""
    root = ElementTree.Element("testsuites")
    for file, of_file in results.items():
        failures = sum(result.failure is not None for result in of_file)
        suite = ElementTree.SubElement(root, "testsuite", name=file, tests=str(len(of_file)), failures=str(failures))
        for result in of_file:
            case = ElementTree.SubElement(suite, "testcase", classname=file, name=result.name, line=str(result.line))
            if result.failure is not None:
                ElementTree.SubElement(case, "failure", message=result.failure.partition("\n")[0]).text = result.failure
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
