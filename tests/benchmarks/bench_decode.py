"""JSON payloads to Arrow, 3 of 8 fields of a 174-byte event: ours beside other decoders.

    python tests/benchmarks/bench_decode.py [records]

Microseconds a record (wall clock, median of 5, side by side); with two threads each decodes its own batch. Only ours and
orjson give good and bad records apart as the job file promises; pyarrow.json stops at the first bad record of a batch, and
DuckDB's from_json_strict takes "5", 5.5, true and NaN for numbers, drops time zones and refuses missing fields.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import duckdb
import orjson
import pyarrow as pa
import pyarrow.json

from streamproc.formats import make_decoder
from streamproc.schema import parse_ddl

SCHEMA = parse_ddl("page STRING, amount BIGINT, ts TIMESTAMP")
OURS = make_decoder("json", SCHEMA)
STRICT = """SELECT TRY(from_json_strict(v, '{"page":"VARCHAR","amount":"BIGINT","ts":"TIMESTAMP"}')) FROM batch"""
threads = threading.local()


def event(draw: random.Random, i: int) -> bytes:
    fields = {
        "user_id": f"u-{draw.randrange(10**8):08}", "page": f"/p/{draw.randrange(1000):04}", "amount": draw.randrange(10000),
        "ts": f"2026-01-01T00:{i // 1000 % 3600 // 60:02}:{i // 1000 % 60:02}.{i % 1000:03}Z",
        "session": f"{draw.getrandbits(128):032x}", "country": "DE", "mobile": True, "seq": i % 10**6,
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def batch(records: int, bad_share: float) -> pa.Array:
    draw = random.Random(7)
    events = (event(draw, i) for i in range(records))
    return pa.array([e[:-1] if draw.random() < bad_share else e for e in events], pa.binary())


def ours(values: pa.Array) -> int:
    return OURS.decode(values).rows.num_rows


def orjson_dicts(values: pa.Array) -> int:
    rows = []
    for payload in values.to_pylist():
        try:
            found = orjson.loads(payload)
            rows.append((found.get("page"), found.get("amount"), datetime.fromisoformat(found["ts"])))
        except ValueError:
            continue
    return pa.table([pa.array([r[i] for r in rows], f.type) for i, f in enumerate(SCHEMA)], schema=SCHEMA).num_rows


def pyarrow_json(values: pa.Array) -> int:
    options = pa.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    lines = io.BytesIO(b"\n".join(values.to_pylist()))
    return pa.json.read_json(lines, pa.json.ReadOptions(use_threads=False), options).num_rows


def from_json_strict(values: pa.Array) -> int:
    if not hasattr(threads, "connection"):
        threads.connection = duckdb.connect(config={"threads": 1})
    threads.connection.register("batch", pa.table({"v": values.cast(pa.string())}))
    return threads.connection.sql(STRICT).to_arrow_table().column(0).combine_chunks().field("page").drop_null().__len__()


def measured_us(decode, values: pa.Array, pool: ThreadPoolExecutor | None) -> float:
    start = time.perf_counter()
    if pool is None:
        decode(values)
        return (time.perf_counter() - start) / len(values) * 1e6
    list(pool.map(decode, [values, values]))
    return (time.perf_counter() - start) / len(values) / 2 * 1e6


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    decoders = {"ours": ours, "orjson + dicts": orjson_dicts, "pyarrow.json": pyarrow_json, "DuckDB from_json_strict": from_json_strict}
    shares = (0.0, 0.01, 0.5)
    print(f"{'µs a record':26}" + "".join(f"{f'{share:.0%} bad, {n} thread':>19}" for share in shares for n in (1, 2)))
    cells: dict[str, list[str]] = {name: [] for name in decoders}
    with ThreadPoolExecutor(2) as pool:
        for share in shares:
            values = batch(records, share)
            for run_in in (None, pool):
                times: dict[str, list[float]] = {name: [] for name in decoders}
                for name in [*decoders] * 5:
                    if name != "pyarrow.json" or share == 0:
                        times[name].append(measured_us(decoders[name], values, run_in))
                for name, found in times.items():
                    cells[name].append(f"{statistics.median(found):.2f}" if found else "stops")
    for name, row in cells.items():
        print(f"{name:26}" + "".join(f"{cell:>19}" for cell in row))


if __name__ == "__main__":
    main()
