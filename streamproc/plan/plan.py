"""The plan: what the planner hands to the operators. Frozen values; `str(plan)` prints the tree.

SQL in a plan is DuckDB's, reads one relation called `input` (and bounded tables as `"table:<name>"`), and is made only
from the job's text (never from data). It may read the variable `epoch_now` (TIMESTAMPTZ), the logged time of the epoch;
the session's TimeZone is the plan's. A query is a tree of steps; each step's `schema` is the Arrow schema it yields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import pyarrow as pa

from streamproc.window import MergingWindow, Window

OutputMode = Literal["append", "update", "complete"]
JoinKind = Literal["inner", "left", "right", "full", "semi", "anti"]


WEIGHT = "#w"


def weighted(schema: pa.Schema) -> pa.Schema:
    """With the column of weights."""
    return schema.append(pa.field(WEIGHT, pa.int64()))


def unweighted(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name != WEIGHT])


class Step:
    """A node of a query's tree. Its rows are appended, or, with `changes`, they are changes of a result: then a column
    `#w` (BIGINT, not 0) says how often a row came (above 0) or went (below), as in a Z-set.
    """

    schema: pa.Schema

    @property
    def inputs(self) -> tuple[Step, ...]:
        return ()

    @property
    def changes(self) -> bool:
        return any(step.changes for step in self.inputs)

    def over(self, *inputs: Step) -> Step:
        """The same step over other inputs."""
        assert not inputs
        return self

    def walk(self) -> Iterator[Step]:
        """Every step of the tree, inputs before what reads them."""
        for step in self.inputs:
            yield from step.walk()
        yield self


@dataclass(frozen=True)
class Unary(Step):
    """A step over one input."""

    input: Step

    @property
    def inputs(self) -> tuple[Step, ...]:
        return (self.input,)

    def over(self, *inputs: Step) -> Self:
        (only,) = inputs
        return replace(self, input=only)


class Operation(Step):
    """A step that needs more than one row, or remembers. `id` is its kind in the tree being planned, its own name in a plan."""

    id: str

    def named(self, name: str) -> Self:
        return replace(self, id=name)  # type: ignore[type-var]  # every operation is a dataclass


@dataclass(frozen=True)
class Scan(Step):
    """Rows of one source: declared columns that the job reads and extra columns (`_shard`, …) that it names.
    All scans of one source are equal: it is decoded once for all sinks.
    """

    source: str
    schema: pa.Schema


@dataclass(frozen=True)
class Table(Step):
    """A bounded table while a query is planned: its rows are in SQL (`"table:<name>"`), so no step of a plan stands on it.
    `versioned`: its key column, and the column that says from when on a row is valid.
    """

    name: str
    schema: pa.Schema
    versioned: tuple[str, str] | None = None


@dataclass(frozen=True)
class Project(Unary):
    """Stateless SQL, row by row or exploding: `SELECT … FROM input [WHERE …]`, maybe with bounded tables joined to it.
    Order of rows is kept.
    """

    sql: str
    schema: pa.Schema


@dataclass(frozen=True)
class FunctionCall:
    """A Python function of the job, called with columns `args` of a slice; what it returns becomes the column `result`."""

    function: str
    args: tuple[str, ...]
    result: str
    type: pa.DataType
    deterministic: bool


@dataclass(frozen=True)
class Evaluate(Unary):
    """Python functions, run over all rows of a slice at once. `schema`: the input's columns without the calls' arguments,
    then the results. Order and number of rows are kept.
    """

    calls: tuple[FunctionCall, ...]
    schema: pa.Schema


@dataclass(frozen=True)
class Union(Step):
    """The rows of every branch, which are all of this schema, one branch after the other."""

    branches: tuple[Step, ...]
    schema: pa.Schema

    @property
    def inputs(self) -> tuple[Step, ...]:
        return self.branches

    def over(self, *inputs: Step) -> Union:
        return replace(self, branches=inputs)


@dataclass(frozen=True)
class StateColumn:
    """One DuckDB aggregate state: `function(args) FILTER (WHERE filter) EXPORT_STATE AS name`.

    `args` are columns of the aggregate's prepared rows, `types` their DuckDB types; `constants` and `order` are
    the further arguments of `to_aggregate_state` (see operators/states.py). With `distinct`, columns too, it is
    over every combination of their values once.
    """

    name: str
    function: str
    args: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    filter: str | None = None
    constants: tuple[str, ...] = ()
    order: tuple[tuple[str, str], ...] = ()
    distinct: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aggregate(Unary, Operation):
    """Grouped aggregate, incremental: prepare → window → partial states → runs → finalize → `post`.

    `input` yields the rows as they reach the operator (what `late` shows). `prepare` is `SELECT … FROM input`
    and yields `keys` (k0, k1, …), arguments (a0, …), filters (f0, …) and, with `window`, `_t` (event
    time, BIGINT µs, NULL where the row has none). With `window`, a row goes to the windows of `_t` and the groups
    gain `_ws`, `_we` (BIGINT µs, NOT NULL; rows with NULL `_t` go nowhere). Without a window but with `time_key`, SQL over the
    keys (BIGINT µs), a group is final when that ≤ watermark. `post` is `SELECT … FROM input [WHERE having]` over keys (k0…),
    `_ws`, `_we` and finalized states under their names, and yields `schema`.
    """

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
    """False: neither the window's time nor a key is watermarked, so nothing is ever late or final here."""
    lag_us: int = 0
    """How much older than the watermark rows may be here without being late (above a join with a time bound)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What keys and `_ws` are called in the query, for messages."""
    sets: tuple[frozenset[str], ...] = ()
    """Grouping sets: keys (and `_ws`) that each has. A row goes to a group of every set; in it the other keys are NULL and `_g`,
    the last key, is the set's number.
    """
    writes_changes: bool = False
    """In update: the changes of its result (`schema` has weights), not the touched groups' new rows."""

    @property
    def changes(self) -> bool:
        return self.writes_changes


