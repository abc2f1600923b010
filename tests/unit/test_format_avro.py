"""Avro payloads: held against fastavro, an independent writer and reader."""

from __future__ import annotations

import io
import json
import random
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.formats import source_decoder
from streamproc.options import AvroOptions, SourceOptions
from streamproc.schema import ddl, parse_ddl


def schema_of(*fields):
    return {"type": "record", "name": "Event", "namespace": "shop", "fields": [{"name": n, "type": t} for n, t in fields]}


def written(schema, *records):
    parsed = fastavro.parse_schema(schema)
    payloads = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        payloads.append(out.getvalue())
    return payloads


@pytest.fixture
def decoder(tmp_path):
    def make(schema, columns, **keys):
        file = tmp_path / "event.avsc"
        file.write_text(json.dumps(schema))
        options = SourceOptions(type="memory", format="avro", avro=AvroOptions(schema_file=str(file)), **keys)
        declared = parse_ddl(columns)
        return source_decoder(options, declared, declared=declared)

    return make


def verdicts(decoded, count):
    at = range(count) if decoded.index is None else decoded.index.to_pylist()
    bad = {b["index"]: b for b in decoded.bad.to_pylist()}
    assert sorted([*at, *bad]) == list(range(count))
    return dict(zip(at, decoded.rows.to_pylist(), strict=True)), bad


@pytest.fixture
def one(decoder):
    """The value of a column `c` that was written as an Avro type, or (reason, error) of its record."""

    def read(avro_type, value, kind, **keys):
        made = decoder(schema_of(("before", "string"), ("c", avro_type), ("after", "long")), f"c {kind}", **keys)
        payloads = written(
            schema_of(("before", "string"), ("c", avro_type), ("after", "long")), {"before": "x" * 70, "c": value, "after": 7}
        )
        rows, bad = verdicts(made.decode(pa.array(payloads, pa.binary())), 1)
        return rows[0]["c"] if rows else bad[0]["reason"]

    return read


def logical(kind, of, **more):
    return {"type": kind, "logicalType": of, **more}


UTC_TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
ENUM = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}


