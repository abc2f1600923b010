"""The servers a soak run starts beside the embedded ones: Apache Kafka and versitygw."""

from __future__ import annotations

import runpy
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from botocore.session import Session

SERVERS = Path(__file__).resolve().parents[1] / "servers"
BUCKET = "lake"
KEYS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecretkey", "AWS_REGION": "us-east-1"}


def apache_kafka(directory: Path) -> Any:
    """An `ApacheKafka` of tests/servers/kafka/broker.py, not started."""
    return runpy.run_path(str(SERVERS / "kafka" / "broker.py"))["ApacheKafka"](directory)


class Versitygw:
    """The strict S3 server over a folder, as a context manager; LookupError without Go."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("go") is None:
            raise LookupError("versitygw is built with Go, which is not installed")
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def __enter__(self) -> Versitygw:
        binary = subprocess.run([SERVERS / "s3" / "install"], check=True, capture_output=True, text=True).stdout.strip()
        self._directory.mkdir(parents=True, exist_ok=True)
        keys = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
        command = [binary, "--port", f"127.0.0.1:{self.port}", "posix", str(self._directory)]
        self._process = subprocess.Popen(command, env=keys, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise RuntimeError(f"nothing listens on port {self.port}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def environment(self) -> dict[str, str]:
        return KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}


def make_bucket(environment: dict[str, str]) -> None:
    """Create BUCKET on the server that the environment names."""
    client = Session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
