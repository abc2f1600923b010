"""kinesis-local, an emulator of Kinesis: true lineage of shards, ChildShards, SubscribeToShard over HTTP/1.1 and HTTP/2.

    python tests/servers/kinesis/kinesis_local.py install

Needs Node and npm, and openssl for its certificate: it comes from npm into ${XDG_CACHE_HOME:-~/.cache}/streamproc.
It listens on every address of the machine, and there is no setting against it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from streamproc.testing.server_process import ServerProcess, free_port

HERE = Path(__file__).parent
_DURATIONS = ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT", "REGISTER_STREAM_CONSUMER")


class Unobtainable(Exception):
    """Node or npm is not here, or npm's registry is out of reach."""


class KinesisLocal(ServerProcess):
    """`endpoint_url` speaks HTTP/1.1, `tls_url` HTTP/2 too, with the certificate of `authority`. Everything is in memory."""

    package = "kinesis-local"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._main = install()
        self._directory = directory
        self._tls_port = free_port()
        self.authority = directory / "ca.pem"
        certify(directory)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_port(self) -> int:
        return self._tls_port

    def command(self) -> list[str]:
        return ["node", str(self._main)]

    def variables(self) -> Mapping[str, str]:
        ports = {"KINESIS_MOCK_PLAIN_PORT": str(self.port), "KINESIS_MOCK_TLS_PORT": str(self._tls_port)}
        durations = {f"{name}_DURATION": "20ms" for name in _DURATIONS}
        return ports | durations | {"KINESIS_MOCK_CERT_PATH": str(self._directory / "server.json"), "LOG_LEVEL": "ERROR"}

    def answers(self) -> bool:
        asked = ["curl", "-s", "-o", "/dev/null", f"{self.endpoint_url}/healthcheck"]
        return subprocess.run(asked, check=False).returncode == 0


def install() -> Path:
    """Its program, from npm at the first call."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unobtainable("kinesis-local needs Node 20: no node or npm on the path")
    version = json.loads((HERE / "package.json").read_text())["dependencies"]["kinesis-local"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "streamproc")
    folder = cache / f"kinesis-local-{version}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="kinesis-", dir=cache))
        try:
            shutil.copy(HERE / "package.json", new)
            run(["npm", "install", "--prefix", str(new), "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"])
            new.rename(folder)
        except RuntimeError as error:
            raise Unobtainable(f"npm could not fetch kinesis-local: {error}") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder / "node_modules" / "kinesis-local" / "main.js"


def certify(directory: Path) -> None:
    """A certificate of 127.0.0.1 that is its own authority, and the file that the server reads it from."""
    key, certificate = directory / "server.key", directory / "ca.pem"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=kinesis",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)])  # fmt: skip
    server = {"key": key.read_text(), "cert": certificate.read_text()}
    (directory / "server.json").write_text(json.dumps({"server": server}))


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-2000:]}")


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    print(install())
