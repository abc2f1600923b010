"""Values as text and text as values, as Spark's casts print and read them."""

from __future__ import annotations

import re

import pyarrow as pa

from streamproc.plan import zone
from streamproc.plan.types import BINARY, DATE, FLOAT, STRING, TIMESTAMP_NTZ, Sql, bound, is_decimal, is_fractional, is_time

DAY = r"\s*[+]?([0-9]{4,6})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:[T ].*)?)?)?\s*"
_CLOCK = r"([01]?[0-9]|2[0-3])(?::([0-5]?[0-9])(?::([0-5]?[0-9])(?:[.]([0-9]*))?)?)?"
_ZONE = r"(?:Z|(?:UTC|GMT|UT)?[+-][0-9]{1,2}(?::?[0-9]{1,2})?|UTC|GMT|UT|[A-Z][A-Za-z]+/[A-Za-z_/+-]+[0-9]*)"
MOMENT = rf"\s*[+]?([0-9]{{4,6}})(?:-([0-9]{{1,2}})(?:-([0-9]{{1,2}})(?:[T ](?:{_CLOCK}\s*({_ZONE})?)?)?)?)?\s*"
_OFFSET = r"^(?:UTC|GMT|UT)?([+-])([0-9]{1,2})(?::?([0-9]{1,2}))?$"


_YEAR = "CASE WHEN year(@t) < 0 THEN '-' WHEN year(@t) > 9999 THEN '+' ELSE '' END || printf('%04d', abs(year(@t)))"
_AFTER_YEAR = "replace(regexp_replace(CAST(@t AS VARCHAR), '^[0-9]+', ''), ' (BC)', '')"
_TIME = f"CASE WHEN year(@t) BETWEEN 1 AND 9999 THEN CAST(@t AS VARCHAR) ELSE {_YEAR} || {_AFTER_YEAR} END"


def text_of(value: Sql) -> str | None:
    """SQL of CAST(value AS STRING); None if Spark prints it in a way of its own that is not known here."""
    if is_time(value.type):
        return bound({"t": value.text if value.type == DATE else zone.local_of(value)}, _TIME)
    if value.type == BINARY:
        return f"decode({value.text})"
    if is_fractional(value.type):
        return fraction_text(value)
    if is_decimal(value.type) and value.type.precision == value.type.scale:  # DuckDB leaves the 0 before the point out
        return f"regexp_replace(CAST({value.text} AS VARCHAR), '^(-?)[.]', '\\10.')"
    return _nested_text(value) or f"CAST({value.text} AS VARCHAR)"


def _nested_text(value: Sql) -> str | None:
    """`[1, null]`, `{a -> 1}`, `{1, x}`."""
    kind = value.type
    if pa.types.is_map(kind):
        pair = f"{_part('_e.key', kind.key_type)} || ' -> ' || {_part('_e.value', kind.item_type)}"
        pairs = f"list_transform(map_entries(@m), lambda _e: {pair})"
        return bound({"m": value.text}, f"CASE WHEN @m IS NOT NULL THEN '{{' || array_to_string({pairs}, ', ') || '}}' END")
    if pa.types.is_list(kind):
        parts = f"list_transform(@a, lambda _e: {_part('_e', kind.value_type)})"
        return bound({"a": value.text}, f"CASE WHEN @a IS NOT NULL THEN '[' || array_to_string({parts}, ', ') || ']' END")
    if pa.types.is_struct(kind):
        parts = " || ', ' || ".join(_part(f"struct_extract_at(@s, {i + 1})", f.type) for i, f in enumerate(kind)) or "''"
        return bound({"s": value.text}, f"CASE WHEN @s IS NOT NULL THEN '{{' || {parts} || '}}' END")
    return None


def _part(text: str, kind: pa.DataType) -> str:
    return f"COALESCE({text if kind == STRING else text_of(Sql(text, kind))}, 'null')"


