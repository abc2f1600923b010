"""Amazon's Kinesis Client Library as an application of its own, and DynamoDB Local, for tests of one lease table shared with it.

    python tests/servers/kcl/kcl.py install      # both versions and DynamoDB Local

Needs a JDK 17 and, for the first start, Maven: the jars come from Maven Central into ${XDG_CACHE_HOME:-~/.cache}/streamproc.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

NEW, OLD = "3.5.1", "2.7.2"
DYNAMODB = "3.1.0"
START_S = 60.0
HERE = Path(__file__).parent
_JAVA = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_LOG = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.showDateTime=true"]


class Unobtainable(Exception):
    """Java or Maven is not here, or Maven Central is out of reach."""


class DynamoDBLocal:
    """The server, in memory, from `start` to `stop` or as a context manager. Calls block."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> DynamoDBLocal:
        """Start it and wait until it listens; Unobtainable if it cannot be installed, RuntimeError if it does not start."""
        jars, classes = install_dynamodb()
        command = ["java", *_JAVA, f"-Dsqlite4java.library.path={jars}", "-cp", f"{classes}:{jars}/*", "DynamoLocal", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + START_S
        while not listens(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError("DynamoDB Local did not start")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> DynamoDBLocal:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<DynamoDBLocal {self.url}{' stopped' * (self._process is None)}>"


class KclApp:
    """A worker of a KCL application (KclApp.java says what it prints); `lines` is what it has said so far."""

    def __init__(self, version: str, directory: Path, *, kinesis: str, dynamodb: str) -> None:
        self.version = version
        self.lines: list[str] = []
        self._directory = directory
        self._urls = (kinesis, dynamodb)
        self._process: subprocess.Popen[str] | None = None
        self._said = threading.Condition()

    def start(self, application: str, stream: str, worker: str, *, failover_ms: int = 3000, checkpoints: str = "batch") -> KclApp:
        jars, classes = install_kcl(self.version)
        self.log = self._directory / f"{worker}.log"
        command = ["java", *_JAVA, *_LOG, "-Daws.cborEnabled=false", "-cp", f"{classes}:{jars}/*", "KclApp"]
        arguments = [application, stream, worker, *self._urls, str(failover_ms), checkpoints]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def wait(self, met: Callable[[list[str]], bool], timeout_s: float = 60) -> list[str]:
        """Until what was said satisfies `met`; RuntimeError with the end of the log otherwise."""
        with self._said:
            if self._said.wait_for(lambda: met(self.lines), timeout_s):
                return list(self.lines)
        raise RuntimeError(f"KCL {self.version} did not get there; it said\n{chr(10).join(self.lines)}\n{self.log.read_text()[-4000:]}")

    def records(self) -> list[str]:
        """The payloads that were read, in order."""
        return [line.split(" ", 3)[3] for line in self.lines if line.startswith("RECORD ")]

    def began(self) -> dict[str, str]:
        """Where each shard was begun last: shard to `checkpoint:sub-sequence number`."""
        return {found[1]: found[2] for line in self.lines if (found := re.match(r"BEGIN (\S+) (\S+)", line))}

    def stop(self, kill: bool = False) -> None:
        """SIGTERM (a graceful shutdown, with a last checkpoint) or SIGKILL; returns when the process has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stdout:
            for line in stdout:
                with self._said:
                    self.lines.append(line.rstrip("\n"))
                    self._said.notify_all()

    def __repr__(self) -> str:
        return f"<KclApp {self.version}{' stopped' * (self._process is None)}>"


def install_kcl(version: str) -> tuple[Path, Path]:
    """Folders with KCL's jars and with our application compiled against them."""
    jars = _jars("kcl", version, "pom-kcl.xml", f"-Dkcl.version={version}")
    return jars, _classes(jars, "KclApp.java")


def install_dynamodb() -> tuple[Path, Path]:
    """Folders with the jars of DynamoDB Local and with what starts it."""
    jars = _jars("dynamodb-local", DYNAMODB, "pom-dynamodb.xml")
    return jars, _classes(jars, "DynamoLocal.java")


def _jars(name: str, version: str, pom: str, *options: str) -> Path:
    """From Maven Central at the first call."""
    _need("java", "javac")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "streamproc")
    folder = cache / f"{name}-{version}"
    if not folder.exists():
        _need("mvn")
        cache.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={new}"]
        try:
            run(["mvn", "-q", "-B", "-f", str(HERE / pom), *options, *goal])
            new.rename(folder)
        except RuntimeError as error:
            raise Unobtainable(f"Maven could not fetch {name} {version}: {error}") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def _classes(jars: Path, source: str) -> Path:
    """Compiled when the source is another than last time."""
    digest = hashlib.sha256((HERE / source).read_bytes()).hexdigest()[:16]
    folder = jars.with_name(f"{jars.name}-classes-{digest}")
    if not folder.exists():
        new = Path(tempfile.mkdtemp(prefix="classes-", dir=jars.parent))
        run(["javac", "-cp", f"{jars}/*", "-d", str(new), str(HERE / source)])
        new.rename(folder)
    return folder


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise Unobtainable(f"KCL and DynamoDB Local need a JDK 17 and Maven: no {program} on the path")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-2000:]}")


def main() -> None:
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    for jars, classes in (install_dynamodb(), install_kcl(NEW), install_kcl(OLD)):
        print(jars, classes)


if __name__ == "__main__":
    main()
