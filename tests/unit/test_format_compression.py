"""Compressed payloads: what is inside is decoded, what is broken or too large is a bad record."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa
import pytest
import zstandard

from streamproc.formats import compression, source_decoder
from streamproc.options import SourceOptions
from streamproc.schema import parse_ddl

WRITERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd stream": zstandard.ZstdCompressor(write_content_size=False).compress,
}


def verdicts(codec, payloads, columns="a INT"):
    declared = parse_ddl(columns)
    made = source_decoder(SourceOptions(type="memory", compression=codec.split()[0]), declared, declared=declared)
    assert made.schema == declared
    decoded = made.decode(pa.array(payloads, pa.binary()))
    at = range(len(payloads)) if decoded.index is None else decoded.index.to_pylist()
    bad = {b["index"]: b for b in decoded.bad.to_pylist()}
    assert sorted([*at, *bad]) == list(range(len(payloads)))
    return dict(zip(at, decoded.rows.to_pylist(), strict=True)), bad


@pytest.mark.parametrize("codec", WRITERS)
def test_payloads_are_taken_out_and_decoded(codec):
    write = WRITERS[codec]
    long = write(b'{"a":3,"b":"%s"}' % (b"x" * 300_000))
    payloads = [write(b'{"a":1}'), None, write(b'{"a":"x"}'), b'{"a":2}', write(b'{"a":4}')[:-3], b"", long]
    rows, bad = verdicts(codec, payloads)
    assert rows == {0: {"a": 1}, 1: {"a": None}, 6: {"a": 3}}
    assert {i: b["reason"] for i, b in bad.items()} == {2: "wrong_type", 3: "bad_compression", 4: "bad_compression", 5: "bad_compression"}
    assert [b["raw"] for b in bad.values()] == [payloads[i] for i in bad]  # as it came: that is what a replay sends again


@pytest.mark.parametrize("codec", WRITERS)
def test_a_batch_is_decoded_in_parts_of_bounded_size(codec, monkeypatch):
    monkeypatch.setattr(compression, "_PART_BYTES", 20)
    payloads = [WRITERS[codec](b'{"a":%d}' % i) for i in range(10)]
    payloads[4] = b"broken"
    rows, bad = verdicts(codec, payloads)
    assert rows == {i: {"a": i} for i in range(10) if i != 4}
    assert list(bad) == [4]


@pytest.mark.parametrize("codec", WRITERS)
def test_a_bomb_is_a_bad_record(codec, monkeypatch):
    monkeypatch.setattr(compression, "MAX_BYTES", 2**20)
    rows, bad = verdicts(codec, [WRITERS[codec](b"0" * 2**21), WRITERS[codec](b'{"a":1}')])
    assert rows == {1: {"a": 1}}
    assert bad[0]["reason"] in ("too_large", "bad_compression")


def test_gzip_members_behind_each_other_are_one_payload():
    assert verdicts("gzip", [gzip.compress(b'{"a"') + gzip.compress(b":1}")])[0] == {0: {"a": 1}}
    assert verdicts("gzip", [gzip.compress(b'{"a":1}') + b"x"])[1][0]["reason"] == "bad_compression"
    assert verdicts("gzip", [zlib.compress(b'{"a":1}')])[1][0]["reason"] == "bad_compression"


def test_all_are_bad():
    rows, bad = verdicts("zstd", [b"x", b"y"])
    assert (rows, len(bad)) == ({}, 2)
