"""What the epoch log stores: one small JSON object a record. Field names are the format; see the README of the format
in `checkpoint/log.py`. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from streamproc.state.runs import RunRef

TaskSet = Literal["all", "shards"]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of the log. Unknown fields of newer versions are ignored on reading."""


class Root(Record, frozen=True):
    """`root`: which checkpoint this is, and whether its log is one over `all` shards or one for each of the `shards`.
    `joining`: those are being closed, to go on as one. `undo` names by task the sinks whose rows after an epoch of the old
    generation a rollback has still to remove.
    """

    checkpoint: str
    generation: int = 1
    created_us: int = 0
    tasks: TaskSet = "all"
    joining: bool = False
    undo: dict[str, dict[str, int]] = {}


class TaskRecord(Record, frozen=True):
    """`tasks/<generation>/<task>`: a task over one shard is known. `over/<generation>/<task>`: its log has ended.

    `hash_range` is inclusive, in decimal digits.
    """

    source: str
    shard: str
    parents: tuple[str, ...] = ()
    hash_range: tuple[str, str] | None = None


class Inherited(Record, frozen=True):
    """The watermark of a parent task, that its part of the hash range keeps until the child's own has passed it."""

    first: str
    last: str
    watermark_us: int


class ShardBegin(Record, frozen=True):
    """What an epoch reads of a shard: rows after `after` up to `until`. The rest is what step 3 may know of it:
    how long it has been idle, and how long it had been when the first of these rows came.
    """

    after: str
    until: str
    idle_us: int = 0
    idle_before_us: int = 0
    ended: bool = False
    parents: tuple[str, ...] = ()


class TableRef(Record, frozen=True):
    """A version of a bounded table: its rows are the Arrow file `name`, read at `read_us`."""

    name: str
    version: str
    read_us: int


class Begin(Record, frozen=True):
    """`epochs/<n>.begin`: everything that decides the result of epoch n, written before anything is computed.
    `drain`: time ends with this epoch, every window closes.
    """

    writer: str
    job: str
    now_us: int
    shards: dict[str, dict[str, ShardBegin]]
    tables: dict[str, TableRef] = {}
    engine: dict[str, str] = {}
    drain: bool = False


class ShardEnd(Record, frozen=True):
    """Where a shard stands after an epoch. `watermark_us` is None before any data."""

    end: str
    watermark_us: int | None = None
    idle_us: int = 0
    ended: bool = False
    parents: tuple[str, ...] = ()


class Commit(Record, frozen=True):
    """`epochs/<n>.commit`: what is true after epoch n. `aborted` says why nothing of its input was taken;
    `finished`: the input was drained, no epoch follows; `closed`: the task goes on as part of another;
    `floors`: watermarks of parent tasks above this one's, by hash range;
    `tables`: the versions of bounded tables that epoch n used.
    """

    writer: str
    job: str
    now_us: int
    shards: dict[str, dict[str, ShardEnd]]
    tables: dict[str, TableRef] = {}
    watermark_us: int | None = None
    source_watermarks: dict[str, int | None] = {}
    state: dict[str, list[RunRef]] = {}
    late: dict[str, int] = {}
    dead: int = 0
    written: dict[str, int] = {}
    limits: dict[str, int] = {}
    floors: tuple[Inherited, ...] = ()
    aborted: str | None = None
    finished: bool = False
    closed: bool = False


class Refused(Record, frozen=True):
    """One poison row of a verdict. Of many in a slice only the first have their error."""

    source: str
    row: int
    error: str = ""


class Verdict(Record, frozen=True):
    """`epochs/<n>.verdict`: the rows of epoch n that its SQL cannot take, decided before anything of it is visible."""

    writer: str
    rows: list[Refused] = []
    abort: str | None = None


class Floor(Record, frozen=True):
    """`floor`: epochs below are void, whoever wrote them. CLOSED: the whole line is (a rollback began another)."""

    epoch: int = 0


class JobText(Record, frozen=True):
    """`jobs/<hash>`: a job file as an epoch began with it (never with secrets: they are references in it)."""

    file: str
    text: str
    overrides: tuple[str, ...] = ()


CLOSED = 2**62

R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode(data: bytes, kind: type[R], name: str) -> R:
    """The record in `data`; ValueError naming the object if it is not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"checkpoint object {name} is damaged: {error}") from None
