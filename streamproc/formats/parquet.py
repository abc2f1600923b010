"""Tables out of Parquet files, brought to a declared schema without losing anything."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.schema import ddl_type


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema`, by name: missing ones are NULL, others are cast where that loses nothing.

    Integers widen, decimals gain digits, times become microseconds (finer ones are cut) in UTC (a time without zone
    is taken for UTC). ValueError names the column, the type it has and the type that is declared.
    """
    columns = [_column(table, field) for field in schema]
    if not columns:
        return table.select([])
    return pa.table(columns, schema=schema)


def _column(table: pa.Table, field: pa.Field) -> pa.Array:
    at = table.schema.get_all_field_indices(field.name)
    if len(at) > 1:
        raise ValueError(f"column {field.name!r} is there {len(at)} times")
    found = _cast(table.column(at[0]).combine_chunks(), field.type, field.name) if at else pa.nulls(table.num_rows, field.type)
    if not field.nullable and found.null_count:
        raise ValueError(f"column {field.name!r} is NOT NULL and holds {found.null_count} NULL values")
    return found


def _cast(array: pa.Array, kind: pa.DataType, path: str) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.type == kind:
        return array
    try:
        found = _nested(array, kind, path) if pa.types.is_nested(kind) else _scalar(array, kind)
    except pa.ArrowInvalid as error:
        raise ValueError(f"column {path!r}: a value of {array.type} does not fit {ddl_type(kind)}: {error}") from None
    if found is None:
        raise ValueError(f"column {path!r} is {array.type}, which is not {ddl_type(kind)}; declare it with a wider type")
    return found


def _nested(array: pa.Array, kind: pa.DataType, path: str) -> pa.Array | None:
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        table = pa.Table.from_arrays(array.flatten(), names=[f.name for f in array.type])
        children = [_column(table, pa.field(f"{f.name}", f.type)) for f in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind) and (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        array = array.cast(pa.list_(array.type.value_type))
        items = _cast(array.flatten(), kind.value_type, f"{path}.element")
        return pa.ListArray.from_arrays(_offsets(array), items, kind, mask=array.is_null())
    if pa.types.is_map(kind) and pa.types.is_map(array.type):
        pairs = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
        keys = _cast(pairs.flatten().field("key"), kind.key_type, f"{path}.key")
        items = _cast(pairs.flatten().field("value"), kind.item_type, f"{path}.value")
        return pa.MapArray.from_arrays(_offsets(pairs), keys, items, kind, mask=array.is_null())
    return None


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets into the flattened items: lists that are NULL count as empty there."""
    ends = pc.cumulative_sum(pc.list_value_length(lists).fill_null(0).cast(pa.int32()))
    return pa.concat_arrays([pa.array([0], pa.int32()), ends])


def _scalar(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    found = array.type
    if pa.types.is_timestamp(found) and pa.types.is_timestamp(kind):
        return _timestamp(array, kind)
    return array.cast(kind) if _widens(found, kind) else None


def _timestamp(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    if kind.tz is None and array.type.tz is not None:
        return None
    if array.type.unit == "ns":
        array = pc.floor_temporal(array.cast(pa.timestamp("ns")), unit="microsecond")
    return array.cast(pa.timestamp("us")).cast(kind)


_TEXT = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


def _widens(found: pa.DataType, kind: pa.DataType) -> bool:
    """Every value of `found` has the same value in `kind` (text in bytes columns: if it is UTF-8)."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_integer(found):
        return _integer_widens(found, kind)
    if pa.types.is_floating(found):
        return bool(pa.types.is_floating(kind) and kind.bit_width >= found.bit_width)
    if pa.types.is_decimal(found):
        whole = kind.precision - kind.scale >= found.precision - found.scale if pa.types.is_decimal(kind) else False
        return bool(whole and kind.scale >= found.scale)
    if pa.types.is_date(found):
        return bool(pa.types.is_date(kind))
    if kind == pa.string():
        return found in (*_TEXT, *_BYTES)
    return kind == pa.binary() and (found in _BYTES or bool(pa.types.is_fixed_size_binary(found)))


def _integer_widens(found: pa.DataType, kind: pa.DataType) -> bool:
    bits = found.bit_width + bool(pa.types.is_unsigned_integer(found))
    if pa.types.is_integer(kind):
        return bool(kind.bit_width >= bits)
    if pa.types.is_decimal(kind):
        return bool(kind.precision - kind.scale >= len(str(1 << (bits - 1))))
    return bool((kind == pa.float64() and bits <= 53) or (kind == pa.float32() and bits <= 24))
