"""`partitioned_by` is held against every row: equal to the partition key, and, where a task has one shard, hashed into it."""

from __future__ import annotations

from hashlib import md5

import pyarrow as pa
import pytest

from streamproc.batch import BAD_SCHEMA, WIRE_SCHEMA, Chunk, Decoded, Shard
from streamproc.engine.unbounded import Table
from streamproc.errors import BadRecord
from streamproc.testing import MemorySource

MIDDLE = 2**127 - 1
LOW, HIGH = Shard("low", hash_range=(0, MIDDLE)), Shard("high", hash_range=(MIDDLE + 1, 2**128 - 1))


def is_low(key: str) -> bool:
    return int.from_bytes(md5(key.encode()).digest(), "big") <= MIDDLE


KEYS = [f"user{i}" for i in range(400)]
LOWS, HIGHS = [key for key in KEYS if is_low(key)], [key for key in KEYS if not is_low(key)]


class Texts:
    """Payloads are the column's values; "bad" ones are refused."""

    def decode(self, values: pa.Array) -> Decoded:
        texts = [None if v is None else v.decode() for v in values.to_pylist()]
        good = [i for i, text in enumerate(texts) if text != "bad"]
        rows = pa.table({"user": pa.array([texts[i] for i in good], pa.string())})
        bad = [{"index": i, "reason": "no", "error": "", "raw": b""} for i, text in enumerate(texts) if text == "bad"]
        return Decoded(rows, pa.Table.from_pylist(bad, schema=BAD_SCHEMA), pa.array(good, pa.int64()) if bad else None)


def table() -> Table:
    return Table("clicks", MemorySource(), pa.schema([("user", pa.string())]), Texts(), partitioned_by="user")


def decode(table: Table, keys, values=None):
    rows = [
        {"_offset": str(i), "_value": None if value is None else value.encode(), "_key": None if key is None else key.encode()}
        for i, (key, value) in enumerate(zip(keys, values or keys, strict=True))
    ]
    return table.decode(Chunk(shard="s", rows=pa.RecordBatch.from_pylist(rows, schema=WIRE_SCHEMA), end=str(len(rows))))


def test_rows_in_the_range_go_through():
    assert decode(table().of_shard(LOW), LOWS).rows.num_rows == len(LOWS)
    assert decode(table().of_shard(HIGH), HIGHS).rows.num_rows == len(HIGHS)
    assert decode(table().of_shard(Shard("kafka")), KEYS).rows.num_rows == len(KEYS)
    assert decode(table(), KEYS).rows.num_rows == len(KEYS)


def test_a_row_outside_the_range_stops_the_job_with_hash_and_range():
    keys = [*LOWS[:150], "bad", HIGHS[3]]
    with pytest.raises(BadRecord) as stopped:
        decode(table().of_shard(LOW), keys)
    message = str(stopped.value)
    assert f"shard s, offset 151: the hash of user '{HIGHS[3]}', {md5(HIGHS[3].encode()).hexdigest()}" in message
    assert f"range {'0' * 32} to 7{'f' * 31}" in message


def test_a_row_without_a_key_has_no_place_in_a_task_of_one_shard():
    assert decode(table(), ["a", None]).rows.num_rows == 2
    with pytest.raises(BadRecord, match="offset 1: there is no partition key, and user is NULL"):
        decode(table().of_shard(Shard("kafka")), ["a", None])


def test_a_key_that_is_not_the_column_is_named_with_both_values():
    for one in (table(), table().of_shard(LOW)):
        with pytest.raises(BadRecord, match="the partition key is 'x', but user is 'y'"):
            decode(one, ["x"], ["y"])
