"""Avro schemas: JSON text → the types of it with every name resolved. Source: Avro 1.12, https://avro.apache.org/docs/1.12.0/specification/"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streamproc.batch import TIMESTAMP

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


@dataclass(frozen=True, slots=True, eq=False)
class AvroType:
    """One type. `kind` is a primitive, record, enum, fixed, array, map or union; `parts` are the fields' types, the one
    item's or the union's branches, `names` those of fields or symbols. A record that contains itself is a cycle.
    """

    kind: str
    logical: str = ""
    name: str = ""
    names: tuple[str, ...] = ()
    parts: list[AvroType] = field(default_factory=list, repr=False)
    size: int = 0
    precision: int = 0
    scale: int = 0

    def fields(self) -> pa.Schema:
        """A record's fields as columns; those that have no one type are left out."""
        found = [(name, arrow_type(part)) for name, part in zip(self.names, self.parts, strict=True)] if self.kind == "record" else []
        return pa.schema([(name, kind) for name, kind in found if kind is not None])

    def __str__(self) -> str:
        if self.kind == "union":
            return " or ".join(map(str, self.parts))
        return f"{self.logical} ({self.kind})" if self.logical else f"{self.kind} {self.name}".strip()


def parse_avro(text: str, references: Mapping[str, str] | None = None) -> AvroType:
    """The type of a schema; `references` are further schemas (by name) whose names it uses. ValueError says what is wrong."""
    known: dict[str, AvroType] = {}
    for name, other in (references or {}).items():
        _read(_json(other, f"the schema {name!r} that it refers to"), "", known)
    return _read(_json(text, "the schema"), "", known)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if text.strip() in PRIMITIVES:
            return text.strip()
        raise ValueError(f"{what} is not JSON: {error}") from None


def _read(schema: Any, space: str, known: dict[str, AvroType]) -> AvroType:
    if isinstance(schema, str):
        return _named(schema, space, known)
    if isinstance(schema, list):
        return AvroType("union", parts=[_read(branch, space, known) for branch in schema])
    if not isinstance(schema, dict) or "type" not in schema:
        raise ValueError(f"not an Avro type: {json.dumps(schema)[:100]}")
    kind = schema["type"]
    if kind in ("record", "error"):
        return _record(schema, space, known)
    if kind in ("enum", "fixed"):
        return _leaf(schema, space, known)
    if kind in ("array", "map"):
        return AvroType(kind, parts=[_read(schema["items" if kind == "array" else "values"], space, known)])
    if isinstance(kind, str) and kind in PRIMITIVES:
        return AvroType(kind, **_logical(schema))
    return _read(kind, space, known)


def _named(name: str, space: str, known: dict[str, AvroType]) -> AvroType:
    if name in PRIMITIVES:
        return AvroType(name)
    found = known.get(name if "." in name or not space else f"{space}.{name}") or known.get(name)
    if found is None:
        raise ValueError(f"the Avro type {name!r} is not defined")
    return found


def _record(schema: Mapping[str, Any], space: str, known: dict[str, AvroType]) -> AvroType:
    name, space = _full_name(schema, space)
    fields = schema.get("fields", [])
    made = known[name] = AvroType("record", name=name, names=tuple(f["name"] for f in fields))
    made.parts.extend(_read(f["type"], space, known) for f in fields)
    return made


def _leaf(schema: Mapping[str, Any], space: str, known: dict[str, AvroType]) -> AvroType:
    name, _ = _full_name(schema, space)
    symbols, size = tuple(schema.get("symbols", ())), int(schema.get("size", 0))
    known[name] = AvroType(schema["type"], name=name, names=symbols, size=size, **_logical(schema))
    return known[name]


def _full_name(schema: Mapping[str, Any], space: str) -> tuple[str, str]:
    name = schema.get("name")
    if not isinstance(name, str):
        raise ValueError(f"an Avro {schema['type']} without a name")
    if "." not in name:
        space = schema.get("namespace", space)
        return (f"{space}.{name}" if space else name), space
    return name, name.rpartition(".")[0]


def _logical(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The logical type; one that is unknown or malformed counts as absent, as the specification says."""
    logical = schema.get("logicalType", "")
    if logical != "decimal":
        return {"logical": logical if isinstance(logical, str) else ""}
    precision, scale = schema.get("precision", 0), schema.get("scale", 0)
    fits = isinstance(precision, int) and isinstance(scale, int) and 0 < precision <= 38 and 0 <= scale <= precision
    return {"logical": "decimal", "precision": precision, "scale": scale} if fits else {}


_ARROW = {
    "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "bytes": pa.binary(), "string": pa.string(), "enum": pa.string(), "fixed": pa.binary(),
}  # fmt: skip
_ARROW_LOGICAL = {
    "date": pa.date32(), "uuid": pa.string(), **dict.fromkeys(("timestamp-millis", "timestamp-micros", "timestamp-nanos"), TIMESTAMP),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"), pa.timestamp("us")),
}  # fmt: skip


def arrow_type(found: AvroType, within: tuple[AvroType, ...] = ()) -> pa.DataType | None:
    """The type of a column that takes every value of an Avro type; None if there is none (several branches, a cycle)."""
    if found in within or found.kind == "null":
        return None
    inner = [arrow_type(part, (*within, found)) for part in found.parts if part.kind != "null"]
    if found.kind == "record":
        kinds = [arrow_type(part, (*within, found)) for part in found.parts]
        named = [(name, kind) for name, kind in zip(found.names, kinds, strict=True) if kind is not None]
        return pa.struct(named) if named else None
    if found.kind == "union":
        return inner[0] if len(inner) == 1 else None
    if found.kind in ("array", "map"):
        item = inner[0] if inner else None
        return None if item is None else pa.list_(item) if found.kind == "array" else pa.map_(pa.string(), item)
    if found.logical == "decimal":
        return pa.decimal128(found.precision, found.scale)
    return _ARROW_LOGICAL.get(found.logical, _ARROW[found.kind])
