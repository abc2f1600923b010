"""CSV lines, each judged by the SQL of large batches and by the judge of small ones."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.formats import decoder as decoder_module
from streamproc.formats import make_decoder
from streamproc.options import CsvOptions
from streamproc.schema import parse_ddl


def decode(lines, ddl, **options):
    decoder = make_decoder("csv", parse_ddl(ddl), **options)
    values = pa.array([line.encode() if isinstance(line, str) else line for line in lines], pa.binary())
    small = verdicts(decoder.decode(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "SMALL_ROWS", 0)
        assert repr(verdicts(decoder.decode(values))) == repr(small)
    return small


def verdicts(decoded):
    return [tuple(row.values()) for row in decoded.rows.to_pylist()], {b["index"]: b["reason"] for b in decoded.bad.to_pylist()}


def one(text, kind, **options):
    rows, bad = decode([f"{text},x"], f"c {kind}, rest STRING", **options)
    return rows[0][0] if rows else bad[0]


def test_fields_have_the_places_of_the_declared_schema():
    rows, bad = decode(["1,a,2.5", "2,b,\n", "3,c,1\r\n"], "x DOUBLE, n INT", declared=parse_ddl("n INT, s STRING, x DOUBLE"))
    assert (rows, bad) == ([(2.5, 1), (None, 2), (1.0, 3)], {})


def test_fields_have_the_places_of_a_header():
    rows, _ = decode(["a,1,zzz"], "n INT, s STRING, missing INT", columns=["s", "n", "other"])
    assert rows == [(1, "a", None)]


def test_quotes_delimiter_and_null_text():
    lines = ['"a ""b"", c",1', '"",2', ",3", '"two\nlines",4', '"\\N",5', "\\N,6"]
    assert decode(lines, "s STRING, n INT")[0] == [('a "b", c', 1), ("", 2), (None, 3), ("two\nlines", 4), ("\\N", 5), ("\\N", 6)]
    options = CsvOptions(delimiter="|", quote="'", null="\\N")
    assert decode(["'a|b'|\\N", "|1", "'\\N'|2", '"|3'], "s STRING, n INT", csv=options)[0] == [
        ("a|b", None),
        ("", 1),
        ("\\N", 2),
        ('"', 3),
    ]


@pytest.mark.parametrize("line", ["", "a", "a,1,", "a,1,2", '"a,1', 'a"b,1', '"a"b,1', "a,1\n\n", "a,1\nb,2", "a\r,1"])
def test_a_line_of_another_shape_is_bad(line):
    assert decode([line, "a,1"], "s STRING, n INT") == ([("a", 1)], {0: "malformed_csv"})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("INT", "5", 5),
        ("INT", "-0", 0),
        ("INT", "+5", "wrong_type"),
        ("INT", " 5", "wrong_type"),
        ("INT", "007", "wrong_type"),
        ("INT", "5.0", "wrong_type"),
        ("INT", "1e3", "wrong_type"),
        ("INT", "5_0", "wrong_type"),
        ("INT", "2147483648", "out_of_range"),
        ("INT", '"5"', 5),
        ("INT", '""', "wrong_type"),
        ("DOUBLE", "1e3", 1000.0),
        ("DOUBLE", "NaN", "wrong_type"),
        ("DOUBLE", "inf", "wrong_type"),
        ("DOUBLE", "1e400", "out_of_range"),
        ("DOUBLE", "-0", -0.0),
        ("BOOLEAN", "true", True),
        ("BOOLEAN", "True", "wrong_type"),
        ("BOOLEAN", "1", "wrong_type"),
        ("DECIMAL(6,2)", "1.005", Decimal("1.01")),
        ("DECIMAL(6,2)", "9999.995", "out_of_range"),
        ("DECIMAL(6,2)", "1e2", Decimal("100.00")),
        ("DECIMAL(6,2)", "x", "wrong_type"),
        ("TIMESTAMP", "2026-01-01T00:00:00.5+01:00", datetime(2025, 12, 31, 23, 0, 0, 500000, UTC)),
        ("TIMESTAMP", "2026-01-01 00", "bad_timestamp"),
        ("DATE", "2026-01-31", date(2026, 1, 31)),
        ("DATE", "31.1.2026", "bad_date"),
        ("STRING", "é", "é"),
        ("BINARY", "AP8=", b"\0\xff"),
    ],
)
def test_types_are_judged_as_strictly_as_json(kind, text, value):
    found = one(text, kind)
    assert (found, type(found)) == (value, type(value))


def test_timestamps_written_otherwise():
    assert one("1767225600000", "TIMESTAMP", timestamps={"c": "epoch_ms"}) == datetime(2026, 1, 1, tzinfo=UTC)
    assert one("24.12.2026", "TIMESTAMP", timestamps={"c": "dd.MM.yyyy"}) == datetime(2026, 12, 24, tzinfo=UTC)


def test_null_not_null_utf_8_and_bom():
    lines = [None, ",1", b"\xff,1", b"\xef\xbb\xbfa,1"]
    assert decode(lines, "s STRING, n INT") == ([(None, None), (None, 1), ("a", 1)], {2: "not_utf8"})
    assert decode(lines, "s STRING NOT NULL, n INT") == ([("a", 1)], {0: "missing_not_null", 1: "missing_not_null", 2: "not_utf8"})


def test_no_column_is_read():
    decoded = make_decoder("csv", pa.schema([]), declared=parse_ddl("a INT, b INT")).decode(pa.array([b"1,2", b"x,y", b"1"]))
    assert (decoded.rows.num_rows, decoded.bad["index"].to_pylist()) == (2, [2])


def test_rescued_is_no_field_of_a_line():
    assert decode(["1,x", "2"], "n INT, _rescued STRING, s STRING") == ([(1, None, "x")], {1: "malformed_csv"})


def test_a_nested_type_is_refused_at_once():
    with pytest.raises(ValueError, match="ARRAY<INT>"):
        make_decoder("csv", parse_ddl("a ARRAY<INT>"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1), min_size=2, max_size=2),
        min_size=1,
        max_size=5,
    )
)
def test_what_pythons_writer_writes_is_read_back(records):
    lines = []
    for record in records:
        out = io.StringIO()
        csv.writer(out).writerow(record)
        lines.append(out.getvalue())
    if not lines[0].startswith("\ufeff"):
        assert decode(lines, "a STRING, b STRING") == ([tuple(r) for r in records], {})
