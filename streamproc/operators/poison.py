"""Slices, and the search for the rows of a slice that fail in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck
from streamproc.operators.operator import Poison


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

    def halves(self) -> tuple[Slice, Slice]:
        middle = len(self.index) // 2
        return (
            Slice(self.source, self.table.slice(0, middle), self.index[:middle]),
            Slice(self.source, self.table.slice(middle), self.index[middle:]),
        )

    def _taken(self, keep: list[int]) -> Slice:
        return Slice(self.source, self.table.take(pa.array(keep, pa.int64())), [self.index[i] for i in keep])


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The statements' rows over a slice without its poison."""

    rows: Slice
    results: Sequence[pa.Table]
    poison: Sequence[Poison] = ()


def slices_of(source: str, table: pa.Table, rows: int, poison: Sequence[Poison]) -> list[Slice]:
    """The source's slices of `rows` rows each, then without the poison already known."""
    known = [found for found in poison if found.source == source]
    starts = range(0, max(table.num_rows, 1), rows)
    slices = [Slice(source, table.slice(at, rows), range(at, min(at + rows, table.num_rows))) for at in starts]
    return [part.without(known) for part in slices] if known else slices


def run_slice(duck: Duck, part: Slice, statements: Sequence[str]) -> SliceResult:
    """Run all statements over the slice; rows that fail in one of them are found and left out of all."""
    poison: list[Poison] = []
    while True:
        try:
            return SliceResult(part, duck.query_all(statements, input=part.table), poison)
        except BadRecord as error:
            found = _failing(duck, part, statements, error)
            poison += found
            part = part.without(found)


def _failing(duck: Duck, part: Slice, statements: Sequence[str], error: BadRecord) -> list[Poison]:
    """The slice's rows that fail by themselves, by halving: about 2 log n runs a row."""
    if len(part.index) <= 1:
        if not part.index:
            raise error
        return [Poison(part.source, part.index[0], str(error))]
    found: list[Poison] = []
    for half in part.halves():
        try:
            duck.query_all(statements, input=half.table)
        except BadRecord as cause:
            found += _failing(duck, half, statements, cause)
    if not found:
        raise BadRecord(f"source {part.source}: rows {part.index[0]} to {part.index[-1]} fail together, not alone: {error}") from error
    return found
