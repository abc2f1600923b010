"""Where a keeper runs: in a thread with an event loop of its own, or (simulations) in the loop of its worker."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from streamproc.lease.keeper import LeaseKeeper

T = TypeVar("T")
Making = Callable[[Callable[[], None]], LeaseKeeper]
"""Makes the keeper inside the loop it will run in, with its `changed`."""


class Keeping(ABC):
    """A running keeper. `changed` is called in the worker's loop."""

    keeper: LeaseKeeper

    @abstractmethod
    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the keeper where the keeper runs."""

    @abstractmethod
    def wake(self) -> None:
        """Let the keeper look at once."""

    @abstractmethod
    def failure(self) -> BaseException | None:
        """Why the keeper does not run any more."""

    @abstractmethod
    async def stop(self) -> None:
        """Give everything back; end."""


class InLoop(Keeping):
    """Beside the worker, in its own loop."""

    def __init__(self, make: Making, changed: Callable[[], None]) -> None:
        self.keeper = make(changed)
        self._running = asyncio.ensure_future(self.keeper.run())
        self._running.add_done_callback(lambda _: changed())

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await work()

    def wake(self) -> None:
        self.keeper.wake()

    def failure(self) -> BaseException | None:
        return self._running.exception() if self._running.done() and not self._running.cancelled() else None

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.keeper.stop()


class InThread(Keeping):
    """In a daemon thread. A loop that its worker does not close keeps running: leases of a hung worker stay held."""

    def __init__(self, make: Making, changed: Callable[[], None]) -> None:
        worker_loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the worker's loop is closed
                worker_loop.call_soon_threadsafe(changed)

        self._loop = asyncio.new_event_loop()
        self._tell = tell
        self._stopping = asyncio.Event()
        self._made = threading.Event()
        self._failure: BaseException | None = None
        logged_as = copy_context()  # the job's name, in every line of the log
        self._thread = threading.Thread(target=logged_as.run, args=(self._run, make), name="leases", daemon=True)
        self._thread.start()
        self._made.wait()
        if self._failure is not None:
            raise self._failure

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def wake(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.keeper.wake)

    def failure(self) -> BaseException | None:
        return self._failure

    async def stop(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self, make: Making) -> None:
        try:
            self._loop.run_until_complete(self._keep(make))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._made.set()
            self._loop.close()

    async def _keep(self, make: Making) -> None:
        try:
            self.keeper = make(self._tell)
        except Exception as error:  # raised where the thread is started
            self._failure = error
            return
        self._made.set()
        running = asyncio.ensure_future(self.keeper.run())
        running.add_done_callback(self._ended)
        await self._stopping.wait()  # calls come also after a failure
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self.keeper.stop()

    def _ended(self, running: asyncio.Future[None]) -> None:
        if not running.cancelled():
            self._failure = running.exception()
            self._tell()
