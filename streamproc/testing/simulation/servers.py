"""Servers as their clients see them: answers take time, fail before or after the effect, or stay away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

from streamproc.errors import Unavailable
from streamproc.testing.simulation.history import History
from streamproc.testing.virtual_loop import HERE, VirtualLoop, VirtualProcess

T = TypeVar("T")
WRITES = ("put g", "write")
DOWN, UNSENT, LOST = "is down", "never arrived", "its answer was lost"
FASTEST_S, SLOWEST_S = 0.001, 0.030
"""How long a message takes while nothing is wrong, each way."""


@dataclass
class Weather:
    """What a server does to calls now. `lost` and `unsent` are chances of an answer that is lost after the effect, and of
    a call that fails before it; `slow` that a message takes up to `slow_s`; `down` refuses everything.
    """

    lost: float = 0.0
    unsent: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.0
    down: bool = False

    @property
    def fair(self) -> bool:
        return not (self.down or self.lost or self.unsent or self.slow)

    def __str__(self) -> str:
        if self.down:
            return "down"
        return f"loses {self.lost:.0%}, fails {self.unsent:.0%}, {self.slow:.0%} slow up to {self.slow_s:.1f} s"


class Server:
    """One remote service. What was sent arrives, whatever becomes of its sender; what answers finds the sender if it lives.

    `closed`: the run is over, nobody is answered any more. `stormy_at_s` is when a call last failed or was slow.
    """

    def __init__(self, name: str, loop: VirtualLoop, chance: random.Random, history: History) -> None:
        self.name = name
        self.weather = Weather()
        self.closed = False
        self._loop, self._chance, self._history = loop, chance, history
        self._ambush: tuple[VirtualProcess, float, bool] | None = None
        self.stormy_at_s = float("-inf")

    async def ask(self, what: str, effect: Callable[[], T]) -> T:
        """The effect's result. Unavailable: it may have happened all the same. What it raises is raised here."""
        if self.closed:
            raise asyncio.CancelledError
        process = HERE.get(self._loop.server)
        answer: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_later(
            self._asleep_s(process, what) + self._way_s(), self._arrive, answer, process.name, what, effect, context=Context()
        )
        return await answer

    def lie_in_wait(self, process: VirtualProcess, seconds: float, *, sent: bool) -> None:
        """The next time the process writes here it is paused: right after the call was `sent`, or right before."""
        self._ambush = process, seconds, sent

    def _asleep_s(self, process: VirtualProcess, what: str) -> float:
        """How long the process sleeps before what it does now."""
        if self._ambush is None or self._ambush[0] is not process or not what.startswith(WRITES):
            return 0.0
        (_, seconds, sent), self._ambush = self._ambush, None
        self._history.note(process.name, f"is paused for {seconds:.2f} s {'after' if sent else 'before'} {self.name} {what}")
        process.pause(seconds)
        return 0.0 if sent else seconds

    def _arrive(self, answer: asyncio.Future[T], who: str, what: str, effect: Callable[[], T]) -> None:
        fate = self._fate()
        reply = (_give, None) if fate in (DOWN, UNSENT) else self._done(effect)
        refused = type(reply[1]).__name__ if reply[0] is _raise and not fate else ""
        self._history.note(who, f"{self.name} {what}{f' ({fate or refused})' if fate or refused else ''}", minor=not fate)
        if fate:
            self.stormy_at_s = self._loop.time()
            reply = _raise, Unavailable(f"{self.name}: {what}: {fate}")
        self._loop.call_later(self._way_s(), reply[0], answer, reply[1], context=Context())

    def _done(self, effect: Callable[[], T]) -> tuple[Callable[..., None], object]:
        try:
            return _give, effect()
        except Exception as error:
            return _raise, error

    def _way_s(self) -> float:
        slow = self._chance.random() < self.weather.slow
        if slow:
            self.stormy_at_s = self._loop.time()
        return self._chance.uniform(0, self.weather.slow_s) if slow else self._chance.uniform(FASTEST_S, SLOWEST_S)

    def _fate(self) -> str:
        weather = self.weather
        if weather.down:
            return DOWN
        drawn = self._chance.random()
        if drawn < weather.unsent:
            return UNSENT
        return LOST if drawn < weather.unsent + weather.lost else ""

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.weather}>"


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but its turn."""
    try:
        while True:
            call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result


def _give(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _raise(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
