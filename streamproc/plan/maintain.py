"""What stands above results that change: in update, steps that keep a result up with changes; in complete, batch SQL over the
whole result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import pyarrow as pa

from streamproc.plan.faults import RefusedError
from streamproc.plan.grouping_sets import SET
from streamproc.plan.linear import is_linear
from streamproc.plan.one_pass import one_pass_sql
from streamproc.plan.plan import Aggregate, Batch, Join, LinearAggregate, Maintain, OutputMode, Ranked, SessionAggregate, Step, weighted
from streamproc.plan.ranking import Over, read_over
from streamproc.plan.relation import WEIGHED, Column, Relation, hidden_columns
from streamproc.plan.release import keep_origin, released
from streamproc.plan.select import Draft, has_over, stored
from streamproc.plan.types import text_literal

_SESSIONS = "session windows over a result that changes are not possible in mode {}; group by window(…), or write mode: append"


def by_mode(draft: Draft, relation: Relation) -> Relation:
    """An aggregate's relation, as the output mode wants it above what it reads."""
    step, below = relation.step, draft.rows
    assert isinstance(step, Aggregate)
    if below.step.changes:
        return replace(relation, step=_over_changes(step))
    if draft.env.mode == "complete" and is_whole(below.step):
        return replace(relation, step=_over_whole(step))
    if draft.env.mode == "update":
        return replace(relation, step=replace(step, writes_changes=True, schema=weighted(step.schema)))
    return relation


def over_rows(draft: Draft) -> None:
    """A SELECT with window functions."""
    if not has_over(draft.node):
        return
    mode = draft.env.mode
    if mode == "append":
        draft.result = released(draft)
        return
    keep_origin(draft)
    rows = draft.rows
    over = read_over(draft)
    columns = tuple(Column(o.name, stored(o.value).type, o.time) for o in over.outputs)
    schema = pa.schema([pa.field(c.name, c.type) for c in columns])
    step = _whole_over(rows.step, over, schema) if mode == "complete" else _maintained_over(rows.step, over, schema)
    draft.result = Relation(
        columns, step, lambda _: "input",
        sources=rows.sources, has_watermark=rows.has_watermark, computed=True, origin=False, key=over.key,
    )  # fmt: skip


def joined(mode: OutputMode | None, step: Join) -> Step:
    """A join of two streams, or of results that change."""
    kept = tuple(side.prepare for side in step.sides)
    sql = step.in_one_pass("SELECT * FROM input", "SELECT * FROM input1")
    if any(below.changes for below in step.inputs):
        return Maintain(step.inputs, kept, sql, weighted(step.schema), keys=(('"#h"',), ('"#h"',)))
    if mode == "complete" and any(is_whole(below) for below in step.inputs):
        return Batch(step.inputs, kept, sql, step.schema)
    return step


def is_whole(step: Step) -> bool:
    """Whether a step's rows are a whole result each time (in complete)."""
    return any(isinstance(below, Aggregate | Batch) for below in step.walk())


def distinct(mode: OutputMode | None, relation: Relation) -> Relation | None:
    """SELECT DISTINCT over a result that changes; None where rows are only added."""
    names = [column.sql for column in relation.columns]
    whole = mode == "complete" and is_whole(relation.step)
    if not relation.step.changes and not whole:
        return None
    keep = f"SELECT {', '.join(names)}{hidden_columns(() if whole else WEIGHED)} FROM {relation.body(() if whole else WEIGHED)}"
    schema = pa.schema([pa.field(c.ref or c.name, c.type) for c in relation.columns])
    sql = "SELECT DISTINCT * FROM input"
    step: Step = (
        Batch((relation.step,), (keep,), sql, schema)
        if whole
        else Maintain((relation.step,), (keep,), sql, weighted(schema), keys=(tuple(names),))
    )
    key = tuple(c.name for c in relation.columns)
    return replace(relation, step=step, body=lambda _: "input", extras=(), mark=lambda _: None, computed=True, origin=False, key=key)


