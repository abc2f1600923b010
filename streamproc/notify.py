"""What systemd is told of a service: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET names. Without one, nothing is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import structlog

from streamproc.clock import Clock

log = structlog.get_logger()


class Notifier:
    """Sends states such as `READY=1`. A message that cannot be sent is logged and forgotten: the service goes on."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock = clock
        self.watchdog_s = _watchdog_s(environment) if address else None

    def send(self, *states: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
                sending.setblocking(False)
                sending.sendto("\n".join(states).encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told", states=states, error=str(error))

    def reloading(self) -> None:
        """To be followed by READY=1. systemd wants CLOCK_MONOTONIC, to tell this reload from an earlier one."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={round(self._clock.monotonic_s() * 1e6)}")

    def __repr__(self) -> str:
        return f"<Notifier to {self._address!r}>"


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Seconds within which systemd expects WATCHDOG=1, if it watches this process (sd_watchdog_enabled(3))."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6
