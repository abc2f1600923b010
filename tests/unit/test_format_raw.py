"""Raw payloads: what is in the record is in the column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from streamproc.formats import make_decoder
from streamproc.schema import parse_ddl

VALUES = pa.array([b"a", b"\xff", None, b"", "é".encode()], pa.binary())


def test_binary_takes_every_payload():
    decoded = make_decoder("raw", parse_ddl("value BINARY")).decode(VALUES)
    assert decoded.rows["value"].to_pylist() == VALUES.to_pylist()
    assert (decoded.bad.num_rows, decoded.index) == (0, None)


def test_string_must_be_utf_8():
    decoded = make_decoder("raw", parse_ddl("body STRING")).decode(VALUES)
    assert decoded.rows["body"].to_pylist() == ["a", None, "", "é"]
    assert decoded.index.to_pylist() == [0, 2, 3, 4]
    assert [(b["index"], b["reason"], b["raw"]) for b in decoded.bad.to_pylist()] == [(1, "not_utf8", b"\xff")]


def test_not_null_refuses_a_missing_payload():
    decoded = make_decoder("raw", parse_ddl("value BINARY NOT NULL")).decode(VALUES)
    assert decoded.bad["reason"].to_pylist() == ["missing_not_null"]
    assert decoded.rows.num_rows == 4


@pytest.mark.parametrize(("ddl", "good"), [("value BINARY", 5), ("value STRING", 4)])
def test_a_column_that_is_not_read(ddl, good):
    decoded = make_decoder("raw", pa.schema([]), declared=parse_ddl(ddl)).decode(VALUES)
    assert (decoded.rows.num_rows, decoded.rows.num_columns, decoded.bad.num_rows) == (good, 0, 5 - good)


def test_decoding_is_the_same_however_the_payloads_are_cut():
    decoder = make_decoder("raw", parse_ddl("body STRING"))
    parts = pa.concat_tables([decoder.decode(VALUES[:2]).rows, decoder.decode(VALUES[2:]).rows])
    assert parts.equals(decoder.decode(VALUES).rows)


@pytest.mark.parametrize("ddl", ["a BINARY, b STRING", "n INT"])
def test_another_schema_is_refused(ddl):
    with pytest.raises(ValueError, match="value BINARY"):
        make_decoder("raw", parse_ddl(ddl))


def test_unknown_format():
    with pytest.raises(ValueError, match="json, csv or raw"):
        make_decoder("xml", parse_ddl("a INT"))
