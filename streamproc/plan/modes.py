"""The root of a query: what its output mode allows (Spark's matrix), ORDER BY, LIMIT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from streamproc.plan.faults import RefusedError
from streamproc.plan.plan import (
    Aggregate,
    Batch,
    Join,
    Limit,
    LinearAggregate,
    Maintain,
    Operation,
    OutputMode,
    Project,
    Query,
    Scan,
    Step,
    unweighted,
    weighted,
)
from streamproc.plan.relation import WEIGHED, Relation, Tail
from streamproc.plan.types import quote

_EXACT = frozenset(
    {"count", "min", "max", "arg_min", "arg_max", "arg_min_null", "arg_max_null", "list", "quantile_disc", "quantile_cont", "median",
     "string_agg", "approx_count_distinct"}
)  # fmt: skip
"""Aggregates of doubles that do not depend on the order of rows, or have one."""


@dataclass(frozen=True)
class SinkQuery:
    """A sink's SQL and output mode; `late`: rows at operators must say where they came from. `changes`: the sink is told every
    change of the result, also what is gone. `keys`: columns by which it overwrites, where it says them.
    """

    query: str
    mode: OutputMode
    late: bool = False
    changes: bool = False
    keys: tuple[str, ...] | None = None


def finish(name: str, sink: SinkQuery, relation: Relation) -> Query:
    """The query of a sink; RefusedError where the mode does not fit."""
    _check_mode(sink, relation)
    carries_origin = sink.late and any(isinstance(step, Operation) for step in relation.step.walk())
    root = _root(relation, sink.changes)
    if relation.tail is not None:
        root = _tailed(root, relation, relation.tail, sink.mode)
    return Query(name, root, sink.mode, relation.schema, carries_origin, relation.key if sink.keys is None else sink.keys)


def aggregates_of(step: Step) -> list[Aggregate]:
    return [step for step in step.walk() if isinstance(step, Aggregate)]


def _root(relation: Relation, changes: bool) -> Step:
    """The step that yields the query's rows. Where every group that is touched has a row, an aggregate at the root does not look
    up what it was before.
    """
    step = relation.step
    sound = " WHERE " not in relation.body(())
    if type(step) is Aggregate and step.writes_changes and sound and " WHERE " not in step.post and not changes:
        step = replace(step, writes_changes=False, schema=unweighted(step.schema))
    text = relation.body(WEIGHED if step.changes else ())
    if text == "input":
        return step
    return Project(step, text[1:-1], weighted(relation.schema) if step.changes else relation.schema)


def _check_mode(sink: SinkQuery, relation: Relation) -> None:
    if sink.mode == "complete":
        _check_complete(sink, relation)
    if sink.mode == "update":
        _check_exact(relation.step)
    for step in aggregates_of(relation.step):
        if sink.mode == "append" and not step.uses_watermark:
            needed = _why_not_final(step, relation)
            raise RefusedError(f"mode append writes a group when no more rows can come, which {needed}, or write mode: update")


def _check_exact(root: Step) -> None:
    """What a second step is told has gone must be what it was told had come, to the last bit: sums of doubles are not."""
    maintained = (step for step in root.walk() if isinstance(step, Maintain | LinearAggregate))
    for below in (below for step in maintained for one in step.inputs for below in aggregates_of(one)):
        for state in below.states:
            if any(kind in ("DOUBLE", "FLOAT") for kind in state.types) and state.function not in _EXACT:
                raise RefusedError(
                    f"mode update over {state.function} of doubles: its last digits depend on the order of rows, so what changes could not "
                    "be told; CAST the values to DECIMAL before it, or write the inner result to a sink and read that"
                )


def _check_complete(sink: SinkQuery, relation: Relation) -> None:
    if not aggregates_of(relation.step):
        raise RefusedError("mode complete needs an aggregate, since all rows of the job would be kept; write mode: append")
    if any(isinstance(leaf, Scan) for leaf in _above_aggregates(relation.step)):
        raise RefusedError("mode complete needs an aggregate over every source that the query reads; write mode: update")
    if sink.changes:
        raise RefusedError("mode complete writes the whole result, not its changes; write mode: update, or leave `changes` out")


def _above_aggregates(step: Step) -> Iterator[Step]:
    """The steps from the root down to the first aggregates."""
    yield step
    for below in () if isinstance(step, Aggregate) else step.inputs:
        yield from _above_aggregates(below)


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
        sql = f"SELECT {columns} FROM input ORDER BY {tail.order}{limit}"
        return Batch((root,), ("SELECT * FROM input",), sql, relation.schema, id="order")
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
        if any(isinstance(step, Maintain) and not step.final and step.prune is None for step in query.root.walk()):
            found.append(f"sink {name}: rows in force below a second step are kept until they are retracted; state grows with their number")
    return tuple(dict.fromkeys(found))


def _kept_for_ever(step: Join, mode: OutputMode) -> list[str]:
    sides = [name for name, side in zip(("left", "right"), step.sides, strict=True) if not side.bounded]
    if not sides:
        return []
    why = "mode complete forgets nothing" if mode == "complete" else "nothing bounds the times of both sides in ON"
    return [f"rows of the {' and the '.join(sides)} side of a join are kept for ever, since {why}; state grows with their number"]
