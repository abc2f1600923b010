"""JSON payloads judged by SQL, a batch at a time, with the verdicts of `JsonRecordJudge`, or "not sure".

DuckDB's reader takes more than JSON (NaN, Infinity, trailing commas, any depth) and rewrites numbers (1e3 becomes 1000.0,
long fractions are cut to a double). So SQL screens each batch for texts that could hold such a thing, and is sure of a
number's digits only where they are found in the payload as DuckDB wrote them. Left to the judge are also maps with keys
other than STRING, objects with a key twice, and records with fields for `_rescued`.
"""

from __future__ import annotations

import re
from itertools import product

import pyarrow as pa

from streamproc.formats import scalar
from streamproc.formats.decoder import BOM_SQL
from streamproc.formats.json_scan import MAX_DEPTH
from streamproc.formats.moment import MomentFormat
from streamproc.formats.scalar import Guarded, quoted

RESCUED = "_rescued"
"""A column of this name gets the fields that the schema does not name, as a JSON object."""
_OUTSIDE_STRINGS = r"""regexp_replace(v, '"(?:[^"\\]|\\.)*"', '""', 'gs')"""
# one pattern each: a pattern with one first letter is searched ten times faster than an alternation
_MAYBE_LENIENT = " OR ".join(f"regexp_matches(v, '{regex}')" for regex in ("(?i)nan", "(?i)inf", r",\s*[}\]]"))
STRICT = rf"""CASE WHEN NOT starts_with(v, '{{') AND NOT regexp_matches(v, '^[ \t\r\n]*\{{') THEN false
    WHEN {_MAYBE_LENIENT} THEN NOT regexp_matches({_OUTSIDE_STRINGS}, '(?i)nan|inf|,\s*[}}\]]')
    WHEN strlen(v) > {MAX_DEPTH} THEN strlen(v) - strlen(replace(replace(v, '[', ''), '{{', '')) <= {MAX_DEPTH}
    ELSE true END"""


def batch_sql(schema: pa.Schema, declared: pa.Schema, moments: list[MomentFormat], strict: str) -> str:
    """Steps: drop the mark; is it strict JSON; the tokens of the columns (json_extract, by pointer); values; do they fit.

    Every condition stands in a CASE, where AND and OR stop early; elsewhere DuckDB would evaluate all of it.
    """
    tokens = _Tokens()
    columns = [tokens.column(f, declared, moment) for f, moment in zip(schema, moments, strict=True)]
    found = f"json_extract(v, [{', '.join(map(quoted, tokens.pointers))}])" if tokens.pointers else "['']"
    values = "".join(f"{c.value} AS f{i}, " for i, c in enumerate(columns))
    fits = " AND ".join(["x IS NOT NULL", *(c.fits for c in columns)])
    return f"""
        SELECT {values}CASE WHEN {fits} THEN true ELSE false END AS fits FROM (
        SELECT *{"".join(f", {value} AS c{i}" for i, value in tokens.values.items())} FROM (
        SELECT v, x{"".join(f", x[{i + 1}]::VARCHAR AS t{i}" for i in range(len(tokens.pointers)))} FROM (
        SELECT v, CASE WHEN {strict} THEN {found} END AS x FROM (
        {BOM_SQL}))))"""


_ITEM = re.compile(r"\be(\d+)\b")