@pytest.mark.parametrize(
    ("avro_type", "value", "kind", "expected"),
    [
        ("int", -5, "INT", -5),
        ("int", 5, "BIGINT", 5),
        ("long", -(2**63), "BIGINT", -(2**63)),
        ("long", 2**63 - 1, "BIGINT", 2**63 - 1),
        ("long", 2**31, "INT", "out_of_range"),
        ("long", 5, "STRING", "5"),
        ("long", 5, "DOUBLE", 5.0),
        ("long", 5, "DECIMAL(10,2)", Decimal("5.00")),
        ("long", 10**9, "DECIMAL(10,2)", "out_of_range"),
        ("long", 5, "TIMESTAMP", "wrong_type"),
        ("float", 0.5, "FLOAT", 0.5),
        ("float", 0.5, "DOUBLE", 0.5),
        ("double", 1e300, "DOUBLE", 1e300),
        ("double", 1e300, "FLOAT", "out_of_range"),
        ("double", 0.5, "INT", "wrong_type"),
        ("boolean", True, "BOOLEAN", True),
        ("boolean", False, "STRING", "false"),
        ("string", "é😀", "STRING", "é😀"),
        ("string", "", "STRING", ""),
        ("string", "5", "INT", "wrong_type"),
        ("string", "2026-01-02T03:04:05.678Z", "TIMESTAMP", UTC_TIME),
        ("string", "soon", "TIMESTAMP", "bad_timestamp"),
        ("string", "2026-01-02", "DATE", date(2026, 1, 2)),
        ("string", "1.005", "DECIMAL(6,2)", Decimal("1.01")),
        ("string", "ab", "BINARY", b"ab"),
        ("bytes", b"\x00\xff", "BINARY", b"\x00\xff"),
        ("bytes", b"ab", "STRING", "wrong_type"),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc", "BINARY", b"abc"),
        (ENUM, "BLUE", "STRING", "BLUE"),
        (["null", "string"], None, "STRING", None),
        (["null", "string"], "x", "STRING", "x"),
        (["null", "int", "string"], 7, "STRING", "7"),
        (["null", "int", "string"], "x", "INT", "wrong_type"),
        (["null", "int", "string"], 7, "INT", 7),
        (logical("long", "timestamp-millis"), UTC_TIME, "TIMESTAMP", UTC_TIME),
        (logical("long", "timestamp-micros"), UTC_TIME + timedelta(microseconds=9), "TIMESTAMP", UTC_TIME + timedelta(microseconds=9)),
        (logical("long", "timestamp-millis"), 2**60, "TIMESTAMP", "bad_timestamp"),
        (logical("long", "local-timestamp-micros"), UTC_TIME.replace(tzinfo=None), "TIMESTAMP_NTZ", UTC_TIME.replace(tzinfo=None)),
        (logical("long", "timestamp-nanos"), -1, "TIMESTAMP", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        (logical("int", "date"), date(1969, 12, 31), "DATE", date(1969, 12, 31)),
        (logical("string", "uuid"), uuid.UUID(int=5), "STRING", str(uuid.UUID(int=5))),
        (logical("bytes", "decimal", precision=10, scale=3), Decimal("-12.345"), "DECIMAL(10,2)", Decimal("-12.35")),
        (logical("bytes", "decimal", precision=10, scale=3), Decimal("12.345"), "DECIMAL(12,5)", Decimal("12.34500")),
        (logical("bytes", "decimal", precision=10, scale=3), Decimal("999.5"), "DECIMAL(3,0)", "out_of_range"),
        (logical("fixed", "decimal", name="D", size=16, precision=38, scale=2), Decimal("-1" + "0" * 35 + ".25"), "DECIMAL(38,2)",
         Decimal("-1" + "0" * 35 + ".25")),
        ({"type": "array", "items": "string"}, ["a", "", "c" * 200], "ARRAY<STRING>", ["a", "", "c" * 200]),
        ({"type": "array", "items": ["null", "long"]}, [1, None, 2], "ARRAY<INT>", [1, None, 2]),
        ({"type": "array", "items": "long"}, [1, 2**40], "ARRAY<INT>", "out_of_range"),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, [[1], [], [2, 3]], "ARRAY<ARRAY<INT>>", [[1], [], [2, 3]]),
        ({"type": "map", "values": "double"}, {"a": 0.5, "b": 1.5}, "MAP<STRING, DOUBLE>", [("a", 0.5), ("b", 1.5)]),
        (["null", schema_of(("x", "int"), ("y", ["null", "string"]))], {"x": 1, "y": None}, "STRUCT<y: STRING, x: BIGINT, z: INT>",
         {"y": None, "x": 1, "z": None}),
        (["null", schema_of(("x", "int"))], None, "STRUCT<x: INT>", None),
        ({"type": "array", "items": schema_of(("x", "int"), ("skipped", "string"))}, [{"x": 1, "skipped": "s"}, {"x": 2, "skipped": ""}],
         "ARRAY<STRUCT<x: INT>>", [{"x": 1}, {"x": 2}]),
        (schema_of(("x", "int")), {"x": 1}, "STRING", "wrong_type"),
    ],
)  # fmt: skip
def test_types(one, avro_type, value, kind, expected):
    if isinstance(avro_type, dict) and avro_type.get("type") == "record":
        avro_type = {**avro_type, "name": "Inner"}
    avro_type = json.loads(json.dumps(avro_type).replace('"name": "Event"', '"name": "Inner"'))
    assert one(avro_type, value, kind) == expected


def test_numbers_are_times_where_the_source_says_so(one):
    assert one("long", 1767225600000, "TIMESTAMP", timestamps={"c": "epoch_ms"}) == datetime(2026, 1, 1, tzinfo=UTC)
    assert one("double", 1767225600.5, "TIMESTAMP", timestamps={"c": "epoch_s"}) == datetime(2026, 1, 1, 0, 0, 0, 500000, UTC)


def test_16_bytes_of_uuid_are_text(decoder):
    schema = schema_of(("c", {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}))
    value = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
    rows, _ = verdicts(decoder(schema, "c STRING").decode(pa.array([value.bytes] * 2, pa.binary())), 2)
    assert rows[1] == {"c": str(value)}


def test_columns_go_by_name_and_missing_ones_are_null(decoder):
    schema = schema_of(("a", "int"), ("b", "string"))
    made = decoder(schema, "b STRING, z DATE, a INT")
    assert verdicts(made.decode(pa.array(written(schema, {"a": 1, "b": "x"}), pa.binary())), 1)[0] == {0: {"b": "x", "z": None, "a": 1}}


