"""JSON payloads: one test per clause of what the job file promises, each by the SQL and by the judge."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from streamproc.batch import BAD_SCHEMA
from streamproc.formats import decoder as decoder_module
from streamproc.formats import make_decoder
from streamproc.schema import parse_ddl

GOLDEN = Path(__file__).parents[1] / "golden" / "json"


def decode(payloads, ddl, **options):
    """(rows by input index, bad by input index); the SQL of large batches must say what the judge of small ones says."""
    schema = parse_ddl(ddl) if ddl else pa.schema([])
    decoder = make_decoder("json", schema, **options)
    assert decoder.schema == schema
    values = pa.array([p.encode() if isinstance(p, str) else p for p in payloads], pa.binary())
    small = verdicts(decoder.decode(values), len(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "SMALL_ROWS", 0)
        large = verdicts(decoder.decode(values), len(values))
    assert repr(small) == repr(large)
    return small


def verdicts(decoded, count):
    assert decoded.bad.schema == BAD_SCHEMA
    at = range(count) if decoded.index is None else decoded.index.to_pylist()
    rows = dict(zip(at, decoded.rows.to_pylist() if decoded.rows.num_columns else [{}] * decoded.rows.num_rows, strict=True))
    bad = {b["index"]: b for b in decoded.bad.to_pylist()}
    assert list(bad) == sorted(bad)
    assert sorted([*rows, *bad]) == list(range(count))
    return rows, bad


def one(token, kind, **options):
    """The value that `token` gives in a column of `kind`, or the reason why it is bad."""
    rows, bad = decode([f'{{"c":{token}}}'], f"c {kind}", **options)
    return rows[0]["c"] if rows else bad[0]["reason"]


def reason(payload, ddl=""):
    rows, bad = decode([payload], ddl)
    return bad[0]["reason"] if bad else rows[0]


# ---- one well-formed object


@pytest.mark.parametrize("ddl", ["", "a STRING", "z INT"])
@pytest.mark.parametrize("case", json.loads((GOLDEN / "payloads.json").read_text()), ids=lambda c: c["name"])
def test_golden_payloads(case, ddl):
    payload = bytes.fromhex(case["hex"]) if "hex" in case else (case["text"] * case.get("times", 1) + case.get("then", "")).encode()
    rows, bad = decode([payload], ddl)
    assert bool(rows) == case["good"], bad
    if bad:
        assert bad[0]["raw"] == payload
        assert bad[0]["reason"] == case.get("reason", "malformed_json")


@pytest.mark.parametrize("case", json.loads((GOLDEN / "values.json").read_text()), ids=lambda c: c["name"])
def test_golden_values_in_a_column_that_is_not_read_are_judged_for_form_only(case):
    payload = b'{"a":' + (bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()) + b"}"
    assert bool(decode([payload], "z STRING")[0]) == case["good"]


def test_nesting_to_1000_levels_is_good_and_deeper_is_bad():
    def nested(levels):
        return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    assert reason(nested(1000), "z INT") == {"z": None}
    assert reason(nested(1001), "z INT") == "too_deep"
    assert reason(nested(100_000), "z INT") == "too_deep"
    assert reason('{"a":"' + "[" * 2000 + '"}', "z INT") == {"z": None}
    assert decode([nested(1000)], "a STRING")[0][0]["a"] == "[" * 999 + "]" * 999
    assert reason(nested(1000)[:-1] + ",}", "z INT") == "malformed_json"


def test_a_misfit_in_a_column_that_is_not_read_is_not_seen():
    assert reason('{"n":"text","s":1}', "s STRING") == {"s": "1"}


def test_missing_and_null_are_null_and_names_match_exactly():
    assert decode(["{}", '{"a":null}', '{"A":1}', None], "a INT")[0] == {i: {"a": None} for i in range(4)}


def test_not_null_columns_need_a_value():
    rows, bad = decode(["{}", '{"a":null}', '{"a":1}', None, '{"a":"x"}'], "a INT NOT NULL")
    assert rows == {2: {"a": 1}}
    assert {i: b["reason"] for i, b in bad.items()} == dict.fromkeys((0, 1, 3), "missing_not_null") | {4: "wrong_type"}


def test_bom_is_skipped_once():
    assert reason("\ufeff" + '{"a":1}', "a INT") == {"a": 1}
    assert reason("\ufeff\ufeff" + '{"a":1}', "a INT") == "malformed_json"


def test_first_of_duplicate_keys_wins_however_the_batch_is_cut():
    assert decode(['{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"\\u0061":1,"a":2}'], "a INT")[0] == {i: {"a": 1} for i in range(3)}


def test_odd_column_names():
    ddl = "`a b` INT, `a.b` INT, `a/b~c` INT, `é\"\\` INT, `$` INT, `0` INT, `it's` INT"
    names = parse_ddl(ddl).names
    payload = json.dumps({n: i for i, n in enumerate(names)})
    assert decode([payload], ddl)[0][0] == {n: i for i, n in enumerate(names)}


def test_names_that_differ_in_case_only():
    assert reason('{"a":1,"A":2}', "a INT, A INT") == {"a": 1, "A": 2}


# ---- types


@pytest.mark.parametrize(
    ("kind", "token", "value"),
    [
        ("TINYINT", "-128", -128),
        ("TINYINT", "128", "out_of_range"),
        ("SMALLINT", "32767", 32767),
        ("SMALLINT", "-32769", "out_of_range"),
        ("INT", "2147483647", 2**31 - 1),
        ("INT", "2147483648", "out_of_range"),
        ("BIGINT", "-9223372036854775808", -(2**63)),
        ("BIGINT", "9223372036854775808", "out_of_range"),
        ("BIGINT", "1" * 5000, "out_of_range"),
        ("INT", "-0", 0),
        ("INT", "5.0", "wrong_type"),
        ("INT", "1e3", "wrong_type"),
        ("INT", '"5"', "wrong_type"),
        ("INT", "true", "wrong_type"),
        ("INT", "[5]", "wrong_type"),
        ("INT", "{}", "wrong_type"),
        ("INT", "null", None),
        ("DOUBLE", "5", 5.0),
        ("DOUBLE", "1e-3", 0.001),
        ("DOUBLE", "1e308", 1e308),
        ("DOUBLE", "1e309", "out_of_range"),
        ("DOUBLE", "-1e309", "out_of_range"),
        ("DOUBLE", "1e-999", 0.0),
        ("DOUBLE", "18446744073709551616", 18446744073709551616.0),
        ("DOUBLE", '"5.5"', "wrong_type"),
        ("DOUBLE", "false", "wrong_type"),
        ("FLOAT", "0.1", 0.10000000149011612),
        ("FLOAT", "3.4028234663852886e38", 3.4028234663852886e38),
        ("FLOAT", "1e39", "out_of_range"),
        ("BOOLEAN", "true", True),
        ("BOOLEAN", "false", False),
        ("BOOLEAN", '"true"', "wrong_type"),
        ("BOOLEAN", "1", "wrong_type"),
        ("STRING", '"x"', "x"),
        ("STRING", '""', ""),
        ("STRING", '"a\\n\\u00e9\\ud83d\\ude00"', "a\né😀"),
        ("STRING", '"\\u0000"', "\0"),
        ("STRING", '"日本"', "日本"),
        ("STRING", "5", "5"),
        ("STRING", "-0", "-0"),
        ("STRING", "1e3", "1e3"),
        ("STRING", "1.50", "1.50"),
        ("STRING", "1e999", "1e999"),
        ("STRING", "0.1234567890123456789", "0.1234567890123456789"),
        ("STRING", "true", "true"),
        ("STRING", '{ "b" : [1.0 ,2] }', '{ "b" : [1.0 ,2] }'),
        ("STRING", "[]", "[]"),
        ("STRING", "null", None),
        ("STRING", '"null"', "null"),
        ("BINARY", '"AP8="', b"\x00\xff"),
        ("BINARY", '"AP8"', "bad_base64"),
        ("BINARY", '"A P8="', "bad_base64"),
        ("BINARY", "5", "wrong_type"),
    ],
)
def test_scalar(kind, token, value):
    found = one(token, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1", "1.00"),
        ("1.005", "1.01"),
        ("-1.005", "-1.01"),
        ("1.00499999999999999999999", "1.00"),
        ("0.0050000000000000000001", "0.01"),
        ("1e2", "100.00"),
        ("1E-1", "0.10"),
        ('"12.345"', "12.35"),
        ('"+1.5"', "1.50"),
        ('".5"', "0.50"),
        ('"1e1"', "10.00"),
        ("99999999.994", "99999999.99"),
        ("99999999.995", None),
        ("100000000", None),
        ('"100000000"', None),
        ("1e400", None),
        ("1e-400", "0.00"),
        ('"1e99999999999999999999"', None),
    ],
)
def test_decimal_is_rounded_half_up_and_overflow_is_bad(token, value):
    assert one(token, "DECIMAL(10,2)") == ("out_of_range" if value is None else Decimal(value))


@pytest.mark.parametrize("token", ['"x"', '""', '" 1"', '"1_0"', '"NaN"', '"Infinity"', '"٣"', "true", "[]", '"0x1"'])
def test_decimal_takes_numbers_and_numeric_strings_only(token):
    assert one(token, "DECIMAL(10,2)") == "wrong_type"


def test_wide_decimals_keep_every_digit():
    assert one("1234567890123456789012345678.0123456789", "DECIMAL(38,10)") == Decimal("1234567890123456789012345678.0123456789")


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-01T00:00:01.234Z", utc(2026, 1, 1, 0, 0, 1, 234000)),
        ("2026-01-01 00:00:01Z", utc(2026, 1, 1, 0, 0, 1)),
        ("2026-01-01T10:20Z", utc(2026, 1, 1, 10, 20)),
        ("2026-01-01", utc(2026, 1, 1)),
        ("2026-01-01T10:20:30", utc(2026, 1, 1, 10, 20, 30)),
        ("2026-01-01T00:00:00.123456789Z", utc(2026, 1, 1, 0, 0, 0, 123456)),
        ("1969-12-31T23:59:59.9999999Z", utc(1969, 12, 31, 23, 59, 59, 999999)),
        ("2026-01-01T00:00:00+02", utc(2025, 12, 31, 22)),
        ("2026-01-01T00:00:00-0230", utc(2026, 1, 1, 2, 30)),
        ("2026-01-01T00:00:00.5+05:45", utc(2025, 12, 31, 18, 15, 0, 500000)),
        ("2024-02-29", utc(2024, 2, 29)),
        ("0001-01-01T00:00:00.0Z", utc(1, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999999)),
    ],
)
def test_timestamp_takes_iso_8601(text, value):
    assert one(json.dumps(text), "TIMESTAMP") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026",
        "2026-01",
        "2026-1-1",
        "20260101T000000Z",
        "2026-13-01",
        "2026-02-29",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00",
        "2026-01-01T",
        "2026-01-01Z",
        "2026-01-01t00:00:00Z",
        "2026-01-01T00:00:00z",
        " 2026-01-01",
        "2026-01-01 ",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00 Z",
        "2026-01-01T00:00:00+2",
        "2026-01-01T00:00:00+25:00",
        "2026-01-01T00:00:00+02:60",
        "2026-01-01T00:00:00UTC",
        "2026-01-01T00:00:00[UTC]",
        "2026-01-01T 0:00:00.0Z",
        "\t026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:00. 00Z",
        "2026-01-01T00:00:00.12٣Z",
        "10000-01-01T00:00:00Z",
        "0000-01-01T00:00:00.000Z",
        "0001-01-01T00:00:00.000+01:00",
        "2026-001T00:00:00Z",
        "2026-01-01  00:00:00Z",
        "epoch",
        "infinity",
        "2026-01-01 (BC)",
        "1767225600000",
    ],
)
def test_anything_else_is_no_timestamp(text):
    assert one(json.dumps(text), "TIMESTAMP") == "bad_timestamp"


@pytest.mark.parametrize("token", ["1767225600000", "true", "{}", '["2026-01-01"]'])
def test_a_number_is_no_timestamp_unless_the_source_says_so(token):
    assert one(token, "TIMESTAMP") == "wrong_type"


@pytest.mark.parametrize(
    ("written", "token", "value"),
    [
        ("epoch_ms", "1767225600123", utc(2026, 1, 1, 0, 0, 0, 123000)),
        ("epoch_s", "1767225600", utc(2026, 1, 1)),
        ("epoch_us", "1767225600000001", utc(2026, 1, 1, 0, 0, 0, 1)),
        ("epoch_s", "1767225600.25", utc(2026, 1, 1, 0, 0, 0, 250000)),
        ("epoch_ms", "-1", utc(1969, 12, 31, 23, 59, 59, 999000)),
        ("epoch_ms", '"1767225600123"', "wrong_type"),
        ("epoch_ms", '"2026-01-01"', "wrong_type"),
        ("epoch_s", "1767225600123", "bad_timestamp"),
        ("epoch_s", "1e400", "bad_timestamp"),
        ("dd/MM/yyyy HH:mm", '"24/12/2026 18:30"', utc(2026, 12, 24, 18, 30)),
        ("yyyyMMdd", '"20261224"', utc(2026, 12, 24)),
        ("yyyy.MM.dd'T'HH:mm:ss.SSSXXX", '"2026.12.24T18:30:01.250+01:00"', utc(2026, 12, 24, 17, 30, 1, 250000)),
        ("dd/MM/yyyy HH:mm", '"2026-12-24T18:30:00Z"', "bad_timestamp"),
        ("dd/MM/yyyy HH:mm", '"1/12/2026 18:30"', "bad_timestamp"),
        ("dd/MM/yyyy HH:mm", '"31/02/2026 18:30"', "bad_timestamp"),
        ("dd/MM/yyyy HH:mm", "5", "wrong_type"),
    ],
)
def test_timestamps_written_otherwise(written, token, value):
    assert one(token, "TIMESTAMP", timestamps={"c": written}) == value


@pytest.mark.parametrize("pattern", ["dd/MM/yy", "MM/dd", "yyyy-QQ", "yyyy-MM-dd yyyy", "yyyy 'open"])
def test_a_pattern_that_is_not_supported_is_refused_at_once(pattern):
    with pytest.raises(ValueError, match="datetime pattern"):
        make_decoder("json", parse_ddl("c TIMESTAMP"), timestamps={"c": pattern})


def test_times_without_zone_are_in_the_jobs_time_zone():
    payloads = [
        f'{{"c":"{t}"}}'
        for t in ("2026-07-01T12:00:00", "2026-07-01", "2026-03-29T02:30:00", "2026-10-25T02:30:00", "2026-07-01T12:00:00Z")
    ]
    rows, _ = decode(payloads, "c TIMESTAMP", time_zone="Europe/Berlin")
    found = [rows[i]["c"] for i in range(5)]
    # in the gap shifted forward, in the overlap the earlier instant, as java.time does
    assert found == [utc(2026, 7, 1, 10), utc(2026, 6, 30, 22), utc(2026, 3, 29, 1, 30), utc(2026, 10, 25, 0, 30), utc(2026, 7, 1, 12)]


def test_timestamp_ntz_has_no_zone():
    assert one('"2026-07-01T12:00:00"', "TIMESTAMP_NTZ", time_zone="Europe/Berlin") == datetime(2026, 7, 1, 12)  # noqa: DTZ001 (a wall clock)
    assert one('"2026-07-01T12:00:00Z"', "TIMESTAMP_NTZ") == "bad_timestamp"


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ('"2026-01-31"', date(2026, 1, 31)),
        ('"2026-02-31"', "bad_date"),
        ('"2026-1-1"', "bad_date"),
        ('"2026-01-01T00:00:00Z"', "bad_date"),
        ("20260101", "wrong_type"),
    ],
)
def test_date(token, value):
    assert one(token, "DATE") == value


@pytest.mark.parametrize(
    ("kind", "token", "value"),
    [
        ("STRUCT<a: INT, b: STRING>", '{"b":{"x":1.0},"a":5,"z":1}', {"a": 5, "b": '{"x":1.0}'}),
        ("STRUCT<a: INT>", "{}", {"a": None}),
        ("STRUCT<a: INT>", '{"a":"5"}', "wrong_type"),
        ("STRUCT<a: INT>", "[]", "wrong_type"),
        ("STRUCT<a: INT>", "null", None),
        ("ARRAY<INT>", "[1,null,3]", [1, None, 3]),
        ("ARRAY<INT>", "[]", []),
        ("ARRAY<INT>", "[1.0]", "wrong_type"),
        ("ARRAY<INT>", "{}", "wrong_type"),
        ("ARRAY<STRING>", '["a",1,true,null]', ["a", "1", "true", None]),
        ("ARRAY<ARRAY<TINYINT>>", "[[1],[128]]", "out_of_range"),
        ("ARRAY<TIMESTAMP>", '["2026-01-01"]', [utc(2026, 1, 1)]),
        ("ARRAY<STRUCT<d: DECIMAL(4,1)>>", '[{"d":1.25}]', [{"d": Decimal("1.3")}]),
        ("MAP<STRING, INT>", '{"a":1,"b":null}', [("a", 1), ("b", None)]),
        ("MAP<STRING, INT>", '{"a":"1"}', "wrong_type"),
        ("MAP<INT, STRING>", '{"1":"x"}', [(1, "x")]),
        ("MAP<INT, STRING>", '{"x":"x"}', "wrong_type"),
    ],
)
def test_nested_types_are_judged_by_the_same_rules(kind, token, value):
    assert one(token, kind) == value


def test_rescued_gets_the_unknown_fields_as_json():
    declared = parse_ddl("a INT, b INT, _rescued STRING")
    payloads = ['{"a":1}', '{"x": 1.50,"a":1,"y":{"z":[1, 2]},"q\\"":null}', '{"b":2}', None]
    rows, _ = decode(payloads, "a INT, _rescued STRING", declared=declared)
    assert [rows[i]["_rescued"] for i in range(4)] == [None, '{"x":1.50,"y":{"z":[1, 2]},"q\\"":null}', None, None]


# ---- what a bad record says


def test_a_bad_record_names_column_type_and_value():
    _, bad = decode(['{"n":"' + "x" * 500 + '"}'], "n INT")
    assert bad[0]["error"].startswith("column 'n': expected INT, found \"xxx")
    assert len(bad[0]["error"]) <= 200


def test_invalid_utf_8_costs_its_record_only():
    rows, bad = decode([b'{"a":1}', b'{"a":\xff}', b'{"a":3}'], "a INT")
    assert rows == {0: {"a": 1}, 2: {"a": 3}}
    assert (bad[1]["reason"], bad[1]["raw"]) == ("not_utf8", b'{"a":\xff}')


def test_other_arrow_types_and_no_rows():
    decoder = make_decoder("json", parse_ddl("a INT"))
    for kind in (pa.string(), pa.large_binary(), pa.large_string(), pa.binary()):
        for rows in (3, 300):
            values = pa.array(['{"a":1}', '{"a":2}', "{"] * (rows // 3), kind)
            assert decoder.decode(values.slice(1, rows - 2)).rows.column("a").to_pylist() == ([1, 2] * rows)[1 : rows // 3 * 2]
        assert decoder.decode(pa.array([], kind)).rows.schema == decoder.schema
