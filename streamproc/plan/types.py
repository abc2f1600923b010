"""Spark's types as Arrow types: their DuckDB names, common types, decimal arithmetic and casts (ANSI on).

A typed piece of DuckDB SQL is an `Sql`. The rules are Spark's type coercion with ANSI:
https://spark.apache.org/docs/latest/sql-ref-ansi-compliance.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.schema import ddl_type

NULL, BOOLEAN, STRING, BINARY, DATE = pa.null(), pa.bool_(), pa.string(), pa.binary(), pa.date32()
TINYINT, SMALLINT, INT, BIGINT = pa.int8(), pa.int16(), pa.int32(), pa.int64()
FLOAT, DOUBLE = pa.float32(), pa.float64()
TIMESTAMP_NTZ = pa.timestamp("us")
INTERVAL = pa.month_day_nano_interval()
"""Spark's calendar interval, of make_interval. Like the other intervals only inside expressions: no column has it."""

INTEGRALS = (TINYINT, SMALLINT, INT, BIGINT)
_NAMES: dict[pa.DataType, str] = {
    NULL: '"NULL"', BOOLEAN: "BOOLEAN", STRING: "VARCHAR", BINARY: "BLOB", DATE: "DATE", TIMESTAMP: "TIMESTAMPTZ",
    TINYINT: "TINYINT", SMALLINT: "SMALLINT", INT: "INTEGER", BIGINT: "BIGINT", FLOAT: "FLOAT", DOUBLE: "DOUBLE",
    TIMESTAMP_NTZ: "TIMESTAMP", INTERVAL: "INTERVAL",
}  # fmt: skip
_INTEGRAL_DIGITS = {TINYINT: 3, SMALLINT: 5, INT: 10, BIGINT: 20}


class AnsiInterval(pa.ExtensionType):  # type: ignore[misc]  # pyarrow is untyped
    """INTERVAL start TO end: a number of months (INTEGER in DuckDB) or of microseconds (BIGINT)."""

    FIELDS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")

    def __init__(self, start: str, end: str) -> None:
        self.start, self.end = start, end
        super().__init__(pa.int32() if end in ("YEAR", "MONTH") else pa.int64(), "interval")

    @property
    def fields(self) -> tuple[str, ...]:
        return self.FIELDS[self.FIELDS.index(self.start) : self.FIELDS.index(self.end) + 1]

    @property
    def is_months(self) -> bool:
        return self.end in ("YEAR", "MONTH")

    def __str__(self) -> str:
        return f"INTERVAL {self.start}" + (f" TO {self.end}" if self.end != self.start else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnsiInterval) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __arrow_ext_serialize__(self) -> bytes:
        return f"{self.start} {self.end}".encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, _: pa.DataType, serialized: bytes) -> AnsiInterval:
        return cls(*serialized.decode().split())


YEAR_MONTH, DAY_TIME = AnsiInterval("YEAR", "MONTH"), AnsiInterval("DAY", "SECOND")


@dataclass(frozen=True)
class Sql:
    """A DuckDB expression, safe to embed anywhere, and the Arrow type of its value. `literal` is the Python
    value where the expression is a constant that was written as such.
    """

    text: str
    type: pa.DataType
    literal: Any = None


WINDOW_TYPE = pa.struct([("start", TIMESTAMP), ("end", TIMESTAMP)])


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_SHORT = re.compile(r'"[^"@]+"|[ks][0-9]+|[0-9]+|\'[^\'@]*\'|CAST\([0-9]+ AS [A-Z]+\)')
"""What costs nothing to write again: columns and literals."""


def bound(values: Mapping[str, str], body: str) -> str:
    """SQL of `body`, in which a name stands for an expression: it is written and computed once, unless it is only a
    column or a literal. The body names it with @ before.
    """
    short = {} if "_v." in body else {name: text for name, text in values.items() if _SHORT.fullmatch(text)}
    body = re.sub(r"@(\w+)", lambda m: short.get(m[1], m[0]), body)
    fields = ", ".join(f"'{name}': {text}" for name, text in values.items() if name not in short)
    named = re.sub(r"@(\w+)", r"_v.\1", body)
    return f"list_transform([{{{fields}}}], lambda _v: {named})[1]" if fields else f"({named})"


def fail(message: str) -> str:
    """DuckDB expression that raises when it is reached."""
    return f"error({text_literal(message)})"


def duck_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of ours."""
    if kind in _NAMES:
        return _NAMES[kind]
    if isinstance(kind, AnsiInterval):
        return duck_type(kind.storage_type)
    if is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_list(kind):
        return f"{duck_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({duck_type(kind.key_type)}, {duck_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f"{quote(f.name)} {duck_type(f.type)}" for f in kind) + ")"
    raise ValueError(f"no SQL type for {kind}")


def spark_type(kind: pa.DataType) -> str:
    """Spark's name of a type, for messages."""
    try:
        return {NULL: "VOID", INTERVAL: "INTERVAL"}.get(kind) or ddl_type(kind)
    except ValueError:  # an interval, or NULL inside a struct or an array
        return str(kind).upper()