def test_a_record_that_contains_itself(decoder):
    schema = schema_of(("n", "int"), ("next", ["null", "Event"]))
    payloads = written(schema, {"n": 1, "next": {"n": 2, "next": {"n": 3, "next": None}}}, {"n": 4, "next": None})
    made = decoder(schema, "n INT, next STRUCT<n: INT>")
    assert verdicts(made.decode(pa.array(payloads, pa.binary())), 2)[0] == {0: {"n": 1, "next": {"n": 2}}, 1: {"n": 4, "next": None}}
    deep = b"\x02\x02" * 5000 + b"\x02\x00"
    assert verdicts(made.decode(pa.array([deep, payloads[1]], pa.binary())), 2)[1][0]["reason"] == "too_deep"


def test_null_payloads_not_null_columns_and_no_columns(decoder):
    schema = schema_of(("a", ["null", "int"]))
    payloads = [None, *written(schema, {"a": None}, {"a": 1})]
    values = pa.array(payloads, pa.binary())
    assert verdicts(decoder(schema, "a INT").decode(values), 3) == ({0: {"a": None}, 1: {"a": None}, 2: {"a": 1}}, {})
    rows, bad = verdicts(decoder(schema, "a INT NOT NULL").decode(values), 3)
    assert (rows, {b["reason"] for b in bad.values()}) == ({2: {"a": 1}}, {"missing_not_null"})


def test_no_column_is_read(tmp_path):
    file = tmp_path / "event.avsc"
    file.write_text(json.dumps(schema_of(("a", "int"))))
    options = SourceOptions(type="memory", format="avro", avro=AvroOptions(schema_file=str(file)))
    decoded = source_decoder(options, pa.schema([]), declared=parse_ddl("a INT")).decode(pa.array([b"\x02", b"\x09\x09"], pa.binary()))
    assert (decoded.rows.num_rows, decoded.bad["index"].to_pylist()) == (1, [1])


def test_rescued_holds_what_is_not_declared(decoder):
    inner = {**schema_of(("x", "int")), "name": "Inner"}
    schema = schema_of(("a", "int"), ("b", ["null", "string"]), ("c", inner))
    payloads = written(schema, {"a": 1, "b": "x", "c": {"x": 5}}, {"a": 2, "b": None, "c": {"x": 6}})
    rows, _ = verdicts(decoder(schema, "a INT, _rescued STRING").decode(pa.array(payloads, pa.binary())), 2)
    assert [json.loads(row["_rescued"]) for row in rows.values()] == [{"b": "x", "c": {"x": 5}}, {"c": {"x": 6}}]
    assert (
        verdicts(decoder(schema, "a INT, b STRING, c STRUCT<x: INT>, _rescued STRING").decode(pa.array(payloads, pa.binary())), 2)[0][0][
            "_rescued"
        ]
        is None
    )


MALFORMED = schema_of(("s", "string"), ("n", "long"), ("u", ["null", "int"]), ("a", {"type": "array", "items": "null"}))
GOOD = b"\x02x\x02\x00\x00"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02",
        b"\x09x\x02\x00\x00",
        b"\x7fx\x02\x00\x00",
        b"\x02x\x02\x06\x00",
        b"\x02x\x02\x01\x00",
        GOOD + b"\x00",
        b"\x02x" + b"\xff" * 11 + b"\x00\x00",
        b"\x02x\x02\x00\xfe\xff\xff\xff\x0f\x00",
        b"\x02x\x02\x00\x80",
    ],
)
def test_malformed_records_are_bad_and_leave_the_others(decoder, payload):
    values = pa.array([GOOD, payload, GOOD], pa.binary())
    rows, bad = verdicts(decoder(MALFORMED, "s STRING, n BIGINT, u INT").decode(values), 3)
    assert rows == {0: {"s": "x", "n": 1, "u": None}, 2: {"s": "x", "n": 1, "u": None}}
    assert (bad[1]["reason"], bad[1]["raw"]) == ("malformed_avro", payload)
    assert bad[1]["error"]


