"""A server in a process of its own on a free port of the loopback, from `start` to `stop` or as a context manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from streamproc.testing.parent_death import die_with_parent

START_S = 30.0
STOP_S = 10.0
POLL_S = 0.02


class ServerProcess(ABC):
    """What embedded servers share; calls block. `bound`: it ends with the thread that starts it, however that ends."""

    package: str
    """What to install where the server is missing."""

    def __init__(self, *, bound: bool = False) -> None:
        self.port = free_port()
        self._bound = bound
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can be used now."""

    def variables(self) -> Mapping[str, str]:
        """What its environment has beside ours."""
        return {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it and wait until it answers; RuntimeError if it does not."""
        self._process = process = subprocess.Popen(
            self.command(),
            env=os.environ | self.variables(),
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent if self._bound else None,  # noqa: PLW1509  # one system call, no lock
        )
        for _ in range(round(START_S / POLL_S)):
            if self.answers():
                return self
            if _exited(process):
                raise RuntimeError(f"{self!r} ended with code {process.returncode}; is {self.package} installed, is its port free?")
        self.stop(kill=True)
        raise RuntimeError(f"{self!r} did not answer within {START_S:.0f} seconds")

    def stop(self, kill: bool = False) -> None:
        """End the process, by SIGTERM or SIGKILL; twice is no error."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} 127.0.0.1:{self.port}{' stopped' * (self._process is None)}>"


def _exited(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment for the process to end."""
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
