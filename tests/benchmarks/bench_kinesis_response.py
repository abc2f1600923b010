"""GetRecords response to Arrow values: botocore's parser against ours, side by side. `python bench_kinesis_response.py`"""

import base64
import json
import statistics
import time
from collections.abc import Callable

import botocore.session
import msgspec
import pyarrow as pa
from botocore.parsers import JSONParser

from streamproc.clients.kinesis import Answer, BareAnswer, rows_of

RECORDS, BYTES, ROUNDS = 10_000, 181, 9
ALL = frozenset({"_timestamp", "_key", "_partition_key", "_sub_sequence"})


def body() -> bytes:
    record = {"user": "u1", "page": "/p/1", "amount": "12.34", "ts": "2026-01-01T00:00:00Z", "pad": "x" * 80}
    data = [json.dumps(record | {"id": i}).encode().ljust(BYTES) for i in range(RECORDS)]
    records = [
        {
            "SequenceNumber": f"4959{i:052d}",
            "ApproximateArrivalTimestamp": 1_767_225_600 + i / 1000,
            "Data": base64.b64encode(payload).decode(),
            "PartitionKey": f"u{i % 1000}",
            "EncryptionType": "NONE",
        }
        for i, payload in enumerate(data)
    ]
    return json.dumps({"Records": records, "NextShardIterator": "A" * 200, "MillisBehindLatest": 0}).encode()


def botocore_way(shape: object, raw: bytes) -> pa.Array:
    parsed = JSONParser().parse({"body": raw, "headers": {}, "status_code": 200, "context": {}}, shape)
    return pa.array([record["Data"] for record in parsed["Records"]], pa.binary())


def main() -> None:
    raw = body()
    shape = botocore.session.get_session().get_service_model("kinesis").operation_model("GetRecords").output_shape
    full, bare = msgspec.json.Decoder(Answer), msgspec.json.Decoder(BareAnswer)
    ways: dict[str, Callable[[], object]] = {
        "botocore's parser, values only": lambda: botocore_way(shape, raw),
        "ours, values and offsets": lambda: rows_of(bare.decode(raw).Records, frozenset(), None, drop=False),
        "ours, all columns": lambda: rows_of(full.decode(raw).Records, ALL, None, drop=False),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - begin) / RECORDS * 1e6)
    first = statistics.median(taken["botocore's parser, values only"])
    print(f"{RECORDS} records of {BYTES} bytes, median of {ROUNDS}\n{'way':35}{'us a record':>12}{'times':>8}")
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"{name:35}{middle:12.2f}{first / middle:8.1f}")


if __name__ == "__main__":
    main()