class _Tokens:
    """What is read of a payload: the token ti is at `pointers[i]`, its value ci where `values` has one. The fields of a
    STRUCT have tokens of their own.
    """

    def __init__(self) -> None:
        self.pointers: list[str] = []
        self.values: dict[int, str] = {}

    def column(self, field: pa.Field, declared: pa.Schema, moment: MomentFormat) -> Guarded:
        """Both expressions over v and the ti and ci."""
        if field.name == RESCUED:
            known = ", ".join(quoted(n) for n in declared.names)
            return Guarded("NULL::VARCHAR", f"list_has_all([{known}], json_keys(v))")
        return self._field(field, "", moment)

    def _field(self, field: pa.Field, above: str, moment: MomentFormat) -> Guarded:
        i, kind = len(self.pointers), field.type
        token, value = f"t{i}", f"c{i}"
        pointer = above + "/" + field.name.replace("~", "~0").replace("/", "~1")
        self.pointers.append(pointer)
        no_value = f"({token} IS NULL OR {token} = 'null')" if field.nullable else "false"
        if pa.types.is_struct(kind) and _is_plain(kind):
            return self._struct(kind, pointer, token, no_value, moment)
        self.values[i] = _value_sql(kind, token, moment)
        if pa.types.is_nested(kind):
            return Guarded(value, f"({no_value} OR {_nested_fits(field.name, kind, token, moment)})")
        if pa.types.is_string(kind):
            return Guarded(value, f"(starts_with({token}, '\"') OR {no_value} OR {_as_written(field.name, token)})")
        if pa.types.is_decimal(kind):
            return Guarded(value, f"({value} IS NOT NULL AND {_exact_number(field.name, token)} OR {no_value})")
        return Guarded(value, f"({scalar.present_sql(kind, value)} OR {no_value})")

    def _struct(self, kind: pa.StructType, pointer: str, token: str, no_value: str, moment: MomentFormat) -> Guarded:
        inner = [self._field(f.with_nullable(True), pointer, moment) for f in kind]
        fields = ", ".join(f"{quoted(f.name)}: {part.value}" for f, part in zip(kind, inner, strict=True))
        is_object = f"starts_with({token}, '{{')"  # of an array /0 would be an item
        fits = " AND ".join([is_object, *(part.fits for part in inner)])
        return Guarded(f"CASE WHEN {is_object} THEN {{{fields}}} END", f"({no_value} OR ({fits}))")


# ---- arrays, maps and what is in them: expressions over one token, in lambdas


def _is_plain(kind: pa.DataType) -> bool:
    """SQL knows the type: no names that differ in case alone, no keys that are not text."""
    if pa.types.is_struct(kind):
        return 0 < len(kind) == len({f.name.lower() for f in kind}) and all(_is_plain(f.type) for f in kind)
    if pa.types.is_map(kind):
        return bool(pa.types.is_string(kind.key_type)) and _is_plain(kind.item_type)
    return _is_plain(kind.value_type) if pa.types.is_list(kind) else True


def _nested_sql(kind: pa.DataType, token: str, moment: MomentFormat) -> str:
    """Value of a token that is an array or object; NULL where it is none."""
    if not _is_plain(kind):
        return "NULL"
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{quoted(f.name)}: {_value_sql(f.type, _member(token, f.name), moment)}" for f in kind)
        return f"CASE WHEN starts_with({token}, '{{') THEN {{{fields}}} END"
    item, items = _lambda(token), _items(kind, token)
    if pa.types.is_map(kind):
        values = f"list_transform({items}, lambda {item}: {_value_sql(kind.item_type, item, moment)})"
        return f"CASE WHEN {_distinct_keys(token)} THEN map(json_keys({token}), {values}) END"
    values = f"list_transform({items}, lambda {item}: {_value_sql(kind.value_type, item, moment)})"
    return f"CASE WHEN starts_with({token}, '[') THEN {values} END"


def _nested_fits(name: str, kind: pa.DataType, token: str, moment: MomentFormat) -> str:
    """Whether every value in the column's token fits. Numbers whose digits matter are as written where the whole token is."""
    if not _is_plain(kind):
        return "false"
    sure, lenient = (_fits(kind, token, moment, exact) for exact in ("false", "true"))
    if sure == lenient:
        return sure
    packed, packed_token = (f"replace(replace({text}, ', ', ','), ': ', ':')" for text in ("v", token))
    return f"CASE WHEN {sure} THEN true WHEN {lenient} THEN {_verbatim(name, packed_token, packed)} ELSE false END"


