"""Decoding of text payloads: one SQL statement judges a batch, a Python judge only the records that SQL is not sure of.

DuckDB runs it without the interpreter lock, one instance and one thread for each calling thread, so decoders scale with threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import BAD_SCHEMA, Decoded
from streamproc.formats.scalar import Misfit, quoted
from streamproc.formats.slot import TableSlot

SMALL_ROWS = 128
"""Up to here judging each record (8 µs) costs less than starting a statement (1 ms)."""
_ERROR_CHARS = 200
_threads = threading.local()

BOM_SQL = "SELECT CASE WHEN starts_with(v, '\ufeff') THEN substr(v, 2) ELSE v END AS v FROM batch"
"""The batch without byte order marks."""

Row = Sequence[Any]
RecordJudge = Callable[[str], Row]
"""One payload → its values, in the order of the columns; raises Misfit."""


@dataclass(frozen=True)
class TextDecoder:
    """A `Decoder` of payloads that are UTF-8 text.

    A statement selects from `batch(v VARCHAR)` one value per column of `schema`, then a boolean `fits`, rows in input
    order; where `fits` is false `judge` decides. If a statement raises, the next is tried: the first may be quicker
    and need well-formed payloads.
    """

    schema: pa.Schema
    judge: RecordJudge
    statements: tuple[str, ...]
    time_zone: str = "UTC"

    def decode(self, values: pa.Array) -> Decoded:
        """Payloads (binary or string, NULL allowed: a row of NULLs) to rows; never raises for what a payload holds."""
        values = flat(values)
        if len(values) <= SMALL_ROWS:
            return self._judged(values, None, pa.array(range(len(values)), pa.int64()))
        rows = self._run(_text(values))
        fits = rows.column("fits").combine_chunks()
        if fits.true_count == len(values):
            return Decoded(self._typed(rows), BAD_SCHEMA.empty_table())
        sure = rows.filter(fits)
        unsure = pc.indices_nonzero(pc.invert(fits)).cast(pa.int64())
        return self._judged(values, (self._typed(sure), pc.indices_nonzero(fits).cast(pa.int64())), unsure)

    def _run(self, text: pa.Array) -> pa.Table:
        instance = _instance(self.time_zone)
        for statement in self.statements[:-1]:
            # the message quotes the payload and may be cut inside a character: then it cannot even be raised
            with contextlib.suppress(duckdb.Error, UnicodeDecodeError):
                return instance.run(statement, text)
        return instance.run(self.statements[-1], text)

    def _typed(self, rows: pa.Table) -> pa.Table:
        columns = [rows.column(i).cast(field.type) for i, field in enumerate(self.schema)]
        return table_of(columns, self.schema, rows.num_rows)

    def _judged(self, values: pa.Array, sure: tuple[pa.Table, pa.Array] | None, unsure: pa.Array) -> Decoded:
        """Merges the rows that SQL was sure of with the judge's verdict on the others."""
        at = unsure.to_pylist()
        rows, good, bad = self._verdicts(at, values.take(unsure).to_pylist())
        index = pa.array(good, pa.int64())
        table = self._built(rows)
        if sure is not None:
            index = pa.concat_arrays([sure[1], index])
            order = pc.sort_indices(index)
            table, index = (pa.concat_tables([sure[0], table]).take(order), index.take(order)) if good else (sure[0], sure[1])
        return Decoded(table, bad_table(bad), index if bad else None)

    def _verdicts(self, at: list[int], payloads: list[bytes | None]) -> tuple[list[Row], list[int], list[tuple[Any, ...]]]:
        # a loop over records, but only over those SQL was not sure of: 2 to 5 µs each
        rows, good, bad = [], [], []
        for index, payload in zip(at, payloads, strict=True):
            try:
                rows.append(self._verdict(payload))
                good.append(index)
            except Misfit as misfit:
                bad.append((index, misfit.reason, str(misfit)[:_ERROR_CHARS], payload))
        return rows, good, bad

    def _verdict(self, payload: bytes | None) -> Row:
        row = (None,) * len(self.schema) if payload is None else self.judge(text_of(payload))
        for i in self._required:
            if row[i] is None:
                raise Misfit("missing_not_null", f"column {self.schema.names[i]!r} is NOT NULL and has no value")
        return row

    @cached_property
    def _required(self) -> tuple[int, ...]:
        return tuple(i for i, field in enumerate(self.schema) if not field.nullable)

    def _built(self, rows: list[Row]) -> pa.Table:
        columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(self.schema)]
        return table_of(columns, self.schema, len(rows))


def text_of(payload: bytes) -> str:
    """The payload as text, without a byte order mark; Misfit if it is not UTF-8."""
    try:
        return payload.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Misfit("not_utf8", f"invalid UTF-8 at byte {error.start}: {error.reason}") from None


def table_of(columns: list[Any], schema: pa.Schema, rows: int) -> pa.Table:
    if columns:
        return pa.table(columns, schema=schema)
    return pa.table({"": pa.nulls(rows)}).select([])  # no column, but a count of rows


def bad_table(found: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*found, strict=True)) if found else [()] * len(BAD_SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, BAD_SCHEMA, strict=True)], schema=BAD_SCHEMA)


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values if pa.types.is_binary(values.type) else values.cast(pa.binary())


def _text(values: pa.Array) -> pa.Array:
    """As strings; what is not UTF-8 becomes the empty text, of which SQL is never sure."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_or_empty(payload) for payload in values.to_pylist()], pa.string())


def _or_empty(payload: bytes | None) -> str | None:
    try:
        return None if payload is None else payload.decode("utf-8")
    except UnicodeDecodeError:
        return ""


class _Instance:
    """A DuckDB of one thread; it reaches no file and no network."""

    def __init__(self, time_zone: str) -> None:
        self._connection = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False, "autoinstall_known_extensions": False})
        self._connection.execute(f"SET TimeZone = {quoted(time_zone)}; SET enable_external_access = false")
        # it takes longer than a small batch and improves nothing: the statements are written as they should run
        self._connection.execute("PRAGMA disable_optimizer")
        self._prepared: dict[str, str] = {}
        self._batch = TableSlot(self._connection, "batch", pa.schema([("v", pa.string())]))

    def run(self, statement: str, text: pa.Array) -> pa.Table:
        with self._batch.holding(pa.table({"v": text})):
            return self._connection.sql(f"EXECUTE {self._name(statement)}").to_arrow_table()

    def _name(self, statement: str) -> str:
        if statement not in self._prepared:
            name = f"statement_{len(self._prepared)}"
            self._connection.execute(f"PREPARE {name} AS {statement}")
            self._prepared[statement] = name
        return self._prepared[statement]


def _instance(time_zone: str) -> _Instance:
    instances: dict[str, _Instance] = _threads.__dict__.setdefault("instances", {})
    if time_zone not in instances:
        instances[time_zone] = _Instance(time_zone)
    return instances[time_zone]
