"""One JOIN while it is planned: the columns of both sides under names of their own, and its conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sqlglot import exp

from streamproc.plan import arithmetic
from streamproc.plan.expressions import Compiler
from streamproc.plan.join_times import JoinTimes, SideTimes
from streamproc.plan.plan import JoinKind
from streamproc.plan.relation import Column, Relation, RelationScope
from streamproc.plan.select import Draft
from streamproc.plan.types import Sql

Named = dict[Column, Column]
"""Columns of a side → as they are in the join."""


@dataclass(frozen=True)
class Columns:
    """Of a join's result: those of `*`, those that are found by name only, and SQL of those that USING makes of two."""

    shown: tuple[Column, ...]
    others: tuple[Column, ...]
    made: str


@dataclass
class Joining:
    """`draft` is the SELECT that the JOIN stands in; `needed` are names of columns that are read though the SELECT has none of them."""

    draft: Draft
    left: Relation
    right: Relation
    kind: JoinKind
    node: exp.Join
    needed: frozenset[str] = frozenset()

    @property
    def sides(self) -> tuple[Relation, Relation]:
        return self.left, self.right

    @property
    def one_sided(self) -> bool:
        """The result has columns of the left side only."""
        return self.kind in ("semi", "anti")

    # -- names

    @cached_property
    def names(self) -> tuple[Named, Named]:
        """Columns of either side that the SELECT names → found by the side's alias, with names in SQL of their own."""
        kept = [self._kept(side) for side in self.sides]
        plain = [c.name.lower() for side in kept for c in side]
        unnamed = f"#{len(self.left.everything)}"
        left, right = (
            {c: _own(c, c.table or side.alias or unnamed, plain) for c in columns} for side, columns in zip(self.sides, kept, strict=True)
        )
        return left, right

    def _kept(self, side: Relation) -> list[Column]:
        select = self.draft.node
        star = any(isinstance(e, exp.Star) or (isinstance(e, exp.Column) and isinstance(e.this, exp.Star)) for e in select.expressions)
        named = {n.name.lower() for n in select.walk() if isinstance(n, exp.Identifier)} | {
            n.lower() for n in (*self._using_names, *self.needed)
        }
        columns = [c for c in side.everything if c.name.lower() in named or (star and c in side.columns)]
        for column in columns:
            side.mark(column.ref or column.name)
        return columns

    def listed(self, side: int) -> str:
        """SELECT's list that gives the side's columns their names."""
        return ", ".join(f"{old.sql} AS {new.sql}" for old, new in self.names[side].items()) or 'true AS "#row"'

    @cached_property
    def _using_names(self) -> list[str]:
        if self.node.method.upper() == "NATURAL":
            theirs = {c.name.lower() for c in self.right.columns}
            return [c.name for c in self.left.columns if c.name.lower() in theirs]
        return [name.name for name in self.node.args.get("using") or ()]

    @cached_property
    def using(self) -> list[tuple[Column, Column]]:
        """The columns that USING or NATURAL names, of both sides."""
        scopes = [RelationScope(side) for side in self.sides]
        left, right = ([own[scope.find([n])[0]] for n in self._using_names] for scope, own in zip(scopes, self.names, strict=True))
        return list(zip(left, right, strict=True))

    @cached_property
    def scope(self) -> RelationScope:
        """Of both sides."""
        columns = tuple(c for own in self.names for c in own.values())
        return RelationScope(Relation(columns, self.left.step, lambda _: "input"))

    @cached_property
    def times(self) -> JoinTimes:
        left, right = (frozenset(c.sql for c in own.values()) for own in self.names)
        return JoinTimes(self.scope, left, right)

    def is_column(self, column: Column, first: exp.Expr, second: exp.Expr) -> bool:
        """Whether one of two expressions is that column, and the other of the other side."""
        for node, other in ((first, second), (second, first)):
            if isinstance(node, exp.Column) and self.scope.find([p.name for p in node.parts])[0] == column:
                return self.times.sides(node) != self.times.sides(other) and len(self.times.sides(other)) == 1
        return False

    # -- conditions

    @cached_property
    def conditions(self) -> list[exp.Expr]:
        """What ON asks; of an inner join what WHERE asks of both sides, too."""
        found = list(conjuncts(self.node.args.get("on")))
        where = self.draft.node.args.get("where")
        if where is not None and self.kind == "inner":
            found += [node for node in conjuncts(where.this) if self._movable(node) and len(self.times.sides(node)) == 2]
        return found

    @cached_property
    def using_tests(self) -> list[tuple[Sql, Sql]]:
        """USING's columns in their common types."""
        pairs = [arithmetic.unify([Sql(a.sql, a.type), Sql(b.sql, b.type)]) for a, b in self.using]
        return [(first, second) for first, second in pairs]

    @cached_property
    def bounding(self) -> list[exp.Expr]:
        """Conditions that may bound times, USING's among them."""
        return [*self.conditions, *(exp.EQ(this=_node(a), expression=_node(b)) for a, b in self.using)]

    @cached_property
    def condition(self) -> str:
        """The whole condition."""
        tests = [arithmetic.compare("=", a, b).text for a, b in self.using_tests]
        tests += [Compiler(self.scope).boolean(node).text for node in self.conditions]
        return " AND ".join(tests) or "true"

    def filters(self, side: int) -> list[str]:
        """Conditions of WHERE over this side alone, if its rows are the result's: rows that they drop are not even late."""
        where = self.draft.node.args.get("where")
        if where is None or self.kind not in (("inner", "left", "semi", "anti"), ("inner", "right"))[side]:
            return []
        name = ("left", "right")[side]
        found = [n for n in conjuncts(where.this) if self._movable(n) and self.times.sides(n) == [name]]
        return [Compiler(self.scope).boolean(n).text for n in found]

    def _movable(self, node: exp.Expr) -> bool:
        """A condition of WHERE that can be asked here."""
        return not node.find(exp.Select) and node.find(exp.Column) is not None and self.times.knows(node)

    # -- the result's columns

    def columns(self, left: SideTimes | None = None, right: SideTimes | None = None) -> Columns:
        """Columns of the result, whose times are held back as long as the join holds rows."""
        held = [_held(own.values(), times) for own, times in zip(self.names, (left, right), strict=True)]
        by_name = {c.sql: c for side in held for c in side}
        merged, made = [], []
        for at, (a, b) in enumerate(self.using):
            one = by_name[(b if self.kind == "right" else a).sql]
            if self.kind == "full":
                x, y = self.using_tests[at]
                one = Column(a.name, x.type, ref=f"#{a.name}")
                made.append(f", coalesce({x.text}, {y.text}) AS {one.sql}")
            merged.append(one)
        extra = {own[c].sql for side, own in zip(self.sides, self.names, strict=True) for c in side.extras if c in own}
        hidden = extra | {c.sql for pair in self.using for c in pair}
        rest = held[0] if self.one_sided else [*held[0], *held[1]]
        others = (c for c in rest if c.sql in hidden and c not in merged)
        return Columns((*merged, *(c for c in rest if c.sql not in hidden)), tuple(others), "".join(made))


def conjuncts(node: exp.Expr | None) -> Iterator[exp.Expr]:
    """What AND connects."""
    if isinstance(node, exp.And):
        yield from conjuncts(node.this)
        yield from conjuncts(node.expression)
    elif isinstance(node, exp.Paren) and isinstance(node.this, exp.And | exp.Paren):
        yield from conjuncts(node.this)
    elif node is not None:
        yield node


def _own(column: Column, table: str, plain: Sequence[str]) -> Column:
    unique = plain.count(column.name.lower()) == 1
    return replace(column, table=table, ref=column.name if unique else f"{table}.{column.name}")


def _held(columns: Iterable[Column], times: SideTimes | None) -> list[Column]:
    """A row may be written later than it came."""
    held_us = times.held_us if times else 0
    return [replace(c, time=c.time and replace(c.time, lag_us=c.time.lag_us + held_us)) for c in columns]


def _node(column: Column) -> exp.Expr:
    return exp.column(column.name, table=column.table)