@dataclass(frozen=True)
class SessionAggregate(Aggregate):
    """An aggregate over windows that merge. `prepare` yields each row's own interval as `_ws` and `_we` (BIGINT µs; rows without
    one, or whose end is not after its start, go nowhere), and so has each group. A row is late by its own `_we`.
    """

    merging: MergingWindow = field(kw_only=True)
    retracts: bool = False
    """In update a session that grew or merged takes back what it was."""

    @property
    def changes(self) -> bool:
        return self.retracts


@dataclass(frozen=True)
class LinearAggregate(Aggregate):
    """In update: an aggregate over changes, whose states are sums of values by weight (see plan/linear.py). `prepare` yields `#w`
    too.
    """


@dataclass(frozen=True)
class Dedup(Unary, Operation):
    """The first row of every combination of keys, written when it comes. `prepare` is `SELECT … FROM input` and yields the keys
    (k0, …), the columns of `schema`, `_t` (BIGINT µs: a row is late when it ≤ watermark; NULL: never) and `_we` (BIGINT µs: the
    watermark at which its key is forgotten; NULL: never).
    """

    prepare: str
    keys: tuple[str, ...]
    schema: pa.Schema
    id: str = "dedup"
    lag_us: int = 0


@dataclass(frozen=True)
class Release(Unary, Operation):
    """Rows that wait until the watermark reaches their `_we`, then go through `sql` together, `SELECT … FROM input` over `columns`
    (and what is left of earlier rows, see `back` and `carries`), and what comes of it row by row through `post`. `keep` is
    `SELECT … FROM input` and yields `_we` (BIGINT µs; rows with NULL go nowhere), the keys (k0, …) and `columns`.
    """

    keep: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    sql: str
    schema: pa.Schema
    id: str = "release"
    lag_us: int = 0
    back: int = 0
    """How many rows of its key before each one `sql` looks at; they are in its input too, with `_new` false."""
    order: str = ""
    """SQL of the order of a key's rows."""
    carries: tuple[tuple[str, str], ...] = ()
    """Running totals of a key, name and DuckDB type: columns of `sql`'s input, NULL for a new key."""
    carried: str = ""
    """`SELECT …` over the same input: `_h`, the keys and the totals after it, a row for each key."""
    post: str = "SELECT * FROM input"


@dataclass(frozen=True)
class JoinSide:
    """One input of a join. `prepare` is `SELECT … FROM input` and yields, a row for each row, the side's `columns` under the
    names that they have in the join, and

    * `#ok` BOOLEAN: it may match at all; it does not if a condition over its own columns fails or a key is NULL,
    * `#h` UBIGINT: hash of the keys that are equal on both sides,
    * `#time` BIGINT µs: the row is late when that ≤ watermark; NULL: never,
    * `#end` BIGINT µs: the watermark at which no row can come any more that matches it; NULL: never.
    """

    prepare: str
    columns: tuple[str, ...]
    bounded: bool
    """Rows leave: `#end` is not always NULL."""


