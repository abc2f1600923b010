"""Spark DDL ↔ Arrow: the one place that knows how the types correspond.

`user STRING, amount DECIMAL(10,2), tags ARRAY<STRING>` becomes an Arrow schema and back. TIMESTAMP is an instant:
timestamp[us, UTC]; TIMESTAMP_NTZ is timestamp[us] without zone. Column names keep their case.
"""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp, parse_one
from sqlglot.errors import ParseError, SqlglotError

from streamproc.batch import TIMESTAMP

_T = exp.DataType.Type
_SIMPLE: dict[exp.DType, pa.DataType] = {
    _T.TEXT: pa.string(), _T.VARCHAR: pa.string(), _T.CHAR: pa.string(), _T.BINARY: pa.binary(), _T.BOOLEAN: pa.bool_(),
    _T.TINYINT: pa.int8(), _T.SMALLINT: pa.int16(), _T.INT: pa.int32(), _T.BIGINT: pa.int64(),
    _T.FLOAT: pa.float32(), _T.DOUBLE: pa.float64(), _T.DATE: pa.date32(),
    _T.TIMESTAMP: TIMESTAMP, _T.TIMESTAMPTZ: TIMESTAMP, _T.TIMESTAMPLTZ: TIMESTAMP, _T.TIMESTAMPNTZ: pa.timestamp("us"),
}  # fmt: skip
_PARAMETERS: dict[exp.DType, int] = {_T.ARRAY: 1, _T.LIST: 1, _T.MAP: 2}
_DDL: dict[pa.DataType, str] = {
    pa.string(): "STRING", pa.large_string(): "STRING", pa.binary(): "BINARY", pa.large_binary(): "BINARY", pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INT", pa.int64(): "BIGINT",
    pa.float32(): "FLOAT", pa.float64(): "DOUBLE", pa.date32(): "DATE", TIMESTAMP: "TIMESTAMP", pa.timestamp("us"): "TIMESTAMP_NTZ",
}  # fmt: skip


def parse_ddl(text: str) -> pa.Schema:
    """Arrow schema of a Spark DDL column list; ValueError says which part is wrong."""
    try:
        table = parse_one(f"CREATE TABLE t ({text}\n)", dialect="spark")
    except (SqlglotError, RecursionError) as error:
        raise ValueError(f"not a Spark DDL column list: {_reason(error)}") from None
    columns = table.this.expressions if isinstance(table, exp.Create) else []
    if not columns or not all(isinstance(c, exp.ColumnDef) and c.args.get("kind") for c in columns):
        raise ValueError("not a Spark DDL column list; write for example: user STRING, amount DECIMAL(10,2), ts TIMESTAMP")
    fields = [pa.field(c.name, arrow_type(c.kind), _nullable(c)) for c in columns]
    names = [f.name for f in fields]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"column {twice[0]!r} is declared twice")
    return pa.schema(fields)


def arrow_type(kind: object) -> pa.DataType:
    """Arrow type of a Spark type (sqlglot's DataType); ValueError if it has none here (INTERVAL, VARIANT, …)."""
    if not isinstance(kind, exp.DataType):
        raise ValueError(f"{kind} is no type")
    if len(kind.expressions) != _PARAMETERS.get(kind.this, len(kind.expressions)):
        raise ValueError(f"type {kind.sql('spark')} is incomplete; write for example ARRAY<STRING> or MAP<STRING, INT>")
    if kind.this in _SIMPLE:
        return _SIMPLE[kind.this]
    if kind.this == _T.DECIMAL:
        return _decimal(kind)
    if kind.this in (_T.ARRAY, _T.LIST):
        return pa.list_(arrow_type(kind.expressions[0]))
    if kind.this == _T.MAP:
        return pa.map_(*(arrow_type(e) for e in kind.expressions))
    if kind.this == _T.STRUCT:
        return pa.struct([pa.field(e.name, arrow_type(e.args.get("kind"))) for e in kind.expressions])
    raise ValueError(f"type {kind.sql('spark')} is not supported; use STRING and convert it in SQL")


def ddl_type(kind: pa.DataType) -> str:
    """Spark DDL of an Arrow type, the inverse of `arrow_type`."""
    if kind in _DDL:
        return _DDL[kind]
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"ARRAY<{ddl_type(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"MAP<{ddl_type(kind.key_type)}, {ddl_type(kind.item_type)}>"
    if pa.types.is_struct(kind):
        return "STRUCT<" + ", ".join(f"{f.name}: {ddl_type(f.type)}" for f in kind) + ">"
    raise ValueError(f"Arrow type {kind} has no Spark type")


def ddl(schema: pa.Schema) -> str:
    """Spark DDL column list of an Arrow schema."""
    return ", ".join(f"{f.name} {ddl_type(f.type)}" for f in schema)


def _decimal(kind: exp.DataType) -> pa.DataType:
    written = [e.name for e in kind.expressions] or ["10"]
    if len(written) > 2 or not all(number.isascii() and number.isdigit() and len(number) < 4 for number in written):
        raise ValueError(f"{kind.sql('spark')} is no type; write for example DECIMAL(10,2)")
    precision, scale = [*map(int, written), 0][:2]
    if not 1 <= precision <= 38 or not 0 <= scale <= precision:
        raise ValueError(f"DECIMAL({precision},{scale}): precision is 1 to 38 and scale 0 to precision")
    return pa.decimal128(precision, scale)


def _nullable(column: exp.ColumnDef) -> bool:
    return not any(isinstance(c.kind, exp.NotNullColumnConstraint) for c in column.constraints)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    first = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    return f"{first.get('description', error)}" + (f" near {first['highlight']!r}" if first.get("highlight") else "")
