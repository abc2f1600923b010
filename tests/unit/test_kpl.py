"""KPL aggregates, written by an independent producer, are unpacked; everything else passes through."""

import os
from hashlib import md5

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hypothesis import given
from hypothesis import strategies as st

from streamproc.clients.kpl import MAGIC, Aggregate, hash_of, unpack


def aggregated(records: list[tuple[str, bytes, int | None]]) -> bytes:
    aggregator = RecordAggregator()
    for key, data, hash_key in records:
        assert aggregator.add_user_record(key, data, None if hash_key is None else str(hash_key)) is None
    packed = aggregator.clear_and_get()
    assert packed is not None
    _, _, data = packed.get_contents()
    return bytes(data)


def known(data: bytes) -> Aggregate:
    aggregate = unpack(data)
    assert aggregate is not None
    return aggregate


def test_user_records_come_in_order_with_their_keys() -> None:
    records = [(f"key-{i % 7}", b"%d" % i * (i % 300), None) for i in range(300)]
    aggregate = known(aggregated(records))
    assert aggregate.payloads == [data for _, data, _ in records]
    assert aggregate.partition_keys() == [key for key, _, _ in records]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=400), st.integers(0, 2**128 - 1)), min_size=1, max_size=40))
def test_whatever_was_packed_comes_out(records: list[tuple[str, bytes, int]]) -> None:
    aggregate = known(aggregated(list(records)))
    assert list(zip(aggregate.partition_keys(), aggregate.payloads, aggregate.hashes(), strict=True)) == records


def test_the_hash_is_the_explicit_one_or_of_the_partition_key() -> None:
    assert hash_of("a") == int(md5(b"a").hexdigest(), 16)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_aggregate(data: bytes) -> None:
    assert unpack(data) is None
    assert unpack(MAGIC + data) is None
    assert unpack(b"") is None


def test_a_wrong_digest_is_no_aggregate() -> None:
    data = aggregated([("k", b"value", None)])
    assert unpack(data[:-1] + bytes([data[-1] ^ 1])) is None


@pytest.mark.parametrize("seed", range(200))
def test_a_broken_message_with_a_right_digest_is_no_fault(seed: int) -> None:
    body = bytearray(aggregated([("k", b"value", 5), ("l", b"", 6)])[4:-16])
    body[seed % len(body)] ^= 1 << (seed // len(body) % 8)
    broken = bytes(body[: len(body) - seed % 3])
    unpack(MAGIC + broken + md5(broken).digest())
    noise = os.urandom(seed)
    unpack(MAGIC + noise + md5(noise).digest())


def test_an_index_beyond_the_table_is_no_aggregate() -> None:
    body = b"\x0a\x01k" + b"\x1a\x04\x08\x01\x1a\x00"
    assert unpack(MAGIC + body + md5(body).digest()) is None
