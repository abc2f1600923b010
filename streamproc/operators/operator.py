"""What an operator is given and gives: Arrow in, Arrow out, once an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from streamproc.operators.duck import ALL_ROWS, Duck
from streamproc.sink import Change
from streamproc.state.runs import Run
from streamproc.state.watermark import Floor


@dataclass(frozen=True, slots=True)
class EpochTime:
    """Everything about time that an epoch may depend on, all of it logged. µs since 1970 UTC; a watermark is None
    before any data. Rows are judged late by `watermark_start_us` and, where they have a partition key, by the `floors` of its
    hash; windows close by `watermark_end_us`.
    """

    now_us: int
    watermark_start_us: int | None
    watermark_end_us: int | None
    floors: tuple[Floor, ...] = ()


@dataclass(frozen=True, slots=True)
class Poison:
    """A row that failed in SQL: `row` is its index in the input table of `source`; `error` is the engine's text,
    empty for the many of a slice after its first ones.
    """

    source: str
    row: int
    error: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A result that failed, made of rows of `source`: `key` says which group it is, `error` is the engine's text."""

    source: str
    key: str
    error: str


@dataclass(frozen=True, slots=True)
class Output:
    """What one query yields in an epoch: rows in a fixed order; refused rows for `late` (None where there are none
    or the query does not carry their origin) and how many source rows were refused, each once; results that failed,
    which `rows` is without. `has_ops`: `rows` are changes and end with `_op`.
    """

    rows: pa.Table
    change: Change
    late: pa.Table | None = None
    late_rows: int = 0
    failures: Sequence[Failure] = ()
    has_ops: bool = False


@dataclass(frozen=True, slots=True)
class EpochOutput:
    """What the plan yields in an epoch. `state` are the runs alive after it, by operator id (`<sink>/<step id>`; the
    same objects where nothing changed), `limits` what is left of each LIMIT by operator id, `poison` the rows newly
    found to fail (all outputs are without them); `timer_us` see `Executor.timer_us`; `answers` are the results of functions that are
    not deterministic, by call and slice: the epoch is run again with these.
    """

    sinks: Mapping[str, Output]
    state: Mapping[str, Sequence[Run]]
    limits: Mapping[str, int]
    poison: Sequence[Poison] = ()
    timer_us: int | None = None
    answers: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an operator may use while it finishes an epoch. `source` is blamed for results that fail; `limit`: what is
    left of a LIMIT (0 where a result that exists without rows was written), None at the start of the job's life.
    """

    duck: Duck
    source: str
    time: EpochTime
    limit: int | None
    merge_bytes_max: int
    answers: Mapping[str, pa.Table] = field(default_factory=dict)
    """What functions gave when the epoch was run before."""


@dataclass(frozen=True, slots=True)
class Fed:
    """A slice of what came to one input: `part` is what the operator's statement made of it. `table` holds the rows
    before the stateless steps `rows_sql` that lie between.
    """

    part: pa.Table
    table: pa.Table
    rows_sql: str

    def rows(self, duck: Duck) -> pa.Table:
        """The rows as they reached the operator."""
        return duck.query(self.rows_sql, input=self.table)


Input = Sequence[Fed]
"""What came to one input of an operator, in slice order."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An operator's epoch: rows in a fixed order, the runs alive after it, and what it refused."""

    rows: pa.Table
    state: Sequence[Run] = ()
    late: pa.Table | None = None
    late_rows: int = 0
    limit: int | None = None
    failures: Sequence[Failure] = ()
    answers: Mapping[str, pa.Table] = field(default_factory=dict)


class Operator(ABC):
    """A step that needs more than one row, or remembers. One instance serves all threads: it holds no epoch's data.

    Its work has two halves: a statement that is run over every slice of each input (in parallel, on slices of fixed
    size), and `finish` over what the slices gave, in slice order. Same inputs and runs, same rows in the same order.
    """

    id: str
    """`<sink>/<step id>`: its state's name."""
    state_schema: pa.Schema | None = None
    """Columns of its runs; None if it keeps none."""

    def slice_sql(self, port: int = 0) -> str:
        """`SELECT … FROM input`, where input is a slice of the rows that came to input number `port`."""
        del port
        return ALL_ROWS

    def row_steps(self, port: int = 0) -> tuple[str, ...]:
        """What `slice_sql` does with a row before it meets others: `SELECT … FROM input`, each over the one before."""
        del port
        return ()

    @abstractmethod
    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished: ...

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Open groups, buffered rows or kept keys."""
        del duck, state, watermark_us
        return 0

    def timer_us(self, state: Sequence[Run]) -> int | None:
        """The smallest watermark of the task at which something that waits in the runs becomes final and is written."""
        del state
        return None

    def wake_us(self, state: Sequence[Run]) -> int | None:
        """The smallest `now` at which something that waits in the runs is due."""
        del state
        return None
