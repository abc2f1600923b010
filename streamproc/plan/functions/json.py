"""Functions of JSON texts. Texts with single quotes, which Spark takes for JSON, are an error; which of duplicate keys
wins is not promised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pyarrow as pa
from sqlglot import exp

from streamproc.batch import TIMESTAMP
from streamproc.plan import zone
from streamproc.plan.casts import try_cast
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.texts import text_of
from streamproc.plan.types import (
    BINARY,
    BOOLEAN,
    DATE,
    INT,
    STRING,
    TIMESTAMP_NTZ,
    Sql,
    bound,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    spark_type,
    text_literal,
)
from streamproc.schema import parse_ddl

_QUOTED = r"^\s*(\[\s*)?(\{\s*)?''"
_PATH = re.compile(r"\$(\.[^.\[\]\"*'?]+|\['[^'\"*?]+'\]|\[\d+\])+")
_STEP = re.compile(r"\.([^.\[]+)|\['([^']+)'\]|(\[\d+\])")
_INFINITIES = "'NaN', 'INF', '+INF', '-INF', 'Infinity', '+Infinity', '-Infinity'"


def _checked(body: str, text: str) -> str:
    """`body` of a valid JSON text @t; NULL of another, an error where Spark would read single quotes."""
    wrong = f"CAST(error('JSON with single quotes is not read here; write double quotes') AS {text})"
    return f"CASE WHEN json_valid(@t) THEN {body} WHEN regexp_matches(@t, '{_QUOTED}') THEN {wrong} END"


def _get_json_object(call: Call) -> Sql:
    """NULL where the text is no JSON or has nothing at the path; objects and arrays as JSON text."""
    call.expect(2)
    path = call.string(1, "the path")
    if not _PATH.fullmatch(path):
        raise LocatedError(f"get_json_object(): the path {path!r} is not supported; write $.a.b[0], with neither * nor double quotes")
    place = "$" + "".join(m[3] or f'."{m[1] or m[2]}"' for m in _STEP.finditer(path))
    found = f"json_extract(@t, {text_literal(place)})"
    made = _checked(bound({"j": found}, _plain_text("@j")).replace("@t", "_v.t"), "VARCHAR")
    return Sql(bound({"t": call.text(0, STRING)}, made), STRING)


def _plain_text(json: str) -> str:
    """A string without quotes; a container as text, in which Spark writes signs beyond 16 bits as two escapes."""
    code = "(unicode(_c) - 65536)"
    escaped = f"printf('\\\\u%04X\\\\u%04X', CAST(55296 + {code} // 1024 AS INTEGER), CAST(56320 + {code} % 1024 AS INTEGER))"
    letters = f"regexp_extract_all(CAST({json} AS VARCHAR), '(?s).')"
    rare = f"array_to_string(list_transform({letters}, lambda _c: CASE WHEN unicode(_c) > 65535 THEN {escaped} ELSE _c END), '')"
    text, beyond = f"CAST({json} AS VARCHAR)", "[\\x{10000}-\\x{10FFFF}]"
    container = f"CASE WHEN regexp_matches({text}, '{beyond}') THEN {rare} ELSE {text} END"
    kind = f"json_type({json})"
    return f"CASE WHEN {kind} = 'NULL' THEN NULL WHEN {kind} IN ('OBJECT', 'ARRAY') THEN {container} ELSE {json} ->> '$' END"


def _json_array_length(call: Call) -> Sql:
    call.expect(1)
    made = _checked("CASE WHEN json_type(@t) = 'ARRAY' THEN CAST(json_array_length(@t) AS INTEGER) END", "INTEGER")
    return Sql(bound({"t": call.text(0, STRING)}, made), INT)


def _json_object_keys(call: Call) -> Sql:
    call.expect(1)
    made = _checked("CASE WHEN json_type(@t) = 'OBJECT' THEN json_keys(@t) END", "VARCHAR[]")
    return Sql(bound({"t": call.text(0, STRING)}, made), pa.list_(STRING))


def _schema(call: Call) -> pa.DataType:
    text = call.string(1, "the schema")
    try:
        if re.match(r"(?i)\s*(struct|array|map)\s*<", text):
            return parse_ddl(f"x {text}").field(0).type
        return pa.struct(list(parse_ddl(text)))
    except ValueError as error:
        raise LocatedError(f"from_json(): {error}") from None


def _from_json(call: Call) -> Sql:
    """PERMISSIVE: what is no JSON, or does not fit, is NULL, of a struct the fields are."""
    call.expect(2, 3)
    if len(call) == 3 and not _permissive(call.nodes[2]):
        raise LocatedError("from_json(): of the options only map('mode', 'PERMISSIVE') is supported")
    kind = _schema(call)
    if pa.types.is_struct(kind):
        if "_corrupt_record" in kind.names:
            raise LocatedError("from_json(): _corrupt_record is not supported; keep the text itself beside the struct")
        made = _struct(_checked("CASE WHEN json_type(@t) = 'OBJECT' THEN CAST(@t AS JSON) END", "JSON"), kind)
    else:
        json = "CASE WHEN json_type(@t) = 'OBJECT' THEN json_array(CAST(@t AS JSON)) ELSE CAST(@t AS JSON) END"
        wrapped = pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)
        made = read(_checked(json if wrapped else "CAST(@t AS JSON)", "JSON"), kind)
    return Sql(
        bound({"t": call.text(0, STRING)}, f"CASE WHEN trim(@t, chr(32) || chr(9) || chr(10) || chr(13)) <> '' THEN {_outer(made)} END"),
        kind,
    )


def _outer(text: str) -> str:
    return text.replace("@t", "_v.t")


def _permissive(node: exp.Expr) -> bool:
    arguments = [n.name.upper() for n in node.expressions]
    return isinstance(node, exp.Anonymous) and node.name.lower() == "map" and arguments == ["MODE", "PERMISSIVE"]


def _struct(json: str, kind: pa.StructType) -> str:
    """Of no object a struct of NULLs."""
    fields = [f"{text_literal(f.name)}: " + read(f"_j.j -> {text_literal(_key(f.name))}", f.type) for f in kind]
    return f"list_transform([{{'j': {json}}}], lambda _j: {{{', '.join(fields)}}})[1]"


def _key(name: str) -> str:
    if '"' in name:
        raise LocatedError(f"from_json(): the field {name!r} with a double quote is not supported")
    return f'$."{name}"'


def read(json: str, kind: pa.DataType) -> str:
    """SQL of a JSON value as `kind`; NULL if it is of another type."""
    if pa.types.is_struct(kind):
        return _of_type(json, "'OBJECT'", lambda j: _struct(j, kind))
    if pa.types.is_list(kind):
        return _of_type(json, "'ARRAY'", lambda j: _all_fit(f"json_extract({j}, '$[*]')", read("_i", kind.value_type)))
    if pa.types.is_map(kind):
        if kind.key_type != STRING:
            raise LocatedError("from_json(): the keys of a MAP are STRING")
        value = read("_i.v", kind.item_type)
        zipped = "list_transform(list_zip(json_keys({0}), json_extract({0}, '$.*')), lambda _z: {{'k': _z[1], 'v': _z[2]}})"
        return _of_type(json, "'OBJECT'", lambda j: (
            f"map_from_entries(list_transform({zipped.format(j)}, lambda _i: {{'key': _i.k, 'value': {value}}}))"))  # fmt: skip
    return _scalar(json, kind)


def _all_fit(items: str, item: str) -> str:
    """The items read; NULL if one does not fit."""
    misfits = f"list_filter(list_transform({items}, lambda _i: json_type(_i) <> 'NULL' AND {item} IS NULL), lambda _m: _m)"
    return f"CASE WHEN len({misfits}) = 0 THEN list_transform({items}, lambda _i: {item}) END"


def _of_type(json: str, types: str, made: Callable[[str], str]) -> str:
    body = f"CASE WHEN json_type(_o.j) IN ({types}) THEN {made('_o.j')} END"
    return f"list_transform([{{'j': {json}}}], lambda _o: {body})[1]"


def _scalar(json: str, kind: pa.DataType) -> str:
    numbers, whole = "'BIGINT', 'UBIGINT', 'DOUBLE'", "'BIGINT', 'UBIGINT'"
    text = "_o.j ->> '$'"
    if kind == STRING:
        return _of_type(json, f"{numbers}, 'VARCHAR', 'BOOLEAN', 'OBJECT', 'ARRAY'", lambda j: f"{j} ->> '$'")
    if is_integral(kind):
        return _of_type(json, whole, lambda _: f"TRY_CAST({text} AS {duck_type(kind)})")
    if is_fractional(kind):
        special = f"CASE WHEN json_type(_o.j) <> 'VARCHAR' OR {text} IN ({_INFINITIES}) THEN TRY_CAST({text} AS {duck_type(kind)}) END"
        return _of_type(json, f"{numbers}, 'VARCHAR'", lambda _: special)
    if is_decimal(kind) and kind.precision <= 15:
        return _of_type(json, f"{numbers}, 'VARCHAR'", lambda _: try_cast(Sql(f"({text})", STRING), kind).text)
    if kind == BOOLEAN:
        return _of_type(json, "'BOOLEAN'", lambda _: f"CAST({text} AS BOOLEAN)")
    if kind in (DATE, TIMESTAMP_NTZ):
        return _of_type(json, "'VARCHAR'", lambda _: try_cast(Sql(f"({text})", STRING), kind).text)
    if kind == TIMESTAMP:
        seconds = f"make_timestamptz(TRY_CAST({text} AS BIGINT) * 1000000)"
        moment = try_cast(Sql(f"({text})", STRING), kind).text
        return _of_type(json, f"{whole}, 'VARCHAR'", lambda j: f"CASE WHEN json_type({j}) = 'VARCHAR' THEN {moment} ELSE {seconds} END")
    hint = "; take at most 15 digits, or read it as STRING and CAST it" if is_decimal(kind) else "; read it as STRING"
    raise LocatedError(f"from_json(): {spark_type(kind)} is not supported{hint}")


def _to_json(call: Call) -> Sql:
    """NULL fields of structs are left out, NULLs in arrays and maps stay."""
    call.expect(1)
    value = call[0]
    if not pa.types.is_nested(value.type):
        raise call.misfit()
    return Sql(bound({"x": value.text}, f"CASE WHEN @x IS NOT NULL THEN {written('@x', value.type)} END"), STRING)


def written(text: str, kind: pa.DataType) -> str:
    """SQL of the JSON text of a value that is not NULL."""
    if pa.types.is_struct(kind):
        parts = [_member(f"struct_extract_at({text}, {i + 1})", f) for i, f in enumerate(kind)]
        return f"'{{' || COALESCE(array_to_string([{', '.join(parts)}]::VARCHAR[], ','), '') || '}}'"  # of NULLs alone it is NULL
    if pa.types.is_map(kind):
        value = _or_null("_p.value", kind.item_type)
        key = "_p.key" if kind.key_type == STRING else text_of(Sql("_p.key", kind.key_type))
        pair = f"CAST(to_json({key}) AS VARCHAR) || ':' || {value}"
        return f"'{{' || array_to_string(list_transform(map_entries({text}), lambda _p: {pair}), ',') || '}}'"
    if pa.types.is_list(kind):
        return f"'[' || array_to_string(list_transform({text}, lambda _p: {_or_null('_p', kind.value_type)}), ',') || ']'"
    return _written_scalar(text, kind)


def _member(text: str, field: pa.Field) -> str:
    name = text_literal(field.name)
    value = f"list_transform([{text}], lambda _f: CASE WHEN _f IS NOT NULL THEN {written('_f', field.type)} END)[1]"
    return f"CAST(to_json({name}) AS VARCHAR) || ':' || {value}"


def _or_null(text: str, kind: pa.DataType) -> str:
    return f"COALESCE(CASE WHEN {text} IS NOT NULL THEN {written(text, kind)} END, 'null')"


def _written_scalar(text: str, kind: pa.DataType) -> str:
    if kind == STRING:
        return f"CAST(to_json({text}) AS VARCHAR)"
    if kind == BINARY:
        return f"'\"' || to_base64({text}) || '\"'"
    plain = text_of(Sql(text, kind))
    if is_fractional(kind):
        return f"CASE WHEN isfinite({text}) THEN {plain} ELSE '\"' || {plain} || '\"' END"
    if kind == DATE:
        return f"'\"' || {plain} || '\"'"
    if kind in (TIMESTAMP, TIMESTAMP_NTZ):
        if kind == TIMESTAMP and not zone.is_utc():
            raise LocatedError("to_json() of a TIMESTAMP is supported in UTC only; use date_format(x, pattern)")
        return f"'\"' || strftime({zone.local_of(Sql(text, kind))}, '%Y-%m-%dT%H:%M:%S.%g{'Z' * (kind == TIMESTAMP)}') || '\"'"
    return str(plain)


FUNCTIONS: Mapping[str, Builder] = {
    "get_json_object": _get_json_object, "json_array_length": _json_array_length, "json_object_keys": _json_object_keys,
    "from_json": _from_json, "to_json": _to_json,
}  # fmt: skip
