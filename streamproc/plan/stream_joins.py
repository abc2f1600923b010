"""Joins of two streams: a `Join` step, which keeps rows of both sides until none can come any more that matches them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from streamproc.plan import arithmetic
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.join_times import Bound, SideTimes, side_times
from streamproc.plan.joining import Joining
from streamproc.plan.maintain import is_whole, joined
from streamproc.plan.plan import Join, JoinSide, Project, Step, weighted
from streamproc.plan.relation import ORIGIN, WEIGHED, Relation, hidden_columns, hidden_name
from streamproc.plan.types import STRING, Sql, is_fractional, is_orderable, quote, spark_type

_UNBOUNDED = (
    "{} JOIN of two streams: a row without a match can be written only when none can come any more; both sides need a watermark, and ON a "
    "bound of their times, such as r.ts BETWEEN l.ts AND l.ts + INTERVAL 1 HOUR, or equal windows; or write an inner join"
)
_NEEDS_END = {"left": (0,), "semi": (0,), "anti": (0,), "right": (1,), "full": (0, 1)}
"""Sides of which it must be known when no match can come any more."""


class Conditions:
    """What ON asks, sorted: pairs of keys, tests of one side alone, tests of a pair of rows (the keys among them)."""

    def __init__(self, joining: Joining) -> None:
        self._joining = joining
        self.keys: list[tuple[Sql, Sql]] = []
        self.own: tuple[list[str], list[str]] = ([], [])
        self.tests: list[str] = []
        for pair in joining.using_tests:
            self._add_key(pair, exp.EQ)
            self.tests.append(arithmetic.compare("=", *pair).text)
        for node in joining.conditions:
            self._add(node)

    def _add(self, node: exp.Expr) -> None:
        text, sides = Compiler(self._joining.scope).boolean(node).text, self._joining.times.sides(node)
        pair = self._key(node.unnest())
        if pair is not None:
            self._add_key(pair, type(node.unnest()))
        if len(sides) == 1:
            self.own[sides[0] == "right"].append(text)
        else:
            self.tests.append(text)

    def _add_key(self, pair: tuple[Sql, Sql], test: type[exp.Expr]) -> None:
        self.keys.append(pair)
        if test is exp.EQ:
            for own, value in zip(self.own, pair, strict=True):
                own.append(f"{value.text} IS NOT NULL")

    def _key(self, node: exp.Expr) -> tuple[Sql, Sql] | None:
        """Left and right side of an equality, in their common type."""
        if not isinstance(node, exp.EQ | exp.NullSafeEQ):
            return None
        sides = [self._joining.times.sides(n) for n in (node.this, node.expression)]
        if sorted(sides) != [["left"], ["right"]]:
            return None
        first, second = Compiler(self._joining.scope).together([node.this, node.expression])
        if not is_orderable(first.type):
            raise LocatedError(f"{spark_type(first.type)} cannot be compared", node)
        return (first, second) if sides[0] == ["left"] else (second, first)


def join_streams(joining: Joining) -> Relation:
    """A `Join` step; RefusedError for what a stream cannot."""
    mode, (left, right) = joining.draft.env.mode, joining.sides
    asked = Conditions(joining)
    if not asked.keys:
        raise RefusedError(
            "a join of two streams needs an equality in ON, a.key = b.key; else every row would be compared with every other"
        )
    bounds = [] if mode == "complete" else joining.times.bounds(joining.bounding)
    times = side_times(bounds)
    _refuse_endless(joining, times)
    inputs = [_input(joining, side) for side in (0, 1)]
    first, second = (_side(joining, side, inputs[side][1], asked, bounds, times[side]) for side in (0, 1))
    stored = [c for own in joining.names[: 1 if joining.one_sided else 2] for c in own.values()]
    schema = pa.schema([pa.field(c.ref, c.type) for c in stored])
    step = joined(mode, Join(inputs[0][0], inputs[1][0], (first, second), joining.kind, " AND ".join(asked.tests) or "true", schema))
    columns = joining.columns(*times)
    return Relation(
        columns.shown, step, lambda _: f"(SELECT *{columns.made} FROM input)" if columns.made else "input", extras=columns.others,
        sources=tuple(dict.fromkeys((*left.sources, *right.sources))), has_watermark=left.has_watermark and right.has_watermark,
        computed=left.computed or right.computed, origin=False,
    )  # fmt: skip


def _refuse_endless(joining: Joining, times: tuple[SideTimes, SideTimes]) -> None:
    needed = _NEEDS_END.get(joining.kind, ())
    if joining.draft.env.mode == "complete":
        if needed and joining.kind != "semi" and not all(is_whole(side.step) for side in joining.sides):
            raise RefusedError(f"{joining.kind.upper()} JOIN of streams in mode complete is not supported yet; write an inner join")
    elif any(side.step.changes for side in joining.sides):
        return  # what has no match is retracted when one comes
    elif any(not times[side].bounded for side in needed):
        raise RefusedError(_UNBOUNDED.format(joining.kind.upper()))


def _input(joining: Joining, side: int) -> tuple[Step, list[str]]:
    """The step whose rows reach the join, and what its columns are called there: as in the side itself, if that can be."""
    relation, own, env = joining.sides[side], joining.names[side], joining.draft.env
    origin = ORIGIN if env.origin and relation.origin else ()
    env.read_origin(relation.sources, origin)
    plain = [c.name.lower() for c in own]
    names = [c.name if plain.count(c.name.lower()) == 1 else new.ref for c, new in own.items()]
    shown = [(name, c) for name, c in zip(names, own.values(), strict=True) if name not in origin]
    columns = [f"{c.sql} AS {quote(name)}" for name, c in shown] + [f"{hidden_name(h)} AS {quote(h)}" for h in origin]
    weight = WEIGHED if relation.step.changes else ()
    filters = joining.filters(side)
    where = f" WHERE {' AND '.join(filters)}" if filters else ""
    rows = f"(SELECT {joining.listed(side)}{hidden_columns((*origin, *weight))} FROM {relation.body((*origin, *weight))})"
    schema = pa.schema([pa.field(name, c.type) for name, c in shown] + [pa.field(h, STRING) for h in origin])
    sql = f"SELECT {', '.join(columns)}{hidden_columns(weight)} FROM {rows}{where}"
    return Project(relation.step, sql, weighted(schema) if weight else schema), names


def _side(joining: Joining, side: int, names: Sequence[str], asked: Conditions, bounds: Sequence[Bound], times: SideTimes) -> JoinSide:
    columns = list(joining.names[side].values())
    instants = [(b.left, b.right)[side].text for b in bounds]
    tests = dict.fromkeys([*asked.own[side], *(f"{text} IS NOT NULL" for text in instants)])
    keys = ", ".join(_normal(pair[side]) for pair in asked.keys)
    rows = ", ".join(f"{quote(name)} AS {c.sql}" for name, c in zip(names, columns, strict=True))
    rows += hidden_columns(WEIGHED) if joining.sides[side].step.changes else ""
    sql = (
        f'SELECT *, coalesce({" AND ".join(tests) or "true"}, false) AS "#ok", hash({keys}) AS "#h", '
        f'{times.late} AS "#time", {times.end} AS "#end" FROM (SELECT {rows} FROM input)'
    )
    return JoinSide(sql, tuple(c.ref for c in columns), times.bounded)


def _normal(key: Sql) -> str:
    """0.0 and -0.0 are equal."""
    return f"{key.text} + 0" if is_fractional(key.type) else key.text
