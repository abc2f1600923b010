"""The lease: who should run a task. (The epoch log decides who did.)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """One row of a lease table. `counter` rises with every change; only its standing still says that an owner
    is gone, judged by the observer's own monotonic clock: no clocks are compared. `owner` None = free.
    """

    key: str
    owner: str | None
    counter: int


class LeaseTable(ABC):
    """Rows changed only by compare-and-swap on (counter, owner).

    Promises, each with a test of its name in `streamproc.testing.LeaseTableConformance`:
    - `take` of a row succeeds for exactly one of many that saw the same counter; the others get `LeaseLost`.
    - `renew`, `give` succeed only while counter and owner are the ones passed, else `LeaseLost`.
    - every change raises the counter; `list` shows it at once.
    - `abandoned(lease)` is True only where the table can prove that the owner's process is gone.
    - a table that does not answer raises `Unavailable`; a change that raised it may still have happened.
    """

    @abstractmethod
    async def list(self) -> Sequence[Lease]: ...

    @abstractmethod
    async def take(self, lease: Lease, owner: str) -> Lease:
        """Make `owner` the owner of the row as seen in `lease` (counter 0, owner None: create it)."""

    @abstractmethod
    async def renew(self, lease: Lease) -> Lease: ...

    @abstractmethod
    async def give(self, lease: Lease) -> Lease:
        """Free the row at a clean stop."""

    @abstractmethod
    async def drop(self, lease: Lease) -> None: ...

    async def abandoned(self, lease: Lease) -> bool:
        """Whether the owner's process is provably dead (one machine only), so that its time need not be waited out."""
        del lease
        return False

    async def close(self) -> None:
        return
