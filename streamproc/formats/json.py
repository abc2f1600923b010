"""JSON payloads: one well-formed object each, strictly (RFC 8259), judged in the declared columns that are read.

A batch is judged by SQL (json_sql.py), a record that SQL is not sure of by the judge here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from streamproc.formats import scalar
from streamproc.formats.decoder import TextDecoder
from streamproc.formats.json_scan import MAX_DEPTH, is_too_deep, scan_array, scan_object
from streamproc.formats.json_sql import RESCUED, STRICT, batch_sql
from streamproc.formats.moment import MomentFormat
from streamproc.formats.scalar import Judge, Misfit, misfit

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_ESCAPED_KEY = re.compile(r'\\.[^"\\]*"[ \t\r\n]*:', re.DOTALL)


class JsonRecordJudge:
    """Judge of one JSON payload; called with text, gives the values of `schema` in order."""

    def __init__(self, schema: pa.Schema, declared: pa.Schema, timestamps: Mapping[str, str], time_zone: str) -> None:
        self._names = schema.names
        self._judges = [token_judge(f.type, scalar.moments(timestamps, f.name, time_zone)) for f in schema]
        self._declared = frozenset(declared.names)

    def __call__(self, text: str) -> list[Any]:
        fields = json_fields(text, self._names)
        return [self._value(name, judge, fields) for name, judge in zip(self._names, self._judges, strict=True)]

    def _value(self, name: str, judge: Judge, fields: Mapping[str, str]) -> Any:
        if name == RESCUED:
            return self._rescued(fields)
        token = fields.get(name)
        if token is None or token == "null":
            return None
        try:
            return judge(token)
        except Misfit as error:
            raise Misfit(error.reason, f"column {name!r}: {error}") from None

    def _rescued(self, fields: Mapping[str, str]) -> str | None:
        unknown = [f"{json.dumps(k, ensure_ascii=False)}:{v}" for k, v in fields.items() if k not in self._declared]
        return "{" + ",".join(unknown) + "}" if unknown else None


def json_fields(text: str, names: list[str]) -> Mapping[str, str]:
    """The fields of the one object that `text` holds, each value as its JSON text; of duplicate keys the first."""
    if is_too_deep(text):
        raise Misfit("too_deep", f"nested in more than {MAX_DEPTH} levels")
    try:
        return _object(text, names)
    except msgspec.ValidationError:
        raise Misfit("malformed_json", "expected a JSON object, found another JSON value") from None
    except msgspec.DecodeError as error:
        raise Misfit("malformed_json", f"expected one JSON object: {error}") from None


def _object(text: str, names: list[str]) -> Mapping[str, str]:
    try:
        fields = {k: bytes(v).decode() for k, v in _fields.decode(text).items()}
    except RecursionError:
        return scan_object(text)
    # msgspec takes the last of duplicate keys, DuckDB the first
    if _ESCAPED_KEY.search(text) or any(text.count(f'"{name}"') > 1 for name in names):
        return scan_object(text)
    return fields


def token_judge(kind: pa.DataType, moment: MomentFormat) -> Judge:
    """Judge of one JSON value, given as its JSON text (not null)."""
    if pa.types.is_struct(kind):
        return _struct_judge(kind, moment)
    if pa.types.is_map(kind):
        return _map_judge(kind, moment)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list_judge(kind, moment)
    judge = scalar.text_judge(kind, moment)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda token: _string.decode(token) if token[0] == '"' else token
    if pa.types.is_decimal(kind):
        return lambda token: judge(_string.decode(token) if token[0] == '"' else token)
    if pa.types.is_temporal(kind) or pa.types.is_binary(kind):
        return _numeric_time(kind, judge) if moment.numeric and pa.types.is_timestamp(kind) else _quoted_judge(kind, judge)
    return lambda token: judge("0" if token == "-0" else token)  # an integer, which has no sign at 0


def _quoted_judge(kind: pa.DataType, judge: Judge) -> Judge:
    def judge_token(token: str) -> Any:
        if token[0] != '"':
            raise misfit(kind, token)
        return judge(_string.decode(token))

    return judge_token


def _numeric_time(kind: pa.DataType, judge: Judge) -> Judge:
    def judge_token(token: str) -> Any:
        if token[0] not in "-0123456789":
            raise misfit(kind, token)
        return judge(token)

    return judge_token


def _or_null(judge: Judge) -> Judge:
    return lambda token: None if token == "null" else judge(token)


def _struct_judge(kind: pa.StructType, moment: MomentFormat) -> Judge:
    judges = {f.name: _or_null(token_judge(f.type, moment)) for f in kind}
    names = list(judges)

    def judge(token: str) -> dict[str, Any]:
        if token[0] != "{":
            raise misfit(kind, token)
        fields = _object(token, names)
        return {name: judges[name](fields.get(name, "null")) for name in names}

    return judge


def _map_judge(kind: pa.MapType, moment: MomentFormat) -> Judge:
    key_judge, item_judge = scalar.text_judge(kind.key_type, moment), _or_null(token_judge(kind.item_type, moment))

    def judge(token: str) -> list[tuple[Any, Any]]:
        if token[0] != "{":
            raise misfit(kind, token)
        return [(key_judge(k), item_judge(v)) for k, v in scan_object(token).items()]

    return judge


def _list_judge(kind: pa.ListType, moment: MomentFormat) -> Judge:
    item_judge = _or_null(token_judge(kind.value_type, moment))

    def judge(token: str) -> list[Any]:
        if token[0] != "[":
            raise misfit(kind, token)
        try:
            items = [bytes(item).decode() for item in _items.decode(token)]
        except RecursionError:
            items = scan_array(token)
        return [item_judge(item) for item in items]

    return judge


def json_decoder(schema: pa.Schema, declared: pa.Schema, timestamps: Mapping[str, str], time_zone: str) -> TextDecoder:
    """Decoder of `schema`'s columns; ValueError for a datetime pattern or time zone that is unknown."""
    judge = JsonRecordJudge(schema, declared, timestamps, time_zone)
    moments = [scalar.moments(timestamps, f.name, time_zone) for f in schema]
    # json_extract checks what it reads and raises; asking json_valid first costs a tenth
    trusting, checking = (batch_sql(schema, declared, moments, strict) for strict in (STRICT, f"json_valid(v) AND {STRICT}"))
    return TextDecoder(schema, judge, (trusting, checking) if len(schema) else (checking,), time_zone)
