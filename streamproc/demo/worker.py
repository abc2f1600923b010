"""The worker as users run it: `streamproc run` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from streamproc.clock import Clock
from streamproc.testing.parent_death import die_with_parent

POLL_S = 0.05
STOP_S = 60.0


class Worker:
    """One `streamproc run` of `job`, its log in `log`. Where it listens is read from there, so its port may be 0.

    It ends with the thread that starts it, however that ends.
    """

    def __init__(self, job: Path, log: Path, environment: Mapping[str, str], *arguments: str, clock: Clock) -> None:
        self.log, self._clock = log, clock
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamproc", "run", str(job), *arguments],
                stdout=stderr, stderr=stderr, stdin=subprocess.DEVNULL, env=os.environ | environment,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one system call, no lock
            )  # fmt: skip
        self._url: str | None = None

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    async def stop(self, seconds: float = STOP_S) -> int:
        """SIGTERM; the exit code. A worker that does not end is killed: -9."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    async def metrics(self) -> dict[str, float]:
        """Every metric by name, a name's series summed up (`_lag_seconds` and `_seconds`: the largest); {} while it does not answer."""
        page = await self.page("metrics")
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(page[1]) if page[0] == 200 else ():
            values = [sample.value for sample in family.samples if "step" not in sample.labels]
            if values:
                found[family.samples[0].name] = max(values) if family.name.endswith("_seconds") else sum(values)
        return found

    async def page(self, name: str) -> tuple[int, str]:
        """HTTP status and text of `metrics`, `readyz` or `healthz`; (0, "") while nothing listens."""
        self._url = self._url or self._listening()
        return await asyncio.to_thread(_get, f"{self._url}/{name}") if self._url else (0, "")

    def logged(self) -> list[dict[str, object]]:
        """The lines of the log that are JSON."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]

    async def committed(self, seconds: float) -> bool:
        """Whether it commits an epoch of its own within `seconds`."""
        deadline_s = self._clock.monotonic_s() + seconds
        while self.running and self._clock.monotonic_s() < deadline_s:
            if (await self.metrics()).get("streamproc_epochs_total"):
                return True
            await self._clock.sleep(POLL_S)
        return False

    def _listening(self) -> str | None:
        urls = [str(line["url"]) for line in self.logged() if line.get("event") == "listening"]
        return urls[0].removesuffix("/metrics") if urls else None

    def __repr__(self) -> str:
        return f"<Worker {self.process.pid} {'running' if self.running else f'ended with {self.process.returncode}'}>"


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
