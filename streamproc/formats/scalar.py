"""One scalar from its text, twice with the same verdict: as SQL for a whole batch, as Python for a single record.

The SQL may say "not sure" (`fits` false) where it costs too much to be sure; the Python judge then decides and
names the fault. What the SQL accepts, the judge accepts with the same value: a test compares the two.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from streamproc.formats.moment import MomentFormat, iso_moment
from streamproc.schema import ddl_type

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_NUMBER = re.compile(NUMBER)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMERIC_STRING = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_EXACT = Context(prec=38, rounding=ROUND_HALF_UP)
_FLOAT_MAX = 3.4028235677973366e38  # from here on a double rounds to the float infinity
SHOWN_CHARS = 200


class Misfit(Exception):
    """A value that does not fit: `reason` is short and stable, the message says what was expected and found."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


Judge = Callable[[str], Any]
"""Text → the value as `pyarrow.array` takes it; raises Misfit."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """SQL of one column: `value`, right wherever `fits` is true. NULL text gives a NULL that fits."""

    value: str
    fits: str


def misfit(kind: pa.DataType, found: str, reason: str = "wrong_type") -> Misfit:
    return Misfit(reason, f"expected {ddl_type(kind)}, found {found[:SHOWN_CHARS]}")


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def text_judge(kind: pa.DataType, moment: MomentFormat) -> Judge:
    """Judge of a scalar written as plain text (a CSV field; in JSON the token of a number or the inside of a string)."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str
    for test, make in _TEXT_JUDGES:
        if test(kind):
            return make(kind, moment)
    raise ValueError(f"{ddl_type(kind)} has no text form here")


def _boolean(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment
    known = {"true": True, "false": False}

    def judge(text: str) -> bool:
        if text not in known:
            raise misfit(kind, text)
        return known[text]

    return judge


def _integer(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment
    limit = 1 << (kind.bit_width - 1)

    def judge(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise misfit(kind, text)
        if len(text) > 20 or not -limit <= (value := int(text)) < limit:  # int() of a very long text would raise
            raise misfit(kind, text, "out_of_range")
        return value

    return judge


def _floating(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment
    limit = _FLOAT_MAX if kind == pa.float32() else math.inf

    def judge(text: str) -> float:
        if not _NUMBER.fullmatch(text):
            raise misfit(kind, text)
        value = float(text)
        if abs(value) >= limit:
            raise misfit(kind, text, "out_of_range")
        return value

    return judge


def _decimal(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment
    unit = Decimal(1).scaleb(-kind.scale)
    limit = Decimal(10) ** (kind.precision - kind.scale)

    def judge(text: str) -> Decimal:
        if not _NUMERIC_STRING.fullmatch(text):
            raise misfit(kind, text)
        try:
            value = Decimal(text).quantize(unit, context=_EXACT)
        except InvalidOperation:
            raise misfit(kind, text, "out_of_range") from None
        if abs(value) >= limit:
            raise misfit(kind, text, "out_of_range")
        return value

    return judge


def _timestamp(kind: pa.DataType, moment: MomentFormat) -> Judge:
    def judge(text: str) -> int:
        value = moment.judge(text, zoned=kind.tz is not None)
        if value is None:
            raise misfit(kind, text, "bad_timestamp")
        return value

    return judge


def _date(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment

    def judge(text: str) -> int:
        value = iso_moment(text, None) if len(text) == 10 else None
        if value is None:
            raise misfit(kind, text, "bad_date")
        return value // 86_400_000_000

    return judge


def _binary(kind: pa.DataType, moment: MomentFormat) -> Judge:
    del moment

    def judge(text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise misfit(kind, text, "bad_base64") from None

    return judge


_TEXT_JUDGES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, MomentFormat], Judge]], ...] = (
    (pa.types.is_boolean, _boolean),
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _floating),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_date, _date),
    (pa.types.is_binary, _binary),
)

_SQL_INTEGERS = {pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT"}


def integer_sql(kind: pa.DataType, text: str) -> str:
    """Integer of a text that is a JSON value other than a string; NULL where it is none."""
    return f"CASE WHEN NOT contains({text}, '.') AND NOT contains({text}, 'e') THEN TRY_CAST({text} AS {_SQL_INTEGERS[kind]}) END"


def floating_sql(kind: pa.DataType, text: str) -> str:
    """Number of a text that is a JSON value other than NaN or Infinity; NULL where it overflows. A float is the double, rounded."""
    double = f"TRY_CAST({text} AS DOUBLE)"
    value = f"TRY_CAST({double} AS FLOAT)" if kind == pa.float32() else double
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def decimal_sql(kind: pa.DataType, text: str) -> str:
    """Decimal of a plain number, rounded HALF_UP; NULL where it overflows."""
    return f"TRY_CAST({text} AS DECIMAL({kind.precision},{kind.scale}))"


def date_sql(text: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') THEN TRY_CAST({text} AS DATE) END"


def present_sql(kind: pa.DataType, value: str) -> str:
    """The value is there and in the range of its type."""
    if pa.types.is_timestamp(kind):
        return f"{value} BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
    return f"{value} >= DATE '0001-01-01'" if pa.types.is_date(kind) else f"{value} IS NOT NULL"


def moments(timestamps: Mapping[str, str], name: str, time_zone: str) -> MomentFormat:
    """How the column `name` writes its times."""
    return MomentFormat(timestamps.get(name, ""), time_zone)
