"""A real Apache Kafka broker (KRaft, one node) for tests, benchmarks and soak runs.

    python tests/servers/kafka/broker.py install
    python tests/servers/kafka/broker.py start --port 9092 --data /tmp/kafka      # until Ctrl-C

Needs Java 17 and, for the first start, Maven: the jars come from Maven Central into ${XDG_CACHE_HOME:-~/.cache}/streamproc.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "4.4.0"
USER, PASSWORD = "alice", "alice-secret"
START_S = 60.0
_JAVA = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
_LISTENERS = {  # name: (security protocol, settings)
    "plain": ("PLAINTEXT", {}),
    "sasl": ("SASL_PLAINTEXT", {}),
    "ssl": ("SSL", {}),
    "mtls": ("SSL", {"ssl.client.auth": "required"}),
    "saslssl": ("SASL_SSL", {}),
}
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAIN",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "log.cleaner.backoff.ms": "200",
}


class Unobtainable(Exception):
    """Java or Maven is not here, or Maven Central is out of reach."""


class ApacheKafka:
    """The broker, from `start` to `stop` or as a context manager; a second `start` keeps rows and ports.

    `secure` adds listeners for SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER with unsigned tokens), TLS and mutual
    TLS: `address("sasl")`, `"ssl"`, `"mtls"`, `"saslssl"`, with the files of `certificate`. Calls block.
    """

    def __init__(self, directory: Path, port: int | None = None, *, secure: bool = False) -> None:
        self.directory = directory
        names = list(_LISTENERS) if secure else ["plain"]
        self._ports = {name: free_port() for name in [*names, "controller"]}
        self._ports["plain"] = port or self._ports["plain"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return self.address("plain")

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    def certificate(self, name: str) -> str:
        """Path of `ca.pem`, `client.pem` or `client.key`."""
        return str(self.directory / name)

    def start(self) -> ApacheKafka:
        """Start it and wait until it answers; Unobtainable if it cannot be installed, RuntimeError if it does not start."""
        java = ["java", *_JAVA, "-cp", f"{install()}/*"]
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        if not (self.directory / "log" / "meta.properties").exists():
            if "ssl" in self._ports:
                make_certificates(self.directory)
            run([*java, "kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", str(properties), *self._scram_users()])
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, cwd=self.directory)
        deadline_s = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop(kill=True)
                raise RuntimeError(f"Kafka did not start:\n{(self.directory / 'broker.log').read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def stop(self, kill: bool = False) -> None:
        """End the process, by SIGTERM or SIGKILL; twice is no error."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def _answers(self) -> bool:
        """Whether it answers a request for API versions."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._ports["plain"]), 1) as client:
            client.settimeout(2)
            client.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
            return len(client.recv(8)) > 0
        return False

    def _properties(self) -> dict[str, str]:
        listeners = {name.upper(): f"{name.upper()}://{self.address(name)}" for name in self._ports}
        protocols = {name.upper(): _LISTENERS.get(name, ("PLAINTEXT", {}))[0] for name in self._ports}
        advertised = [address for name, address in listeners.items() if name != "CONTROLLER"]
        return _PROPERTIES | {
            "controller.quorum.voters": f"1@{self.address('controller')}",
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "log.dirs": str(self.directory / "log"),
            **(self._security() if "ssl" in self._ports else {}),
        }

    def _security(self) -> dict[str, str]:
        modules = "org.apache.kafka.common.security"
        logins = {
            "plain": f'{modules}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            "scram-sha-256": f"{modules}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{modules}.scram.ScramLoginModule required;",
            "oauthbearer": f'{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        }
        stores = {"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM"}
        stores |= {"ssl.keystore.location": self.certificate("broker-chain.pem"), "ssl.truststore.location": self.certificate("ca.pem")}
        settings = {f"listener.name.{name}.{key}": value for name, (_, own) in _LISTENERS.items() for key, value in own.items()}
        for listener in ("sasl", "saslssl"):
            settings |= {f"listener.name.{listener}.{name}.sasl.jaas.config": login for name, login in logins.items()}
        return settings | stores | {"sasl.enabled.mechanisms": ",".join(name.upper() for name in logins)}

    def _scram_users(self) -> list[str]:
        if "sasl" not in self._ports:
            return []
        users = [f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
        return [word for user in users for word in ("--add-scram", user)]

    def __enter__(self) -> ApacheKafka:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ApacheKafka {self.bootstrap_servers}{' stopped' * (self._process is None)}>"


def install() -> Path:
    """The folder with the jars, from Maven Central at the first call."""
    if shutil.which("java") is None:
        raise Unobtainable("Apache Kafka needs Java 17: no java on the path")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "streamproc")
    folder = cache / f"kafka-{VERSION}"
    if not folder.exists():
        if shutil.which("mvn") is None:
            raise Unobtainable("Apache Kafka is installed by Maven: no mvn on the path")
        cache.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="kafka-", dir=cache))
        pom = Path(__file__).with_name("pom.xml")
        try:
            run(["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={new}"])
            new.rename(folder)
        except RuntimeError as error:
            raise Unobtainable(f"Maven could not fetch Apache Kafka: {error}") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def make_certificates(directory: Path) -> None:
    """An authority `ca.pem`, and what it signed: `broker-chain.pem` (with key) and `client.pem`, `client.key`."""
    path = {name: str(directory / name) for name in ("ca.key", "ca.pem", "ext")}
    Path(path["ext"]).write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=test authority",
         "-keyout", path["ca.key"], "-out", path["ca.pem"]])  # fmt: skip
    for name in ("broker", "client"):
        own = {kind: str(directory / f"{name}.{kind}") for kind in ("key", "csr", "pem")}
        run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", own["key"], "-out", own["csr"]])
        run(["openssl", "x509", "-req", "-in", own["csr"], "-CA", path["ca.pem"], "-CAkey", path["ca.key"], "-CAcreateserial",
             "-days", "30", "-extfile", path["ext"], "-out", own["pem"]])  # fmt: skip
    chain = [(directory / name).read_text() for name in ("broker.key", "broker.pem", "ca.pem")]
    (directory / "broker-chain.pem").write_text("".join(chain))


def cluster_id() -> str:
    return base64.urlsafe_b64encode(b"\1" + os.urandom(15)).decode().rstrip("=")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install")
    start = commands.add_parser("start")
    start.add_argument("--port", type=int)
    start.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "install":
        print(install())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ApacheKafka(arguments.data, arguments.port) as broker:
        print(broker.bootstrap_servers, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
