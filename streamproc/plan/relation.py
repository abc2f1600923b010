"""Relations: what FROM can read. A relation is SQL over the rows of one step, rendered when it is known which hidden
columns (origin of a row) must come along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.faults import LocatedError, nearest
from streamproc.plan.plan import Step
from streamproc.plan.types import BIGINT, STRING, Sql, is_orderable, quote

ORIGIN = ("_source", "_shard", "_offset")
"""What `late` rows carry besides the relation's columns."""
WEIGHED = ("w",)
"""The hidden column of weights."""


@dataclass(frozen=True)
class Time:
    """What a column says of event time that has a watermark: an `event`'s instant, a `window` (struct of start and end), or
    a window's plain `start` or `end`. Rows may come until the watermark is `lag_us` past it. `length_us`: from start to end,
    where all windows have one length.
    """

    kind: Literal["event", "window", "start", "end"] = "event"
    lag_us: int = 0
    length_us: int | None = None

    def side(self, name: str) -> Time | None:
        """The time of a window's `start` or `end`."""
        found: Literal["start", "end"] | None = "start" if name.lower() == "start" else "end" if name.lower() == "end" else None
        return replace(self, kind=found) if self.kind == "window" and found else None

    def final_us(self, text: str) -> str | None:
        """DuckDB BIGINT of the watermark at which no more rows can have this value; None if it is not known."""
        if self.kind == "start":
            return None if self.length_us is None else f"(epoch_us({text}) + {self.length_us})"
        return f"epoch_us(struct_extract({text}, 'end'))" if self.kind == "window" else f"epoch_us({text})"


@dataclass(frozen=True)
class Column:
    """`time`: what it says of event time, under whatever name. `table`: the alias by which it is found, where that is not the
    relation's; `ref`: its name in the relation's body, where that differs from `name`.
    """

    name: str
    type: pa.DataType
    time: Time | None = None
    table: str = ""
    ref: str = ""

    @property
    def sql(self) -> str:
        return quote(self.ref or self.name)


@dataclass(frozen=True)
class Relation:
    """`body(hidden)` is what stands after FROM: `input`, or a subquery over it, with the hidden columns (`"#_shard"`, …)
    asked for. `mark` is told which columns are read; `extras` are columns that `*` leaves out. `origin`: hidden columns may
    be those of `ORIGIN`, since every row is one of a source; those of a result that changes are `WEIGHED`. `computed`: an
    operator lies below, which needs more than one row. `key`: columns that no two rows have in common; None if that is not known.
    """

    columns: tuple[Column, ...]
    step: Step
    body: Callable[[Sequence[str]], str]
    alias: str = ""
    extras: tuple[Column, ...] = ()
    mark: Callable[[str], None] = lambda _: None
    sources: tuple[str, ...] = ()
    has_watermark: bool = False
    computed: bool = False
    origin: bool = True
    tail: Tail | None = None
    key: tuple[str, ...] | None = None

    def named(self, alias: str) -> Relation:
        """Its columns are found under this alias only."""
        return replace(self, alias=alias, columns=tuple(replace(c, table="") for c in self.columns))

    @property
    def everything(self) -> tuple[Column, ...]:
        return (*self.columns, *self.extras)

    @property
    def event(self) -> Column | None:
        return next((c for c in self.everything if c.time and c.time.kind == "event"), None)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])


@dataclass(frozen=True)
class Tail:
    """ORDER BY and LIMIT of a query: `order` is SQL over the relation's columns and `hidden` ones."""

    order: str = ""
    limit: int | None = None
    hidden: tuple[Column, ...] = ()


def hidden_name(column: str) -> str:
    return quote("#" + column)


def hidden_columns(hidden: Sequence[str]) -> str:
    return "".join(f", {hidden_name(h)}" for h in hidden)


@dataclass
class RelationScope:
    """Names of one FROM relation. `used` are the extra columns that were named."""

    relation: Relation
    used: dict[str, Column] = field(default_factory=dict)

    def column(self, parts: Sequence[str]) -> tuple[Sql, Sequence[str]]:
        column, rest = self.find(parts)
        self.relation.mark(column.ref or column.name)
        if column in self.relation.extras:
            self.used[column.ref or column.name] = column
        return Sql(column.sql, column.type), rest

    def find(self, parts: Sequence[str]) -> tuple[Column, Sequence[str]]:
        """The column that `parts` begin with, and the fields after it."""
        if len(parts) > 1:
            hit = self._only(parts[1], parts[0])
            if hit is not None:
                return hit, parts[2:]
        hit = self._only(parts[0])
        if hit is None:
            raise LocatedError(self._unknown(parts))
        return hit, parts[1:]

    def time_of(self, node: exp.Expr) -> Time | None:
        """What a column, or the side of a window, says of event time."""
        if isinstance(node, exp.Anonymous) and node.name.lower() == "window_time" and len(node.expressions) == 1:
            time = self.time_of(node.expressions[0])
            return replace(time, kind="event") if time and time.kind == "window" else None
        if not isinstance(node, exp.Column):
            return None
        column, rest = self.find([p.name for p in node.parts])
        if not rest or column.time is None:
            return column.time
        return column.time.side(rest[0]) if len(rest) == 1 else None

    def has(self, name: str) -> bool:
        return any(c.name.lower() == name.lower() for c in self.relation.everything)

    def _only(self, name: str, table: str | None = None) -> Column | None:
        hits = [c for c in self.relation.everything if c.name.lower() == name.lower()]
        if table is not None:
            hits = [c for c in hits if (c.table or self.relation.alias).lower() == table.lower()]
        elif len(hits) > 1:  # of columns that USING makes one, only that one has no table
            hits = [c for c in hits if c in self.relation.columns] or hits
        if len(hits) > 1:
            known = ", ".join(repr(f"{h.table}.{h.name}" if h.table else h.name) for h in hits)
            raise LocatedError(f"column {name!r} is ambiguous: {known}; {'name its table' if hits[0].table else 'rename one'}")
        return hits[0] if hits else None

    def _unknown(self, parts: Sequence[str]) -> str:
        name = ".".join(parts)
        known = [c.name for c in self.relation.everything]
        hint = nearest(parts[-1], known) or f"; the columns are {', '.join(c.name for c in self.relation.columns)}"
        return f"there is no column {name!r} in {self.relation.alias or 'the query'}{hint}"


def arrival(relation: Relation) -> Sql:
    """Struct that orders rows: event time, shard, then offset; of rows without an origin, event time and the row itself.
    Offsets are text: numbers of one length compare as text, `<sequence>:<index>` of aggregated records by both parts.
    """
    time = "0::BIGINT" if relation.event is None else f"epoch_us({relation.event.sql})"
    if not relation.origin:
        columns = [c for c in relation.columns if is_orderable(c.type)]
        values = "".join(f", 'c{i}': {c.sql}" for i, c in enumerate(columns))
        return Sql(f"{{'t': {time}{values}}}", pa.struct([("t", BIGINT), *((f"c{i}", c.type) for i, c in enumerate(columns))]))
    offset = hidden_name("_offset")
    number = f"split_part({offset}, ':', 1)"
    text = f"{{'t': {time}, 's': {hidden_name('_shard')}, 'l': length({number}), 'o': {number}, 'n': length({offset}), 'x': {offset}}}"
    names = (("t", BIGINT), ("s", STRING), ("l", BIGINT), ("o", STRING), ("n", BIGINT), ("x", STRING))
    return Sql(text, pa.struct(names))
