"""ministack, an emulator of AWS (Kinesis, DynamoDB, S3)."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from streamproc.testing.server_process import ServerProcess

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""What a client of the emulator has in its environment (any key is accepted)."""


class Ministack(ServerProcess):
    """Needs the package `ministack`. It keeps everything in memory: what it holds is gone after `stop`."""

    package = "ministack"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables that point every AWS client of a process at this server."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.endpoint_url}

    def command(self) -> list[str]:
        return [sys.executable, "-m", "ministack"]

    def variables(self) -> Mapping[str, str]:
        return {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "LOG_LEVEL": "ERROR"}

    def stop(self, kill: bool = True) -> None:
        """Kill it: there is nothing to save, and a graceful end would wait for open connections."""
        super().stop(kill)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/_ministack/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
