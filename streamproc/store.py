"""The store contract: named objects on a disk or in S3, created once or replaced by compare-and-swap."""

from __future__ import annotations

import asyncio
import io
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import BinaryIO


class Exists(Exception):
    """Create-if-absent lost: the name exists. Read it to learn whether the winner was yourself."""


class Changed(Exception):
    """If-match lost: the object has another etag, or is gone."""


class Missing(Exception):
    """No object has that name."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object's bytes and the etag that `put(if_match=…)` takes."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a listing. `modified_us`: microseconds since 1970 UTC."""

    name: str
    size: int
    modified_us: int


class Store(ABC):
    """Objects under one root. Names are relative, `/`-separated, of [A-Za-z0-9._=-].

    Promises, each with a test of its name in `streamproc.testing.StoreConformance`:
    - `put` is atomic and durable when it returns: a reader sees the whole object or none, also after a crash.
    - without `if_match` and `overwrite`, `put` creates: of many at once exactly one wins, the others get `Exists`.
    - with `if_match=etag`, `put` replaces exactly that version, else `Changed`.
    - `get` after `put` sees it; `get` of a missing name raises `Missing`.
    - `list(prefix)` gives every object whose name starts with prefix, in name order, nothing half-written.
    - `delete` of a missing name is no error.
    - a store that does not answer raises `Unavailable`; a `put` that raised it may still have happened.
    """

    @abstractmethod
    async def get(self, name: str) -> Object: ...

    @abstractmethod
    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        """Write an object, return its etag. `overwrite` is for objects whose every version is right."""

    async def create(self, name: str, fill: Callable[[BinaryIO], None]) -> None:
        """Create an object of what `fill` writes, for objects too large for memory. `fill` runs in a thread;
        if it raises there is no object. Raises `Exists` like `put`.
        """
        buffer = io.BytesIO()
        await asyncio.to_thread(fill, buffer)
        await self.put(name, buffer.getvalue())

    @abstractmethod
    def list(self, prefix: str = "") -> AsyncIterator[Listed]: ...

    @abstractmethod
    async def delete(self, name: str) -> None: ...

    async def sweep(self) -> None:
        """Remove what killed writers left half-written more than an hour ago; never needed for correctness."""
        return

    async def close(self) -> None:
        """Release connections."""
        return
