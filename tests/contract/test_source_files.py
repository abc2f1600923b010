"""The files source keeps the promises of sources; files are read once, whole and in an order that a replay repeats."""

import asyncio
import gzip
import itertools
import os
import shutil
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

from sources.files import RECENT, Files, Progress, _FilesReader
from streamproc.clients.folders import File
from streamproc.clock import SystemClock
from streamproc.errors import BadRecord, Unavailable
from streamproc.offset import EARLIEST, Start
from streamproc.source import Reader, Source
from streamproc.testing.gate import Gate
from streamproc.testing.ministack import CREDENTIALS, Ministack
from streamproc.testing.source_suite import SourceConformance, SourceHarness, drain, offsets, replay, values
from streamproc.world import World


class AheadClock(SystemClock):
    """The machine's clock, ten seconds on: every file of a test has settled when it is written, and no listing is waited for."""

    def now_us(self) -> int:
        return super().now_us() + 10_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def monotonic_s(self) -> float:
        return super().monotonic_s() * 1000


NUMBERS = itertools.count()
WORLD = World(clock=AheadClock())


def files(path: Path | str, **keys: Any) -> Files:
    return Files(Files.Options(path=str(path), **keys), WORLD, "lake")


class FilesHarness(SourceHarness):
    """One shard; every put is a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    async def source(self) -> Source:
        return files(self.folder)

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        rows = [b'{"row": %d}' % i for i in range(self.made, self.made + count)]
        self.made += count
        write(self.folder / f"part-{self.made:04}.json", rows)
        await asyncio.sleep(0.01)  # the file system's clock ticks every few milliseconds
        return rows

    async def now_us(self) -> int:
        now_us = SystemClock().now_us()
        await asyncio.sleep(0.01)
        return now_us


def write(path: Path, rows: Sequence[bytes], end: bytes = b"\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".tmp-{path.name}")
    hidden.write_bytes(b"".join(row + end for row in rows))
    hidden.rename(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


class TestFiles(SourceConformance):
    @pytest.fixture
    async def harness(self, folder: Path) -> SourceHarness:
        return FilesHarness(folder)


class BucketHarness(SourceHarness):
    """The same over S3, behind a gate."""

    def __init__(self, url: str, gate: Gate, store: Any) -> None:
        self.url, self.gate, self.store = url, gate, store
        self.made = 0

    async def source(self) -> Source:
        return files(self.url)

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        rows = [b'{"row": %d}' % i for i in range(self.made, self.made + count)]
        self.made += count
        await obstore.put_async(self.store, f"in/part-{self.made:04}.json", b"\n".join(rows))
        return rows

    async def stop(self) -> None:
        await self.gate.shut()

    async def start(self) -> None:
        await self.gate.open()


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as server:
        yield server


class TestFilesOnS3(SourceConformance):
    @pytest.fixture
    async def harness(self, ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SourceHarness]:
        gate = await Gate(ministack.port).open()
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": gate.endpoint_url}.items():
            monkeypatch.setenv(name, value)
        bucket = f"lake-{next(NUMBERS)}"
        put = urllib.request.Request(f"{ministack.endpoint_url}/{bucket}", method="PUT")
        await asyncio.to_thread(lambda: urllib.request.urlopen(put).close())
        store = S3Store(bucket, endpoint=ministack.endpoint_url, client_options={"allow_http": True}, region="us-east-1")
        yield BucketHarness(f"s3://{bucket}/in/", gate, store)
        await gate.shut()


async def opened(source: Source, after: str | None = None) -> Reader:
    (shard,) = await source.shards()
    return await source.open(shard, after or await source.position(shard, EARLIEST))


async def read_all(source: Source, rows: int) -> list[bytes]:
    return values(await drain(await opened(source), rows))


async def test_files_that_are_there_come_by_name(folder: Path) -> None:
    for name in ("c.json", "a.json", "sub/b.json", "day=2/a.json", "day=10/a.json"):
        write(folder / name, [name.encode()])
    assert await read_all(files(folder), 5) == [b"a.json", b"c.json", b"day=10/a.json", b"day=2/a.json", b"sub/b.json"]


async def test_files_may_come_by_time(folder: Path) -> None:
    for name in ("c.json", "a.json", "b.json"):
        write(folder / name, [name.encode()])
        await asyncio.sleep(0.01)
    assert await read_all(files(folder, order="modified"), 3) == [b"c.json", b"a.json", b"b.json"]


async def test_a_file_that_appears_later_is_read_whatever_its_name(folder: Path) -> None:
    write(folder / "m.json", [b"m"])
    reader = await opened(files(folder))
    first = await drain(reader, 1)
    for name in ("a.json", "z.json", "b.json"):
        write(folder / name, [name.encode()])
    assert sorted(values(await drain(reader, 3))) == [b"a.json", b"b.json", b"z.json"]
    again = await drain(await opened(files(folder), first[-1].end), 3)
    assert sorted(values(again)) == [b"a.json", b"b.json", b"z.json"]
    assert values(await drain(await opened(files(folder), again[-1].end))) == []


async def test_a_file_moved_in_is_new_though_its_contents_are_old(folder: Path) -> None:
    for i in range(3):
        write(folder / f"m{i}.json", [b"m%d" % i])
    reader = await opened(files(folder))
    await drain(reader, 3)
    old = folder.parent / "old.json"
    old.write_bytes(b"old\n")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    await asyncio.sleep(0.01)
    old.rename(folder / "a.json")
    assert values(await drain(reader, 1)) == [b"old"]


async def test_hidden_and_empty_files_are_not_there(folder: Path) -> None:
    for name in (".hidden.json", "_SUCCESS", ".tmp-1", "_delta/a.json", ".b/a.json"):
        write(folder / name, [b"no"])
    write(folder / "empty.json", [])
    write(folder / "a.json", [b"yes"])
    assert await read_all(files(folder), 1) == [b"yes"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.json", ["a.json"]), ("**/*.json", ["a.json", "x/b.json", "x/y/c.json"]), ("x/?.json", ["x/b.json"]), ("[!b]*", ["a.json"]),
     ("x/**", ["x/b.json", "x/d.txt", "x/y/c.json"])],
)  # fmt: skip
async def test_a_path_may_be_a_glob(folder: Path, pattern: str, found: list[str]) -> None:
    for name in ("a.json", "x/b.json", "x/y/c.json", "x/d.txt"):
        write(folder / name, [name.encode()])
    assert await read_all(files(f"{folder}/{pattern}"), len(found)) == [name.encode() for name in found]


async def test_a_path_may_be_one_file(folder: Path) -> None:
    write(folder / "a.json", [b"one", b"two"])
    assert await read_all(files(folder / "a.json"), 2) == [b"one", b"two"]


async def test_a_folder_may_be_made_later(folder: Path) -> None:
    source = files(folder / "later")
    reader = await opened(source)
    assert (await reader.read()).at_end
    write(folder / "later" / "a.json", [b"a"])
    assert values(await drain(reader, 1)) == [b"a"]


async def test_lines_end_with_lf_or_crlf_and_the_last_with_nothing(folder: Path) -> None:
    (folder / "a.json").write_bytes(b"one\r\ntwo\n\r\n\nthree")
    assert await read_all(files(folder), 3) == [b"one", b"two", b"three"]
    assert await read_all(files(folder, format="raw"), 5) == [b"one", b"two", b"", b"", b"three"]


async def test_compressed_files_are_known_by_their_suffix(folder: Path) -> None:
    (folder / "a.json.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    (folder / "b.json.zst").write_bytes(pa.compress(b"three\n", "zstd", asbytes=True))
    assert await read_all(files(folder), 3) == [b"one", b"two", b"three"]


async def test_a_broken_file_is_a_bad_record_that_names_it(folder: Path) -> None:
    (folder / "a.json.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    with pytest.raises(BadRecord, match=r"source lake, shard 0: .*a\.json\.gz"):
        await read_all(files(folder), 1)


async def test_the_header_of_a_csv_file_is_no_record(folder: Path) -> None:
    write(folder / "a.csv", [b"user,page", b"u,/a", b"v,/b"])
    source = files(folder, format="csv", csv={"header": True})
    chunks = await drain(await opened(source), 2)
    assert values(chunks) == [b"u,/a", b"v,/b"]
    assert values(await drain(await opened(source, offsets(chunks)[0]), 1)) == [b"v,/b"]


async def test_large_files_come_in_chunks(folder: Path) -> None:
    rows = [b"%d" % i * 20 for i in range(150_000)]
    write(folder / "a.json", rows)
    source = files(folder)
    start = await source.position((await source.shards())[0], EARLIEST)
    chunks = await drain(await opened(source, start), len(rows))
    assert values(chunks) == rows
    assert max(c.rows.num_rows for c in chunks) <= 65_536
    at = offsets(chunks)
    for cut in (0, 65_535, 65_536, 100_001):
        assert values(await replay(await opened(source, at[cut]), at[cut + 7])) == rows[cut + 1 : cut + 8]


async def test_parquet_files_come_as_columns(folder: Path) -> None:
    pq.write_table(pa.table({"n": pa.array(range(10), pa.int32()), "x": ["a"] * 10}), folder / "a.parquet", row_group_size=3)
    source = files(folder, format="parquet", schema="n BIGINT, missing STRING")
    chunks = await drain(await opened(source), 10)
    table = pa.Table.from_batches([c.rows for c in chunks if c.rows.num_rows])
    assert table.column("n").to_pylist() == list(range(10))
    assert (table.schema.field("n").type, table.column("missing").null_count) == (pa.int64(), 10)
    at = offsets(chunks)
    rest = await drain(await opened(source, at[4]), 5)
    assert [n for c in rest for n in c.rows["n"].to_pylist()] == [5, 6, 7, 8, 9]


async def test_a_parquet_file_that_does_not_fit_is_a_bad_record(folder: Path) -> None:
    pq.write_table(pa.table({"n": ["text"]}), folder / "a.parquet")
    with pytest.raises(BadRecord, match=r"a\.parquet.*'n'"):
        await drain(await opened(files(folder, format="parquet", schema="n BIGINT")), 1)


async def test_replays_over_many_files_repeat_the_order_though_others_came_since(folder: Path) -> None:
    for name in ("b", "d", "a"):
        write(folder / f"{name}.json", [f"{name}{i}".encode() for i in range(2)])
    source = files(folder)
    start = await source.position((await source.shards())[0], EARLIEST)
    reader = await opened(source, start)
    chunks = await drain(reader, 6)
    await asyncio.sleep(0.01)
    write(folder / "c.json", [b"c0"])
    chunks += await drain(reader, 1)
    at, expected = offsets(chunks), values(chunks)
    await asyncio.sleep(0.01)
    write(folder / "0.json", [b"late"])
    ends = [c.end for c in chunks if c.rows.num_rows]
    for i, after in enumerate([start, *at]):
        for j, until in enumerate(at[i:], i):
            assert values(await replay(await opened(source, after), until)) == expected[i : j + 1]
    seen = 0
    for chunk, end in zip([c for c in chunks if c.rows.num_rows], ends, strict=True):
        seen += chunk.rows.num_rows
        assert values(await replay(await opened(source, start), end)) == expected[:seen]


async def test_a_replay_over_more_files_than_a_position_names(folder: Path) -> None:
    count = RECENT * 2
    for i in range(count):
        write(folder / f"{i:03}.json", [b"%d" % i])
    source = files(folder)
    start = await source.position((await source.shards())[0], EARLIEST)
    chunks = await drain(await opened(source, start), count)
    for until in (offsets(chunks)[-1], chunks[-1].end):
        assert values(await replay(await opened(source, start), until)) == values(chunks)
    shutil.copy2(folder / "002.json", folder / "002b.json")
    os.utime(folder / "002b.json", (1, 1))
    (folder / "040.json").unlink()
    with pytest.raises(BadRecord, match="is not now, or has changed"):
        await replay(await opened(source, start), chunks[-1].end)


async def test_a_file_that_came_since_is_noticed_in_a_long_replay(folder: Path) -> None:
    def listed(names: Sequence[str]) -> list[File]:
        return [File(name, 5_000_000, f"{int(name):016x}") for name in names]

    source = files(folder)
    start = Progress(9_000_000, (-1, ""), -1)
    names = [f"{i:03}" for i in range(0, RECENT * 6, 2)]
    goal = start
    for each in listed(names):
        goal = read(goal, each)
    for extra in ("003", f"{RECENT * 4 - 1:03}"):
        reader = _FilesReader(source, start)
        there = listed(sorted([*names, extra]))
        source.folder.files = lambda there=there: there  # type: ignore[method-assign, misc]
        with pytest.raises(BadRecord):
            while reader._progress.count < goal.count:
                reader._progress = read(reader._progress, await reader._next_of(goal))


@pytest.mark.parametrize("change", ["remove", "replace"])
@pytest.mark.parametrize("name", ["a.json", "b.json"])
async def test_a_replay_whose_files_are_gone_stops(folder: Path, change: str, name: str) -> None:
    for each in ("a.json", "b.json"):
        write(folder / each, [b"1", b"2", b"3"])
    source = files(folder)
    start = await source.position((await source.shards())[0], EARLIEST)
    at = offsets(await drain(await opened(source, start), 6))
    (folder / name).unlink()
    if change == "replace":
        write(folder / name, [b"other"])
    with pytest.raises(BadRecord, match="source lake, shard 0"):
        await replay(await opened(source, start), at[4])
    if name == "b.json":
        with pytest.raises(BadRecord, match=r"b\.json was removed or replaced"):
            await drain(await opened(source, at[3]))


async def test_no_more_files_are_begun_than_an_epoch_may_have(folder: Path) -> None:
    for i in range(5):
        write(folder / f"{i}.json", [b"%d" % i])
    source = files(folder, max_files_per_epoch=2)
    reader = await opened(source)
    chunks = [await reader.read() for _ in range(6)]
    assert values(chunks) == [b"0", b"1"]
    assert not any(c.at_end for c in chunks)
    await source.tell({"0": chunks[-1].end})
    assert values([await reader.read() for _ in range(6)]) == [b"2", b"3"]


async def test_an_outage_between_files_changes_no_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        write(folder / f"{i}.json", [b"%d" % i])
    source = files(folder)
    reader = await opened(source)
    read = values([await reader.read()])
    with monkeypatch.context() as patched:
        patched.setattr(source.folder, "open", away)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await reader.read()
    assert read + values(await drain(reader, 3)) == [b"0", b"1", b"2", b"3"]


def away(name: str) -> None:
    raise Unavailable(name)


async def test_a_start_time_is_of_the_files(folder: Path) -> None:
    write(folder / "b.json", [b"old"])
    await asyncio.sleep(0.02)
    now_us = SystemClock().now_us()
    await asyncio.sleep(0.02)
    write(folder / "a.json", [b"new"])
    for order in ("name", "modified"):
        source = files(folder, order=order)
        after = await source.position((await source.shards())[0], Start("timestamp", now_us))
        assert values(await drain(await opened(source, after), 1)) == [b"new"]


def file(name: str, time_s: float) -> File:
    return File(name, round(time_s * 1e6), f"{abs(hash(name)):016x}"[:16])


def read(progress: Progress, each: File, order: str = "name") -> Progress:
    return progress.begun(each, order).finished(each)


def test_a_position_is_a_few_hundred_bytes_however_many_files_were_read() -> None:
    progress = Progress(-1, (-1, ""), -1)
    for i in range(1000):
        progress = read(progress, file(f"day=2026-01-01/part-{i:06}.parquet", 1_767_225_600 + i))
    assert len(progress.position()) < 900
    assert Progress.parse(progress.position()) == progress


def test_new_files_come_by_second_and_within_it_by_name() -> None:
    progress = Progress(9_000_000, (-1, ""), -1)
    listed = [file("z", 1), file("b", 8), file("c", 20.1), file("a", 20.9), file("0", 21)]
    assert [f.name for f in progress.unread(listed, "name")] == ["b", "z", "a", "c", "0"]
    assert [f.name for f in progress.unread(listed, "modified")] == ["z", "b", "c", "a", "0"]


def test_a_file_waits_until_none_can_come_before_it() -> None:
    progress = Progress(9_000_000, (-1, ""), -1)
    assert progress.settled(file("a", 5), "name", 0)
    assert not progress.settled(file("a", 20.5), "name", 20_900_000)
    assert progress.settled(file("a", 20.5), "name", 21_000_000)
    assert progress.settled(file("a", 20.5), "modified", 20_500_000)


def test_an_object_that_appears_late_is_read_while_few_younger_ones_were() -> None:
    progress = Progress(-1, (-1, ""), -1)
    listed = [file(f"{i:03}", 100 + i) for i in range(RECENT + 5)]
    for each in listed:
        progress = read(progress, each)
    late, too_late = file("late", 100 + RECENT), file("too-late", 102)
    assert progress.unread([*listed, late, too_late], "name") == [late]
    assert read(progress, late).unread([*listed, late], "name") == []
