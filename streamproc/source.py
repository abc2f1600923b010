"""The source contract: an unbounded table, read shard by shard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from streamproc.batch import EXTRA_COLUMNS, Chunk
from streamproc.batch import Shard as Shard  # part of this contract; chunks name them
from streamproc.offset import Position, Start


class Source(ABC):
    """A frozen description of an unbounded table; connections are made lazily by the coroutines.

    Promises, each with a test of its name in `streamproc.testing.SourceConformance`:
    - `shards` lists what can be read now, parents included while they hold unread rows; ids never change meaning.
    - `position` resolves a start to a fixed position: reading after it later gives the same rows.
    - `open(shard, after)` reads the rows strictly after `after`, each once, in order.
    - many readers may be open at once; one slow reader does not stop the others.
    - a server that is away raises `Unavailable`, from any method, and the same call works once it is back.
    - `tell` mirrors committed positions for other tools; it is never the truth and may fail without harm.
    """

    lag_unit: ClassVar[str] = "records"
    """`records` or `ms`: the unit of `Chunk.lag`."""
    discovery_interval_s: ClassVar[float] = 10.0
    """How often the engine asks `shards` again."""
    optional_columns: ClassVar[frozenset[str]] = frozenset()
    """Which of the extra columns `_partition_key`, `_sub_sequence` and `_headers` it has; a query that names another is refused."""
    wanted: frozenset[str] = frozenset(EXTRA_COLUMNS.names)
    """Extra columns (batch.EXTRA_COLUMNS) that the plan reads. The engine sets it before the first `open`; a source
    need not make the others, but `_offset` and `_value` always. All, unless set."""
    columns: frozenset[str] | None = None
    """Likewise the declared columns that the plan reads, for sources that yield columns themselves. None: all."""

    @abstractmethod
    async def shards(self) -> Sequence[Shard]: ...

    @abstractmethod
    async def position(self, shard: Shard, start: Start) -> Position: ...

    @abstractmethod
    async def open(self, shard: Shard, after: Position) -> Reader: ...

    async def tell(self, ends: Mapping[str, Position]) -> None:
        """Mirror the committed `ends` (shard id to position). Sources with nothing to tell inherit this."""
        del ends

    async def shared_name(self) -> str | None:
        """What other programs that read the lease table call this input (KCL: `account:stream:creation epoch`); None: unknown to them."""
        return None

    async def close(self) -> None:
        """Release connections. The description may be used again afterwards."""
        return


class Reader(ABC):
    """One shard's rows from a position on.

    Promises:
    - `read` answers within about a second, with an empty chunk if there is nothing; it never returns None.
    - `read(until=P)` never goes beyond P; repeated, it ends with a chunk whose `end` is P: the same rows again.
      Rows that are gone raise `BadRecord` naming shard and positions, never a silent gap.
    - after an `Unavailable` the next `read` goes on where the last chunk ended.
    - `at_end` only when the server said so; after `ended` no further read is made.
    - the last chunk of a closed shard names its children, or nobody: never only some of them.
    - cancelling a read loses nothing: the next one returns those rows.
    """

    @abstractmethod
    async def read(self, until: Position | None = None) -> Chunk: ...

    async def close(self) -> None:
        """Release what the reader holds. Not promised on a crash."""
        return
