"""Formats: bytes ↔ Arrow, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamproc.batch import Decoder
from streamproc.formats.csv import csv_decoder
from streamproc.formats.json import json_decoder
from streamproc.formats.raw import raw_decoder
from streamproc.options import CsvOptions

_CSV = CsvOptions()


def make_decoder(
    format: str,  # noqa: A002 (the job file's word)
    schema: pa.Schema,
    *,
    csv: CsvOptions = _CSV,
    timestamps: Mapping[str, str] | None = None,
    time_zone: str = "UTC",
    declared: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
) -> Decoder:
    """Decoder of payloads in `format` (json, csv, raw) that yields `schema`: the columns that are read, maybe none.

    `declared` is the whole declared schema (default: `schema`), `columns` the names of a CSV header line where there is
    one, `timestamps` how columns write their times (epoch_s, epoch_ms, epoch_us or a Spark datetime pattern).
    ValueError, with what to write instead, for a format, type, pattern or time zone that is not supported.
    """
    declared = schema if declared is None else declared
    if format == "json":
        return json_decoder(schema, declared, timestamps or {}, time_zone)
    if format == "csv":
        return csv_decoder(schema, declared, columns, csv, timestamps or {}, time_zone)
    if format == "raw":
        return raw_decoder(schema, declared)
    raise ValueError(f"format {format!r} is unknown; write json, csv or raw")
