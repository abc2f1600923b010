"""Stateful functions: a class of the job's author that is called with Arrow tables, sorted by key, once an epoch.

After Spark's transformWithState. The state of a key is one row: columns of the types in `StatefulFunction.state`. A value is any
type, a list is ARRAY<…>, a map is MAP<…, …>. A job file names the class:

    views:
      alerts: {apply: {function: 'pkg.mod:Alerts', input: clicks, key: [user], schema: 'user STRING, n INT', time: event, ttl: 1 hour}}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa


@dataclass(frozen=True)
class Call:
    """What happened to some keys in an epoch.

    `rows`: new rows, columns of the input, sorted by key, then event time, shard and offset. `state`: key columns and state
    columns, a row for every key here that has state, sorted by key. `expired`: key columns and `at` (TIMESTAMP), a row for every
    timer that is due, sorted by key and time. `now_us`: the epoch's logged time; `watermark_us`: the watermark at its end, None
    before any data. µs since 1970 UTC.
    """

    rows: pa.Table
    state: pa.Table
    expired: pa.Table
    now_us: int
    watermark_us: int | None


@dataclass(frozen=True)
class Result:
    """What a function makes of a call. `rows`: columns of the view's schema. `state`: key and state columns of the keys that have
    state now; a key of the call that it lacks is forgotten, with its timers. `timers`: key columns and `at` (TIMESTAMP) of new
    timers, of keys that have state. None: no rows, state as it was, no timers.
    """

    rows: pa.Table | None = None
    state: pa.Table | None = None
    timers: pa.Table | None = None


class StatefulFunction(ABC):
    """Subclass it and name the class in a job. An instance keeps nothing between calls: what it should remember is state."""

    state: ClassVar[Mapping[str, str]] = {}
    """State columns and their Spark types: {'count': 'BIGINT', 'pages': 'ARRAY<STRING>', 'last': 'MAP<STRING, TIMESTAMP>'}."""

    @abstractmethod
    def process(self, call: Call) -> Result:
        """One epoch's keys. It may be called again with a part of the keys, where another key fails."""
