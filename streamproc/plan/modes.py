"""The root of a query: what its output mode allows (Spark's matrix), ORDER BY, LIMIT."""

from __future__ import annotations

from collections.abc import Mapping

from streamproc.plan.faults import RefusedError
from streamproc.plan.plan import Aggregate, Join, Limit, Operation, Order, OutputMode, Project, Query, Step
from streamproc.plan.relation import Relation, Tail
from streamproc.plan.types import quote


def finish(sink: str, mode: OutputMode, late: bool, relation: Relation) -> Query:
    """The query of a sink; RefusedError where the mode does not fit."""
    _check_mode(mode, relation)
    root, tail = _root(relation), relation.tail
    if tail is not None:
        root = _tailed(root, relation, tail, mode)
    return Query(sink, root, mode, relation.schema, late and any(isinstance(step, Operation) for step in relation.step.walk()))


def aggregates_of(step: Step) -> list[Aggregate]:
    return [step for step in step.walk() if isinstance(step, Aggregate)]


def _root(relation: Relation) -> Step:
    text = relation.body(())
    return relation.step if text == "input" else Project(relation.step, text[1:-1], relation.schema)


def _check_mode(mode: OutputMode, relation: Relation) -> None:
    aggregates = aggregates_of(relation.step)
    if mode == "complete" and not aggregates:
        raise RefusedError("mode complete needs an aggregate, since all rows of the job would be kept; write mode: append")
    for step in aggregates:
        if mode == "append" and not step.uses_watermark:
            needed = _why_not_final(step, relation)
            raise RefusedError(f"mode append writes a group when no more rows can come, which {needed}, or write mode: update")


def _why_not_final(step: Aggregate, relation: Relation) -> str:
    source = relation.sources[0]
    if not relation.has_watermark:
        return f"needs a watermark: add `watermark: {{column: …, delay: …}}` to source {source!r} and group by window(that column, …)"
    if step.window is not None:
        return f"needs the window over the watermark's own column of source {source!r}, not over an expression"
    return f"needs GROUP BY window(ts, '1 minute') (or the event-time column itself) of source {source!r}"


def _tailed(root: Step, relation: Relation, tail: Tail, mode: OutputMode) -> Step:
    if tail.order and mode != "complete":
        raise RefusedError("ORDER BY of a stream would never end; it is possible in mode complete, else leave it out")
    if mode == "complete" and tail.order:
        columns = ", ".join(quote(c.name) for c in relation.columns)
        limit = "" if tail.limit is None else f" LIMIT {tail.limit}"
        return Order(root, f"SELECT {columns} FROM input ORDER BY {tail.order}{limit}", relation.schema)
    if mode != "append" or tail.limit is None:
        raise RefusedError(f"LIMIT in mode {mode} needs ORDER BY in mode complete; in append it gives the first rows of the job's life")
    return Limit(root, tail.limit, relation.schema)


def notes(queries: Mapping[str, Query]) -> tuple[str, ...]:
    """What somebody who runs the job should know."""
    found = []
    for name, query in queries.items():
        for step in aggregates_of(query.root):
            if query.mode == "complete" and not step.global_group:
                found.append(f"sink {name}: mode complete keeps every group for ever and writes all of them each epoch")
            elif not step.uses_watermark and step.keys:
                found.append(f"sink {name}: groups without an event-time window are kept for ever; state grows with the number of keys")
        joins = [step for step in query.root.walk() if isinstance(step, Join)]
        found += [f"sink {name}: {text}" for step in joins for text in _kept_for_ever(step, query.mode)]
    return tuple(found)


def _kept_for_ever(step: Join, mode: OutputMode) -> list[str]:
    sides = [name for name, side in zip(("left", "right"), step.sides, strict=True) if not side.bounded]
    if not sides:
        return []
    why = "mode complete forgets nothing" if mode == "complete" else "nothing bounds the times of both sides in ON"
    return [f"rows of the {' and the '.join(sides)} side of a join are kept for ever, since {why}; state grows with their number"]
