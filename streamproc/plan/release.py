"""Window functions in mode append: rows wait until nothing can come before them, and are written once.

Either the partition is final at some watermark (it has a window, or the event time, among its keys): then its rows are released
together. Or rows are ordered by event time: they are released in that order, and of each key the last rows, or running
totals, are kept for those that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from streamproc.plan.faults import RefusedError
from streamproc.plan.plan import Release, StateColumn, Step
from streamproc.plan.ranking import Level, Over, read_over
from streamproc.plan.relation import ORIGIN, Column, Relation, Time
from streamproc.plan.row_values import in_two
from streamproc.plan.select import Draft, with_origin
from streamproc.plan.types import STRING, is_orderable

_NEEDED = (
    "window functions in mode append need rows that become final: PARTITION BY a window of event time, or ORDER BY the event time"
    " (ascending, first); or write mode: update, which writes a row again when it changes"
)

_WRITTEN = {"arg_min": "first", "arg_min_null": "first", "arg_max": "last", "arg_max_null": "last", "list": "collect_list"}
"""States by the names of the functions that they are for."""


def released(draft: Draft) -> Relation:
    """A SELECT with window functions, over rows that are only added."""
    keep_origin(draft)
    rows = draft.rows
    over = read_over(draft)
    times = zip(over.partition, over.partition_times, strict=True)
    finals = [(final, time) for value, time in times if time and (final := time.final_us(value.text))]
    step = _release(rows.step, over, *finals[0], over.sql) if finals else _in_order(rows.step, over)
    columns = tuple(Column(o.name, o.value.type, o.time) for o in over.outputs)
    return Relation(
        columns, step, lambda _: "input",
        sources=rows.sources, has_watermark=rows.has_watermark, computed=True, origin=False,
    )  # fmt: skip


def keep_origin(draft: Draft) -> None:
    """Rows at the operator say where they came from, where `late` shows it."""
    rows = draft.rows
    if not (draft.env.origin and rows.origin):
        return
    step = with_origin(draft.env, rows, rows.columns, draft.condition)
    columns = tuple(c for c in rows.columns if c.name not in ORIGIN)
    extras = tuple(Column(name, STRING) for name in ORIGIN)
    draft.source = Relation(columns, step, lambda _: "input", rows.alias, extras, sources=rows.sources, has_watermark=rows.has_watermark)
    draft.where = None


def _release(below: Step, over: Over, final: str, time: Time, sql: str) -> Release:
    keys = [f"{value.text} AS k{i}" for i, value in enumerate(over.partition)]
    keep = f"SELECT {', '.join([f'{final} AS _we', *keys, *over.columns.names])} FROM {over.keep(())}"
    schema = pa.schema([pa.field(o.name, o.value.type) for o in over.outputs])
    names = tuple(f"k{i}" for i in range(len(over.partition)))
    return Release(below, keep, names, tuple(over.columns.names), sql, schema, lag_us=time.lag_us, post=over.post)


def _in_order(below: Step, over: Over) -> Release:
    """Rows by event time. Every window begins with it, and none looks ahead."""
    first = [level.order[0] if level.order else None for level in over.levels]
    time = first[0][2] if first and first[0] else None
    same = all(one is not None and one[2] == time and one[1].startswith("ASC") for one in first)
    if time is None or time.kind == "start" or not same:
        raise RefusedError(_NEEDED)
    if len({frozenset(level.partition) for level in over.levels}) > 1:
        raise RefusedError("windows of different partitions need a view each in mode append: compute one in a subquery of the other")
    assert first[0] is not None
    final = time.final_us(first[0][0])
    assert final is not None
    if any(level.whole for level in over.levels):
        raise RefusedError(
            "a window that looks at rows after its own (LEAD, NTILE, FOLLOWING) is never final in mode append; write mode: update"
            if not any(" RANGE " in level.frame and " PRECEDING" in level.frame for level in over.levels)
            else "RANGE n PRECEDING is not kept in mode append; write mode: update, or join the stream with itself on the key and"
            " b.ts BETWEEN a.ts - INTERVAL 1 MINUTE AND a.ts, then GROUP BY the row"
        )
    running = [level for level in over.levels if level.running]
    if not running:
        return _looking_back(below, over, final, time)
    if any(level.back for level in over.levels):
        raise RefusedError("running totals and functions that look back at rows (LAG, ROWS n PRECEDING) need a view each in mode append")
    return _running(below, over, final, time)


def _looking_back(below: Step, over: Over, final: str, time: Time) -> Release:
    ties = _ties(over)
    step = _release(below, over, final, time, _result(over, over.rows, "_new"))
    return replace(step, back=max(level.back for level in over.levels), order=over.levels[0].ordered(ties))


def _result(over: Over, rows: str, *more: str) -> str:
    return in_two(rows, over.outputs, [*over.conditions, *more])[0]


def _ties(over: Over) -> list[str]:
    return [f.name for f in over.columns if is_orderable(f.type)]


def _running(below: Step, over: Over, final: str, time: Time) -> Release:
    """Each level's values are those over the new rows, put together with what is carried of the earlier ones."""
    rows, totals = "input", list[Total]()
    for i, level in enumerate(over.levels):
        own = list(_totals(level, f"p{i}_"))
        rows = _running_rows(level, f"p{i}_", rows, _ties(over), own)
        totals += own
    keys = ", ".join(["_h", *(f"k{i}" for i in range(len(over.partition)))])
    after = ", ".join(f"CAST({total.after} AS {total.type}) AS {total.name}" for total in totals)
    carried = f"SELECT {keys}, {after} FROM {rows} GROUP BY {keys}"
    carries = tuple((total.name, total.type) for total in totals)
    return replace(_release(below, over, final, time, _result(over, rows)), carries=carries, carried=carried)


