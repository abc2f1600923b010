"""An event loop whose time is virtual, in which many simulated processes share one thread: the same run for the same seed.

Time hardly moves while anything can run and jumps to the next timer when nothing can. Work for threads runs at once, in
line, and its result arrives after a virtual time. Which process comes next is drawn; within a process callbacks keep their
order, as asyncio promises.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Literal, TypeVarTuple

from streamproc.clock import Clock, SystemClock

Ts = TypeVarTuple("Ts")
START_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, when virtual time begins."""
CALLBACK_S = 2e-6
"""What a callback takes: who asks again and again without waiting does not stop the time."""
HERE: ContextVar[VirtualProcess] = ContextVar("process")
"""The process whose code is running."""


class VirtualProcess:
    """What an operating system sees of a worker: it runs, is paused (SIGSTOP: its clocks go on, nothing of it runs), or is
    dead (SIGKILL: nothing of it ever runs again, its finally-blocks included).

    What it has sent to servers before is on its way all the same. `skew_us` is how far its wall clock is off.
    """

    def __init__(self, loop: VirtualLoop, name: str, skew_us: int = 0) -> None:
        self.name = name
        self.skew_us = skew_us
        self.state: Literal["runs", "paused", "dead"] = "runs"
        self.ready: deque[asyncio.Handle] = deque()
        self._loop = loop
        self._pauses = 0

    def start(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine, and everything that it starts, in this process."""
        context = copy_context()
        context.run(HERE.set, self)
        return self._loop.create_task(main, context=context)

    def pause(self, seconds: float) -> None:
        """Stop it for so long; pauses that overlap end with the last."""
        if self.state == "dead":
            return
        self.state = "paused"
        self._pauses += 1
        self._loop.server.call_later(seconds, self._resume)

    def kill(self) -> None:
        self.state = "dead"

    def _resume(self) -> None:
        self._pauses -= 1
        if self.state == "paused" and not self._pauses:
            self.state = "runs"
            self._loop.is_ready(self)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Have something done in this process, whoever asks for it."""
        context = Context()
        context.run(HERE.set, self)
        return self._loop.call_later(seconds, callback, *args, context=context)

    def __repr__(self) -> str:
        return f"<VirtualProcess {self.name} {self.state}>"


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `server` is the process of everything that is no worker: it is never paused.

    `thread_s` draws how long work in a thread takes, in virtual seconds.
    """

    def __init__(self, chance: random.Random, thread_s: Callable[[], float] = lambda: 0.001) -> None:
        super().__init__()
        self.server = VirtualProcess(self, "-")
        self.thread_s = thread_s
        self._chance = chance
        self._now_s = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = count()
        self._runnable: list[VirtualProcess] = []

    def time(self) -> float:
        return self._now_s

    def is_ready(self, process: VirtualProcess) -> None:
        """The process may run now: let it take part."""
        if process.ready and process.state == "runs" and process not in self._runnable:
            self._runnable.append(process)

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        context = context or copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(context.get(HERE, self.server), handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + max(delay, 0.0), callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        context = context or copy_context()
        handle = _Timer(when, callback, args, self, context)
        handle.process = context.get(HERE, self.server)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # not a coroutine: as BaseEventLoop's
        """Compute now, answer later."""
        del executor
        answer = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            self.call_later(self.thread_s(), _fail, answer, error)
        else:
            self.call_later(self.thread_s(), _answer, answer, result)
        return answer

    def _enqueue(self, process: VirtualProcess, handle: asyncio.Handle) -> None:
        process.ready.append(handle)
        self.is_ready(process)

    def _run_once(self) -> None:
        """BaseEventLoop calls it again and again: one callback of one process."""
        self._wake_due()
        runnable = self._runnable
        if not runnable:
            raise RuntimeError("nothing can ever happen again: nothing runs and no timer is set")
        at = self._chance.randrange(len(runnable)) if len(runnable) > 1 else 0
        process = runnable[at]
        if process.state == "runs" and process.ready:
            handle = process.ready.popleft()
            if not handle.cancelled():
                handle._run()
                self._now_s += CALLBACK_S
        if not (process.ready and process.state == "runs"):
            runnable.remove(process)

    def _wake_due(self) -> None:
        while self._timers and (self._timers[0][0] <= self._now_s or not self._runnable):
            when, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._now_s = max(self._now_s, when)
                self._enqueue(handle.process, handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """BaseEventLoop counts them; here they are passed over."""

    def __repr__(self) -> str:
        return f"<VirtualLoop at {self._now_s:.3f} s, {len(self._timers)} timers, {len(self._runnable)} processes ready>"


class _Timer(asyncio.TimerHandle):
    process: VirtualProcess


class VirtualClock(Clock):
    """A process' own clocks: the wall clock is off by its skew, the monotonic one began at `origin_s`."""

    def __init__(self, loop: VirtualLoop, process: VirtualProcess, origin_s: float = 0.0) -> None:
        self._loop = loop
        self._process = process
        self._origin_s = origin_s

    def now_us(self) -> int:
        return START_US + round(self._loop.time() * 1e6) + self._process.skew_us

    def monotonic_s(self) -> float:
        return self._loop.time() + self._origin_s

    async def sleep(self, seconds: float) -> None:
        await SystemClock().sleep(seconds)  # asyncio's, so this loop's time

    def __repr__(self) -> str:
        return f"<VirtualClock of {self._process.name}>"


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
