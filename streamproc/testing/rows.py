"""Rows of a job file's tests: encoded as a source would carry them, compared as a reader would see them."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Protocol

from streamproc.options import CsvOptions, instant_us

Row = Mapping[str, Any]
_EPOCHS_US = {"epoch_s": 1_000_000, "epoch_ms": 1000, "epoch_us": 1}


class Encoding(Protocol):
    """How a connector's options say that rows are written."""

    @property
    def format(self) -> str: ...

    @property
    def csv(self) -> CsvOptions: ...

    @property
    def timestamps(self) -> Mapping[str, str]: ...


def encoded(row: Row, options: Encoding, names: Sequence[str]) -> bytes:
    """A row as the payload of one record in the source's format (parquet: as JSON, a record has no file).
    Times of columns that the source reads as numbers become numbers.
    """
    row = {name: _epoch(value, options.timestamps.get(name, "")) for name, value in row.items()}
    if options.format == "raw":
        value = row.get("value")
        return value if isinstance(value, bytes) else str(value).encode()
    if options.format == "csv":
        out = io.StringIO()
        writer = csv.writer(out, delimiter=options.csv.delimiter, quotechar=options.csv.quote, lineterminator="")
        writer.writerow([options.csv.null if row.get(n) is None else _text(row[n]) for n in names if n != "_rescued"])
        return out.getvalue().encode()
    return json.dumps(dict(row), default=_text, ensure_ascii=False).encode()


def _epoch(value: Any, form: str) -> Any:
    return int(str(instant_us(value))) // _EPOCHS_US[form] if isinstance(value, datetime) and form in _EPOCHS_US else value


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, default=_text)
    return str(value)


def differences(expected: Sequence[Row], written: Sequence[Row]) -> list[str]:
    """What `expect` has against what was written, a line each; empty if every row matches exactly one of the other side."""
    pairs = _matching(expected, written)
    missing = [row for i, row in enumerate(expected) if i not in pairs]
    surplus = [row for j, row in enumerate(written) if j not in set(pairs.values())]
    names = list(dict.fromkeys(name for row in expected for name in row))
    lines = [f"- expected  {shown(row)}" for row in missing]
    return lines + [f"+ written   {shown(_named(row, names))}" for row in surplus]


def _named(row: Row, names: Sequence[str]) -> Row:
    return {n: row[n] for n in names if n in row} or row


def _matching(expected: Sequence[Row], written: Sequence[Row]) -> dict[int, int]:
    """A largest matching (augmenting paths): rows that name few columns may fit several."""
    fits = [[j for j, row in enumerate(written) if matches(want, row)] for want in expected]
    taken: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        for j in fits[i]:
            if j not in tried:
                tried.add(j)
                if j not in taken or place(taken[j], tried):
                    taken[j] = i
                    return True
        return False

    for i in range(len(expected)):
        place(i, set())
    return {i: j for j, i in taken.items()}


def matches(want: Row, row: Row) -> bool:
    """Whether the columns that `want` names are equal in `row`."""
    return all(name in row and equal(value, row[name]) for name, value in want.items())


def equal(want: Any, got: Any) -> bool:
    """Numbers by value, doubles to 1e-9, times as instants, bytes also as text, nested values part by part."""
    if want is None or got is None:
        return want is None and got is None
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        return want.keys() == got.keys() and all(equal(value, got[key]) for key, value in want.items())
    if isinstance(got, list | tuple) and isinstance(want, Mapping):  # an Arrow map is a list of pairs
        return equal(want, dict(got))
    if isinstance(want, list | tuple) and isinstance(got, list | tuple):
        return len(want) == len(got) and all(map(equal, want, got))
    if isinstance(want, bool) or isinstance(got, bool):
        return isinstance(want, bool) and want is got
    if isinstance(want, int | float | Decimal) and isinstance(got, int | float | Decimal):
        return _equal_numbers(want, got)
    return bool(_comparable(want, got) == got)


def _equal_numbers(want: float | Decimal, got: float | Decimal) -> bool:
    if isinstance(want, float) or isinstance(got, float):
        one, other = float(want), float(got)
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return Decimal(want) == Decimal(got)


def _comparable(want: Any, got: Any) -> Any:
    """`want` in the type of `got` where YAML could only write it as text, a time or a date."""
    try:
        if isinstance(got, datetime):
            want = datetime.fromisoformat(want) if isinstance(want, str) else want
            if isinstance(want, date) and not isinstance(want, datetime):
                want = datetime(want.year, want.month, want.day, tzinfo=got.tzinfo)
            return want.replace(tzinfo=got.tzinfo and UTC) if want.tzinfo is None or got.tzinfo is None else want
        if isinstance(got, date):
            return date.fromisoformat(want) if isinstance(want, str) else want.date() if isinstance(want, datetime) else want
        if isinstance(got, bytes) and isinstance(want, str):
            return want.encode()
        if isinstance(got, str) and isinstance(want, datetime | date):
            return _text(want) if _text(want) == got else want.isoformat()
    except ValueError:
        return want
    return want


def shown(row: Row) -> str:
    """A row on one line, times in ISO form."""
    return "{" + ", ".join(f"{name}: {_shown(value)}" for name, value in row.items()) + "}"


_PLAIN = re.compile(r"(?!(null|true|false)$)[^\W\d][^\"',:#\[\]{}\s]*( [^\"',:#\[\]{}\s]+)*")
"""Text that YAML reads as text when it stands without quotes."""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return shown(value)
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return "null" if value is None else str(_text(value)) if isinstance(value, datetime | date | bytes | bool) else str(value)
