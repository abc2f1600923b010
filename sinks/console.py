"""Sink `console`: an epoch's first rows as a table on the terminal, for looking at a query."""

from __future__ import annotations

import sys
from typing import ClassVar, TextIO

import pyarrow as pa
from pydantic import Field

from streamproc.options import SinkOptions
from streamproc.sink import Change, EpochId, Sink
from streamproc.world import World


class ConsoleOptions(SinkOptions):
    """Keys of `type: console`."""

    rows: int = Field(20, gt=0, description="rows of an epoch that are shown")


class Console(Sink):
    """Prints what it is given, in every mode; an epoch that is written again is printed again."""

    guarantee: ClassVar[str] = "shown (at least once)"
    Options = ConsoleOptions

    def __init__(self, options: ConsoleOptions, world: World, name: str, out: TextIO | None = None) -> None:
        """`out`: where to print, standard output unless a test says otherwise."""
        del world
        self._options = options
        self._name = name
        self._out = out

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        shown, count = _first(rows, self._options.rows)
        if count or change == "replace":
            self._print(epoch, shown, count)

    async def undo(self, after: EpochId) -> str | None:
        return f"what was shown after epoch {after.epoch} is shown again"

    def __repr__(self) -> str:
        return f"<Console {self._name}>"

    def _print(self, epoch: EpochId, shown: pa.Table, count: int) -> None:
        from rich import box
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        left = f", the first {shown.num_rows}" if shown.num_rows < count else ""
        table = Table(box=box.SIMPLE_HEAD)
        for name in shown.column_names:
            table.add_column(Text(name))
        for row in shown.to_pylist():  # at most `rows` of them
            table.add_row(*(Text("NULL", "dim") if value is None else Text(str(value)) for value in row.values()))
        Terminal(file=self._out or sys.stdout, highlight=False).print(Text(f"{self._name}, epoch {epoch.epoch}: {count} rows{left}"), table)


def _first(rows: pa.RecordBatchReader, most: int) -> tuple[pa.Table, int]:
    """The first rows, and how many there are in all."""
    kept: list[pa.RecordBatch] = []
    count = 0
    for batch in rows:
        if count < most:
            kept.append(batch.slice(0, most - count))
        count += batch.num_rows
    return pa.Table.from_batches(kept, rows.schema), count
