"""A store in memory that can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from streamproc.errors import Unavailable
from streamproc.store import Changed, Exists, Listed, Missing, Object, Store
from streamproc.stores.names import check_name
from streamproc.world import World

Failure = Literal["before", "after"]


class MemoryStore(Store):
    """Objects in a dict, shared by everyone who holds this instance.

    `fail_next_put("before")` makes one put raise `Unavailable` without effect, `"after"` once it has happened: the
    lost answer. `delay_s` slows every call by the world's clock; `down = True` lets every call raise `Unavailable`.
    """

    def __init__(self, world: World | None = None) -> None:
        self._world = world or World()
        self._objects: dict[str, tuple[bytes, int, int]] = {}
        self._version = 0
        self._failures: list[tuple[str, Failure]] = []
        self.delay_s = 0.0
        self.down = False
        self.puts = 0

    def fail_next_put(self, when: Failure = "before", prefix: str = "") -> None:
        """Fail the next put of a name that starts with `prefix`; calls add up."""
        self._failures.append((prefix, when))

    @property
    def names(self) -> list[str]:
        return sorted(self._objects)

    async def get(self, name: str) -> Object:
        await self._answer()
        if name not in self._objects:
            raise Missing(name)
        data, version, _ = self._objects[name]
        return Object(data, str(version))

    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        check_name(name)
        await self._answer()
        failure = self._take_failure(name)
        if failure == "before":
            raise Unavailable(f"{name}: no answer (injected before the put)")
        etag = self._put(name, bytes(data), if_match, overwrite)
        if failure == "after":
            raise Unavailable(f"{name}: the answer was lost (injected after the put)")
        return etag

    async def list(self, prefix: str = "") -> AsyncIterator[Listed]:
        check_name(f"{prefix}x")
        await self._answer()
        for name in self.names:
            if name.startswith(prefix) and name in self._objects:
                data, _, modified_us = self._objects[name]
                yield Listed(name, len(data), modified_us)

    async def delete(self, name: str) -> None:
        await self._answer()
        self._objects.pop(name, None)

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._objects)} objects>"

    async def _answer(self) -> None:
        if self.delay_s:
            await self._world.clock.sleep(self.delay_s)
        if self.down:
            raise Unavailable("the memory store is down")

    def _take_failure(self, name: str) -> Failure | None:
        for i, (prefix, when) in enumerate(self._failures):
            if name.startswith(prefix):
                del self._failures[i]
                return when
        return None

    def _put(self, name: str, data: bytes, if_match: str | None, overwrite: bool) -> str:
        current = self._objects.get(name)
        if if_match is not None and (current is None or str(current[1]) != if_match):
            raise Changed(name)
        if if_match is None and not overwrite and current is not None:
            raise Exists(name)
        self._version += 1
        self._objects[name] = (data, self._version, self._world.clock.now_us())
        self.puts += 1
        return str(self._version)
