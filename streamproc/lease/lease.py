"""The lease: who should run a task. (The epoch log decides who did.)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

SHARD_END = "SHARD_END"
"""Position of a shard that was read to its end; KCL's word."""
OUR_WORKERS = "streamproc:"
"""Every worker's id begins with it; other owners of a row are other programs (KCL)."""


def is_ours(worker: str) -> bool:
    """Whether the id is of one of our workers."""
    return worker.startswith(OUR_WORKERS)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a row of a shared table says of its shard to other programs, in their columns.

    `position` is the source's, or SHARD_END. `ours`: no other program has moved the row's counter since we last wrote it.
    """

    position: str | None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    hash_range: tuple[int, int] | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Lease:
    """One row of a lease table. `counter` rises with every change; only its standing still says that an owner
    is gone, judged by the observer's own monotonic clock: no clocks are compared. `owner` None = free.

    `checkpoint_owner` is the owner before, asked to hand over: until it has released the row, or a ttl has passed,
    the new owner does not begin. `mark` and `throughput_kbps` (KiB/s, smoothed) are None where the table keeps none.
    """

    key: str
    owner: str | None
    counter: int
    checkpoint_owner: str | None = None
    mark: Mark | None = field(default=None, compare=False)
    throughput_kbps: float | None = field(default=None, compare=False)

    @property
    def foreign(self) -> bool:
        """Owned by another program."""
        return self.owner is not None and not is_ours(self.owner)


@dataclass(frozen=True, slots=True)
class Listing:
    """All rows by one look, ordered by key, and the workers that say they are there: id to a value that every `beat` changes."""

    leases: tuple[Lease, ...] = ()
    workers: Mapping[str, int] = field(default_factory=dict)


class LeaseTable(ABC):
    """Rows changed only by compare-and-swap on (counter, owner, checkpoint owner).

    Promises, each with a test of its name in `streamproc.testing.LeaseTableConformance`:
    - `take` of a row succeeds for exactly one of many that saw the same counter; the others get `LeaseLost`.
    - `request` likewise, of a row that has an owner and is not being handed over already.
    - `renew`, `give` succeed only while counter and owner are the ones passed, else `LeaseLost`.
    - `release` succeeds while the row's checkpoint owner is the one passed, whatever the new owner did to the counter.
    - every change raises the counter; `get` shows it at once, `list` soon (it may cost half as much for that).
    - `abandoned(lease)` is True only where the table can prove that the owner's process is gone.
    - a table that does not answer raises `Unavailable`; a change that raised it may still have happened.
    """

    keeps_marks: ClassVar[bool] = False
    """Whether rows carry positions for other programs."""

    @abstractmethod
    async def list(self) -> Listing: ...

    async def get(self, keys: Sequence[str]) -> Sequence[Lease]:
        """The rows with these keys that are there, as they are now."""
        wanted = set(keys)
        return [lease for lease in (await self.list()).leases if lease.key in wanted]

    @abstractmethod
    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        """Make `owner` the owner of the row as seen in `lease` (counter 0, owner None: create it, with `mark`). Ends a hand-over."""

    @abstractmethod
    async def request(self, lease: Lease, owner: str) -> Lease:
        """Begin a hand-over: `owner` becomes the owner, the one before the checkpoint owner."""

    @abstractmethod
    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        """The checkpoint owner of `lease` has committed its last epoch: the new owner may begin. `mark` as in `renew`."""

    @abstractmethod
    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        """Raise the counter; write `mark` and throughput where the table keeps them (None: as they are)."""

    @abstractmethod
    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        """Free the row at a clean stop."""

    @abstractmethod
    async def drop(self, lease: Lease) -> None: ...

    async def add(self, key: str, mark: Mark) -> None:
        """Create a free row with a mark if there is none. Only for tables that keep marks."""
        raise NotImplementedError(f"{type(self).__name__} keeps no marks")

    @abstractmethod
    async def beat(self, worker: str) -> None:
        """Show that the worker is there, also while it holds no row."""

    @abstractmethod
    async def leave(self, worker: str) -> None:
        """Take the worker's own entry away at a clean stop."""

    async def abandoned(self, lease: Lease) -> bool:
        """Whether the owner's process is provably dead (one machine only), so that its time need not be waited out."""
        del lease
        return False

    async def close(self) -> None:
        return