def fraction_text(value: Sql) -> str:
    """The shortest digits that make the number, as Java prints them: 1.0E10, 1.0E-5, 0.001, NaN, Infinity."""
    mantissa = "regexp_extract(@t, '^-?([0-9])[.]?([0-9]*)e([+-])0*([0-9]+)$', ['d', 'f', 's', 'e'])"
    exponent = "'E' || CASE WHEN _m.s = '-' THEN '-' ELSE '' END || _m.e"
    scientific = _bound_lambda(mantissa, f"_m.d || '.' || CASE WHEN _m.f = '' THEN '0' ELSE _m.f END || {exponent}")
    digits = "rtrim(ltrim(replace(ltrim(@t, '-'), '.', ''), '0'), '0')"
    power = "CASE WHEN @a >= 1 THEN strpos(ltrim(@t, '-'), '.') - 2 ELSE -4 END"
    pointed = _bound_lambda(
        f"{{'d': {digits}, 'e': {power}}}",
        "left(_m.d, 1) || '.' || CASE WHEN length(_m.d) = 1 THEN '0' ELSE substring(_m.d, 2) END || 'E' || CAST(_m.e AS VARCHAR)",
    )
    body = (
        "CASE WHEN isnan(@x) THEN 'NaN' WHEN isinf(@x) THEN CASE WHEN @x > 0 THEN 'Infinity' ELSE '-Infinity' END "
        "WHEN @a = 0 OR (@a >= 0.001 AND @a < 10000000) THEN @t "
        f"ELSE CASE WHEN @x < 0 THEN '-' ELSE '' END || CASE WHEN contains(@t, 'e') THEN {scientific} ELSE {pointed} END END"
    )
    text = "CAST(@x AS VARCHAR)" if value.type == FLOAT else "CASE WHEN @x = 5e-324 THEN '4.9e-324' ELSE CAST(@x AS VARCHAR) END"
    inner = f"{{'x': @x, 'a': abs(@x), 't': {text}}}"
    return bound({"v": bound({"x": value.text}, inner)}, re.sub(r"@(\w)\b", r"@v.\1", body))


def _bound_lambda(value: str, body: str) -> str:
    return f"list_transform([{value}], lambda _m: {body})[1]"


def date_of(text: str) -> str:
    """SQL of the DATE in a text of the form DAY; an error if there is no such day."""
    parts = f"regexp_extract({text}, '^{DAY}$', ['y', 'm', 'd'])"
    return bound({"p": parts}, f"make_date({_number('@p.y')}, {_number('@p.m')}, {_number('@p.d')})")


def _number(part: str) -> str:
    return f"CAST(CASE WHEN {part} = '' THEN '1' ELSE {part} END AS BIGINT)"


def moment_of(text: str, target: pa.DataType) -> str:
    """SQL of the TIMESTAMP or TIMESTAMP_NTZ in a text of the form MOMENT: digits beyond microseconds are cut."""
    parts = f"regexp_extract({text}, '^{MOMENT}$', ['y', 'm', 'd', 'h', 'i', 's', 'f', 'z'])"
    day = f"make_date({_number('@p.y')}, {_number('@p.m')}, {_number('@p.d')})"
    micros = "CAST(left(@p.f || '000000', 6) AS BIGINT)"
    units = {"h": 3_600_000_000, "i": 60_000_000, "s": 1_000_000}
    clock = " + ".join(f"CAST('0' || @p.{part} AS BIGINT) * {unit}" for part, unit in units.items())
    local = bound({"p": parts}, f"{{'l': make_timestamp(epoch_us({day}) + {clock} + {micros}), 'z': @p.z}}")
    if target == TIMESTAMP_NTZ:
        return f"struct_extract({local}, 'l')"
    offset = f"regexp_extract(@q.z, '{_OFFSET}', ['s', 'h', 'm'])"
    size = "CAST('0' || _m.h AS BIGINT) * 60 + CAST('0' || _m.m AS BIGINT)"
    minutes = _bound_lambda(offset, f"({size}) * CASE WHEN _m.s = '-' THEN 1 ELSE -1 END")
    shifted = f"make_timestamptz(epoch_us(@q.l) + {minutes} * 60000000)"
    named = "timezone(@q.z, @q.l)"
    here = zone.instant("_v.q.l")
    cases = f"WHEN @q.z = '' THEN {here} WHEN @q.z IN ('Z', 'UTC', 'GMT', 'UT') THEN make_timestamptz(epoch_us(@q.l))"
    return bound({"q": local}, f"CASE {cases} WHEN regexp_matches(@q.z, '{_OFFSET}') THEN {shifted} ELSE {named} END")
