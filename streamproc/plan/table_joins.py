"""Joins with a bounded table: SQL over the rows of the stream, which read the epoch's version of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from streamproc.batch import TIMESTAMP
from streamproc.plan import arithmetic
from streamproc.plan.casts import convert
from streamproc.plan.expressions import Compiler
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
    word, condition, after = joining.kind.upper(), joining.condition, ""
    version = joining.node.this.args.get("version")
    if isinstance(table.step, Table) and table.step.versioned and not isinstance(stream.step, Table):
        joining = replace(joining, needed=frozenset(c for c in (table.step.versioned[1], stream.event and stream.event.name) if c))
        word, condition, after = _as_of(joining, at, stream, table.step.versioned, version)
    elif version is not None:
        raise RefusedError("FOR SYSTEM_TIME AS OF needs a table with `versioned: {key: …, time: …}`")
    columns = joining.columns()
    listed = [joining.listed(side) for side in (0, 1)]

    def body(hidden: Sequence[str]) -> str:
        asked = [hidden if side == at else () for side in (0, 1)]
        left, right = (
            f"(SELECT {names}{hidden_columns(extra)} FROM {side.body(extra)})"
            for side, names, extra in zip(joining.sides, listed, asked, strict=True)
        )
        return f"(SELECT *{columns.made} FROM {left} AS l {word} JOIN {right} AS r ON {condition}{after})"

    return Relation(
        columns.shown, stream.step, body, extras=columns.others,
        sources=stream.sources, has_watermark=stream.has_watermark, computed=stream.computed, origin=stream.origin,
    )  # fmt: skip


def _as_of(
    joining: Joining, at: int, stream: Relation, versioned: tuple[str, str], version: exp.Expr | None
) -> tuple[str, str, str]:  # fmt: skip
    """The row of the table that is valid at the event's time: the kind of join, its condition, and what is asked of pairs after it."""
    if joining.kind not in ("inner", "left") or at == 1:
        raise RefusedError("a versioned table is joined by FROM stream JOIN table ON …, or LEFT JOIN: each event has one valid row")
    own = {c.name.lower(): new for c, new in joining.names[1].items()}
    key, since = (own.get(name.lower()) for name in versioned)
    event = None if stream.event is None else joining.names[0][stream.event].sql
    if version is not None:
        event = convert(Compiler(joining.scope).compile(version.expression), TIMESTAMP).text
    tests = [arithmetic.compare("=", a, b).text for a, b in joining.using_tests if key and key.sql == b.text]
    rest = list[str]()
    for node in joining.conditions:
        sides = node.unnest()
        is_key = isinstance(sides, exp.EQ) and key is not None and joining.is_column(key, sides.this, sides.expression)
        (tests if is_key else rest).append(Compiler(joining.scope).boolean(node).text)
    if len(tests) != 1 or since is None or event is None or (rest and joining.kind == "left"):
        raise RefusedError(
            f"a versioned table gives the row that is valid at the event's time: write ON stream.x = table.{versioned[0]}, nothing else, "
            "and give the source a watermark (its column is the event's time), or write JOIN table FOR SYSTEM_TIME AS OF stream.ts"
        )
    return f"ASOF {joining.kind.upper()}", f"{tests[0]} AND {event} >= {since.sql}", f" WHERE {' AND '.join(rest)}" if rest else ""


def _why_not(joining: Joining, stream: Relation, table: Relation) -> str:
    names = f"FROM {stream.alias or 'the stream'} LEFT JOIN {table.alias or 'the table'}"
    return (
        f"{joining.kind.upper()} JOIN asks for rows of the bounded table {table.alias!r} by what the stream does not have, and a stream "
        f"never ends; begin with the stream, {names}, or write an inner join"
    )
