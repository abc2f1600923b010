"""`streamproc infer`: a schema and a watermark for a source, proposed from samples of its records."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamproc import registry
from streamproc.batch import EXTRA_COLUMNS, WIRE_SCHEMA
from streamproc.errors import Fault, InvalidJob, StreamprocError
from streamproc.formats import source_decoder
from streamproc.formats.guess import Guess, Number, Seen, guesses, quoted_name
from streamproc.job.document import read_document
from streamproc.job.faults import Faults, nearest
from streamproc.options import CsvOptions, SourceOptions
from streamproc.schema import ddl_type, parse_ddl
from streamproc.source import Source
from streamproc.world import World

RECORDS = 5000
SHARDS = 16
PATIENCE_S = 20.0
_DELAYS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21_600, 86_400)
_TIMELY = ("event_time", "eventtime", "ts", "timestamp", "time", "occurred_at", "created_at", "at")
"""Names that an event time goes by, the likeliest first."""


@dataclass(frozen=True)
class Sample:
    """Records of a source: payloads by shard, in order; or columns where the source yields those (parquet)."""

    payloads: dict[str, pa.Array] = field(repr=False)
    columns: pa.Schema | None = None

    @property
    def records(self) -> int:
        return sum(map(len, self.payloads.values()))

    def __repr__(self) -> str:
        return f"<Sample of {self.records} records, {len(self.payloads)} shards>"


async def propose(path: str, name: str | None = None, overrides: Sequence[str] = (), world: World | None = None) -> str:
    """The snippet for the source in a file: of a source alone, or of a job with one source or one called `name`.

    InvalidJob if the file is wrong; StreamprocError if the source cannot be read or has no records.
    """
    name, options = read_source(path, name, overrides)
    source = registry.source_class(options.type)(options, world or World(), name)
    try:
        sample = await take_sample(source, options)
    finally:
        await source.close()
    if not sample.records:
        raise StreamprocError(f"source {name} has no records (within {PATIENCE_S:.0f} s); start: earliest reads from the beginning")
    found = await asyncio.to_thread(_guessed, sample, options)
    if options.format == "csv":
        sample = _without_headers(sample, options.csv.delimiter.join(found))
    return _snippet(name, sample, found, *_watermark(sample, options, found))


def read_source(path: str, name: str | None, overrides: Sequence[str]) -> tuple[str, SourceOptions]:
    """The source's name and keys, without a schema. InvalidJob with every fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJob([Fault(path, 1, f"cannot be read: {getattr(error, 'strerror', None) or error}")]) from None
    document = read_document(text, os.environ, overrides)
    faults = Faults(path, document)
    where, given = _chosen(document.value, name, faults)
    options = _options(where, given, faults) if not faults.found else None
    if options is None:
        raise InvalidJob(faults.found)
    return str(where[-1]) if where else Path(path).stem, options


def _chosen(value: Any, name: str | None, faults: Faults) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    if not isinstance(value, dict):
        faults.at_line(1, "write the keys of one source (type: kafka, …), or a job with sources")
        return (), {}
    sources = value.get("sources")
    if not isinstance(sources, dict):
        return (), value
    if name is None and len(sources) > 1:
        faults.add(("sources",), f"there are several; say which: --source {' or --source '.join(map(str, sources))}")
        return (), {}
    chosen = next(iter(sources), "") if name is None else name
    if not isinstance(sources.get(chosen), dict):
        faults.add(("sources",), f"there is no source {chosen!r}{nearest(chosen, map(str, sources))}")
        return (), {}
    return ("sources", chosen), sources[chosen]


def _options(where: tuple[str, ...], given: Mapping[str, Any], faults: Faults) -> SourceOptions | None:
    kind = given.get("type")
    if kind not in registry.SOURCES:
        faults.add((*where, "type"), f"unknown source type {kind!r}{nearest(kind, registry.SOURCES)}")
        return None
    model = registry.source_options(kind)
    keys = {key: value for key, value in given.items() if key not in ("schema", "watermark", "timestamps", "partitioned_by")}
    options = faults.validate(model, keys, where, "source")
    if options is None or options.format != "csv":
        return options
    return options.model_copy(update={"csv": options.csv.model_copy(update={"header": False})})  # the header is wanted here


