"""What an operator is given and gives: Arrow in, Arrow out, once an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamproc.sink import Change
from streamproc.state.runs import Run


@dataclass(frozen=True, slots=True)
class EpochTime:
    """Everything about time that an epoch may depend on, all of it logged. µs since 1970 UTC; a watermark is None
    before any data. Rows are judged late by `watermark_start_us`, windows close by `watermark_end_us`."""

    now_us: int
    watermark_start_us: int | None
    watermark_end_us: int | None


@dataclass(frozen=True, slots=True)
class Poison:
    """A row that failed in SQL: `row` is its index in the input table of `source`; `error` is the engine's text."""

    source: str
    row: int
    error: str


@dataclass(frozen=True, slots=True)
class Output:
    """What one query yields in an epoch: rows in a fixed order; refused rows for `late` (None where no late sink
    asks) and how many source rows were refused, each once."""

    rows: pa.Table
    change: Change
    late: pa.Table | None = None
    late_rows: int = 0


@dataclass(frozen=True, slots=True)
class EpochOutput:
    """What the plan yields in an epoch. `state` are the runs alive after it, by operator id (`<sink>/<step id>`);
    `timer_us` is the smallest event time at which a group becomes final next (None: nothing waits)."""

    sinks: Mapping[str, Output]
    state: Mapping[str, Sequence[Run]]
    state_rows: Mapping[str, int]
    poison: Sequence[Poison] = ()
    timer_us: int | None = None
