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
        SELECT *{"".join(f", {items} AS i{i}" for i, items in tokens.items.items())} FROM (
        SELECT v, x{"".join(f", x[{i + 1}]::VARCHAR AS t{i}" for i in range(len(tokens.pointers)))} FROM (
        SELECT v, CASE WHEN {strict} THEN {found} END AS x FROM (
        {BOM_SQL})))))"""


_ITEM = re.compile(r"\be(\d+)\b")


class _Tokens:
    """What is read of a payload: the token ti is at `pointers[i]`, its value ci where `values` has one, its items ii. The fields of a
    STRUCT have tokens of their own.
    """

    def __init__(self) -> None:
        self.pointers: list[str] = []
        self.values: dict[int, str] = {}
        self.items: dict[int, str] = {}

    def column(self, field: pa.Field, declared: pa.Schema, moment: MomentFormat) -> Guarded:
        """Both expressions over v and the ti and ci."""
        if field.name == RESCUED:
            known = ", ".join(quoted(n) for n in declared.names)
            return Guarded("NULL::VARCHAR", f"list_has_all([{known}], json_keys(v))")
        return self._field(field, "", moment)

    def _field(self, field: pa.Field, above: str, moment: MomentFormat) -> Guarded:
        i, kind = len(self.pointers), field.type
        token, value = f"t{i}", f"c{i}"
        pointer = above + _pointer(field.name)
        self.pointers.append(pointer)
        no_value = f"({token} IS NULL OR {token} = 'null')" if field.nullable else "false"
        if pa.types.is_struct(kind) and _is_plain(kind):
            return self._struct(kind, pointer, token, no_value, moment)
        if pa.types.is_nested(kind):
            return self._items(field, i, no_value, moment)
        self.values[i] = _value_sql(kind, token, moment)
        if pa.types.is_string(kind):
            return Guarded(value, f"(starts_with({token}, '\"') OR {no_value} OR {_as_written(field.name, token)})")
        if pa.types.is_decimal(kind):
            return Guarded(value, f"({value} IS NOT NULL AND {_exact_number(field.name, token)} OR {no_value})")
        return Guarded(value, f"({scalar.present_sql(kind, value)} OR {no_value})")

    def _items(self, field: pa.Field, i: int, no_value: str, moment: MomentFormat) -> Guarded:
        token, items = f"t{i}", f"i{i}"
        if _is_plain(field.type) and not pa.types.is_struct(field.type):
            self.items[i] = f"CASE WHEN {_opened(field.type, token)} THEN {_items(field.type, token)} END"
        self.values[i] = _nested_sql(field.type, token, moment, items)
        return Guarded(f"c{i}", f"({no_value} OR {_nested_fits(field.name, field.type, token, moment, items)})")

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


def _nested_sql(kind: pa.DataType, token: str, moment: MomentFormat, items: str | None = None) -> str:
    """Value of a token that is an array or object; NULL where it is none. `items`: where its items are, if they are made already."""
    if not _is_plain(kind):
        return "NULL"
    if pa.types.is_struct(kind):
        return _struct_sql(kind, token, [_member(token, f.name) for f in kind], moment)
    item, inner = _lambda(token), _item_type(kind)
    value = (
        _struct_sql(inner, f"{item}[1]", _members(inner, item), moment) if pa.types.is_struct(inner) else _value_sql(inner, item, moment)
    )
    values = f"list_transform({items or _items(kind, token)}, lambda {item}: {value})"
    return f"CASE WHEN {_opened(kind, token)} THEN {f'map(json_keys({token}), {values})' if pa.types.is_map(kind) else values} END"


def _struct_sql(kind: pa.StructType, token: str, members: list[str], moment: MomentFormat) -> str:
    fields = ", ".join(f"{quoted(f.name)}: {_value_sql(f.type, member, moment)}" for f, member in zip(kind, members, strict=True))
    return f"CASE WHEN starts_with({token}, '{{') THEN {{{fields}}} END"


def _nested_fits(name: str, kind: pa.DataType, token: str, moment: MomentFormat, items: str | None) -> str:
    """Whether every value in the column's token fits. Numbers whose digits matter are as written where the whole token is."""
    if not _is_plain(kind):
        return "false"
    sure, lenient = (_fits(kind, token, moment, exact, items) for exact in ("false", "true"))
    if sure == lenient:
        return sure
    packed, packed_token = (f"replace(replace({text}, ', ', ','), ': ', ':')" for text in ("v", token))
    verbatim = _verbatim(name, packed_token, packed)
    if "DECIMAL" in sure:  # most are fractions
        return f"CASE WHEN {verbatim} THEN {lenient} ELSE {sure} END"
    return f"CASE WHEN {sure} THEN true WHEN {lenient} THEN {verbatim} ELSE false END"


