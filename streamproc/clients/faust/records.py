"""`faust.Record` and columns: the schema and format of a topic's values, and a result row as such a value.

Types on the wire are those of Faust's JSON: `bytes` and `Decimal` are text, `datetime` is ISO 8601.
"""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.schema import ddl, parse_ddl

_SIMPLE: dict[Any, pa.DataType] = {
    str: pa.string(), bytes: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(),
    datetime: TIMESTAMP, Decimal: pa.decimal128(38, 18),
}  # fmt: skip
_LISTS = (list, set, frozenset, tuple, collections.abc.Sequence, collections.abc.Set)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
WRITTEN = ("_epoch", "_op")
"""Columns that rows get on their way to a sink; a Record need not have them."""


def format_of(topic: Any) -> Literal["json", "raw"]:
    """`json` or `raw`, as the topic's values are written; ValueError for other codecs."""
    codec = topic.value_serializer or topic.app.conf.value_serializer
    parts = [part for part in str(codec).split("|") if part != "raw"] if isinstance(codec, str) else [repr(codec)]
    if parts in ([], ["json"]):
        return "json" if parts else "raw"
    raise ValueError(f"the topic's values are written by codec {'|'.join(parts)!r}; only json and raw are read")


def columns_of(topic: Any) -> pa.Schema | None:
    """Columns of a topic's values; None if the app does not say. ValueError names the field that has no column type."""
    kind = topic.value_type
    if format_of(topic) == "raw":
        return pa.schema([("value", pa.string() if kind is str else pa.binary())])
    if kind is None:
        return None
    if not _is_record(kind):
        raise ValueError(f"values are {_name(kind)}, and rows are read from JSON objects: give the topic a faust.Record as value_type")
    schema = pa.schema(list(_fields(kind, ())))
    if parse_ddl(ddl(schema)) != schema:
        raise ValueError(f"{_name(kind)} has field names that are no column names; write schema: with the columns that the job reads")
    return schema


def refused(kind: Any, schema: pa.Schema) -> str | None:
    """Why rows of this schema cannot become values of a topic's or channel's type, or None."""
    if kind is None:
        return None
    names = [name for name in schema.names if name not in WRITTEN]
    if not _is_record(kind):
        return None if len(names) == 1 else f"values are {_name(kind)}: the query should yield one column, not {', '.join(names)}"
    known = {d.input_name: d for d in kind._options.descriptors.values()}
    if unknown := [name for name in names if name not in known]:
        return f"{_name(kind)} has no field {', '.join(unknown)}; its fields are {', '.join(known)}"
    missing = [name for name, descriptor in known.items() if descriptor.required and name not in names]
    return f"{_name(kind)} needs {', '.join(missing)}, which the query does not yield" if missing else None


def values_of(rows: pa.RecordBatch, kind: Any) -> Iterator[Any]:
    """The rows as values of a topic's or channel's type: Records, mappings, or the one column's values."""
    if kind is not None:
        wanted = set(_names(kind)) if _is_record(kind) else set(rows.schema.names) - set(WRITTEN)
        rows = rows.select([name for name in rows.schema.names if name in wanted])
    for row in rows.to_pylist(maps_as_pydicts="strict"):
        yield _value(row, kind)


def _value(row: dict[str, Any], kind: Any) -> Any:
    if kind is None:
        return row
    if _is_record(kind):
        return kind.from_data(row)
    (value,) = row.values()
    return value if isinstance(value, kind) or value is None else kind(value)


def _names(kind: Any) -> list[str]:
    return [descriptor.input_name for descriptor in kind._options.descriptors.values()]


def _fields(kind: Any, within: tuple[Any, ...]) -> Iterator[pa.Field]:
    if kind in within:
        raise ValueError(f"{_name(kind)} contains itself, and columns have a fixed depth; write schema: in the job")
    for descriptor in kind._options.descriptors.values():
        place = f"{_name(kind)}.{descriptor.field}"
        yield pa.field(descriptor.input_name, _decimal(descriptor) or _type(descriptor.type, place, (*within, kind)))


def _decimal(descriptor: Any) -> pa.DataType | None:
    """What a DecimalField says of its size."""
    digits, places = (getattr(descriptor, name, None) for name in ("max_digits", "max_decimal_places"))
    return pa.decimal128(min(digits, 38), min(places or 0, digits, 38)) if digits else None


def _type(hint: Any, place: str, within: tuple[Any, ...]) -> pa.DataType:
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if _is_record(hint):
        return pa.struct(list(_fields(hint, within)))
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each is not Ellipsis]
    given = [each for each in inner if each is not types.NoneType]
    if origin in (Union, types.UnionType) and len(given) == 1:
        return _type(given[0], place, within)
    if origin in _LISTS and len(set(inner)) == 1:
        return pa.list_(_type(inner[0], place, within))
    if origin in _MAPS and inner[:1] == [str]:
        return pa.map_(pa.string(), _type(inner[1], place, within))
    raise ValueError(f"{place} is {_name(hint)}, which has no column type; write schema: in the job with the columns that it reads")


def _is_record(kind: Any) -> bool:
    from faust import Record

    return isinstance(kind, type) and issubclass(kind, Record)


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
