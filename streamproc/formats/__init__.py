"""Formats: bytes ↔ Arrow, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from streamproc.batch import Decoder
from streamproc.formats.csv import csv_decoder
from streamproc.formats.json import json_decoder
from streamproc.formats.raw import raw_decoder
from streamproc.options import CsvOptions, SourceOptions

_CSV = CsvOptions()


def source_decoder(options: SourceOptions, schema: pa.Schema, *, declared: pa.Schema, time_zone: str = "UTC") -> Decoder:
    """Decoder of a source's payloads, by its keys: `schema` are the columns that are read, of those `declared`.

    ValueError, with what to write instead, for what is not supported, and for schema files that cannot be used.
    """
    decoder = _payload_decoder(options, schema, declared, time_zone)
    if options.compression is None:
        return decoder
    from streamproc.formats.compression import DecompressingDecoder, decompressor

    return DecompressingDecoder(decoder, decompressor(options.compression))


def _payload_decoder(options: SourceOptions, schema: pa.Schema, declared: pa.Schema, time_zone: str) -> Decoder:
    if options.format not in ("avro", "protobuf"):
        return make_decoder(options.format, schema, csv=options.csv, timestamps=options.timestamps, time_zone=time_zone, declared=declared)
    try:
        from streamproc.formats.schemas import avro_decoder, protobuf_decoder  # with numpy
    except ImportError as error:
        raise ValueError(
            f"format {options.format} needs a package that is missing ({error.name}): pip install 'streamproc[{options.format}]'"
        ) from None
    make = avro_decoder if options.format == "avro" else protobuf_decoder
    return make(options, schema, declared, time_zone)


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