def _fits(kind: pa.DataType, token: str, moment: MomentFormat, exact: str) -> str:
    """True or false, never NULL."""
    if pa.types.is_struct(kind):
        fits = " AND ".join([f"starts_with({token}, '{{')", *(_fits(f.type, _member(token, f.name), moment, exact) for f in kind)])
    elif pa.types.is_map(kind) or pa.types.is_list(kind):
        item = _lambda(token)
        inner = _fits(kind.item_type if pa.types.is_map(kind) else kind.value_type, item, moment, exact)
        every = f"coalesce(list_bool_and(list_transform({_items(kind, token)}, lambda {item}: {inner})), true)"
        opened = _distinct_keys(token) if pa.types.is_map(kind) else f"starts_with({token}, '[')"
        fits = f"{opened} AND {every}"
    elif pa.types.is_string(kind):
        fits = f"starts_with({token}, '\"') OR {_rewritten_as_is(token)} OR {exact}"
    else:
        value = _value_sql(kind, token, moment)
        fits = scalar.present_sql(kind, value)
        if pa.types.is_decimal(kind):
            fits = f"{fits} AND ({_plain_number(token)} OR {exact})"
    return f"CASE WHEN {token} IS NULL OR {token} = 'null' THEN true WHEN {fits} THEN true ELSE false END"


def _lambda(token: str) -> str:
    """A name for the items of a token, another one at each level."""
    level = max([0, *map(int, _ITEM.findall(token))]) + 1
    return f"e{level}"


def _items(kind: pa.DataType, token: str) -> str:
    return f"json_extract({token}, '{'$.*' if pa.types.is_map(kind) else '$[*]'}')::VARCHAR[]"


def _distinct_keys(token: str) -> str:
    return f"starts_with({token}, '{{') AND len(list_distinct(json_keys({token}))) = len(json_keys({token}))"


def _member(token: str, name: str) -> str:
    return f"json_extract({token}, {quoted('/' + name.replace('~', '~0').replace('/', '~1'))})::VARCHAR"


# ---- single values


def _value_sql(kind: pa.DataType, token: str, moment: MomentFormat) -> str:
    """Value of a token; NULL where there is none or SQL cannot tell."""
    if pa.types.is_nested(kind):
        return _nested_sql(kind, token, moment)
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
    return scalar.date_sql(_inside(token)) if pa.types.is_date(kind) else _binary_sql(token)


def _binary_sql(token: str) -> str:
    base64 = '"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"'
    return f"CASE WHEN regexp_full_match({token}, '{base64}') THEN from_base64({_inside(token)}) END"


def _inside(token: str) -> str:
    """What stands between the quotes of a string token, if nothing is escaped there."""
    return f"substr({token}, 2, length({token}) - 2)"


def _as_written(name: str, token: str) -> str:
    """A token other than a string has the text that it has in the payload."""
    return f"({_rewritten_as_is(token)} OR {_verbatim(name, token)})"


def _rewritten_as_is(token: str) -> str:
    integer = f"{token} <> '0' AND TRY_CAST({token} AS HUGEINT)::VARCHAR = {token}"  # -0 becomes 0
    return f"({token} IN ('true', 'false') OR {integer})"


def _exact_number(name: str, token: str) -> str:
    """The digits of a number are those of the payload: strings and integers always, fractions where they are found there."""
    return f"({_plain_number(token)} OR {_verbatim(name, token)})"


def _plain_number(token: str) -> str:
    return f"""(starts_with({token}, '"') OR TRY_CAST({token} AS HUGEINT)::VARCHAR = {token})"""


def _verbatim(name: str, token: str, v: str = "v") -> str:
    """The payload has the token as DuckDB wrote it: the key occurs once, unescaped, and the token with its end stands behind it."""
    if re.search(r'["\\\x00-\x1f]', name):
        return "false"
    key = quoted(f'"{name}"')
    places = " OR ".join(f"contains({v}, {key} || '{colon}' || {token} || '{end}')" for colon, end in product((":", ": "), ",}"))
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
