"""microburst, a proxy before an AWS server that refuses calls as it is told."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Faults:
    """What microburst does to calls of one service."""

    def __init__(self, port: int, service: str) -> None:
        self.port, self.service = port, service
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def are(self, *rules: dict[str, Any]) -> None:
        body = json.dumps([{"service": self.service} | rule for rule in rules]).encode()
        request = urllib.request.Request(
            f"{self.endpoint_url}/_microburst/rules", body, {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=5).close()


@contextmanager
def faulty(upstream: str, service: str) -> Iterator[Faults]:
    """A proxy before `upstream` that lets everything through until it is told otherwise."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("microburst")
    arguments = ["--upstream", upstream, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    faults = Faults(port, service)
    try:
        until_s = time.monotonic() + 20
        while True:
            try:
                faults.are()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until_s
                time.sleep(0.05)
        yield faults
    finally:
        process.kill()
        process.wait()