def is_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind))


def is_integral(kind: pa.DataType) -> bool:
    return kind in INTEGRALS


def is_fractional(kind: pa.DataType) -> bool:
    return kind in (FLOAT, DOUBLE)


def is_numeric(kind: pa.DataType) -> bool:
    return is_integral(kind) or is_fractional(kind) or is_decimal(kind)


def is_time(kind: pa.DataType) -> bool:
    return kind in (DATE, TIMESTAMP, TIMESTAMP_NTZ)


def is_interval(kind: pa.DataType) -> bool:
    return isinstance(kind, AnsiInterval) or kind == INTERVAL


def holds_interval(kind: pa.DataType) -> bool:
    """It is an interval or has one inside, so no column can have it."""
    return is_interval(kind) or (pa.types.is_nested(kind) and any(holds_interval(kind.field(i).type) for i in range(kind.num_fields)))


def is_orderable(kind: pa.DataType) -> bool:
    if isinstance(kind, AnsiInterval):
        return True
    if pa.types.is_list(kind):
        return is_orderable(kind.value_type)
    if pa.types.is_struct(kind):
        return all(is_orderable(f.type) for f in kind)
    return (kind in _NAMES and kind != INTERVAL) or is_decimal(kind)


def decimal(precision: int, scale: int) -> pa.DataType:
    """Spark's bounded decimal: both at most 38 (average, sum)."""
    return pa.decimal128(min(precision, 38), min(scale, 38))


def whole_digits_first(whole: int, scale: int) -> pa.DataType:
    """The decimal of two sides brought together: beyond 38 digits the fraction gives way."""
    return pa.decimal128(min(whole + scale, 38), max(min(scale, 38 - whole), 0))


def adjusted_decimal(precision: int, scale: int) -> pa.DataType:
    """Spark's decimal of an arithmetic result: beyond 38 digits the scale gives way, down to 6."""
    if precision <= 38:
        return pa.decimal128(precision, scale)
    whole = precision - scale
    return pa.decimal128(38, max(38 - whole, min(scale, 6)))


def as_decimal(value: Sql) -> pa.DataType:
    """The decimal type that an integral or decimal takes part with in decimal arithmetic; literals by their digits."""
    if is_decimal(value.type):
        return value.type
    if value.literal is not None and is_integral(value.type):
        return pa.decimal128(max(len(str(abs(value.literal))), 1), 0)
    return pa.decimal128(_INTEGRAL_DIGITS[value.type], 0)


def widest_type(left: Sql, right: Sql) -> pa.DataType | None:
    """The type both sides of a comparison, CASE, COALESCE, … are brought to; None if there is none."""
    a, b = left.type, right.type
    if a == b or b == NULL:
        return a
    if a == NULL:
        return b
    if STRING in (a, b):
        return _widest_with_string(b if a == STRING else a)
    if is_numeric(a) and is_numeric(b):
        return _widest_number(left, right)
    if isinstance(a, AnsiInterval) and isinstance(b, AnsiInterval):
        return widest_interval(a, b)
    if is_time(a) and is_time(b):
        return TIMESTAMP if TIMESTAMP in (a, b) else TIMESTAMP_NTZ
    if pa.types.is_list(a) and pa.types.is_list(b):
        item = widest_type(Sql("", a.value_type), Sql("", b.value_type))
        return None if item is None else pa.list_(item)
    return None


def widest_interval(a: AnsiInterval, b: AnsiInterval) -> AnsiInterval | None:
    """The interval of all fields of both; None of months and days."""
    if a.is_months is not b.is_months:
        return None
    order = AnsiInterval.FIELDS.index
    return AnsiInterval(min(a.start, b.start, key=order), max(a.end, b.end, key=order))


def _widest_with_string(other: pa.DataType) -> pa.DataType | None:
    """ANSI: the string is read as the other side, integers as BIGINT, fractions and decimals as DOUBLE."""
    if is_integral(other):
        return BIGINT
    if is_fractional(other) or is_decimal(other):
        return DOUBLE
    return other if is_time(other) or other in (BOOLEAN, BINARY) else None


def _widest_number(left: Sql, right: Sql) -> pa.DataType:
    a, b = left.type, right.type
    if is_integral(a) and is_integral(b):
        return max(a, b, key=INTEGRALS.index)
    if DOUBLE in (a, b) or FLOAT in (a, b):
        return DOUBLE  # of FLOAT and BIGINT too
    x, y = as_decimal(left), as_decimal(right)
    return whole_digits_first(max(x.precision - x.scale, y.precision - y.scale), max(x.scale, y.scale))
