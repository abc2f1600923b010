"""Keepers in processes of their own over one SQLite table: killed, stopped and woken again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TTL_S = 1.5
DEADLINE_S = 30.0
UNITS = 4
WORKER = f"""
import asyncio, json, sys, time
from streamproc.lease.balance import Unit
from streamproc.lease.keeper import LeaseKeeper
from streamproc.lease.keeping import InThread
from streamproc.lease.sqlite import SqliteLeases
from streamproc.world import World

async def main(path, name):
    news = asyncio.Event()

    def make(changed):
        keeper = LeaseKeeper(SqliteLeases(path), "streamproc:" + name, {TTL_S}, World(), changed)
        keeper.wanted = tuple(Unit(f"u{{i}}", (f"job/u{{i}}",)) for i in range({UNITS}))
        return keeper

    keeping = InThread(make, news.set)
    keeper, loop = keeping.keeper, asyncio.get_running_loop()
    asked = loop.run_in_executor(None, sys.stdin.readline)
    while True:
        for name, hold in list(keeper.holds.items()):
            if hold.lost:
                await keeping.call(lambda: keeper.let_go(name))
            elif hold.asked:
                await keeping.call(lambda: keeper.release(name, {{}}))
        if asked.done():
            if asked.result() == "stop\\n":
                await keeping.stop()
                return
            print(json.dumps(sorted(name for name, hold in keeper.holds.items() if hold.held)), flush=True)
            asked = loop.run_in_executor(None, sys.stdin.readline)
        waits = [asyncio.ensure_future(news.wait()), asked]
        await asyncio.wait(waits, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        waits[0].cancel()
        news.clear()

asyncio.run(main(*sys.argv[1:]))
"""


class Worker:
    def __init__(self, path: Path, name: str) -> None:
        command = [sys.executable, "-c", WORKER, str(path), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    @property
    def held(self) -> list[str]:
        """Units held at the moment of the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("held?\n")
        return list(json.loads(self.process.stdout.readline()))

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        return self.process.wait(DEADLINE_S)


class Workers:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[Worker] = []

    def start(self, name: str) -> Worker:
        self._started.append(Worker(self.path, name))
        return self._started[-1]

    def kill(self) -> None:
        for worker in self._started:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path / "leases.sqlite")
    yield workers
    workers.kill()


def until(reached: Callable[[], bool]) -> float:
    """Seconds until it was so."""
    began_s = time.monotonic()
    while not reached():
        assert time.monotonic() < began_s + DEADLINE_S
        time.sleep(0.02)
    return time.monotonic() - began_s


def shared(one: Worker, other: Worker) -> bool:
    return sorted(one.held + other.held) == [f"u{i}" for i in range(UNITS)] and len(one.held) == 2


def test_two_share_evenly_and_what_a_killed_one_had_is_taken_over_at_once(workers: Workers) -> None:
    first = workers.start("a")
    until(lambda: len(first.held) == UNITS)
    second = workers.start("b")
    until(lambda: shared(first, second))
    first.process.kill()
    assert until(lambda: len(second.held) == UNITS) < TTL_S
    third = workers.start("c")
    until(lambda: shared(second, third))
    assert second.stop() == 0
    assert until(lambda: len(third.held) == UNITS) < TTL_S
    assert third.stop() == 0
    assert not list(workers.path.parent.glob("leases.sqlite.streamproc*"))


def test_a_stopped_worker_is_replaced_after_the_ttl_and_knows_it_when_it_wakes(workers: Workers) -> None:
    first = workers.start("a")
    until(lambda: len(first.held) == UNITS)
    second = workers.start("b")
    until(lambda: shared(first, second))
    first.process.send_signal(signal.SIGSTOP)
    assert until(lambda: len(second.held) == UNITS) > TTL_S / 2
    first.process.send_signal(signal.SIGCONT)
    assert first.held == []
    until(lambda: shared(first, second))
