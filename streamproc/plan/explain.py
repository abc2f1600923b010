"""A plan as text: operators, keys, windows, the state they keep and when it leaves, columns decoded."""

from __future__ import annotations

from streamproc.plan.plan import (
    Aggregate,
    Apply,
    Batch,
    Dedup,
    Evaluate,
    Join,
    JoinSide,
    Limit,
    Maintain,
    Plan,
    Project,
    Query,
    Release,
    Scan,
    SessionAggregate,
    StateColumn,
    Step,
    Union,
    Watermark,
)
from streamproc.schema import ddl

VALUES_KEPT = frozenset({"list", "quantile_cont", "quantile_disc", "median"})
"""States that grow with the rows of a group."""


def explain(plan: Plan) -> str:
    """The plan as an indented tree: a block for each source, then one for each sink."""
    lines = [line for scan in plan.scans.values() for line in _scan(plan, scan)]
    for query in plan.queries.values():
        lines += ["", *_query(plan, query)]
    lines += ["", *_tasks(plan)]
    if plan.notes:
        lines += ["", *(f"note: {note}" for note in plan.notes)]
    return "\n".join(lines) + "\n"


def _tasks(plan: Plan) -> list[str]:
    if plan.tasks.kind == "shards":
        return ["tasks: one per shard, shared by all workers"]
    return ["tasks: one over all shards, which one worker runs while others stand by, because", *(f"  {r}" for r in plan.tasks.reasons)]


def _scan(plan: Plan, scan: Scan) -> list[str]:
    watermark = plan.watermarks.get(scan.source)
    return [f"source {scan.source}", f"  decodes {ddl(scan.schema)}", f"  {_watermark(watermark)}"]


def _watermark(watermark: Watermark | None) -> str:
    if watermark is None:
        return "no watermark"
    idle = "never idle" if watermark.idle_us is None else f"idle after {_seconds(watermark.idle_us)}"
    return f"watermark {watermark.column} - {_seconds(watermark.delay_us)}, {idle}"


def _query(plan: Plan, query: Query) -> list[str]:
    late = ", late rows kept with their origin" if query.carries_origin else ""
    return [f"sink {query.sink} ({query.mode}{late})", f"  yields {ddl(query.schema)}", *_step(plan, query, query.root, 1)]


def _step(plan: Plan, query: Query, step: Step, depth: int) -> list[str]:
    lines = [_line(depth, text) for text in _operator(query, step)]
    return lines + [line for below in step.inputs for line in _step(plan, query, below, depth + 1)]


def _line(depth: int, text: str) -> str:
    return f"{'  ' * depth}{text}"


def _operator(query: Query, step: Step) -> list[str]:
    if isinstance(step, Scan):
        return [f"Scan {step.source}"]
    if isinstance(step, Union):
        return [f"Union of {len(step.branches)}"]
    if isinstance(step, Project):
        return [f"Project {step.sql}"]
    if isinstance(step, Evaluate):
        kept = "" if all(call.deterministic for call in step.calls) else "; results are kept with the epoch"
        return [f"Evaluate {', '.join(call.result for call in step.calls)} in Python{kept}"]
    if isinstance(step, Limit):
        return [f"Limit {step.rows}: the first rows of the job's life; state: one counter"]
    if isinstance(step, Release):
        left = f" and {step.back} rows a key" if step.back else " and running totals by key" if step.carries else ""
        leaves = "until the watermark passes their time or the end of their window"
        return [f"Release {step.sql}", f"  keep    {step.keep}", f"  state   rows {leaves}{left}"]
    if isinstance(step, Dedup):
        return [
            f"Dedup by {', '.join(step.keys)}",
            f"  prepare {step.prepare}",
            "  state   one row a key, until the watermark passes its event time; for ever where the key has none",
        ]
    if isinstance(step, Join):
        return _join(step)
    if isinstance(step, Apply):
        return [f"Apply {step.function} by {', '.join(step.keys)}", f"  prepare {step.prepare}", f"  state   {_applied(step)}"]
    if isinstance(step, Batch):
        return [f"Batch over the whole result {step.sql}"]
    if isinstance(step, Maintain):
        return _maintain(step)
    assert isinstance(step, Aggregate), step
    window = f", window {step.window}" if step.window else ", sessions" if isinstance(step, SessionAggregate) else ""
    return [
        f"Aggregate by {', '.join(step.keys) or 'nothing'}{window}",
        f"  prepare {step.prepare}",
        f"  states  {', '.join(_state(s) for s in step.states) or 'none'}",
        f"  result  {step.post}",
        f"  state   {_leaves(query, step)}",
    ]


def _applied(step: Apply) -> str:
    ends = "until the function forgets it" if step.ttl_us is None else f"until {_seconds(step.ttl_us)} after its last call"
    return f"one row a key, {ends}"


def _join(step: Join) -> list[str]:
    sides = zip(("left", "right"), step.sides, strict=True)
    return [
        f"Join {step.kind} on {step.condition}",
        *(f"  {name:7} {side.prepare}" for name, side in sides),
        f"  state   rows of both sides: {', '.join(_leaving(n, s) for n, s in zip(('left', 'right'), step.sides, strict=True))}",
    ]


def _leaving(name: str, side: JoinSide) -> str:
    return f"{name} ones until the watermark passes the last time of a match" if side.bounded else f"{name} ones for ever"


def _maintain(step: Maintain) -> list[str]:
    by = " and ".join(", ".join(keys) or "nothing" for keys in step.keys)
    kept = "rows that can still come into the result" if step.prune else "every row that is in force"
    leaves = "until the watermark passes their key's time" if step.final else "kept until they are retracted"
    return [
        f"Maintain by {by}: what changes is computed anew",
        *(f"  keeps   {keep}" for keep in step.keep),
        f"  result  {step.sql}",
        f"  state   {kept}, {leaves}",
    ]


def _state(state: StateColumn) -> str:
    filtered = f" filter {state.filter}" if state.filter else ""
    order = f" order {', '.join(name for name, _ in state.order)}" if state.order else ""
    grows = " (keeps every value)" if state.function in VALUES_KEPT else ""
    grows += f" (of distinct {', '.join(state.distinct)}, which are kept)" if state.distinct else ""
    return f"{state.name} = {state.function}({', '.join(state.args)}){filtered}{order}{grows}"


def _leaves(query: Query, step: Aggregate) -> str:
    if step.global_group:
        return "one group, kept for ever"
    if query.mode == "complete":
        return "every group, kept for ever"
    if not step.uses_watermark:
        return "one row a group, kept for ever"
    if isinstance(step, SessionAggregate):
        return "rows of open sessions, until the watermark passes a session's end"
    if step.window:
        return "one row a group and window, until the watermark passes the window's end"
    return "one row a group, until the watermark passes its event time"


def _seconds(micros: int) -> str:
    return f"{micros / 1_000_000:g} s"
