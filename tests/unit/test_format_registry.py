"""Payloads that name their schema: a registry over a real socket, and what becomes of records whose schema cannot be had."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from pydantic import ValidationError

from streamproc.errors import Unavailable
from streamproc.formats import source_decoder
from streamproc.options import SourceOptions
from streamproc.schema import parse_ddl

F = descriptor_pb2.FieldDescriptorProto


class Registry(ThreadingHTTPServer):
    """Answers `paths`; counts what is asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.asked, self.status, self.authorization = {}, [], 200, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema_id, schema, kind=None, references=()):
        text = schema if isinstance(schema, str) else json.dumps(schema)
        answer = {"schema": text, **({"schemaType": kind} if kind else {}), **({"references": list(references)} if references else {})}
        self.paths[f"/schemas/ids/{schema_id}"] = answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.authorization = self.headers.get("Authorization")
        answer = self.server.paths.get(self.path.partition("?")[0])
        status = self.server.status if answer is not None or self.server.status != 200 else 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer if status == 200 else {"error_code": status * 100 + 3}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def registry():
    server = Registry()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def decoder(registry, columns, kind="avro", **keys):
    declared = parse_ddl(columns)
    given = {"schema_registry": registry if isinstance(registry, str | dict) else registry.url, **keys}
    return source_decoder(SourceOptions(type="memory", format=kind, **given), declared, declared=declared)


def verdicts(made, payloads):
    decoded = made.decode(pa.array(payloads, pa.binary()))
    at = range(len(payloads)) if decoded.index is None else decoded.index.to_pylist()
    return dict(zip(at, decoded.rows.to_pylist(), strict=True)), {b["index"]: b for b in decoded.bad.to_pylist()}


OLD = {"type": "record", "name": "E", "fields": [{"name": "n", "type": "int"}]}
NEW = {"type": "record", "name": "E", "fields": [{"name": "s", "type": "string"}, {"name": "n", "type": ["null", "long"]}]}


def framed(schema_id, schema, record, place=b""):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return b"\0" + schema_id.to_bytes(4, "big") + place + out.getvalue()


def test_each_record_is_read_by_the_schema_it_was_written_with(registry):
    registry.add(1, OLD)
    registry.add(70_000, NEW)
    made = decoder(registry, "n BIGINT, s STRING")
    payloads = [framed(1, OLD, {"n": 1}), framed(70_000, NEW, {"s": "a", "n": 2}), None, framed(1, OLD, {"n": 3})]
    rows, bad = verdicts(made, payloads)
    assert rows == {0: {"n": 1, "s": None}, 1: {"n": 2, "s": "a"}, 2: {"n": None, "s": None}, 3: {"n": 3, "s": None}}
    assert not bad
    verdicts(made, payloads)
    assert sorted(registry.asked) == ["/schemas/ids/1", "/schemas/ids/70000"]  # once each


def test_records_without_an_id_or_of_an_unknown_one_are_bad(registry):
    registry.add(1, OLD)
    registry.add(2, '{"type": "object"}', "JSON")
    registry.add(3, '{"type": "Strange"}')
    made = decoder(registry, "n INT")
    payloads = [
        b"",
        b"\0\0",
        b"\1\0\0\0\1\2",
        framed(9, OLD, {"n": 1}),
        framed(2, OLD, {"n": 1}),
        framed(3, OLD, {"n": 1}),
        framed(1, OLD, {"n": 5}),
    ]
    rows, bad = verdicts(made, payloads)
    assert rows == {6: {"n": 5}}
    assert [b["reason"] for b in bad.values()] == ["no_schema_id"] * 3 + ["unknown_schema"] * 3
    assert "there is no such schema" in bad[3]["error"]
    assert "is JSON, not AVRO" in bad[4]["error"]
    assert "'Strange' is not defined" in bad[5]["error"]
    assert bad[3]["raw"] == payloads[3]


def test_references_of_avro_schemas_are_fetched(registry):
    inner = {"type": "record", "name": "shop.Item", "fields": [{"name": "k", "type": "string"}]}
    registry.add(1, {"type": "record", "name": "E", "fields": [{"name": "item", "type": "shop.Item"}]},
                 references=[{"name": "shop.Item", "subject": "shop item", "version": 2}])  # fmt: skip
    registry.paths["/subjects/shop%20item/versions/2"] = {"schema": json.dumps(inner)}
    rows, bad = verdicts(decoder(registry, "item STRUCT<k: STRING>"), [b"\0\0\0\0\1\2x"])
    assert (rows, bad) == ({0: {"item": {"k": "x"}}}, {})


def test_a_registry_that_is_away_is_no_evidence_against_a_record(registry):
    registry.add(1, OLD)
    registry.status = 503
    made = decoder(registry, "n INT")
    with pytest.raises(Unavailable, match="answers 503"):
        verdicts(made, [framed(1, OLD, {"n": 1})])
    registry.status = 200
    assert verdicts(made, [framed(1, OLD, {"n": 1})]) == ({0: {"n": 1}}, {})


