"""Relations: what FROM can read. A relation is SQL over the rows of one step, rendered when it is known which hidden
columns (origin of a row) must come along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.faults import LocatedError, nearest
from streamproc.plan.plan import Step
from streamproc.plan.types import BIGINT, STRING, Sql, quote

ORIGIN = ("_source", "_shard", "_offset")
"""What `late` rows carry besides the relation's columns."""


@dataclass(frozen=True)
class Column:
    """`event`: it is the watermarked event time of its source, under whatever name."""

    name: str
    type: pa.DataType
    event: bool = False


@dataclass(frozen=True)
class Relation:
    """`body(hidden)` is what stands after FROM: `input`, or a subquery over it, with the hidden origin columns
    (`"#_shard"`, …) asked for. `mark` is told which columns are read; `extras` are columns that `*` leaves out.
    """

    columns: tuple[Column, ...]
    step: Step
    body: Callable[[Sequence[str]], str]
    alias: str = ""
    extras: tuple[Column, ...] = ()
    mark: Callable[[str], None] = lambda _: None
    sources: tuple[str, ...] = ()
    has_watermark: bool = False
    aggregated: bool = False
    tail: Tail | None = None

    def named(self, alias: str) -> Relation:
        return replace(self, alias=alias)

    @property
    def event(self) -> Column | None:
        return next((c for c in (*self.columns, *self.extras) if c.event), None)

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
        self.relation.mark(column.name)
        if column in self.relation.extras:
            self.used[column.name] = column
        return Sql(quote(column.name), column.type), rest

    def find(self, parts: Sequence[str]) -> tuple[Column, Sequence[str]]:
        """The column that `parts` begin with, and the fields after it."""
        if len(parts) > 1 and parts[0].lower() == self.relation.alias.lower():
            hit = self._only(parts[1])
            if hit is not None:
                return hit, parts[2:]
        hit = self._only(parts[0])
        if hit is None:
            raise LocatedError(self._unknown(parts))
        return hit, parts[1:]

    def is_event(self, node: exp.Expr) -> bool:
        """`node` is the watermarked event time itself, under whatever name."""
        if not isinstance(node, exp.Column):
            return False
        column, rest = self.find([p.name for p in node.parts])
        return column.event and not rest

    def has(self, name: str) -> bool:
        return any(c.name.lower() == name.lower() for c in (*self.relation.columns, *self.relation.extras))

    def _only(self, name: str) -> Column | None:
        everything = (*self.relation.columns, *self.relation.extras)
        hits = [c for c in everything if c.name.lower() == name.lower()]
        if len(hits) > 1:
            raise LocatedError(f"column {name!r} is ambiguous: {', '.join(repr(h.name) for h in hits)}; rename one")
        return hits[0] if hits else None

    def _unknown(self, parts: Sequence[str]) -> str:
        name = ".".join(parts)
        known = [c.name for c in (*self.relation.columns, *self.relation.extras)]
        hint = nearest(parts[-1], known) or f"; the columns are {', '.join(c.name for c in self.relation.columns)}"
        return f"there is no column {name!r} in {self.relation.alias or 'the query'}{hint}"


def arrival(relation: Relation) -> Sql:
    """Struct that orders rows: event time, shard, then offset. Offsets are text: numbers of one length compare as
    text, `<sequence>:<index>` of aggregated records by both parts.
    """
    offset = hidden_name("_offset")
    number = f"split_part({offset}, ':', 1)"
    time = "0::BIGINT" if relation.event is None else f"epoch_us({quote(relation.event.name)})"
    text = f"{{'t': {time}, 's': {hidden_name('_shard')}, 'l': length({number}), 'o': {number}, 'n': length({offset}), 'x': {offset}}}"
    names = (("t", BIGINT), ("s", STRING), ("l", BIGINT), ("o", STRING), ("n", BIGINT), ("x", STRING))
    return Sql(text, pa.struct(names))
