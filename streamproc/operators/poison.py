"""Slices, and the search for the rows of a slice that fail in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from streamproc.errors import BadRecord, Bug
from streamproc.operators.duck import Duck
from streamproc.operators.operator import Poison
from streamproc.operators.python_calls import Called, Memo, Statement
from streamproc.plan.probe import FAILED, ROW, probe_sql

QUOTED_MAX = 20
"""Rows of a slice whose own error is looked up; the others' is left empty."""
STATEMENTS_MAX = 4096
"""Runs that the halving of a slice may take: seconds."""
NO_ANSWERS: Mapping[Called, pa.Table] = {}


@dataclass(frozen=True, slots=True)
class Statements:
    """What is run over every slice of a source. `rows`: for each, the part of it that is row by row, step by step.
    `first_only`: the first row that fails ends the job, so no more are looked for.
    """

    sql: Sequence[Statement]
    rows: Sequence[tuple[str, ...]]
    first_only: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `index` of a source's input table. Cut before poison is left out, so that a replay cuts the same."""

    source: str
    table: pa.Table
    index: Sequence[int]

    def without(self, poison: Sequence[Poison]) -> Slice:
        gone = {found.row for found in poison}
        # row by row in Python, but only for a slice that has poison: milliseconds beside the search
        keep = [i for i, row in enumerate(self.index) if row not in gone]
        return self if len(keep) == len(self.index) else self._taken(keep)

    def part(self, start: int, stop: int) -> Slice:
        return Slice(self.source, self.table.slice(start, stop - start), self.index[start:stop])

    def _taken(self, keep: list[int]) -> Slice:
        return Slice(self.source, self.table.take(pa.array(keep, pa.int64())), [self.index[i] for i in keep])


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The statements' rows over a slice without its poison; none of a slice that ends the job. `memo`: what functions gave."""

    rows: Slice
    results: Sequence[pa.Table]
    poison: Sequence[Poison] = ()
    memo: Memo = field(default_factory=Memo)


def slices_of(source: str, table: pa.Table, rows: int, poison: Sequence[Poison]) -> list[Slice]:
    """The source's slices of `rows` rows each, then without the poison already known."""
    known = [found for found in poison if found.source == source]
    starts = range(0, max(table.num_rows, 1), rows)
    slices = [Slice(source, table.slice(at, rows), range(at, min(at + rows, table.num_rows))) for at in starts]
    return [part.without(known) for part in slices] if known else slices


def run_slice(duck: Duck, part: Slice, statements: Statements, answers: Mapping[Called, pa.Table] = NO_ANSWERS) -> SliceResult:
    """Run all statements over the slice; rows that fail in one of them are found and left out of all. Python functions get a
    second try before that. `answers`: what they gave when the epoch was run before.

    BadRecord: rows fail only together, or too many fail that no probe finds.
    """
    poison: list[Poison] = []
    searches = iter((partial(_probed, in_order=False), partial(_probed, in_order=True)))
    memo = Memo(answers=dict(answers))
    again = any(not isinstance(sql, str) for sql in statements.sql)
    while True:
        try:
            results = duck.query_all(statements.sql, memo=memo, input=part.table)
            return SliceResult(part, results, sorted(poison, key=lambda found: found.row), memo)
        except BadRecord as error:
            if again:
                again, memo = False, Memo(answers=dict(answers))
                continue
            if statements.first_only:
                return SliceResult(part, (), [_first(duck, part, statements, error)])
            found = next((found for search in searches if (found := search(duck, part, statements))), None)
            found = found or _halved(duck, part, statements, error)
        poison += found
        part, memo = part.without(found), Memo()


def _probed(duck: Duck, part: Slice, statements: Statements, *, in_order: bool) -> list[Poison]:
    """Rows that the statements' probes mark, in about the time of the statements and 10 µs an error; none if a row that is
    run alone does not fail: then the probe is not to be trusted.
    """
    table = part.table.append_column(ROW, pa.array(range(part.table.num_rows), pa.int64()))
    probes = [probe_sql(steps, tuple(part.table.column_names), in_order=in_order) for steps in statements.rows if steps]
    marked = sorted({row for probe in probes if probe for row in _marked(duck, probe, table)})
    found = [Poison(part.source, part.index[at], "") for at in marked]
    for i, at in enumerate(marked[:QUOTED_MAX]):
        error = _error(duck, part.part(at, at + 1), statements)
        if error is None:
            return []
        found[i] = replace(found[i], error=error)
    return found


def _marked(duck: Duck, probe: str, table: pa.Table) -> list[int]:
    try:
        rows = duck.query(probe, input=table)
    except (BadRecord, Bug):  # what TRY does not take (an aggregate) or does not catch: halving finds it
        return []
    marked: list[int] = rows.filter(rows.column(FAILED)).column(ROW).to_pylist()
    return marked


def _halved(duck: Duck, part: Slice, statements: Statements, error: BadRecord) -> list[Poison]:
    """Rows that fail alone, by halving: about 2 log n runs a row."""
    runs = iter(range(STATEMENTS_MAX))
    found, open_parts = list[Poison](), [(part, str(error))]
    while open_parts:
        failing, text = open_parts.pop()
        size = len(failing.index)
        if size == 1:
            found.append(Poison(part.source, failing.index[0], text))
        for half in (failing.part(0, size // 2), failing.part(size // 2, size)) if size > 1 else ():
            if next(runs, None) is None:
                raise BadRecord(f"{_named(part)}: too many fail to find them one by one, {len(found)} so far: {error}") from error
            if (cause := _error(duck, half, statements)) is not None:
                open_parts.append((half, cause))
    if not found:
        raise _together(part, error) from error
    return found


def _first(duck: Duck, part: Slice, statements: Statements, error: BadRecord) -> Poison:
    """The first row that fails alone, by halving towards it."""
    low, high = 0, len(part.index)
    while high - low > 1:
        middle = (low + high) // 2
        if _error(duck, part.part(low, middle), statements) is None:
            low = middle
        else:
            high = middle
    alone = _error(duck, part.part(low, high), statements) if high else None
    if alone is None:
        raise _together(part, error) from error
    return Poison(part.source, part.index[low], alone)


def _error(duck: Duck, part: Slice, statements: Statements) -> str | None:
    try:
        duck.query_all(statements.sql, input=part.table)
    except BadRecord as error:
        return str(error)
    return None


def _together(part: Slice, error: BadRecord) -> BadRecord:
    return BadRecord(f"{_named(part)} fail together, not alone: {error}") if part.index else error


def _named(part: Slice) -> str:
    return f"source {part.source}: rows {part.index[0]} to {part.index[-1]}"