def test_nobody_listens():
    with pytest.raises(Unavailable, match="does not answer"):
        verdicts(decoder({"url": "http://127.0.0.1:9", "timeout": 500_000}, "n INT"), [framed(1, OLD, {"n": 1})])


def test_basic_auth_by_secret(registry, monkeypatch):
    registry.add(1, OLD)
    monkeypatch.setenv("REGISTRY_PASSWORD", "pass word")
    keys = {"url": registry.url + "/", "username": "me", "password": "secret://env/REGISTRY_PASSWORD"}
    assert verdicts(decoder(keys, "n INT"), [framed(1, OLD, {"n": 1})])[0] == {0: {"n": 1}}
    assert registry.authorization == "Basic " + base64.b64encode(b"me:pass word").decode()
    registry.status = 401
    with pytest.raises(Unavailable, match="answers 401") as refused:
        verdicts(decoder(keys, "n INT"), [framed(1, OLD, {"n": 1})])
    assert "pass word" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"format": "avro"}, "needs avro: {schema_file"),
        ({"format": "protobuf"}, "needs protobuf: {descriptor_set"),
        ({"format": "json", "schema_registry": "http://r"}, "schema_registry is for avro"),
        ({"format": "avro", "avro": {"schema_file": "x"}, "schema_registry": "http://r"}, "schema_registry is for avro without"),
        ({"format": "json", "avro": {"schema_file": "x"}}, "write format: avro"),
        ({"format": "avro", "schema_registry": "http://me:secret@r"}, "without a user"),
        ({"format": "avro", "schema_registry": "ftp://r"}, "should be http://"),
        ({"format": "protobuf", "protobuf": {"message": "M"}, "schema_registry": "http://r"}, "belong together"),
        ({"format": "avro", "schema_registry": {"url": "http://r", "password": "literal"}}, "never as a literal"),
        ({"format": "parquet", "compression": "gzip"}, "parquet files say themselves"),
    ],
)
def test_keys_that_do_not_go_together(keys, says):
    with pytest.raises(ValidationError, match=says):
        SourceOptions(type="memory", **keys)


# ---- protobuf


def proto_files():
    inner = descriptor_pb2.FileDescriptorProto(name="item.proto", package="shop", syntax="proto3")
    inner.message_type.add(name="Item").field.add(name="k", number=1, type=F.TYPE_STRING, label=1)
    outer = descriptor_pb2.FileDescriptorProto(
        name="event.proto", package="shop", syntax="proto3", dependency=["item.proto", "google/protobuf/timestamp.proto"]
    )
    outer.message_type.add(name="First").field.add(name="n", number=1, type=F.TYPE_INT32, label=1)
    second = outer.message_type.add(name="Second")
    second.field.add(name="item", number=1, type=F.TYPE_MESSAGE, type_name=".shop.Item", label=1)
    second.field.add(name="at", number=2, type=F.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    second.nested_type.add(name="Nested").field.add(name="n", number=5, type=F.TYPE_INT32, label=1)
    return inner, outer


def serialized(file):
    return base64.b64encode(file.SerializeToString()).decode()


def message(name):
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    for file in proto_files():
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def test_protobuf_messages_are_found_by_their_place_in_the_file(registry):
    inner, outer = proto_files()
    registry.add(7, serialized(outer), "PROTOBUF", [{"name": "item.proto", "subject": "item", "version": 1}])
    registry.paths["/subjects/item/versions/1"] = {"schema": serialized(inner)}
    head = b"\0\0\0\0\7"
    payloads = [
        head + b"\0" + message("shop.First")(n=5).SerializeToString(),
        head + b"\2\2" + message("shop.Second")(item={"k": "a"}, at={"seconds": 1}).SerializeToString(),
        head + b"\4\2\0" + message("shop.Second.Nested")(n=6).SerializeToString(),
        head + b"\2\0" + message("shop.First")(n=7).SerializeToString(),
        head + b"\2\x10",
        head,
    ]
    rows, bad = verdicts(decoder(registry, "n INT, item STRUCT<k: STRING>, at TIMESTAMP", "protobuf"), payloads)
    assert [(r["n"], r["item"], r["at"] and r["at"].timestamp()) for r in rows.values()] == [
        (5, None, None), (None, {"k": "a"}, 1.0), (6, None, None), (7, None, None),
    ]  # fmt: skip
    assert [b["reason"] for b in bad.values()] == ["unknown_schema", "no_schema_id"]
    assert all(path.endswith("?format=serialized") for path in registry.asked)


def test_a_registry_that_gives_protobuf_as_text(registry):
    registry.add(7, 'syntax = "proto3"; message A {}', "PROTOBUF")
    _, bad = verdicts(decoder(registry, "n INT", "protobuf"), [b"\0\0\0\0\7\0"])
    assert "cannot give Protobuf schemas serialised" in bad[0]["error"]
