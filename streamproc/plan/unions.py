"""UNION [ALL]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.casts import convert
from streamproc.plan.dedup import deduplicated
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.plan import WEIGHT, Project, Union, weighted
from streamproc.plan.relation import ORIGIN, WEIGHED, Column, Relation, Time, hidden_columns
from streamproc.plan.select import Env
from streamproc.plan.types import STRING, Sql, quote, widest_type


def union(env: Env, node: exp.Expr, left: Relation, right: Relation) -> Relation:
    """Rows of both, columns by position under the left names; RefusedError for what needs state."""
    if not isinstance(node, exp.Union):
        raise RefusedError(f"{node.key.upper()} is not supported; filter with WHERE, or compare where the tables are read")
    if left.tail or right.tail or node.args.get("order") or node.args.get("limit"):
        raise RefusedError("ORDER BY and LIMIT cannot stand in a UNION ALL")
    if len(left.columns) != len(right.columns):
        raise LocatedError(f"UNION ALL: {len(left.columns)} columns against {len(right.columns)}", node)
    columns = tuple(_widest(a, b, node) for a, b in zip(left.columns, right.columns, strict=True))

    made = _together(env, left, right, columns)
    return deduplicated(env, made, made.columns) if node.args.get("distinct") else made


def _together(env: Env, left: Relation, right: Relation, columns: tuple[Column, ...]) -> Relation:
    if left.step == right.step and left.origin and right.origin:

        def body(hidden: Sequence[str]) -> str:
            return f"({_branch(left, columns, hidden)} UNION ALL {_branch(right, columns, hidden)})"

        return Relation(columns, left.step, body, sources=left.sources, has_watermark=left.has_watermark)
    return _side_by_side(env, left, right, columns)


def _side_by_side(env: Env, left: Relation, right: Relation, columns: tuple[Column, ...]) -> Relation:
    """A step that puts the rows of two others together; where they came from is kept if both say it."""
    origin = left.origin and right.origin
    hidden = ORIGIN if origin else ()
    if origin:
        env.read_origin((*left.sources, *right.sources), ORIGIN)
    schema = pa.schema([*(pa.field(c.name, c.type) for c in columns), *(pa.field(f"#{name}", STRING) for name in hidden)])
    if left.step.changes or right.step.changes:
        schema = weighted(schema)
        step = Union(tuple(Project(side.step, _weighted_branch(side, columns), schema) for side in (left, right)), schema)
    else:
        step = Union(tuple(Project(side.step, _branch(side, columns, hidden), schema) for side in (left, right)), schema)
    names = ", ".join(quote(c.name) for c in columns)
    return Relation(
        columns, step, lambda asked: f"(SELECT {names}{hidden_columns(asked)} FROM input)",
        sources=tuple(dict.fromkeys((*left.sources, *right.sources))), has_watermark=left.has_watermark and right.has_watermark,
        computed=left.computed or right.computed, origin=origin,
    )  # fmt: skip


def _widest(left: Column, right: Column, node: exp.Expr) -> Column:
    kind = widest_type(Sql("", left.type), Sql("", right.type))
    if kind is None:
        raise LocatedError(f"UNION ALL: column {left.name!r} has two types; CAST one", node)
    return Column(left.name, kind, _later(left.time, right.time))


def _later(left: Time | None, right: Time | None) -> Time | None:
    """The event time of both, if it is of one kind."""
    if left is None or right is None or left.kind != right.kind:
        return None
    return replace(left, lag_us=max(left.lag_us, right.lag_us), length_us=left.length_us if left.length_us == right.length_us else None)


def _weighted_branch(relation: Relation, columns: Sequence[Column]) -> str:
    """Rows that are only added have weight 1."""
    if relation.step.changes:
        return _branch(relation, columns, WEIGHED)
    return f"SELECT *, 1::BIGINT AS {quote(WEIGHT)} FROM ({_branch(relation, columns, ())})"


def _branch(relation: Relation, columns: Sequence[Column], hidden: Sequence[str]) -> str:
    pairs = zip(relation.columns, columns, strict=True)
    listed = ", ".join(f"{convert(Sql(own.sql, own.type), c.type).text} AS {quote(c.name)}" for own, c in pairs)
    return f"SELECT {listed}{hidden_columns(hidden)} FROM {relation.body(hidden)}"