async def take_sample(source: Source, options: SourceOptions) -> Sample:
    """Some thousand records from where the source starts, an equal part of each shard. Waits for some seconds at most."""
    shards = (await source.shards())[:SHARDS]
    part = max(100, RECORDS // max(1, len(shards)))
    read: dict[str, list[pa.RecordBatch]] = {shard.id: [] for shard in shards}

    async def fill(shard: Any) -> None:
        reader = await source.open(shard, await source.position(shard, options.start))
        try:
            while sum(batch.num_rows for batch in read[shard.id]) < part:
                chunk = await reader.read()
                read[shard.id].append(chunk.rows)
                if chunk.at_end or chunk.ended:
                    return
        finally:
            await reader.close()

    tasks = [asyncio.ensure_future(fill(shard)) for shard in shards]
    done, pending = await asyncio.wait(tasks, timeout=PATIENCE_S) if tasks else (set(), set())
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    return _sampled({shard: [b for b in batches if b.num_rows] for shard, batches in read.items()}, part)


def _sampled(read: Mapping[str, list[pa.RecordBatch]], part: int) -> Sample:
    batches = [batch for found in read.values() for batch in found]
    if batches and "_value" not in batches[0].schema.names:
        columns = pa.schema([f for f in batches[0].schema if f.name not in EXTRA_COLUMNS.names])
        return Sample({shard: pa.nulls(sum(b.num_rows for b in found)) for shard, found in read.items()}, columns)
    values = WIRE_SCHEMA.field("_value").type
    payloads = {s: pa.chunked_array([b.column("_value") for b in found], values).slice(0, part) for s, found in read.items()}
    return Sample({shard: found.combine_chunks() for shard, found in payloads.items()})


def _without_headers(sample: Sample, header: str) -> Sample:
    return Sample({shard: found.filter(pc.not_equal(found, header.encode())) for shard, found in sample.payloads.items()})


def _guessed(sample: Sample, options: SourceOptions) -> dict[str, Guess]:
    """A guess for each column."""
    if sample.columns is not None:
        return {f.name: Guess(_spark(f.type)) for f in sample.columns}
    if options.format == "raw":
        return {"value": Guess("BINARY")}
    if options.format in ("avro", "protobuf"):
        from streamproc.formats.schemas import sampled_fields  # with numpy

        fields = sampled_fields(options, _contents(sample, options))
        return {f.name: Guess(ddl_type(f.type)) for f in fields if f.name.lower() not in EXTRA_COLUMNS.names}
    texts = [value.decode("utf-8", "replace").removeprefix("\ufeff") for value in _contents(sample, options)]
    plain = options.format == "csv"
    return guesses(_csv_columns(texts, options.csv) if plain else _json_columns(texts), EXTRA_COLUMNS.names, plain=plain)


def _spark(kind: pa.DataType) -> str:
    """The Spark type that takes an Arrow type of a Parquet file."""
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "TIMESTAMP_NTZ"
    if pa.types.is_unsigned_integer(kind):
        return "DECIMAL(20,0)" if kind.bit_width == 64 else "BIGINT"
    if pa.types.is_dictionary(kind):
        return _spark(kind.value_type)
    return ddl_type(kind)


def _contents(sample: Sample, options: SourceOptions) -> list[bytes]:
    """What is in the payloads; those that cannot be decompressed are left out."""
    whole = pa.concat_arrays([found.cast(pa.binary()) for found in sample.payloads.values()])
    return [value for value in _decompressed(whole, options).to_pylist() if value is not None]


def _decompressed(values: pa.Array, options: SourceOptions) -> pa.Array:
    if options.compression is None:
        return values
    raw = options.model_copy(update={"format": "raw", "avro": None, "protobuf": None})
    column = pa.schema([("value", pa.binary())])
    return source_decoder(raw, column, declared=column).decode(values).rows.column("value").combine_chunks()


def _json_columns(texts: Sequence[str]) -> dict[str, Seen]:
    whole = Seen()
    for text in texts:
        try:
            value = json.loads(text, parse_int=Number, parse_float=Number)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            whole.add(value)
    return whole.fields


def _csv_columns(texts: Sequence[str], options: CsvOptions) -> dict[str, Seen]:
    """The first line gives the names if it reads like names; it may come again with every file."""
    rows = list(csv.reader(io.StringIO("\n".join(texts)), delimiter=options.delimiter, quotechar=options.quote))
    first = rows[0] if rows else []
    named = len(set(first)) == len(first) and all(text[:1].isalpha() or text[:1] == "_" for text in first)
    names = first if named else [f"c{i}" for i in range(1, len(first) + 1)]
    seen = {name: Seen() for name in names}
    for row in rows:
        if len(row) == len(names) and not (named and row == first):
            for name, text in zip(names, row, strict=True):
                seen[name].add(None if text == options.null else text)
    return seen


# ---- the event time


def _watermark(sample: Sample, options: SourceOptions, found: Mapping[str, Guess]) -> tuple[str | None, float, int]:
    """The likeliest event time, how far behind the newest one times come at most (s), and how many records do not fit."""
    if sample.columns is not None:
        return _likeliest([name for name, g in found.items() if g.kind == "TIMESTAMP"]), 0.0, 0
    schema = parse_ddl(_ddl(found)) if found else pa.schema([])
    timestamps = {name: g.timestamps for name, g in found.items() if g.timestamps}
    decoder = source_decoder(options.model_copy(update={"timestamps": timestamps}), schema, declared=schema)
    column = _likeliest([name for name, g in found.items() if g.kind == "TIMESTAMP"])
    misfits, behind_s = 0, 0.0
    for payloads in sample.payloads.values():
        decoded = decoder.decode(payloads)
        misfits += decoded.bad.num_rows
        if column is not None:
            behind_s = max(behind_s, _disorder_s(decoded.rows.column(column).combine_chunks().drop_null()))
    return column, behind_s, misfits


def _likeliest(columns: Sequence[str]) -> str | None:
    ranked = sorted(columns, key=lambda name: _TIMELY.index(name.lower()) if name.lower() in _TIMELY else len(_TIMELY))
    return ranked[0] if ranked else None


def _disorder_s(times: pa.Array) -> float:
    us = times.cast(pa.int64())
    behind = pc.max(pc.subtract(pc.cumulative_max(us), us)).as_py()
    return (behind or 0) / 1e6


def _delay(behind_s: float) -> str:
    """Twice what was seen, rounded up to a usual duration: a sample shows less disorder than a year will."""
    seconds = next((s for s in _DELAYS_S if s >= 2 * behind_s), 2 * _DELAYS_S[-1])
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}{'s' * (seconds != size)}"
    raise AssertionError(seconds)


