"""What `files` writes: names, layout, text, the one file of `complete`."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sinks.files import Files, FilesOptions
from streamproc.batch import TIMESTAMP
from streamproc.errors import BadRecord, InvalidJob
from streamproc.formats import hive
from streamproc.sink import EpochId
from streamproc.testing.memory_store import MemoryStore
from streamproc.world import World

FIRST = EpochId("c0ffee", 0, "out", "task-0", 1, 1)


def options(path: Path | str, **keys: Any) -> FilesOptions:
    return FilesOptions.model_validate({"type": "files", "path": str(path)} | keys)


def files(path: Path | str, **keys: Any) -> Files:
    return Files(options(path, **keys), World(), "out")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def written(folder: Path, table: pa.Table, epoch: EpochId = FIRST, **keys: Any) -> list[str]:
    await files(folder, **keys).write(epoch, table.to_reader(3), "append")
    return names(folder)


async def test_names_follow_from_the_epoch(tmp_path: Path) -> None:
    table = pa.table({"k": range(5)})
    assert await written(tmp_path, table, max_rows_per_file=2) == [
        f"part-c0ffee-0-out-task~2D0-0000000001-{part:05}.parquet" for part in range(3)
    ]
    assert [pq.read_metadata(tmp_path / name).num_rows for name in names(tmp_path)] == [2, 2, 1]


async def test_the_same_rows_in_other_batches_give_the_same_bytes(tmp_path: Path) -> None:
    table = pa.table({"k": range(1000), "s": [str(i) for i in range(1000)]})
    for format_ in ("parquet", "json", "csv"):
        found = set()
        for folder, size in (("a", 7), ("b", 1000)):
            path = tmp_path / format_ / folder
            await files(path, format=format_).write(FIRST, table.to_reader(size), "append")
            found.add(b"".join((path / name).read_bytes() for name in names(path)))
        assert len(found) == 1


async def test_partitions_are_read_by_duckdb(tmp_path: Path) -> None:
    table = pa.table(
        {"day": [date(2026, 1, 2), date(2026, 1, 1), None, date(2026, 1, 2)], "page": ["/a b", "x=ü", "", "/a b"], "k": range(4)}
    )
    assert await written(tmp_path, table, partition_by=["day", "page"]) == [
        "day=2026-01-01/page=x%3Dü/part-c0ffee-0-out-task~2D0-0000000001-00000.parquet",
        "day=2026-01-02/page=%2Fa b/part-c0ffee-0-out-task~2D0-0000000001-00001.parquet",
        f"day={hive.NULL}/page={hive.NULL}/part-c0ffee-0-out-task~2D0-0000000001-00002.parquet",
    ]
    assert pq.ParquetFile(tmp_path / names(tmp_path)[0]).schema_arrow.names == ["k"]
    seen = duckdb.connect().sql(
        f"SELECT k, day::VARCHAR, page FROM read_parquet('{tmp_path}/**/*.parquet', hive_partitioning = true) ORDER BY k"
    )
    assert seen.fetchall() == [(0, "2026-01-02", "/a b"), (1, "2026-01-01", "x=ü"), (2, None, None), (3, "2026-01-02", "/a b")]


async def test_partitions_are_cut_by_rows_and_keep_their_order(tmp_path: Path) -> None:
    table = pa.table({"p": ["b", "a"] * 5, "k": range(10)})
    found = await written(tmp_path, table, partition_by=["p"], max_rows_per_file=3, format="json")
    assert [(name[:3], (tmp_path / name).read_text().count("\n")) for name in found] == [("p=a", 3), ("p=a", 2), ("p=b", 3), ("p=b", 2)]
    assert (tmp_path / found[0]).read_text() == '{"k":1}\n{"k":3}\n{"k":5}\n'


def test_partition_values_are_written_as_spark_casts_them() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    columns = {
        "t=%3F": ("t", moment.replace(microsecond=0), TIMESTAMP, "t=2026-01-01 12%3A00%3A00"),
        "f": ("f", moment, TIMESTAMP, "f=2026-01-01 12%3A00%3A00.25"),
        "b": ("b", True, pa.bool_(), "b=true"),
        "d": ("d", Decimal("1.50"), pa.decimal128(10, 2), "d=1.50"),
        "n": ("n", -7, pa.int32(), "n=-7"),
        "x": ("x", 1.5, pa.float64(), "x=1.5"),
        "s": ("s", "a/b%{c}'\"\n", pa.string(), "s=a%2Fb%25%7Bc}%27%22%0A"),
    }
    for name, value, kind, folder in columns.values():
        table = pa.table({name: pa.array([value], kind), "k": [1]})
        assert [found for found, _ in hive.partitions(table, [name])] == [folder]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "", None, "c/d"]), st.sampled_from([1, 2, None])), max_size=40))
def test_partitions_hold_every_row_once_and_in_order(rows: list[tuple[str | None, int | None]]) -> None:
    table = pa.table(
        {"s": pa.array([r[0] for r in rows], pa.string()), "n": pa.array([r[1] for r in rows], pa.int64()), "k": range(len(rows))}
    )
    found = hive.partitions(table, ["s", "n"])
    assert [folder for folder, _ in found] == sorted({folder for folder, _ in found}, key=lambda f: f.split("/"))
    assert sorted(k for _, part in found for k in part["k"].to_pylist()) == list(range(len(rows)))
    for folder, part in found:
        keys = part["k"].to_pylist()
        assert keys == sorted(keys)
        wanted = [f"s={(s or hive.NULL).replace('/', '%2F')}/n={hive.NULL if n is None else n}" for s, n in (rows[k] for k in keys)]
        assert set(wanted) == {folder}


async def test_a_folder_name_that_is_too_long_is_a_bad_record_and_nothing_is_written(tmp_path: Path) -> None:
    table = pa.table({"p": ["a", "x" * 300], "k": [1, 2]})
    with pytest.raises(BadRecord, match="longer than 255 bytes"):
        await files(tmp_path, partition_by=["p"]).write(FIRST, table.to_reader(), "append")
    assert names(tmp_path) == []


async def test_columns_that_do_not_fit_are_faults(tmp_path: Path) -> None:
    table = pa.table({"k": [1], "l": [[1]], "i": pa.array([1], pa.duration("s")), "b": [b"x"]})
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        ({"format": "csv"}, ["k", "l"], "column l is nested"),
        ({}, ["k", "i"], "column i is an INTERVAL"),
        ({"partition_by": ["day"]}, ["k"], "partition_by names day, which is not a column"),
        ({"partition_by": ["l"]}, ["k", "l"], "column l has no text"),
        ({"partition_by": ["b"]}, ["k", "b"], "column b has no text"),
        ({"partition_by": ["k"]}, ["k"], "names every column"),
    ]
    for keys, columns, said in cases:
        with pytest.raises(InvalidJob, match=said):
            await files(tmp_path, **keys).write(FIRST, table.select(columns).to_reader(), "append")


def test_options_that_do_not_fit_together_are_faults(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"mode": "complete", "partition_by": ["a"]}, "keeps one file"),
        ({"mode": "complete", "max_rows_per_file": 5}, "keeps one file"),
        ({"format": "json", "compression": "snappy"}, "snappy is Parquet's"),
        ({"kms_key": "alias/x"}, "kms_key is S3's"),
        ({"max_rows_per_file": 0}, "greater than 0"),
        ({"format": "xml"}, "parquet"),
    ]
    for keys, said in cases:
        with pytest.raises(ValidationError, match=said):
            options(tmp_path, **keys)


@pytest.mark.parametrize(
    ("keys", "ending", "read"),
    [
        ({"compression": "zstd"}, ".parquet", "read_parquet"),
        ({"compression": "gzip"}, ".parquet", "read_parquet"),
        ({"compression": "none"}, ".parquet", "read_parquet"),
        ({"format": "json", "compression": "gzip"}, ".json.gz", "read_json"),
        ({"format": "json", "compression": "zstd"}, ".json.zst", "read_json"),
        ({"format": "csv", "compression": "gzip"}, ".csv.gz", "read_csv"),
        ({"format": "csv", "compression": "zstd"}, ".csv.zst", "read_csv"),
    ],
)
async def test_compressed_files_are_read_by_duckdb(tmp_path: Path, keys: dict[str, Any], ending: str, read: str) -> None:
    [name] = await written(tmp_path, pa.table({"k": range(1000), "s": ["a,b"] * 1000}), **keys)
    assert name.endswith(ending)
    assert duckdb.connect().sql(f"SELECT count(*), sum(k), min(s) FROM {read}('{tmp_path}/{name}')").fetchall() == [(1000, 499500, "a,b")]


async def test_parquet_times_are_microseconds_in_utc(tmp_path: Path) -> None:
    [name] = await written(tmp_path, pa.table({"t": pa.array([0], TIMESTAMP), "n": pa.array([0], pa.timestamp("us"))}))
    kinds = [str(column.logical_type) for column in pq.read_metadata(tmp_path / name).schema]
    assert ["isAdjustedToUTC=true, timeUnit=microseconds" in kinds[0], "isAdjustedToUTC=false, timeUnit=microseconds" in kinds[1]] == [
        True
    ] * 2


async def test_json_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "t": pa.array([0, 1_500_000], TIMESTAMP),
            "d": pa.array([Decimal("1.10"), None], pa.decimal128(10, 2)),
            "x": [float("nan"), 1.0],
            "b": [b"\xff", None],
            "odd \"'name": ["ü\n", None],
        }
    )
    [name] = await written(tmp_path, table, format="json")
    assert (tmp_path / name).read_text().splitlines() == [
        '{"t":"1970-01-01T00:00:00Z","d":1.10,"x":"NaN","b":"/w==","odd \\"\'name":"ü\\n"}',
        '{"t":"1970-01-01T00:00:01.500000Z","d":null,"x":1.0,"b":null,"odd \\"\'name":null}',
    ]


async def test_foreign_rows_are_named(tmp_path: Path) -> None:
    assert await files(tmp_path).foreign("c0ffee") is None
    await written(tmp_path, pa.table({"p": ["a"], "k": [1]}), partition_by=["p"])
    assert await files(tmp_path).foreign("c0ffee") is None
    said = await files(tmp_path).foreign("beef")
    assert said is not None
    assert "another checkpoint (c0ffee)" in said
    assert str(tmp_path) in said


async def test_complete_keeps_one_file(tmp_path: Path) -> None:
    sink = files(tmp_path, mode="complete", format="json")
    for epoch in (1, 2, 2, 3):
        await sink.write(replace(FIRST, epoch=epoch), pa.table({"k": [epoch]}).to_reader(), "replace")
    assert names(tmp_path) == ["_complete-c0ffee-out", "complete-c0ffee-out.json"]
    assert (tmp_path / "complete-c0ffee-out.json").read_text() == '{"k":3}\n'
    await sink.write(replace(FIRST, epoch=2), pa.table({"k": [2]}).to_reader(), "replace")
    assert (tmp_path / "complete-c0ffee-out.json").read_text() == '{"k":3}\n'
    assert "epoch 3 stays until" in (await sink.undo(replace(FIRST, epoch=1)) or "")
    await sink.write(replace(FIRST, generation=1, epoch=2), pa.table({"k": [2]}).to_reader(), "replace")
    assert (tmp_path / "complete-c0ffee-out.json").read_text() == '{"k":2}\n'
    await sink.write(replace(FIRST, generation=1, epoch=3), pa.table({"k": pa.array([], pa.int64())}).to_reader(), "replace")
    assert (tmp_path / "complete-c0ffee-out.json").read_text() == ""


class PausingStore(MemoryStore):
    """Stops before the `at`-th put until it is let go: a process that was paused there."""

    def __init__(self, at: int, objects: MemoryStore) -> None:
        super().__init__()
        self._objects = objects._objects
        self._version = 1000 * at
        self.left = at
        self.paused, self.go = asyncio.Event(), asyncio.Event()

    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        self.left -= 1
        if self.left == 0:
            self.paused.set()
            await self.go.wait()
        return await super().put(name, data, if_match=if_match, overwrite=overwrite)


@pytest.mark.parametrize("pause_at", [1, 2])
@pytest.mark.parametrize("first_exists", [False, True])
async def test_a_zombie_never_replaces_a_newer_complete_result(pause_at: int, first_exists: bool) -> None:
    store = MemoryStore()
    if first_exists:
        await complete(store, 1, "old")
    paused = PausingStore(pause_at, store)
    zombie = asyncio.create_task(complete(paused, 2, "two"))
    await paused.paused.wait()
    await complete(store, 2, "two")
    await complete(store, 3, "old")  # the same content as before: versions, not contents, must decide
    paused.go.set()
    await zombie
    assert (await store.get("complete-c0ffee-out.json")).data == b'{"k":"old"}\n'


async def complete(store: MemoryStore, epoch: int, value: str) -> None:
    sink = Files(options("memory", mode="complete", format="json"), World(), "out", store)
    await sink.write(replace(FIRST, epoch=epoch), pa.table({"k": [value]}).to_reader(), "replace")


async def test_rows_are_taken_and_encoded_in_a_thread(tmp_path: Path) -> None:
    threads = set()

    def batches() -> Iterator[pa.RecordBatch]:
        threads.add(threading.get_ident())
        yield pa.record_batch({"k": [1]})

    for keys in ({}, {"partition_by": ["k"]}):
        schema = pa.schema([("k", pa.int64()), ("v", pa.int64())])
        stream = pa.RecordBatchReader.from_batches(schema, (b.append_column("v", b["k"]) for b in batches()))
        await files(tmp_path, **keys).write(FIRST, stream, "append")
    assert threading.get_ident() not in threads


KILLED = """
import asyncio, os, signal, sys
import pyarrow as pa
from sinks.files import Files, FilesOptions
from streamproc.sink import EpochId
from streamproc.world import World
table = pa.table({"k": range(300_000)})
sink = Files(FilesOptions(type="files", path=sys.argv[1], max_rows_per_file=20_000), World(), "out")
print("go", flush=True)
asyncio.run(sink.write(EpochId("c0ffee", 0, "out", "task-0", 1, 1), table.to_reader(1000), "append"))
"""


async def test_kill_9_in_the_middle_leaves_whole_files_and_the_rest_is_added(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    for _ in range(10_000):
        if len(list(tmp_path.glob("part-*"))) >= 3 or writer.poll() is not None:
            break
        await asyncio.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    half = duckdb.connect().sql(f"SELECT count(*), count(DISTINCT k) FROM read_parquet('{tmp_path}/*.parquet')").fetchall()[0]
    assert half[0] == half[1] >= 60_000
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    await files(tmp_path, max_rows_per_file=20_000).write(FIRST, pa.table({"k": range(300_000)}).to_reader(777), "append")
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    totals = f"SELECT count(*), count(DISTINCT k), count(DISTINCT filename) FROM read_parquet('{tmp_path}/*.parquet', filename = true)"
    assert duckdb.connect().sql(totals).fetchall() == [(300_000, 300_000, 15)]
