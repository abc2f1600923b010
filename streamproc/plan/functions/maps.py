"""Maps. A key twice or a NULL key is an error, as in Spark."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import BOOLEAN, STRING, Sql, bound, text_literal


def map_type(call: Call, index: int = 0) -> pa.DataType:
    if not pa.types.is_map(call[index].type):
        raise call.misfit(index)
    return call[index].type


def entry_type(kind: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])


def _map(call: Call) -> Sql:
    call.expect(2, 1000)
    if len(call) % 2:
        raise LocatedError("map() takes pairs: map('a', 1, 'b', 2)")
    keys, values = unify(call.values[::2]), unify(call.values[1::2])
    _check_key(keys[0].type)
    pairs = ", ".join(f"{k.text}: {v.text}" for k, v in zip(keys, values, strict=True))
    return Sql(f"MAP {{{pairs}}}", pa.map_(keys[0].type, values[0].type))


def _check_key(kind: pa.DataType) -> None:
    if pa.types.is_map(kind) or kind == pa.null():
        raise LocatedError("a key of a map is no map and not NULL")


def _map_from_arrays(call: Call) -> Sql:
    call.expect(2)
    if not all(pa.types.is_list(v.type) for v in call.values):
        raise call.misfit()
    _check_key(call[0].type.value_type)
    keys, values = call[0].text, call[1].text
    made = f"(CASE WHEN {keys} IS NOT NULL AND {values} IS NOT NULL THEN map({keys}, {values}) END)"
    return Sql(made, pa.map_(call[0].type.value_type, call[1].type.value_type))


def _map_from_entries(call: Call) -> Sql:
    """NULL where an entry is NULL."""
    call.expect(1)
    kind = call[0].type
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type) or kind.value_type.num_fields != 2:
        raise call.misfit()
    key, value = kind.value_type
    _check_key(key.type)
    return Sql(from_entries(call[0].text), pa.map_(key.type, value.type))


def from_entries(entries: str) -> str:
    keys, values = (f"list_transform(@e, lambda _e: struct_extract_at(_e, {i}))" for i in (1, 2))
    whole = "len(list_filter(@e, lambda _e: _e IS NULL)) = 0"
    return bound({"e": entries}, f"CASE WHEN {whole} THEN map({keys}, {values}) END")


def _of(template: str, kind: Callable[[pa.DataType], pa.DataType]) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(template.format(call[0].text), pa.list_(kind(map_type(call))))

    return build


def _map_concat(call: Call) -> Sql:
    call.expect(1, 100)
    kinds = {map_type(call, i) for i in range(len(call))}
    if len(kinds) > 1:
        raise LocatedError("map_concat() takes maps of one type; CAST their values")
    names = [f"@p{i}" for i in range(len(call))]
    keys, values = (" || ".join(f"{part}({name})" for name in names) for part in ("map_keys", "map_values"))
    known = " AND ".join(f"{name} IS NOT NULL" for name in names)
    return Sql(
        bound({n[1:]: v.text for n, v in zip(names, call.values, strict=True)}, f"CASE WHEN {known} THEN map({keys}, {values}) END"),
        call[0].type,
    )


def _map_contains_key(call: Call) -> Sql:
    call.expect(2)
    if call[1].type == pa.null():
        raise LocatedError("map_contains_key(): no map has the key NULL")
    return Sql(f"map_contains({call[0].text}, {convert(call[1], map_type(call).key_type).text})", BOOLEAN)


def _str_to_map(call: Call) -> Sql:
    """The delimiters are written as literals that are no regular expressions; what has no second delimiter has NULL."""
    call.expect(1, 3)
    between, inside = (call.string(i, "a delimiter") if len(call) > i else default for i, default in ((1, ","), (2, ":")))
    if not all(d and re.fullmatch(r"[^\\\[\](){}.*+?^$|]+", d) for d in (between, inside)):
        raise LocatedError("str_to_map(): delimiters that are regular expressions are not supported; write plain characters")
    parts, at = f"string_split({call.text(0, STRING)}, {text_literal(between)})", f"strpos(_e, {text_literal(inside)})"
    keys = f"list_transform(@p, lambda _e: CASE WHEN {at} > 0 THEN left(_e, {at} - 1) ELSE _e END)"
    values = f"list_transform(@p, lambda _e: CASE WHEN {at} > 0 THEN substring(_e, {at} + {len(inside)}) END)"
    return Sql(bound({"p": parts}, f"CASE WHEN @p IS NOT NULL THEN map({keys}, {values}) END"), pa.map_(STRING, STRING))


FUNCTIONS: Mapping[str, Callable[[Call], Sql]] = {
    "map": _map, "map_from_arrays": _map_from_arrays, "map_from_entries": _map_from_entries,
    "map_keys": _of("map_keys({0})", lambda kind: kind.key_type), "map_values": _of("map_values({0})", lambda kind: kind.item_type),
    "map_entries": _of("map_entries({0})", entry_type), "map_concat": _map_concat, "map_contains_key": _map_contains_key,
    "str_to_map": _str_to_map,
}  # fmt: skip
