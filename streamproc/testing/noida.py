"""noida-db, a small Kafka broker."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from streamproc.testing.server_process import ServerProcess


class NoidaBroker(ServerProcess):
    """Needs the package `noida-db`. `stop` and `start` keep topics, rows and the port; a killed broker may lose what it
    got in the last seconds. Rows live as long as `directory` (by default as long as this object). A fetch answers with
    the whole rest of a partition, whatever its limits.
    """

    package = "noida-db"

    def __init__(self, directory: Path | None = None, *, bound: bool = False) -> None:
        super().__init__(bound=bound)
        self._own = TemporaryDirectory(prefix="noida-") if directory is None else None
        self._directory = directory or Path(self._own.name if self._own else "")

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [_binary(), "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self._directory.resolve())]

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _binary() -> str:
    package = importlib.util.find_spec("noida_db")
    if package is None or package.origin is None:
        raise RuntimeError("noida-db is not installed: pip install 'streamproc[demo]'")
    return str(Path(package.origin).with_name("noida-db"))