# ---- the snippet


def _ddl(found: Mapping[str, Guess]) -> str:
    return ", ".join(f"{quoted_name(name)} {guess.kind}" for name, guess in found.items())


def _snippet(name: str, sample: Sample, found: Mapping[str, Guess], column: str | None, behind_s: float, misfits: int) -> str:
    seen = f"from {sample.records:,} records of {len(sample.payloads)} shard{'s' * (len(sample.payloads) != 1)}"
    lines = ["sources:", f"  {name}:", f"    # {seen}" + (f"; {misfits:,} do not fit" if misfits else ""), "    schema: |-"]
    for i, (column_name, guess) in enumerate(found.items()):
        comma = "," if i < len(found) - 1 else ""
        lines.append(f"      {quoted_name(column_name)} {guess.kind}{comma}" + (f"  -- {guess.remark}" if guess.remark else ""))
    times = {name: guess.timestamps for name, guess in found.items() if guess.timestamps}
    if times:
        lines.append("    timestamps: {" + ", ".join(f"{json.dumps(n)}: {json.dumps(t)}" for n, t in times.items()) + "}")
    if column is not None:
        lines.append(f"    # times are up to {behind_s:g} s behind the newest one of their shard")
        lines.append(f"    watermark: {{column: {json.dumps(column)}, delay: {_delay(behind_s)}}}")
    return "\n".join(lines)
