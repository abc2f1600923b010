"""Record batches to Arrow: formats, gaps, transactions, and agreement with aiokafka's own consumer classes."""

import struct

import pytest
from aiokafka.errors import KafkaError
from aiokafka.record._crc32c import crc as crc32c
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given
from hypothesis import strategies as st

from streamproc.batch import WIRE_SCHEMA
from streamproc.clients.kafka import records
from streamproc.clients.kafka.records import Fetched, Unpacking, next_offset, unpack

ALL = Unpacking(frozenset({"_key", "_timestamp", "_headers"}))
VALUES = Unpacking(frozenset())
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CONTROL = 0x20


def batch(base, rows, codec=0, *, deltas=None, producer=-1, transactional=False, control=False, log_append_ms=None, last_delta=None):
    """A batch as the broker stores it: `rows` are (key, value, headers), at offsets base + delta."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 24)
    deltas = list(range(len(rows))) if deltas is None else deltas
    for delta, (key, value, headers) in zip(deltas, rows, strict=True):
        assert builder.append(delta, 1_000 + delta, key, value, headers) is not None
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    if last_delta is not None:
        struct.pack_into(">i", data, 23, last_delta)
    attributes = struct.unpack_from(">h", data, 21)[0] | CONTROL * control | 0x08 * (log_append_ms is not None)
    struct.pack_into(">h", data, 21, attributes)
    if log_append_ms is not None:
        struct.pack_into(">q", data, 35, log_append_ms)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return bytes(data)


def marker(base, producer, *, abort):
    key = struct.pack(">HH", 0, 0 if abort else 1)
    return batch(base, [(key, struct.pack(">HI", 0, 0), [])], producer=producer, transactional=True, control=True)


def plain(*values):
    return [(None, value, []) for value in values]


def rows(data, how=VALUES, start=0, aborted=(), stop=None):
    part = Fetched(data, start, next_offset(data, start) if stop is None else stop, 10**9, tuple(aborted))
    pieces = [piece for piece in unpack(part, how) if piece is not None]
    assert pieces[-1].next == part.next
    return [row for piece in pieces for row in piece.rows.to_pylist()]


def pairs(data, **arguments):
    return [(row["_offset"], row["_value"]) for row in rows(data, **arguments)]


@pytest.mark.parametrize("codec", CODECS)
def test_all_compressions(codec):
    data = b"".join(batch(base, plain(*(b"%d" % (base + i) * 50 for i in range(10))), CODECS[codec]) for base in (0, 10, 20))
    assert pairs(data) == [(i, b"%d" % i * 50) for i in range(30)]


def test_keys_timestamps_and_headers_only_when_asked():
    data = batch(5, [(b"k", b"v", [("h", b"1"), ("h", None)]), (None, b"w", [])])
    assert rows(data, ALL)[0]["_headers"] == [{"key": "h", "value": b"1"}, {"key": "h", "value": None}]
    assert [row["_key"] for row in rows(data, ALL)] == [b"k", None]
    assert [row["_timestamp"].timestamp() for row in rows(data, ALL)] == [1.0, 1.001]
    assert VALUES.schema.names == ["_offset", "_value"]
    for field in ALL.schema:
        assert field.name == "_offset" or field.type == WIRE_SCHEMA.field(field.name).type


def test_log_append_time_is_the_time_of_all_rows():
    data = batch(0, plain(b"a", b"b"), log_append_ms=7_000)
    assert [row["_timestamp"].timestamp() for row in rows(data, ALL)] == [7.0, 7.0]


def test_tombstones_are_skipped_or_rows():
    data = batch(0, [(b"k", b"v", []), (b"k", None, []), (b"l", b"", [])])
    assert pairs(data) == [(0, b"v"), (2, b"")]
    assert pairs(data, how=Unpacking(frozenset(), tombstones=True)) == [(0, b"v"), (1, None), (2, b"")]


def test_a_start_inside_a_batch():
    data = batch(10, plain(b"a", b"b", b"c")) + batch(13, plain(b"d"))
    assert pairs(data, start=11) == [(11, b"b"), (12, b"c"), (13, b"d")]
    assert [row["_offset"] for row in rows(data, ALL, start=12)] == [12, 13]


def test_gaps_of_compacted_batches():
    data = batch(0, plain(b"a", b"d"), deltas=[0, 3], last_delta=9) + batch(100, plain(b"x"))
    assert pairs(data) == [(0, b"a"), (3, b"d"), (100, b"x")]
    assert pairs(data, start=1) == [(3, b"d"), (100, b"x")]
    emptied = batch(0, plain(b"a"), last_delta=9)
    assert next_offset(emptied, 5) == 10
    assert pairs(emptied, start=5) == []


def test_a_batch_cut_off_at_the_end_is_left_for_the_next_fetch():
    data = batch(0, plain(b"a")) + batch(1, plain(b"b" * 100))[:-1]
    assert next_offset(data, 0) == 1
    assert pairs(data) == [(0, b"a")]
    assert next_offset(batch(0, plain(b"a"))[:30], 0) == 0


def test_aborted_transactions_are_left_out():
    """Producer 1 aborts 0-1, producer 2 commits 2; then producer 1 commits 4."""
    data = (
        batch(0, plain(b"no"), producer=1, transactional=True)
        + batch(1, plain(b"no"), producer=1, transactional=True)
        + batch(2, plain(b"yes"), producer=2, transactional=True)
        + marker(3, 1, abort=True)
        + batch(4, plain(b"yes"), producer=1, transactional=True)
        + marker(5, 2, abort=False)
        + batch(6, plain(b"plain"), producer=1)
    )
    assert pairs(data, aborted=[(1, 0)]) == [(2, b"yes"), (4, b"yes"), (6, b"plain")]
    assert next_offset(data, 0) == 7


def test_read_uncommitted_sees_all_but_control_batches():
    data = batch(0, plain(b"no"), producer=1, transactional=True) + marker(1, 1, abort=True)
    assert pairs(data, how=Unpacking(frozenset(), committed=False), aborted=[(1, 0)]) == [(0, b"no")]


def test_an_aborted_transaction_that_begins_later_hides_nothing_before():
    data = b"".join(batch(i, plain(b"%d" % i), producer=1, transactional=True) for i in range(3)) + marker(3, 1, abort=True)
    assert pairs(data, aborted=[(1, 2)]) == [(0, b"0"), (1, b"1")]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4"])
def test_old_formats(magic, codec):
    if (magic, codec) == (0, "lz4"):
        pytest.skip("lz4 came with magic 1")
    builder = LegacyRecordBatchBuilder(magic, CODECS[codec], 1 << 20)
    for i in range(4):
        builder.append(i, 1_000 + i if magic else None, b"k", b"v%d" % i)
    data = bytearray(builder.build())
    if codec != "none":
        struct.pack_into(">q", data, 0, 3)  # the broker writes the last inner offset on the wrapper
    assert next_offset(bytes(data), 0) == 4
    assert pairs(bytes(data), start=1) == [(i, b"v%d" % i) for i in range(1, 4)]
    times = [row["_timestamp"] and row["_timestamp"].timestamp() for row in rows(bytes(data), ALL)]
    assert times == ([1.0, 1.001, 1.002, 1.003] if magic else [None] * 4)


def test_a_huge_answer_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(records, "PIECE_ROWS", 10)
    monkeypatch.setattr(records, "ARRAY_ROWS", 4)
    data = b"".join(batch(base, plain(*(b"%d" % (base + i) for i in range(7)))) for base in range(0, 70, 7))
    monkeypatch.setattr(records, "SLICE_ROWS", 7)
    turns = list(unpack(Fetched(data, 3, 70, 70), VALUES))
    pieces = [piece for piece in turns if piece is not None]
    assert [piece is None for piece in turns] == [True, False] * 4 + [True, True, False]
    assert [piece.next for piece in pieces] == [14, 28, 42, 56, 70]
    assert [offset for piece in pieces for offset in piece.rows["_offset"].to_pylist()] == list(range(3, 70))


@pytest.mark.parametrize("length", [-(1 << 31), -12, -1, 0, 13, 48])
def test_a_batch_that_says_it_is_too_short_is_an_error(length):
    data = bytearray(batch(0, plain(b"abc")))
    struct.pack_into(">i", data, 8, length)
    with pytest.raises(ValueError, match="cut off"):
        rows(bytes(data), stop=1)


def test_memory_of_the_socket_is_read_as_bytes_are():
    data = batch(0, [(b"k", b"v", [("h", b"1")])]) + batch(1, plain(b"w"), CODECS["zstd"])
    for how in (ALL, VALUES):
        assert rows(memoryview(bytearray(data)), how) == rows(data, how)


HEADER = st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5))
ROW = st.tuples(st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=20_000), st.lists(HEADER, max_size=2))
BATCH = st.lists(st.tuples(ROW, st.integers(1, 300)), min_size=1, max_size=8)


@given(st.lists(st.tuples(BATCH, st.sampled_from(sorted(CODECS.values()))), max_size=4), st.integers(0, 20))
def test_rows_are_what_aiokafkas_records_are(batches, start):
    data, base = b"", 0
    for steps, codec in batches:
        deltas = [sum(step for _, step in steps[: i + 1]) - steps[0][1] for i in range(len(steps))]
        data += batch(base, [row for row, _ in steps], codec, deltas=deltas)
        base += deltas[-1] + 1
    expected, parser = [], MemoryRecords(data)
    while (parsed := parser.next_batch()) is not None:
        expected += [(r.offset, r.value, r.timestamp, r.key, r.headers) for r in parsed if r.offset >= start]
    got = [
        (r["_offset"], r["_value"], round(r["_timestamp"].timestamp() * 1000), r["_key"], [(h["key"], h["value"]) for h in r["_headers"]])
        for r in rows(data, Unpacking(ALL.columns, tombstones=True), start)
    ]
    assert got == expected
    assert pairs(data, how=Unpacking(frozenset(), tombstones=True), start=start) == [row[:2] for row in expected]


@pytest.mark.parametrize("crc", [records._CRC32C, None])
def test_a_checksum_is_right_or_wrong_by_the_processor_or_by_aiokafka(crc, monkeypatch):
    monkeypatch.setattr(records, "_CRC32C", crc)
    data = bytearray(batch(0, plain(b"abc")))
    assert pairs(bytes(data)) == [(0, b"abc")]
    data[-3] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        rows(bytes(data))


@given(st.binary(max_size=300), st.integers(0, 299), st.integers(0, 255))
@example(b"\0\0\0\0\x08", 178, 0)  # read as an old batch of negative size
def test_corrupt_bytes_never_crash_or_pass(value, at, byte):
    data = bytearray(batch(0, plain(value, b"x")))
    at %= len(data)
    if data[at] == byte:
        return
    data[at] = byte
    try:
        got = rows(bytes(data), stop=2)
    except (KafkaError, ValueError, AssertionError, RuntimeError, MemoryError, SystemError):
        return
    assert [row["_value"] for row in got] in ([value, b"x"], []) or at < 17  # the checksum does not cover what comes before it
