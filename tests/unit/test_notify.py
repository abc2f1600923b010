"""sd_notify on a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.notify import Notifier
from streamproc.testing import ManualClock


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = f"@streamproc-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        heard.settimeout(5)
        yield name, heard


def test_states_are_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    name, heard = systemd
    clock = ManualClock()
    clock.advance(1_500_000)
    notifier = Notifier({"NOTIFY_SOCKET": name}, clock)
    notifier.send("READY=1", "STATUS=2 jobs")
    notifier.reloading()
    assert [heard.recv(4096) for _ in range(2)] == [b"READY=1\nSTATUS=2 jobs", b"RELOADING=1\nMONOTONIC_USEC=1500000"]


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000000"}, ManualClock())
    notifier.send("READY=1")
    assert notifier.watchdog_s is None


def test_a_socket_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, ManualClock()).send("READY=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_one_process(environment: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/none", **environment}, ManualClock()).watchdog_s == seconds
