"""DISTINCT, and PySpark's `drop_duplicates` and `drop_duplicates_within_watermark` as functions in FROM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.maintain import distinct
from streamproc.plan.plan import Dedup, Step
from streamproc.plan.relation import Column, Relation, RelationScope
from streamproc.plan.select import Draft, Env, with_origin

FUNCTIONS = ("drop_duplicates", "drop_duplicates_within_watermark")


def distinct_rows(draft: Draft) -> None:
    """SELECT DISTINCT."""
    clause = draft.node.args.get("distinct")
    if clause is None:
        return
    if clause.args.get("on"):
        raise RefusedError("DISTINCT ON is not Spark SQL; FROM drop_duplicates(t, 'a') keeps the first row of every a")
    assert draft.result is not None
    draft.result = deduplicated(draft.env, draft.result, draft.result.columns)


def is_dedup(node: exp.Expr) -> bool:
    return isinstance(node, exp.Table) and isinstance(node.this, exp.Anonymous) and node.this.name.lower() in FUNCTIONS


def drop_duplicates(env: Env, node: exp.Expr) -> Relation:
    """What FROM reads with `drop_duplicates(t, 'a', 'b')`."""
    call = node.this
    name = call.name.lower()
    if not call.expressions or not isinstance(call.expressions[0], exp.Column):
        raise LocatedError(f"{name}() takes a source or view, then the columns to compare as strings: {name}(t, 'a', 'b')", node)
    table, *named = call.expressions
    relation = env.relation(exp.Table(this=exp.to_identifier(table.name)))
    scope = RelationScope(relation)
    columns = [_named(scope, name, column) for column in named] or list(relation.columns)
    for column in relation.columns:
        relation.mark(column.ref or column.name)
    if name == "drop_duplicates":
        return deduplicated(env, relation, columns)
    if relation.event is None or relation.event.time is None:
        raise RefusedError(f"{name}() needs a watermark: add `watermark: {{column: …, delay: …}}` to the source")
    return deduplicated(env, relation, columns, env.delay_us(relation.sources))


def _named(scope: RelationScope, function: str, node: exp.Expr) -> Column:
    if not isinstance(node, exp.Literal) or not node.is_string:
        raise LocatedError(f"{function}() takes its columns as strings: 'a', 'b'", node)
    return scope.find([node.name])[0]


def deduplicated(env: Env, relation: Relation, keys: Sequence[Column], within_us: int | None = None) -> Relation:
    """The first row of each combination of `keys`. It is forgotten `within_us` after its event time, or once the event time
    among the keys is final; else never.
    """
    if list(keys) == list(relation.columns) and (whole := distinct(env.mode, relation)) is not None:
        return whole
    if relation.step.changes:
        raise RefusedError("which row of a result that changes comes first is not known; use SELECT DISTINCT, or GROUP BY and max_by()")
    if wrong := [c.name for c in keys if pa.types.is_map(c.type)]:
        raise LocatedError(f"column {wrong[0]!r} is a MAP, which cannot be compared; name other columns")
    step, rows = _input(env, relation)
    time = next((c for c in relation.columns if c.time), None)
    late = time.time.final_us(time.sql) if time and time.time else None
    forgotten = f"{late} + {within_us}" if within_us is not None else _final(keys)
    schema = pa.schema([pa.field(c.ref or c.name, c.type) for c in relation.columns])
    columns = [f"{c.sql} AS k{i}" for i, c in enumerate(keys)] + [c.sql for c in relation.columns]
    prepare = f"SELECT {', '.join(columns)}, {late or 'NULL::BIGINT'} AS _t, {forgotten} AS _we FROM {rows}"
    lag_us = time.time.lag_us if time and time.time else 0
    made = Dedup(step, prepare, tuple(f"k{i}" for i in range(len(keys))), schema, lag_us=lag_us)
    return replace(relation, step=made, body=lambda _: "input", extras=(), mark=lambda _: None, computed=True, origin=False, tail=None)


def _final(keys: Sequence[Column]) -> str:
    """The watermark at which no more rows can have these values."""
    times = [final for c in keys if c.time and (final := c.time.final_us(c.sql))]
    return times[0] if times else "NULL::BIGINT"


def _input(env: Env, relation: Relation) -> tuple[Step, str]:
    """The step whose rows reach the operator, with their origin where `late` shows it, and what `prepare` stands on."""
    if not (env.origin and relation.origin):
        return relation.step, relation.body(())
    return with_origin(env, relation, relation.columns), "input"
