"""Decoders of Avro and Protobuf: the schema from a file, or from a registry by the id in each payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from google.protobuf.descriptor import Descriptor

from streamproc.clients.schema_registry import SchemaRegistry, UnknownId
from streamproc.formats.avro import AvroReader
from streamproc.formats.avro_schema import AvroType, parse_avro
from streamproc.formats.binary import BinaryDecoder, RecordReader, RegisteredReader, UnknownSchema, identified, prefixes
from streamproc.formats.moment import MomentFormat
from streamproc.formats.protobuf import ProtobufReader
from streamproc.formats.protobuf_schema import described, registered
from streamproc.formats.rescue import RescuingReader
from streamproc.formats.scalar import moments
from streamproc.options import SourceOptions


def avro_decoder(options: SourceOptions, schema: pa.Schema, declared: pa.Schema, time_zone: str) -> BinaryDecoder:
    """Decoder of Avro records; ValueError if the schema file cannot be used."""
    times = _times(options.timestamps, declared, time_zone)

    def reader(writer: AvroType) -> RecordReader:
        return RescuingReader.around(schema, declared, writer.fields(), lambda columns: AvroReader(columns, writer, times))

    if options.avro is not None:
        return BinaryDecoder(schema, reader(avro_file(options.avro.schema_file)))
    registry = _registry(options)
    return BinaryDecoder(schema, RegisteredReader(schema, lambda schema_id, _place: reader(registered_avro(registry, schema_id))))


def avro_file(path: str) -> AvroType:
    """The schema of a file. ValueError says what is wrong."""
    try:
        return parse_avro(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"avro: schema_file {path}: {getattr(error, 'strerror', None) or error}") from None


def registered_avro(registry: SchemaRegistry, schema_id: int) -> AvroType:
    """The schema of an id. UnknownSchema if there is none or none of Avro, Unavailable."""
    try:
        found = registry.schema(schema_id)
        if found.kind != "AVRO":
            raise UnknownSchema(f"schema {schema_id} of {registry!r} is {found.kind}, not AVRO")
        return parse_avro(found.text, found.references)
    except UnknownId as error:
        raise UnknownSchema(str(error)) from None
    except ValueError as error:
        raise UnknownSchema(f"schema {schema_id} of {registry!r}: {error}") from None


def protobuf_decoder(options: SourceOptions, schema: pa.Schema, declared: pa.Schema, time_zone: str) -> BinaryDecoder:
    """Decoder of Protobuf messages; ValueError if the descriptor set cannot be used."""
    times = _times(options.timestamps, declared, time_zone)
    keys = options.protobuf
    defaults = keys is not None and keys.emit_default_values

    def reader(message: Descriptor) -> RecordReader:
        fields = ProtobufReader.fields(message)
        return RescuingReader.around(schema, declared, fields, lambda columns: ProtobufReader(columns, message, times, defaults))

    if keys is not None and keys.descriptor_set is not None:
        return BinaryDecoder(schema, reader(described(keys.descriptor_set, keys.message or "")))
    found = partial(registered_message, _registry(options))
    return BinaryDecoder(schema, RegisteredReader(schema, lambda schema_id, place: reader(found(schema_id, place)), indexed=True))


def registered_message(registry: SchemaRegistry, schema_id: int, place: tuple[int, ...]) -> Descriptor:
    """The message at `place` of the file of an id. UnknownSchema if there is none, Unavailable."""
    try:
        found = registry.schema(schema_id, serialized=True)
        if found.kind != "PROTOBUF":
            raise UnknownSchema(f"schema {schema_id} of {registry!r} is {found.kind}, not PROTOBUF")
        return registered(found.text, found.references, place)
    except UnknownId as error:
        raise UnknownSchema(str(error)) from None
    except ValueError as error:
        raise UnknownSchema(f"schema {schema_id} of {registry!r}: {error}") from None


def _registry(options: SourceOptions) -> SchemaRegistry:
    assert options.schema_registry is not None  # the options see to it
    return SchemaRegistry(options.schema_registry)


def _times(timestamps: Mapping[str, str], declared: pa.Schema, time_zone: str) -> dict[str, MomentFormat]:
    """How each declared column writes its times. ValueError for a pattern that is unknown."""
    return {name: moments(timestamps, name, time_zone) for name in declared.names}


def sampled_fields(options: SourceOptions, payloads: Sequence[bytes]) -> pa.Schema:
    """The columns that the schemas of these payloads have, the newest schema's first. UnknownSchema, Unavailable, ValueError."""
    if options.avro is not None:
        return avro_file(options.avro.schema_file).fields()
    if options.protobuf is not None and options.protobuf.descriptor_set is not None:
        return ProtobufReader.fields(described(options.protobuf.descriptor_set, options.protobuf.message or ""))
    registry = _registry(options)
    found: dict[str, pa.Field] = {}
    indexed = options.format == "protobuf"
    for prefix in sorted(_known(payloads, indexed=indexed), reverse=True):
        schema_id, place = identified(prefix)
        if indexed:
            fields = ProtobufReader.fields(registered_message(registry, schema_id, place))
        else:
            fields = registered_avro(registry, schema_id).fields()
        for one in fields:
            found.setdefault(one.name, one)
    return pa.schema(list(found.values()))


def _known(payloads: Sequence[bytes], *, indexed: bool) -> set[bytes]:
    framed = [payload for payload in payloads if payload[:1] == b"\0" and len(payload) > 5]
    return set(prefixes(pa.array(framed, pa.binary()), indexed=indexed).to_pylist())
