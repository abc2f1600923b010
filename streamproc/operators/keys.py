"""SQL of keys: what makes two rows of one group."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamproc.operators.duck import quoted


def normal(value: str, kind: pa.DataType) -> str:
    """The key's value with 0.0 for every -0.0 in it: they are one group, and Spark writes it so."""
    if pa.types.is_floating(kind):
        return f"{value} + 0"
    if pa.types.is_list(kind) and normal("x", kind.value_type) != "x":
        return f"list_transform({value}, lambda x: {normal('x', kind.value_type)})"
    if pa.types.is_struct(kind):
        fields = {field.name: f"struct_extract({value}, {quoted(field.name)})" for field in kind}
        normals = {field.name: normal(fields[field.name], field.type) for field in kind}
        if normals != fields:
            packed = ", ".join(f"{quoted(name)}: {sql}" for name, sql in normals.items())
            return f"CASE WHEN {value} IS NULL THEN NULL ELSE {{{packed}}} END"
    return value


def same_key(keys: Sequence[str], left: str, right: str) -> str:
    """Whether rows of two relations, both with `_h` (hash of the keys), have the same keys."""
    return " AND ".join(f"{left}.{name} IS NOT DISTINCT FROM {right}.{name}" for name in ["_h", *keys])


def order_of(names: Sequence[str]) -> str:
    return ", ".join(f"{name} NULLS FIRST" for name in names)


def hash_of(keys: Sequence[str]) -> str:
    """SQL of `_h`; one value where there is no key."""
    return f"hash({', '.join(keys)})" if keys else "0::UBIGINT"


def normalized(keys: Sequence[str], schema: pa.Schema) -> str:
    """What stands after SELECT for rows with normal keys."""
    replaced = ", ".join(f"{normal(key, schema.field(key).type)} AS {key}" for key in keys)
    return f"* REPLACE ({replaced})" if keys else "*"
