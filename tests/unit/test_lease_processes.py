"""Keepers in processes of their own: killed, stopped and woken again."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TTL_S = 1.5
WORKER = f"""
import asyncio, sys
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.sqlite import SqliteLeases
from streamproc.world import World

async def main():
    keeper = LeaseKeeper(SqliteLeases(sys.argv[1]), "job", sys.argv[2], {TTL_S}, World())
    await keeper.acquire()
    print("acquired", flush=True)
    while True:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print(keeper.held, flush=True)

asyncio.run(main())
"""


class Workers:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, owner: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(self.path), owner]
        self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1))
        return self.processes[-1]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path / "leases.sqlite")
    yield workers
    for process in workers.processes:
        process.kill()
        process.wait()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def held(process: subprocess.Popen[str]) -> bool:
    assert process.stdin is not None
    process.stdin.write("\n")
    return said(process) == "True"


def test_a_killed_worker_is_replaced_at_once(workers: Workers) -> None:
    first = workers.start("a")
    assert said(first) == "acquired"
    second = workers.start("b")
    time.sleep(2 * TTL_S)
    assert held(first)
    killed = time.monotonic()
    first.kill()
    assert said(second) == "acquired"
    assert time.monotonic() - killed < TTL_S * 0.9
    assert held(second)


def test_a_stopped_worker_is_replaced_after_the_ttl_and_knows_it_when_it_wakes(workers: Workers) -> None:
    first = workers.start("a")
    assert said(first) == "acquired"
    second = workers.start("b")
    time.sleep(TTL_S)
    first.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert said(second) == "acquired"
    assert time.monotonic() - stopped > TTL_S / 2
    first.send_signal(signal.SIGCONT)
    assert not held(first)
    time.sleep(TTL_S)
    assert not held(first)
    assert held(second)
