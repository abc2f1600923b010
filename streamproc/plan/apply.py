"""A view that is a stateful function: `apply: {function, input, key, schema, time, ttl}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from streamproc.plan.faults import RefusedError
from streamproc.plan.plan import Apply, Project
from streamproc.plan.relation import ORIGIN, Column, Relation, RelationScope, arrival, hidden_name
from streamproc.plan.select import Env
from streamproc.plan.types import STRING, quote


@dataclass(frozen=True)
class ApplyInfo:
    """A stateful function of the job over `input`, a view or source."""

    input: str
    key: tuple[str, ...]
    schema: pa.Schema
    time: Literal["event", "processing"] = "event"
    ttl_us: int | None = None
    deterministic: bool = False


NO_APPLIES: Mapping[str, ApplyInfo] = {}


def applied(env: Env, name: str, info: ApplyInfo, rows: Relation) -> Relation:
    """What the function `name` makes of `rows`."""
    if rows.step.changes:
        raise RefusedError("a stateful function reads rows that are only added; its input changes in mode update: write mode: append")
    if info.time == "event" and rows.event is None:
        raise RefusedError("time: event needs the watermark's column among the columns of the input; select it, or write time: processing")
    scope = RelationScope(rows)
    keys = tuple(scope.find([key])[0].name for key in info.key)
    columns = [c for c in rows.columns if c.name not in ORIGIN]
    for column in columns:
        rows.mark(column.ref or column.name)
    if rows.origin:
        env.read_origin(rows.sources, ORIGIN)
    hidden = ORIGIN if rows.origin else ()
    listed = [f"{c.sql} AS {quote(c.name)}" for c in columns] + [f"{hidden_name(h)} AS {quote(h)}" for h in hidden]
    late = next((final for c in rows.columns if c.time and (final := c.time.final_us(c.sql))), "NULL::BIGINT")
    listed += [f"{late} AS _t", f"{arrival(rows).text} AS _order"]
    schema = pa.schema([*(pa.field(c.name, c.type) for c in columns), *(pa.field(h, STRING) for h in hidden)])
    fields = [*schema, pa.field("_t", pa.int64()), pa.field("_order", arrival(rows).type)]
    project = Project(rows.step, f"SELECT {', '.join(listed)} FROM {rows.body(hidden)}", pa.schema(fields))
    times = [c.time for c in rows.columns if c.time]
    step = Apply(
        project, name, "SELECT * FROM input", keys, pa.schema([(c.name, c.type) for c in columns]), info.schema,
        event=info.time == "event", ttl_us=info.ttl_us, deterministic=info.deterministic, lag_us=times[0].lag_us if times else 0,
    )  # fmt: skip
    made = tuple(Column(f.name, f.type) for f in info.schema)
    return Relation(made, step, lambda _: "input", sources=rows.sources, has_watermark=rows.has_watermark, computed=True, origin=False)
