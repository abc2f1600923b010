"""CSV payloads: each is one line, its fields at the places that the declared schema (or a header line) gives them.

Fields are quoted as in RFC 4180 (a quote is written twice inside quotes). A field is NULL when it stands unquoted and is
the job's `null` text. Types are judged as strictly as JSON texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamproc.formats import scalar
from streamproc.formats.decoder import BOM_SQL, TextDecoder
from streamproc.formats.json_sql import RESCUED
from streamproc.formats.moment import MomentFormat
from streamproc.formats.scalar import Judge, Misfit, quoted
from streamproc.options import CsvOptions


class CsvRecordJudge:
    """Judge of one CSV line; called with its text, gives the values of `schema` in order."""

    def __init__(self, schema: pa.Schema, places: Sequence[int | None], fields: int, judges: Sequence[Judge], options: CsvOptions) -> None:
        self._columns = list(zip(schema.names, places, judges, strict=True))
        self._fields = fields
        self._options = options
        quote, delimiter = re.escape(options.quote), re.escape(options.delimiter)
        inside, outside = f"(?:[^{quote}]|{quote}{quote})*", rf"[^{quote}{delimiter}\r\n]*"
        self._field = re.compile(f"(?:{quote}({inside}){quote}|({outside}))({delimiter}|$)", re.DOTALL)

    def __call__(self, text: str) -> list[Any]:
        line = text.removesuffix("\n").removesuffix("\r")
        fields = self._split(line)
        if len(fields) != self._fields:
            raise Misfit("malformed_csv", f"expected {self._fields} fields, found {len(fields)}")
        return [None if at is None else self._value(name, fields[at], judge) for name, at, judge in self._columns]

    def _split(self, line: str) -> list[str | None]:
        fields: list[str | None] = []
        at, more = 0, True
        while more:
            found = self._field.match(line, at)
            if found is None or (not found[3] and found.end() < len(line)):
                raise Misfit("malformed_csv", f"a quote or a line end out of place in the field at character {at}")
            fields.append(self._text(found))
            at, more = found.end(), bool(found[3])
        return fields

    def _text(self, found: re.Match[str]) -> str | None:
        if found[1] is not None:
            return found[1].replace(self._options.quote * 2, self._options.quote)
        return None if found[2] == self._options.null else found[2]

    def _value(self, name: str, text: str | None, judge: Judge) -> Any:
        if text is None:
            return None
        try:
            return judge(text)
        except Misfit as error:
            raise Misfit(error.reason, f"column {name!r}: {error}") from None


def csv_decoder(
    schema: pa.Schema,
    declared: pa.Schema,
    columns: Sequence[str] | None,
    options: CsvOptions,
    timestamps: Mapping[str, str],
    time_zone: str,
) -> TextDecoder:
    """Decoder of `schema`'s columns out of lines with the fields `columns` (default: those of `declared`, in order)."""
    names = [name for name in declared.names if name != RESCUED] if columns is None else list(columns)  # a line of another shape is bad
    places = [names.index(name) if name in names else None for name in schema.names]
    moments = [scalar.moments(timestamps, f.name, time_zone) for f in schema]
    judges = [scalar.text_judge(f.type, moment) for f, moment in zip(schema, moments, strict=True)]
    judge = CsvRecordJudge(schema, places, len(names), judges, options)
    return TextDecoder(schema, judge, (_batch_sql(schema, places, len(names), moments, options),), time_zone)


def _batch_sql(schema: pa.Schema, places: Sequence[int | None], fields: int, moments: Sequence[MomentFormat], options: CsvOptions) -> str:
    """Splits the lines without a quote; a line with one is left to the judge."""
    null = quoted(options.null)
    texts = "".join(f", {'NULL::VARCHAR' if at is None else f'NULLIF(x[{at + 1}], {null})'} AS t{i}" for i, at in enumerate(places))
    values = "".join(f", {value_sql(f.type, f't{i}', moments[i])} AS c{i}" for i, f in enumerate(schema))
    fits = " AND ".join(["x IS NOT NULL", *(_fits(f, i) for i, f in enumerate(schema))])
    plain = f"NOT contains(v, {quoted(options.quote)}) AND NOT contains(v, chr(10)) AND NOT contains(v, chr(13))"
    return f"""
        SELECT {"".join(f"c{i}, " for i in range(len(schema)))}CASE WHEN {fits} THEN true ELSE false END AS fits FROM (
        SELECT *{values} FROM (
        SELECT CASE WHEN len(x) = {fields} THEN x END AS x{texts} FROM (
        SELECT CASE WHEN {plain} THEN string_split(v, {quoted(options.delimiter)}) END AS x FROM (
        SELECT CASE WHEN ends_with(v, chr(10)) THEN regexp_replace(v, '\r?\n$', '') ELSE v END AS v FROM ({BOM_SQL})))))"""


def _fits(field: pa.Field, i: int) -> str:
    present = scalar.present_sql(field.type, f"c{i}")
    return f"({present} OR t{i} IS NULL)" if field.nullable else present


def value_sql(kind: pa.DataType, text: str, moment: MomentFormat) -> str:
    if pa.types.is_string(kind):
        return text
    if pa.types.is_boolean(kind):
        return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
    if pa.types.is_integer(kind):
        return f"CASE WHEN regexp_full_match({text}, '-?(0|[1-9][0-9]*)') THEN {scalar.integer_sql(kind, text)} END"
    if pa.types.is_floating(kind):
        return f"CASE WHEN regexp_full_match({text}, '{scalar.NUMBER}') THEN {scalar.floating_sql(kind, text)} END"
    if pa.types.is_decimal(kind):
        return f"CASE WHEN regexp_full_match({text}, '-?[0-9]+(\\.[0-9]+)?') THEN {scalar.decimal_sql(kind, text)} END"
    if pa.types.is_timestamp(kind):
        return moment.sql(text, zoned=kind.tz is not None)
    return scalar.date_sql(text) if pa.types.is_date(kind) else "NULL"
