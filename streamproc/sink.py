"""The sink contract: where an epoch's rows go, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from streamproc.batch import TIMESTAMP

Change = Literal["append", "upsert", "replace"]
"""append: new rows. upsert: rows that replace those of the same keys (`_op` = delete removes).
replace: the whole result anew."""

DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("job", pa.string()), ("sink", pa.string()), ("source", pa.string()), ("shard", pa.string()),
        ("offset", pa.string()), ("sub_offset", pa.int64()), ("event_time", TIMESTAMP), ("reason", pa.string()),
        ("error", pa.string()), ("raw", pa.binary()), ("epoch", pa.int64()), ("time", TIMESTAMP),
    ]
)  # fmt: skip
"""What the `dead_letter` sink is given: one row a refused record."""


@dataclass(frozen=True, slots=True, order=True)
class EpochId:
    """Who wrote: unique and, within (checkpoint, generation, sink, task), rising with `epoch`.

    `checkpoint` is drawn when a checkpoint begins, `generation` rises with a rollback, `now_us` is the epoch's
    logged time (strictly rising; comparable between tasks, unlike epoch numbers).
    """

    checkpoint: str
    generation: int
    sink: str
    task: str
    epoch: int
    now_us: int = 0


class Sink(ABC):
    """A place rows are written to.

    Promises, each with a test of its name in `streamproc.testing.SinkConformance`:
    - `write` is called once an epoch, also with no rows; when it returns the rows are durable and visible as one.
    - the same id again writes nothing (after a crash anywhere in the first call: exactly the missing part).
    - a reader sees each row once, at any moment.
    - rows are written in the order given; the same rows are cut at the same places.
    - `undo(after)` removes what epochs > `after` of that line wrote, or says that it stays (returns a sentence).
    - a server that is away raises `Unavailable`; a row that is refused raises `BadRecord` and nothing of it is written.
    """

    guarantee: ClassVar[str] = "at least once"
    appends_only: ClassVar[bool] = True
    """True: in update mode one row per changed group and epoch, with `_epoch`. False: rows are overwritten by key."""
    undoes: ClassVar[bool] = False
    """Whether `undo` removes rows. Where it cannot, a rollback asks first."""

    @classmethod
    def refuses(cls, options: Any, schema: pa.Schema) -> str | None:
        """Why rows of this schema cannot be written with these `Options`, or None. `check` asks before a job runs."""
        del options, schema
        return None

    @abstractmethod
    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None: ...

    async def undo(self, after: EpochId) -> str | None:
        """Remove what epochs above `after` of its (checkpoint, generation, sink, task) wrote; None if all is gone,
        else a sentence saying what stays.
        """
        return f"rows written after epoch {after.epoch} stay and come again"

    async def foreign(self, checkpoint: str) -> str | None:
        """A sentence if the place already holds rows of another checkpoint than this (fresh) one, else None."""
        del checkpoint
        return None

    async def close(self) -> None:
        """Release connections."""
        return
