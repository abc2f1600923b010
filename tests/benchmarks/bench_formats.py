"""Every format to Arrow: the event of bench_decode.py as JSON, CSV, Avro and Protobuf, beside what the usual libraries take.

    python tests/benchmarks/bench_formats.py [records]

Microseconds a record (wall clock, one thread, median of 5), 3 and all 8 of the fields, then compressed JSON and nested columns.
"""

from __future__ import annotations

import gzip
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import zstandard
from bench_decode import batch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamproc.formats import source_decoder
from streamproc.options import SourceOptions
from streamproc.schema import parse_ddl

FEW = "page STRING, amount BIGINT, ts TIMESTAMP"
ALL = "user_id STRING, page STRING, amount BIGINT, ts TIMESTAMP, session STRING, country STRING, mobile BOOLEAN, seq INT"
TYPES = {"STRING": "string", "BIGINT": "long", "INT": "int", "BOOLEAN": "boolean"}
NESTED = {
    "o STRUCT<id: BIGINT, t: TIMESTAMP>": lambda i: {"o": {"id": i, "t": "2026-01-01T00:00:00.000Z"}},
    "tags ARRAY<STRING>": lambda i: {"tags": ["a", f"b{i}"]},
    "m MAP<STRING, INT>": lambda i: {"m": {"x": i, "y": 2}},
    "items ARRAY<STRUCT<sku: STRING, price: DECIMAL(10,2)>>": lambda i: {
        "items": [{"sku": f"s{i}", "price": i / 100}, {"sku": "t", "price": 1.5}]
    },
}


def avro_schema() -> dict[str, Any]:
    kinds = dict(column.split() for column in ALL.split(", "))
    fields = [{"name": n, "type": TYPES.get(k) or {"type": "long", "logicalType": "timestamp-millis"}} for n, k in kinds.items()]
    return {"type": "record", "name": "Event", "fields": fields}


def protobuf_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", syntax="proto3")
    message = file.message_type.add(name="Event")
    kinds = {"STRING": 9, "BIGINT": 3, "TIMESTAMP": 3, "INT": 5, "BOOLEAN": 8}
    for number, (name, kind) in enumerate((column.split() for column in ALL.split(", ")), 1):
        message.field.add(name=name, number=number, type=kinds[kind], label=1)
    return file


def avro(rows: list[dict[str, Any]]) -> list[bytes]:
    parsed, payloads = fastavro.parse_schema(avro_schema()), []
    for row in rows:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, row)
        payloads.append(out.getvalue())
    return payloads


def message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(protobuf_file())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Event"))


def by_fastavro(payloads: list[bytes]) -> pa.Table:
    parsed = fastavro.parse_schema(avro_schema())
    return pa.Table.from_pylist([fastavro.schemaless_reader(io.BytesIO(p), parsed) for p in payloads], schema=parse_ddl(FEW))


def by_upb(payloads: list[bytes]) -> pa.Table:
    event = message_class()
    messages = [event.FromString(p) for p in payloads]
    return pa.table({name: [getattr(m, name) for m in messages] for name in ("page", "amount", "ts")})


def measured_us(decode: Any, values: Any) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        decode(values)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / len(values) * 1e6


def row(name: str, payloads: list[bytes], columns: str, **keys: Any) -> None:
    declared = parse_ddl(columns)
    decoder = source_decoder(SourceOptions(type="memory", **keys), declared, declared=parse_ddl(ALL) if columns == FEW else declared)
    values = pa.array(payloads, pa.binary())
    assert not decoder.decode(values).bad.num_rows
    print(f"{name:70}{measured_us(decoder.decode, values):8.2f}")


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    payloads = batch(records, 0.0).to_pylist()
    rows = [orjson.loads(p) for p in payloads]
    numbered = [r | {"ts": 1_767_225_600_000 + i} for i, r in enumerate(rows)]
    files = Path(tempfile.mkdtemp())
    (files / "event.avsc").write_text(json.dumps(avro_schema()))
    (files / "event.desc").write_bytes(descriptor_pb2.FileDescriptorSet(file=[protobuf_file()]).SerializeToString())
    event = message_class()
    lines = [",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in r.values()).encode() for r in rows]
    message = {"protobuf": {"descriptor_set": str(files / "event.desc"), "message": "Event", "emit_default_values": True}}
    written: dict[str, tuple[list[bytes], dict[str, Any]]] = {
        "json": (payloads, {}),
        "csv": (lines, {"format": "csv"}),
        "avro": (avro(numbered), {"format": "avro", "avro": {"schema_file": str(files / "event.avsc")}}),
        "protobuf": (
            [event(**r).SerializeToString() for r in numbered],
            {"format": "protobuf", "timestamps": {"ts": "epoch_ms"}} | message,
        ),
    }
    print(f"{'µs a record':70}")
    for name, (found, keys) in written.items():
        row(f"{name}, 3 of 8 fields", found, FEW, **keys)
        row(f"{name}, all fields", found, ALL, **keys)
    print(f"{'fastavro and from_pylist, 3 of 8 fields':70}{measured_us(by_fastavro, written['avro'][0]):8.2f}")
    print(f"{'upb and getattr, 3 of 8 fields':70}{measured_us(by_upb, written['protobuf'][0]):8.2f}")
    row("json, gzip, 3 of 8 fields", [gzip.compress(p) for p in payloads], FEW, compression="gzip")
    compressor = zstandard.ZstdCompressor()
    row("json, zstd, 3 of 8 fields", [compressor.compress(p) for p in payloads], FEW, compression="zstd")
    for columns, made in NESTED.items():
        row(f"json, {columns}", [orjson.dumps(made(i)) for i in range(records)], columns)


if __name__ == "__main__":
    main()
