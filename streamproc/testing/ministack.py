"""ministack, an emulator of AWS (Kinesis, DynamoDB, S3), in a process of its own on a free port of the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from types import TracebackType

from streamproc.testing.parent_death import die_with_parent

START_S = 30.0
_POLL_S = 0.05
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""What a client of the emulator has in its environment (any key is accepted)."""


class Ministack:
    """The server, from `start` to `stop` or as a context manager. Needs the package `ministack` beside this one.

    It keeps everything in memory: what it holds is gone after `stop`. Calls block (start takes about a second).
    `bound`: it ends with the thread that starts it, however that ends.
    """

    def __init__(self, *, bound: bool = False) -> None:
        self.port = _free_port()
        self._bound = bound
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables that point every AWS client of a process at this server."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.endpoint_url}

    def start(self) -> Ministack:
        """Start it and wait until it answers; RuntimeError if it does not."""
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            env=os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "LOG_LEVEL": "ERROR"},
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent if self._bound else None,  # noqa: PLW1509  # one system call, no lock
        )
        for _ in range(round(START_S / _POLL_S)):
            if self._answers():
                return self
            if _exited(process):
                raise RuntimeError(f"ministack ended with code {process.returncode}; is it installed (pip install ministack)?")
        self.stop()
        raise RuntimeError(f"ministack did not answer within {START_S:.0f} seconds")

    def stop(self) -> None:
        """End the process; twice is no error."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # nothing to save; a graceful end would wait for open connections
        process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/_ministack/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Ministack:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Ministack {self.endpoint_url}{' stopped' * (self._process is None)}>"


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
