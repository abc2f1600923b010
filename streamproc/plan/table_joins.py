"""Joins with a bounded table: SQL over the rows of the stream, which read the epoch's version of the table."""

from __future__ import annotations

from collections.abc import Sequence

from streamproc.plan.faults import RefusedError
from streamproc.plan.joining import Joining
from streamproc.plan.plan import Table
from streamproc.plan.relation import Relation, hidden_columns


def join_table(joining: Joining) -> Relation:
    """Rows of the stream side with those of the table; RefusedError if rows of the table without a match were asked for."""
    at = 1 if isinstance(joining.left.step, Table) and not isinstance(joining.right.step, Table) else 0
    stream, table = joining.sides[at], joining.sides[1 - at]
    if not isinstance(stream.step, Table) and joining.kind not in (("inner", "left", "semi", "anti"), ("inner", "right"))[at]:
        raise RefusedError(_why_not(joining, stream, table))
    columns, condition = joining.columns(), joining.condition
    listed = [joining.listed(side) for side in (0, 1)]

    def body(hidden: Sequence[str]) -> str:
        asked = [hidden if side == at else () for side in (0, 1)]
        left, right = (
            f"(SELECT {names}{hidden_columns(extra)} FROM {side.body(extra)})"
            for side, names, extra in zip(joining.sides, listed, asked, strict=True)
        )
        return f"(SELECT *{columns.made} FROM {left} AS l {joining.kind.upper()} JOIN {right} AS r ON {condition})"

    return Relation(
        columns.shown, stream.step, body, extras=columns.others,
        sources=stream.sources, has_watermark=stream.has_watermark, computed=stream.computed, origin=stream.origin,
    )  # fmt: skip


def _why_not(joining: Joining, stream: Relation, table: Relation) -> str:
    names = f"FROM {stream.alias or 'the stream'} LEFT JOIN {table.alias or 'the table'}"
    return (
        f"{joining.kind.upper()} JOIN asks for rows of the bounded table {table.alias!r} by what the stream does not have, and a stream "
        f"never ends; begin with the stream, {names}, or write an inner join"
    )
