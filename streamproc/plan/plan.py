"""The plan: what the planner hands to the operators. Frozen values; `str(plan)` prints the tree.

SQL in a plan is DuckDB's, reads exactly one relation called `input`, and is made only from the job's text
(never from data). It may read the variable `epoch_now` (TIMESTAMPTZ), the logged time of the epoch; the session's
TimeZone is the plan's. A query is a tree of steps; each step's `schema` is the Arrow schema it yields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from streamproc.window import Window

OutputMode = Literal["append", "update", "complete"]


@dataclass(frozen=True)
class Scan:
    """Rows of one source: declared columns that the job reads and extra columns (`_shard`, …) that it names.
    All scans of one source are equal: it is decoded once for all sinks.
    """

    source: str
    schema: pa.Schema


@dataclass(frozen=True)
class Project:
    """Stateless SQL, row by row or exploding: `SELECT … FROM input [WHERE …]`. Order of rows is kept."""

    input: Step
    sql: str
    schema: pa.Schema


@dataclass(frozen=True)
class StateColumn:
    """One DuckDB aggregate state: `function(args) FILTER (WHERE filter) EXPORT_STATE AS name`.

    `args` are columns of the aggregate's prepared rows, `types` their DuckDB types; `constants` and `order` are
    the further arguments of `to_aggregate_state` (see operators/aggregate.py).
    """

    name: str
    function: str
    args: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    filter: str | None = None
    constants: tuple[str, ...] = ()
    order: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Aggregate:
    """Grouped aggregate, incremental: prepare → window → partial states → runs → finalize → `post`.

    `input` yields the rows as they reach the operator (what `late` shows). `prepare` is `SELECT … FROM input`
    and yields `keys` (k0, k1, …), arguments (a0, …), filters (f0, …) and, if the query has a time, `_t` (event
    time, BIGINT µs, NULL where the row has none). With `window`, a row goes to the windows of `_t` and the groups
    gain `_ws`, `_we` (BIGINT µs, NOT NULL; rows with NULL `_t` go nowhere). Without a window but with `time_key`, that key is the
    event time itself and a group is final when it ≤ watermark. `post` is `SELECT … FROM input [WHERE having]` over keys (k0…),
    `_ws`, `_we` and finalized states under their names, and yields `schema`.
    """

    input: Step
    prepare: str
    keys: tuple[str, ...]
    states: tuple[StateColumn, ...]
    post: str
    schema: pa.Schema
    window: Window | None = None
    time_key: str | None = None
    id: str = "aggregate"
    global_group: bool = False
    """No GROUP BY at all: one group that exists also without rows (update and complete)."""
    uses_watermark: bool = True
    """False: the window's time (or no key) is watermarked, so nothing is ever late or final here."""


@dataclass(frozen=True)
class Limit:
    """`LIMIT n` in append: the first n rows of the job's life."""

    input: Step
    rows: int
    schema: pa.Schema
    id: str = "limit"


@dataclass(frozen=True)
class Order:
    """`ORDER BY … LIMIT` in complete: `sql` is `SELECT … FROM input ORDER BY … LIMIT …`."""

    input: Step
    sql: str
    schema: pa.Schema


Step = Scan | Project | Aggregate | Limit | Order


@dataclass(frozen=True)
class Query:
    """One sink's query. `schema` is the root's. `carries_origin`: rows at every operator's input carry `_source`,
    `_shard` and `_offset` (for `late`).
    """

    sink: str
    root: Step
    mode: OutputMode
    schema: pa.Schema
    carries_origin: bool = False


@dataclass(frozen=True)
class Watermark:
    """A source's event time: column, delay, idle (None = never) and max_ahead, in µs."""

    column: str
    delay_us: int = 0
    idle_us: int | None = 300_000_000
    max_ahead_us: int = 86_400_000_000


@dataclass(frozen=True)
class Plan:
    """All queries of a job over one read of its sources."""

    scans: dict[str, Scan]
    queries: dict[str, Query]
    watermarks: dict[str, Watermark]
    time_zone: str = "UTC"
    notes: tuple[str, ...] = field(default=())
    """What `explain` and `check` want said: unbounded state, at-least-once sinks, …"""