def _fits(kind: pa.DataType, token: str, moment: MomentFormat, exact: str, items: str | None = None) -> str:
    """True or false, never NULL."""
    if pa.types.is_struct(kind):
        fits = _struct_fits(kind, token, [_member(token, f.name) for f in kind], moment, exact)
    elif pa.types.is_nested(kind):
        fits = f"{_opened(kind, token)} AND {_every(kind, token, moment, exact, items or _items(kind, token))}"
    elif pa.types.is_string(kind):
        # of an array or object as text the spaces matter too
        as_written = f"{exact} AND left({token}, 1) NOT IN ('[', '{{')"
        fits = f"starts_with({token}, '\"') OR {_rewritten_as_is(token)} OR {as_written}"
    else:
        fits = scalar.present_sql(kind, _value_sql(kind, token, moment))
        if pa.types.is_decimal(kind):
            fits = f"{fits} AND ({_plain_number(token)} OR {exact})"
    return _or_null(token, fits)


def _every(kind: pa.DataType, token: str, moment: MomentFormat, exact: str, items: str) -> str:
    """Every item fits."""
    item, inner = _lambda(token), _item_type(kind)
    if pa.types.is_struct(inner):
        fits = _or_null(f"{item}[1]", _struct_fits(inner, f"{item}[1]", _members(inner, item), moment, exact))
    else:
        fits = _fits(inner, item, moment, exact)
    return f"coalesce(list_bool_and(list_transform({items}, lambda {item}: {fits})), true)"


def _struct_fits(kind: pa.StructType, token: str, members: list[str], moment: MomentFormat, exact: str) -> str:
    inner = (_fits(f.type, member, moment, exact) for f, member in zip(kind, members, strict=True))
    return " AND ".join([f"starts_with({token}, '{{')", *inner])


def _or_null(token: str, fits: str) -> str:
    return f"CASE WHEN {token} IS NULL OR {token} = 'null' THEN true WHEN {fits} THEN true ELSE false END"


def _lambda(token: str) -> str:
    """A name for the items of a token, another one at each level."""
    level = max([0, *map(int, _ITEM.findall(token))]) + 1
    return f"e{level}"


def _item_type(kind: pa.DataType) -> pa.DataType:
    return kind.item_type if pa.types.is_map(kind) else kind.value_type


def _items(kind: pa.DataType, token: str) -> str:
    """The tokens of an array or map; of structs a list each: its own token, then those of its fields, read in one go."""
    every = f"json_extract({token}, '{'$.*' if pa.types.is_map(kind) else '$[*]'}')::VARCHAR[]"
    inner, item = _item_type(kind), _lambda(token)
    if not pa.types.is_struct(inner):
        return every
    pointers = ", ".join(quoted(_pointer(f.name)) for f in inner)
    return f"list_transform({every}, lambda {item}: list_concat([{item}], json_extract({item}, [{pointers}])::VARCHAR[]))"


def _members(kind: pa.StructType, item: str) -> list[str]:
    """The tokens of a struct's fields in its list (see _items)."""
    return [f"{item}[{i + 2}]" for i in range(len(kind))]


def _opened(kind: pa.DataType, token: str) -> str:
    return _distinct_keys(token) if pa.types.is_map(kind) else f"starts_with({token}, '[')"


def _distinct_keys(token: str) -> str:
    return f"starts_with({token}, '{{') AND len(list_distinct(json_keys({token}))) = len(json_keys({token}))"


def _member(token: str, name: str) -> str:
    return f"json_extract({token}, {quoted(_pointer(name))})::VARCHAR"


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


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
