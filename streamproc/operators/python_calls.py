"""Statements with the job's Python functions in them: SQL, calls over all its rows, SQL over the results, and so on.

A function gets one Arrow array for each argument and returns one of its declared type and the same length. Results of functions
that are not deterministic are noted in the run's `Memo`, and taken from there when an epoch is run again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from streamproc import user_code
from streamproc.errors import BadRecord, StreamprocError
from streamproc.plan.plan import Evaluate, FunctionCall
from streamproc.schema import ddl_type
from streamproc.stateful import StatefulFunction

Function = Callable[..., pa.Array]
NO_FUNCTIONS: Mapping[str, Function] = {}
NO_STATEFUL: Mapping[str, StatefulFunction] = {}
_ALIKE: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_list,
    pa.types.is_struct,
    pa.types.is_map,
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
    lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind),
)
"""Types of which one may stand for another where no value is lost: what `pa.array` infers is seldom exactly what was declared."""


@dataclass(frozen=True)
class Called:
    """The rows of a statement with the results of the step's calls."""

    input: Statement
    step: Evaluate

    def __hash__(self) -> int:
        return hash((self.input, *(call.result for call in self.step.calls)))

    @property
    def kept(self) -> list[FunctionCall]:
        """Calls whose results are kept with the epoch."""
        return [call for call in self.step.calls if not call.deterministic]


@dataclass(frozen=True)
class Evaluated:
    """`sql` (SELECT … FROM input) over rows that functions were called on."""

    called: Called
    sql: str


Statement = str | Evaluated


@dataclass
class Memo:
    """What one run of statements over one slice remembers. `rows`: what calls gave, so that statements which begin alike share
    them. `answers`: results of calls that are not deterministic, given or noted.
    """

    rows: dict[Called, pa.Table] = field(default_factory=dict)
    answers: dict[Called, pa.Table] = field(default_factory=dict)


class Functions:
    """The job's functions by name. One is called at a time, whatever the number of threads. `stateful`: by the view's name."""

    def __init__(self, functions: Mapping[str, Function] = NO_FUNCTIONS, stateful: Mapping[str, StatefulFunction] = NO_STATEFUL) -> None:
        self._functions, self.stateful = functions, stateful
        self._lock = threading.Lock()

    def evaluate(self, called: Called, rows: pa.Table, memo: Memo) -> pa.Table:
        """`rows`, the arguments among them, with the results. BadRecord names the function that fails."""
        known = memo.answers.get(called)
        results: dict[str, pa.Array] = {}
        for call in called.step.calls:
            if known is not None and not call.deterministic:
                results[call.result] = _array(known.column(call.result))
            else:
                results[call.result] = self._call(call, rows, called.step.input.schema)
        if called.kept:
            memo.answers[called] = pa.table({call.result: results[call.result] for call in called.kept})
        names = called.step.schema.names
        return pa.table([results[name] if name in results else rows.column(name) for name in names], names=names)

    def _call(self, call: FunctionCall, rows: pa.Table, schema: pa.Schema) -> pa.Array:
        if not rows.num_rows:
            return pa.nulls(0, call.type)
        arguments = [_array(rows.column(name)).cast(schema.field(name).type) for name in call.args]
        try:
            with self._lock:
                found = self._functions[call.function](*arguments)
        except StreamprocError:
            raise
        except Exception as error:  # whatever the author's function raises
            raise BadRecord(f"function {call.function}: {type(error).__name__}: {error} ({user_code.place(error)})") from error
        return fitting(f"function {call.function}", found, call.type, rows.num_rows)

    def __repr__(self) -> str:
        return f"<Functions {', '.join(self._functions) or 'none'}>"


def fitting(who: str, found: object, kind: pa.DataType, rows: int) -> pa.Array:
    """What a function gave, as the type it declares. BadRecord, which begins with `who`: it does not fit."""
    if isinstance(found, pa.ChunkedArray):
        found = _array(found)
    if not isinstance(found, pa.Array):
        raise BadRecord(f"{who} returned {type(found).__name__}, not an Arrow array")
    if len(found) != rows:
        raise BadRecord(f"{who} returned {len(found)} values for {rows} rows")
    if found.type == kind:
        return found
    if not pa.types.is_null(found.type) and not any(alike(found.type) and alike(kind) for alike in _ALIKE):
        raise BadRecord(f"{who} returned {found.type}, declared is {ddl_type(kind)}")
    try:
        return found.cast(kind)
    except pa.ArrowException as error:
        raise BadRecord(f"{who} returned {found.type}, which does not fit {ddl_type(kind)}: {error}") from None


def _array(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole


def calls_in(statement: Statement) -> list[Called]:
    """The evaluations within a statement, lowest first."""
    return [*calls_in(statement.called.input), statement.called] if isinstance(statement, Evaluated) else []