@dataclass(frozen=True)
class Join(Operation):
    """Rows of `left` with those of `right` for which `condition` (SQL over the columns of both) holds. `schema` has columns of
    both sides, of `left` only in kinds semi and anti.
    """

    left: Step
    right: Step
    sides: tuple[JoinSide, JoinSide]
    kind: JoinKind
    condition: str
    schema: pa.Schema
    id: str = "join"

    @property
    def inputs(self) -> tuple[Step, ...]:
        return (self.left, self.right)

    def over(self, *inputs: Step) -> Join:
        left, right = inputs
        return replace(self, left=left, right=right)

    @property
    def preserved(self) -> tuple[bool, bool]:
        """Of which side rows without a match are written."""
        return self.kind in ("left", "full", "anti"), self.kind in ("right", "full")

    def in_one_pass(self, left: str, right: str) -> str:
        """The join over all rows at once: `left` and `right` are SQL of the sides' prepared rows."""
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in self.schema.names)
        on = f'l."#h" = r."#h" AND l."#ok" AND r."#ok" AND {self.condition}'
        return f"SELECT {names} FROM ({left}) AS l {self.kind.upper()} JOIN ({right}) AS r ON {on}"


@dataclass(frozen=True)
class Apply(Unary, Operation):
    """A stateful function over rows sorted by key. `prepare` is `SELECT … FROM input` and yields the input's `columns`, `_t` (BIGINT
    µs: a row is late when it ≤ watermark; NULL: never) and `_order`, which orders a key's rows. `event`: timers and `ttl_us` follow
    the watermark, else the logged time. Not `deterministic`: what it returned is kept with the epoch.
    """

    function: str
    prepare: str
    keys: tuple[str, ...]
    columns: pa.Schema
    schema: pa.Schema
    id: str = "apply"
    event: bool = True
    ttl_us: int | None = None
    deterministic: bool = False
    lag_us: int = 0


@dataclass(frozen=True)
class Limit(Unary, Operation):
    """`LIMIT n` in append: the first n rows of the job's life."""

    rows: int
    schema: pa.Schema
    id: str = "limit"


@dataclass(frozen=True)
class Several(Operation):
    """A step that makes its result anew from rows of all its inputs: of each it wants what `keep` says (`SELECT … FROM input`,
    with the weight where that has one); `sql` reads these as `input`, `input1`, …; `post`, row by row over what it yields, gives
    `schema`.
    """

    branches: tuple[Step, ...]
    keep: tuple[str, ...]
    sql: str
    schema: pa.Schema
    post: str = "SELECT * FROM input"
    id: str = "batch"

    @property
    def inputs(self) -> tuple[Step, ...]:
        return self.branches

    def over(self, *inputs: Step) -> Self:
        return replace(self, branches=inputs)


@dataclass(frozen=True)
class Batch(Several):
    """In complete: batch SQL over the whole result below."""


@dataclass(frozen=True)
class Ranked:
    """Of each key only what has rank 1 to `n` matters. `place`: BLOB over what is kept, ascending as the ranks are. `dense`: the first
    n places, else all places up to that of the n-th row.
    """

    place: str
    n: int
    dense: bool


@dataclass(frozen=True)
class Maintain(Several):
    """In update: a result that is kept up with the changes (or new rows) of its inputs. The rows of every input are kept; an
    epoch computes the result of the touched keys before and after it, and writes the difference. `keys` are, for each input,
    SQL over what is kept, equal where rows have to do with each other (no keys: all have). `sql` yields the same for the same rows
    in any order, a row standing as often as it is there.
    """

    keys: tuple[tuple[str, ...], ...] = ()
    prune: str | None = None
    """Over the only input's rows, where they are never retracted: those that can still come into the result."""
    ranked: Ranked | None = None
    """`sql` asks for the first ranks of changes."""
    final: tuple[str, ...] = ()
    """For each input, SQL of the watermark (BIGINT µs) at which its key's rows are final; none: never."""
    lag_us: int = 0
    global_group: bool = False
    """`sql` gives a row also where there are no rows."""
    id: str = "maintain"

    @property
    def changes(self) -> bool:
        return True


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
    key: tuple[str, ...] | None = None
    """Columns by which the rows of a result that changes are told apart; None: by all of them."""
    partition_keys: Mapping[str, str] = field(default_factory=dict)
    """By operator that is keyed by its source's partition key, the column of its state that holds it."""


@dataclass(frozen=True)
class TaskSplit:
    """Whether a plan runs as one task over all shards, for the `reasons`, or as one a shard. `key`: by operator (`<sink>/<id>`) that is
    keyed by the source's partition key (text or a whole number), the column of its state that holds it, by which state is divided.
    """

    kind: Literal["all", "shards"] = "all"
    reasons: tuple[str, ...] = ()
    key: Mapping[str, str] = field(default_factory=dict)


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
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    """Bounded tables that something joins with: what is read of them."""
    notes: tuple[str, ...] = field(default=())
    """What `explain` and `check` want said: unbounded state, at-least-once sinks, …"""
    tasks: TaskSplit = field(default_factory=TaskSplit)