def _maintained_over(below: Step, over: Over, schema: pa.Schema) -> Maintain:
    times = zip(over.partition, over.partition_times, strict=True)
    finals = [(final, time) for value, time in times if time and (final := time.final_us(value.text))]
    return Maintain(
        branches=(below,),
        keep=(over.keep(WEIGHED if below.changes else ())[1:-1],),
        sql=over.sql,
        post=over.post,
        schema=weighted(schema),
        keys=(tuple(value.text for value in over.partition),),
        prune=None if below.changes else over.prune,
        ranked=_ranked(over) if below.changes else None,
        final=tuple(final for final, _ in finals[:1]),
        lag_us=finals[0][1].lag_us if finals else 0,
    )


def _ranked(over: Over) -> Ranked | None:
    if over.top is None:
        return None
    order = ", ".join(f"{text}, {text_literal(way)}" for text, way, _ in over.orders[0])
    return Ranked(f"create_sort_key({order})", over.top.n, over.top.function == "dense_rank")


def _whole_over(below: Step, over: Over, schema: pa.Schema) -> Batch:
    return Batch((below,), (over.keep(())[1:-1],), over.sql, schema, over.post)


def _over_changes(step: Aggregate) -> Step:
    """An aggregate whose input is changes: by sums alone where these say it all, else over the rows of its groups."""
    if is_linear(step.states) and not isinstance(step, SessionAggregate):
        said = {one.name: getattr(step, one.name) for one in fields(step)}
        return LinearAggregate(**{**said, "writes_changes": True, "schema": weighted(step.schema)})
    rows, groups, sql = _in_one_pass(step, "update")
    final = "_we" if step.window else step.time_key
    return Maintain(
        branches=(step.input,),
        keep=(rows,),
        sql=sql,
        post=step.post,
        schema=weighted(step.schema),
        keys=(tuple(groups),),
        final=(final,) if final and step.uses_watermark else (),
        lag_us=step.lag_us,
        global_group=step.global_group,
    )


def _over_whole(step: Aggregate) -> Batch:
    rows, _, sql = _in_one_pass(step, "complete")
    return Batch((step.input,), (rows,), sql, step.schema, step.post)


def _in_one_pass(step: Aggregate, mode: str) -> tuple[str, list[str], str]:
    """Rows with their groups (`SELECT … FROM input`), the columns that make a group, and what is computed of each."""
    if isinstance(step, SessionAggregate):
        raise RefusedError(_SESSIONS.format(mode))
    rows, groups = step.prepare, list(step.keys)
    if step.window is not None:
        placed = f"SELECT *, unnest({step.window.assign('_t')}) AS _wk FROM ({rows}) WHERE _t IS NOT NULL"
        rows = f"SELECT * EXCLUDE (_t, _wk), {step.window.begin('_wk')} AS _ws, {step.window.end('_wk')} AS _we FROM ({placed})"
        groups = ["_ws", "_we", *groups]
    if step.sets:
        rows = " UNION ALL ".join(_of_set(number, kept, rows, groups) for number, kept in enumerate(step.sets))
    columns = [*groups, *(f"{one_pass_sql(state)} AS {state.name}" for state in step.states)]
    by = f" GROUP BY {', '.join(groups)}" if groups else ""
    return rows, groups, f"SELECT {', '.join(columns) or 'true AS _row'} FROM input{by}"


def _of_set(number: int, kept: frozenset[str], rows: str, groups: Sequence[str]) -> str:
    """The rows in the groups of one grouping set: other keys are NULL."""
    left_out = [name for name in groups if name not in kept and name != SET and not (name == "_we" and "_ws" in kept)]
    masked = ", ".join([*(f"CASE WHEN false THEN {name} END AS {name}" for name in left_out), f"CAST({number} AS INTEGER) AS {SET}"])
    return f"SELECT * REPLACE ({masked}) FROM ({rows})"
