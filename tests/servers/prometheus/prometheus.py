"""A Prometheus of its own over deploy/prometheus, with its times cut: minutes are seconds, it scrapes twice a second."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DEPLOYED = HERE.parents[2] / "deploy" / "prometheus"
SCRAPE = "500ms"
SECONDS = {"m": 1, "h": 60, "d": 1440}


class Unobtainable(Exception):
    """Prometheus cannot be had on this machine."""


def programs() -> Path:
    """The folder of `prometheus` and `promtool`."""
    if not any(shutil.which(program) for program in ("prometheus", "apt-get")):
        raise Unobtainable("Prometheus comes as a Debian package, and there is no apt-get")
    installed = subprocess.run([HERE / "install"], capture_output=True, text=True, check=False)
    if installed.returncode:
        raise Unobtainable(f"Debian's prometheus cannot be had: {installed.stderr.strip()[-300:]}")
    return Path(installed.stdout.strip())


def quick(expression: str) -> str:
    """Durations of minutes, hours and days as so many seconds and minutes."""
    return re.sub(r"(?<![\w.])(\d+)([mhd])\b", lambda found: f"{int(found[1]) * SECONDS[found[2]]}s", expression)


class Prometheus:
    """A context manager. `folder` holds the programs; `targets`: scrape name to static configs, each with targets and perhaps labels."""

    def __init__(self, directory: Path, folder: Path, targets: Mapping[str, list[dict[str, Any]]]) -> None:
        self._bin = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._directory = directory
        config = yaml.safe_load((DEPLOYED / "prometheus.yaml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
        for scrape in config["scrape_configs"]:
            scrape["static_configs"] = targets.get(scrape["job_name"], [])
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for name in config["rule_files"]:
            (directory / name).write_text(quick((DEPLOYED / name).read_text(encoding="utf-8")), encoding="utf-8")

    def __enter__(self) -> Prometheus:
        command = [self._bin / "prometheus", f"--config.file={self._directory / 'prometheus.yaml'}"]
        command += [f"--storage.tsdb.path={self._directory / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        self._log = (self._directory / "log").open("w")
        self._process = subprocess.Popen(command, cwd=self._directory, stdout=self._log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query; AssertionError with Prometheus' own words if it is refused."""
        asked = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{asked}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except urllib.request.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None

    def firing(self, **labels: str) -> set[str]:
        """Names of the alerts that fire with these labels."""
        wanted = "".join(f', {name}="{value}"' for name, value in labels.items())
        return {series["metric"]["alertname"] for series in self.query(f'ALERTS{{alertstate="firing"{wanted}}}')}
