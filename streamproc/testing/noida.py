"""noida-db, a small Kafka broker, in a process of its own on a free port of the loopback."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from streamproc.testing.parent_death import die_with_parent

START_S = 15.0
_POLL_S = 0.02


class NoidaBroker:
    """The broker, from `start` to `stop` or as a context manager. Needs the package `noida-db`.

    `stop` and `start` keep topics, rows and the port; a killed broker may lose what it got in the last seconds. Rows
    live as long as `directory` (by default as long as this object). A fetch answers with the whole rest of a partition,
    whatever its limits. Calls block for milliseconds. `bound`: it ends with the thread that starts it, however that ends.
    """

    def __init__(self, directory: Path | None = None, *, bound: bool = False) -> None:
        self._own = TemporaryDirectory(prefix="noida-") if directory is None else None
        self._directory = directory or Path(self._own.name if self._own else "")
        self.port = _free_port()
        self._bound = bound
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> NoidaBroker:
        """Start it and wait until it listens; RuntimeError if it does not."""
        command = [_binary(), "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self._directory)]
        self._process = process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent if self._bound else None,  # noqa: PLW1509  # one system call, no lock
        )
        for _ in range(round(START_S / _POLL_S)):
            if self._listens():
                return self
            if _exited(process):
                raise RuntimeError(f"noida-db ended with code {process.returncode}; is port {self.port} taken?")
        self.stop()
        raise RuntimeError(f"noida-db did not listen within {START_S:.0f} seconds")

    def stop(self, kill: bool = False) -> None:
        """End the process, by SIGTERM (all rows kept) or SIGKILL; twice is no error."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> NoidaBroker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<NoidaBroker {self.bootstrap_servers}{' stopped' * (self._process is None)}>"


def _binary() -> str:
    package = importlib.util.find_spec("noida_db")
    if package is None or package.origin is None:
        raise RuntimeError("noida-db is not installed: pip install 'streamproc[demo]'")
    return str(Path(package.origin).with_name("noida-db"))


def _exited(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment for the process to end."""
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
