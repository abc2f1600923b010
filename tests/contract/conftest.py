"""S3 servers for the contract tests: one of each a session, a new prefix in its bucket for each test."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from botocore.session import Session

from streamproc.testing.ministack import Ministack

sys.path.append(str(Path(__file__).parent))  # what tests of this folder share stands beside them
BUCKET = "contract"
INSTALL = Path(__file__).parents[1] / "servers" / "s3" / "install"
KEYS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecretkey", "AWS_REGION": "us-east-1"}


def make_bucket(environment: dict[str, str]) -> None:
    client = Session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)


@pytest.fixture(scope="session")
def ministack_environment() -> Iterator[dict[str, str]]:
    with Ministack() as server:
        make_bucket(server.environment())
        yield server.environment()


@pytest.fixture(scope="session")
def versitygw_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if shutil.which("go") is None:
        message = "versitygw is built with Go, which is not installed"
        pytest.fail(message) if os.environ.get("CI_REQUIRE_SERVERS") == "1" else pytest.skip(message)
    binary = subprocess.run([INSTALL], check=True, capture_output=True, text=True).stdout.strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
    folder = tmp_path_factory.mktemp("versitygw")
    server = subprocess.Popen(
        [binary, "--port", f"127.0.0.1:{port}", "posix", folder],
        env=os.environ | keys,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        environment = KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        make_bucket(environment)
        yield environment
    finally:
        server.kill()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"nothing listens on port {port}")


class Gate:
    """A door in front of a server: while it is shut, every connection is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.shut = False

    async def __aenter__(self) -> "Gate":
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close_all()
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._writers -= {writer, back}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def gated() -> AsyncIterator[Callable[[dict[str, str]], Awaitable[tuple[Gate, dict[str, str]]]]]:
    """Put a gate before a server: it, and the environment that leads through it."""
    async with AsyncExitStack() as stack:

        async def gate(environment: dict[str, str]) -> tuple[Gate, dict[str, str]]:
            port = int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
            gate = await stack.enter_async_context(Gate(port))
            return gate, environment | {"AWS_ENDPOINT_URL": gate.url}

        yield gate


@pytest.fixture
def use_s3(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Point this process at a server; the URL of an empty prefix there."""

    def use(environment: dict[str, str]) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    return use