def test_what_is_bad_says_what_was_expected_and_found(decoder):
    schema = schema_of(("s", "string"), ("n", "long"))
    payloads = [*written(schema, {"s": "a", "n": 2**40}), b"\x02\xff\x00"]
    _, bad = verdicts(decoder(schema, "s STRING, n INT").decode(pa.array(payloads, pa.binary())), 2)
    assert [(b["reason"], b["error"]) for b in bad.values()] == [
        ("out_of_range", "column 'n': expected INT, found 1099511627776"),
        ("not_utf8", "column 's': a string is not UTF-8"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('"Strange"', "not defined"),
        ('"string"', "should be a record"),
        ('{"type": "record", "fields": []}', "without a name"),
    ],
)
def test_a_schema_file_that_cannot_be_used_is_refused_at_once(tmp_path, text, says):
    file = tmp_path / "event.avsc"
    file.write_text(text)
    options = SourceOptions(type="memory", format="avro", avro=AvroOptions(schema_file=str(file)))
    with pytest.raises(ValueError, match=says):
        source_decoder(options, parse_ddl("a INT"), declared=parse_ddl("a INT"))


RICH = schema_of(
    ("i", "int"), ("l", ["null", "long"]), ("s", ["null", "string", "long"]), ("d", "double"), ("e", ENUM),
    ("a", {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
        {"name": "k", "type": "string"}, {"name": "v", "type": ["null", "int"]}]}}),
    ("m", {"type": "map", "values": "long"}), ("b", "bytes"),
)  # fmt: skip
RICH_DDL = "b BINARY, m MAP<STRING, BIGINT>, a ARRAY<STRUCT<v: INT, k: STRING>>, e STRING, d DOUBLE, s STRING, l BIGINT, i INT"
text = st.text(st.characters(codec="utf-8"), max_size=80)
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
rich = st.fixed_dictionaries({
    "i": int32, "l": st.none() | int64, "s": st.none() | text | int64, "d": st.floats(allow_nan=False),
    "e": st.sampled_from(["RED", "BLUE"]),
    "a": st.lists(st.fixed_dictionaries({"k": text, "v": st.none() | int32}), max_size=4),
    "m": st.dictionaries(text, int64, max_size=3), "b": st.binary(max_size=20),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(rich, min_size=1, max_size=6))
def test_what_fastavro_writes_is_read_back(tmp_path_factory, records):
    made = rich_decoder(tmp_path_factory)
    values = pa.array(written(RICH, *records), pa.binary())
    rows, bad = verdicts(made.decode(values), len(records))
    assert not bad
    for i, record in enumerate(records):
        expected = {**record, "m": list(record["m"].items()), "s": record["s"] if record["s"] is None else str(record["s"])}
        assert {**rows[i], "a": [dict(item) for item in rows[i]["a"]]} == expected


def mutated(draw):
    """Records, each with a byte or two put in or taken out."""
    records = [
        {
            "i": draw.randrange(-500, 500), "l": draw.choice([None, 2**40]), "s": draw.choice([None, "é" * 30, 5]), "d": 0.5, "e": "BLUE",
            "a": [{"k": "x", "v": draw.choice([None, 3])}] * draw.randrange(4), "m": {"a": 1, "b": 2}, "b": b"xy",
        }
        for _ in range(250)
    ]  # fmt: skip
    for payload in written(RICH, *records):
        at = draw.randrange(len(payload))
        yield payload[:at] + draw.randbytes(draw.randrange(3)) + payload[at + draw.randrange(3) :]


@pytest.mark.parametrize("seed", range(6))
def test_mutated_records_are_judged_the_same_alone_and_among_others(tmp_path_factory, seed):
    made = rich_decoder(tmp_path_factory)
    payloads = list(mutated(random.Random(seed)))
    rows, bad = verdicts(made.decode(pa.array(payloads, pa.binary())), len(payloads))
    assert len(rows) > 25
    assert len(bad) > 25
    for i, payload in enumerate(payloads):
        if i % 5 == 0:
            alone, alone_bad = verdicts(made.decode(pa.array([payload], pa.binary())), 1)
            assert (repr(alone.get(0)), (alone_bad.get(0) or {}).get("reason")) == (repr(rows.get(i)), (bad.get(i) or {}).get("reason"))
        assert i in bad or readable(payload), payload


def readable(payload):
    """fastavro reads it too, to the end (it is more lenient: it takes symbols and branches from the end of a list, say)."""
    stream = io.BytesIO(payload)
    try:
        fastavro.schemaless_reader(stream, fastavro.parse_schema(RICH))
    except Exception:
        return False
    return stream.tell() == len(payload)


def rich_decoder(tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "rich.avsc"
    file.write_text(json.dumps(RICH))
    declared = parse_ddl(RICH_DDL)
    assert ddl(declared) == RICH_DDL
    options = SourceOptions(type="memory", format="avro", avro=AvroOptions(schema_file=str(file)))
    return source_decoder(options, declared, declared=declared)
