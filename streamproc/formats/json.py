"""JSON payloads: one well-formed object each, strictly (RFC 8259), judged in the declared columns that are read.

DuckDB's reader takes more than JSON (NaN, Infinity, trailing commas, any depth) and rewrites numbers (1e3 becomes 1000.0,
long fractions are cut to a double). So SQL screens each batch for texts that could hold such a thing, and is sure of a
number's digits only where they are found in the payload as DuckDB wrote them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import msgspec
import pyarrow as pa

from streamproc.formats import scalar
from streamproc.formats.decoder import BOM_SQL, TextDecoder
from streamproc.formats.json_scan import MAX_DEPTH, is_too_deep, scan_array, scan_object
from streamproc.formats.moment import MomentFormat
from streamproc.formats.scalar import Guarded, Judge, Misfit, misfit, quoted

RESCUED = "_rescued"
"""A column of this name gets the fields that the schema does not name, as a JSON object."""
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
    trusting, checking = (_batch_sql(schema, declared, moments, strict) for strict in (_STRICT, f"json_valid(v) AND {_STRICT}"))
    return TextDecoder(schema, judge, (trusting, checking) if len(schema) else (checking,), time_zone)


_OUTSIDE_STRINGS = r"""regexp_replace(v, '"(?:[^"\\]|\\.)*"', '""', 'gs')"""
# one pattern each: a pattern with one first letter is searched ten times faster than an alternation
_MAYBE_LENIENT = " OR ".join(f"regexp_matches(v, '{regex}')" for regex in ("(?i)nan", "(?i)inf", r",\s*[}\]]"))
_STRICT = rf"""CASE WHEN NOT starts_with(v, '{{') AND NOT regexp_matches(v, '^[ \t\r\n]*\{{') THEN false
    WHEN {_MAYBE_LENIENT} THEN NOT regexp_matches({_OUTSIDE_STRINGS}, '(?i)nan|inf|,\s*[}}\]]')
    WHEN strlen(v) > {MAX_DEPTH} THEN strlen(v) - strlen(replace(replace(v, '[', ''), '{{', '')) <= {MAX_DEPTH}
    ELSE true END"""


def _batch_sql(schema: pa.Schema, declared: pa.Schema, moments: list[MomentFormat], strict: str) -> str:
    """Steps: drop the mark; is it strict JSON; the tokens of the columns (json_extract, by pointer); values; do they fit.

    Every condition stands in a CASE, where AND and OR stop early; elsewhere DuckDB would evaluate all of it.
    """
    pointers = ", ".join(quoted("/" + f.name.replace("~", "~0").replace("/", "~1")) for f in schema)
    tokens = f"json_extract(v, [{pointers}])" if pointers else "['']"
    columns = [_column(f, i, declared, moment) for i, (f, moment) in enumerate(zip(schema, moments, strict=True))]
    values = "".join(f"c{i}, " for i in range(len(columns)))
    fits = " AND ".join(["x IS NOT NULL", *(c.fits for c in columns)])
    return f"""
        SELECT {values}CASE WHEN {fits} THEN true ELSE false END AS fits FROM (
        SELECT *{"".join(f", {c.value} AS c{i}" for i, c in enumerate(columns))} FROM (
        SELECT v, x{"".join(f", x[{i + 1}]::VARCHAR AS t{i}" for i in range(len(columns)))} FROM (
        SELECT v, CASE WHEN {strict} THEN {tokens} END AS x FROM (
        {BOM_SQL}))))"""


def _column(field: pa.Field, i: int, declared: pa.Schema, moment: MomentFormat) -> Guarded:
    """`value` is written over v and the token ti, `fits` over v, ti and the value ci."""
    token, kind = f"t{i}", field.type
    if field.name == RESCUED:
        known = ", ".join(quoted(n) for n in declared.names)
        return Guarded("NULL::VARCHAR", f"list_has_all([{known}], json_keys(v))")
    value = _value_sql(kind, token, moment)
    no_value = f"({token} IS NULL OR {token} = 'null')" if field.nullable else "false"
    if pa.types.is_string(kind):
        return Guarded(value, f"(starts_with({token}, '\"') OR {no_value} OR {_as_written(field.name, token)})")
    if pa.types.is_decimal(kind):
        return Guarded(value, f"(c{i} IS NOT NULL AND {_exact_number(field.name, token)} OR {no_value})")
    return Guarded(value, f"({scalar.present_sql(kind, f'c{i}')} OR {no_value})")


def _value_sql(kind: pa.DataType, token: str, moment: MomentFormat) -> str:
    """Value of a token; NULL where there is none or SQL cannot tell."""
    if pa.types.is_string(kind):
        decoded = f"CASE WHEN contains({token}, '\\') THEN json_extract_string({token}, '$') ELSE {_inside(token)} END"
        return f"""CASE WHEN starts_with({token}, '"') THEN {decoded} WHEN {token} <> 'null' THEN {token} END"""
    if pa.types.is_boolean(kind):
        return f"CASE {token} WHEN 'true' THEN true WHEN 'false' THEN false END"
    if pa.types.is_integer(kind):
        return scalar.integer_sql(kind, token)
    if pa.types.is_floating(kind):
        return scalar.floating_sql(kind, token)
    if pa.types.is_decimal(kind):
        return _decimal_sql(kind, token)
    if pa.types.is_timestamp(kind):
        return _timestamp_sql(kind, token, moment)
    return scalar.date_sql(_inside(token)) if pa.types.is_date(kind) else "NULL"


def _inside(token: str) -> str:
    """What stands between the quotes of a string token, if nothing is escaped there."""
    return f"substr({token}, 2, length({token}) - 2)"


def _as_written(name: str, token: str) -> str:
    """A token other than a string has the text that it has in the payload."""
    integer = f"{token} <> '0' AND TRY_CAST({token} AS HUGEINT)::VARCHAR = {token}"  # -0 becomes 0
    return f"({token} IN ('true', 'false') OR {integer} OR {_verbatim(name, token)})"


def _exact_number(name: str, token: str) -> str:
    """The digits of a number are those of the payload: strings and integers always, fractions where they are found there."""
    return f"""(starts_with({token}, '"') OR TRY_CAST({token} AS HUGEINT)::VARCHAR = {token} OR {_verbatim(name, token)})"""


def _verbatim(name: str, token: str) -> str:
    """The payload has the token as DuckDB wrote it: the key occurs once, unescaped, and the token with its end stands behind it."""
    if re.search(r'["\\\x00-\x1f]', name):
        return "false"
    key = quoted(f'"{name}"')
    places = " OR ".join(f"contains(v, {key} || '{colon}' || {token} || '{end}')" for colon, end in product((":", ": "), ",}"))
    return f"(({places}) AND NOT contains(v, '\\') AND strlen(v) - strlen(replace(v, {key}, '')) = {len(name.encode()) + 2})"


def _decimal_sql(kind: pa.DataType, token: str) -> str:
    plain = f"regexp_full_match({token}, '\"-?[0-9]+(\\.[0-9]+)?\"')"
    return f"""CASE WHEN NOT starts_with({token}, '"') THEN {scalar.decimal_sql(kind, token)}
        WHEN {plain} THEN {scalar.decimal_sql(kind, _inside(token))} END"""


def _timestamp_sql(kind: pa.DataType, token: str, moment: MomentFormat) -> str:
    if moment.numeric:
        return moment.sql(token, zoned=kind.tz is not None)
    general = f"""starts_with({token}, '"') THEN {moment.sql(_inside(token), zoned=kind.tz is not None)}"""
    if moment.written or kind.tz is None:
        return f"CASE WHEN {general} END"
    # the common form first: a quarter of the cost of matching the general one
    common = f"""strlen({token}) <= 29 AND {token} LIKE '"____-__-__T__:__:__.%Z"'"""
    return f"""CASE WHEN {common} THEN try_strptime({token}, '"%Y-%m-%dT%H:%M:%S.%fZ"') WHEN {general} END"""