@dataclass(frozen=True)
class Total:
    """Something that is carried on: `name` in the input, its DuckDB `type`; `merged` is the value after `part`, the column of the
    new rows alone; `after` is what the key leaves behind: SQL of an aggregate over its new rows.
    """

    name: str
    type: str
    part: str
    merged: str
    after: str


def _totals(level: Level, prefix: str) -> list[Total]:
    found = []
    last = f"arg_max_null({{}}, {prefix}n)"
    for text, name in level.functions.items():
        p = f"{prefix}{name}"
        after = f"coalesce(any_value({p}), 0) + count(*)" if text == "rank()" else f"max({prefix}q_{name})"
        found.append(Total(p, "BIGINT", name, f"{name} + coalesce({p}, 0)", after))
    for state in level.states.state_columns:
        found += _state_totals(state, prefix, last)
    return found


def _state_totals(state: StateColumn, prefix: str, last: str) -> list[Total]:
    name, p, after = state.name, f"{prefix}{state.name}", last.format(f"{prefix}q_{state.name}")
    kind = state.types[0] if state.types else "BIGINT"
    both = f"coalesce({name} + {p}, {name}, {p})"
    if state.function in ("count", "count_star", "count_if"):
        return [Total(p, "BIGINT", name, f"{name} + coalesce({p}, 0)", after)]
    if state.function == "sum":
        exact = f"DECIMAL(38,{kind.partition(',')[2].rstrip(')') or 0})"
        return [Total(p, kind if kind in ("DOUBLE", "FLOAT") else exact, name, both, after)]
    if state.function in ("min", "max"):
        return [Total(p, kind, name, f"{'least' if state.function == 'min' else 'greatest'}({name}, {p})", after)]
    if state.function in ("bool_and", "bool_or"):
        return [Total(p, "BOOLEAN", name, f"coalesce({name} {state.function[5:].upper()} {p}, {name}, {p})", after)]
    raise RefusedError(
        f"a running {_WRITTEN.get(state.function, state.function)} over all rows before is not kept in mode append; sum, count, min and max"
        " are: write sum(x) OVER … / count(x) OVER … for an average, or mode: update"
    )


def _running_rows(level: Level, prefix: str, rows: str, ties: Sequence[str], totals: Sequence[Total]) -> str:
    """`Level.sql` with the carried totals in it; `<prefix>q_<name>` are the totals after each row, `<prefix>n` numbers the rows."""
    whole = f"({f'PARTITION BY {chr(44).join(level.partition)} ' if level.partition else ''}ORDER BY {level.ordered(ties)})"
    inner = level.computed(rows, ties, f"row_number() OVER {whole} AS {prefix}n")
    merged = ", ".join(f"{total.merged} AS {total.part}" for total in totals)
    inner = f"(SELECT * REPLACE ({merged}) FROM {inner})" if totals else inner
    kept = "".join(f", {total.part} AS {prefix}q_{total.part}" for total in totals)
    results = ", ".join(f"{text} AS {name}" for text, name in level.results.items())
    return f"(SELECT * EXCLUDE ({', '.join(level.computed_names)}), {results}{kept} FROM {inner})"
