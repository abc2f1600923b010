"""The sink contract over every implementation."""

import csv
import io
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from botocore.session import Session

from sinks.files import Files, FilesOptions
from streamproc.errors import Unavailable
from streamproc.sink import Sink
from streamproc.store import Store
from streamproc.stores import open_store
from streamproc.testing.memory_sink import MemorySink
from streamproc.testing.memory_store import MemoryStore
from streamproc.testing.sink_suite import FIRST, Crash, Place, Row, SinkConformance, nested_types, reader, same
from streamproc.world import World

Gated = Callable[[dict[str, str]], Awaitable[tuple[Any, dict[str, str]]]]
UseS3 = Callable[[dict[str, str]], str]


class MemoryPlace(Place):
    def __init__(self) -> None:
        self.memory = MemorySink()

    def sink(self) -> Sink:
        return self.memory

    async def read(self) -> list[Row]:
        return self.memory.rows()

    def crash_in_write(self, at: int) -> None:
        def crash(_epoch: object) -> None:
            raise Crash

        self.memory.on_write = crash if at % 2 else None

    def no_crash(self) -> None:
        self.memory.on_write = None

    def down(self, away: bool) -> None:
        if away:
            self.memory.fail_next("before")


class TestMemorySink(SinkConformance):
    streams = False
    many_rows = 100_000

    @pytest.fixture
    def place(self) -> Place:
        return MemoryPlace()

    async def test_a_lost_answer_doubles_nothing(self, place: MemoryPlace) -> None:
        table = pa.table({"k": [1]})
        place.memory.fail_next("after")
        with pytest.raises(Unavailable):
            await place.memory.write(FIRST, reader(table), "append")
        await place.memory.write(FIRST, reader(table), "append")
        assert place.memory.rows() == [{"k": 1}]

    async def test_keys_replace_and_deletes(self) -> None:
        sink = MemorySink(keys=("k",))
        for epoch, rows in enumerate(([(1, "a", None), (2, "b", None)], [(1, "c", None), (2, None, "delete")]), 1):
            table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("k", "v", "_op"))})
            await sink.write(FIRST.__class__("c", 0, "s", "t", epoch), reader(table), "upsert")
        assert sink.rows() == [{"k": 1, "v": "c"}]

    async def test_replace_shows_the_last_result_only(self) -> None:
        sink = MemorySink()
        for epoch in (1, 2):
            await sink.write(FIRST.__class__("c", 0, "s", "t", epoch), reader(pa.table({"k": [epoch] * epoch})), "replace")
        assert sink.rows() == [{"k": 2}, {"k": 2}]


class CrashingStore:
    """A store whose process dies at one of the files it is to create: before it, in the middle of it, or just after it."""

    def __init__(self, inner: Store, crash_at: int) -> None:
        self._inner = inner
        self._crash_at = crash_at
        self._created = 0

    async def create(self, name: str, fill: Callable[[BinaryIO], None]) -> None:
        self._created += 1
        moment = self._created * 3 - self._crash_at
        if moment == 2:
            raise Crash

        def half(file: BinaryIO) -> None:
            fill(file)
            raise Crash

        await self._inner.create(name, half if moment == 1 else fill)
        if moment == 0:
            raise Crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FilesPlace(Place):
    def __init__(self, url: str, options: dict[str, Any], store: Store | None = None) -> None:
        self.url = url
        self.options = FilesOptions.model_validate({"type": "files", "path": url} | options)
        self.store = store or open_store(url, World())
        self.crash_at = 0
        self.gate: Any = None

    def sink(self) -> Sink:
        return Files(self.options, World(), "out", self.store if not self.crash_at else CrashingStore(self.store, self.crash_at))  # type: ignore[arg-type]

    async def read(self) -> list[Row]:
        rows: list[Row] = []
        async for listed in self.store.list():
            if not listed.name.rpartition("/")[2].startswith(("_", ".")):
                folders = dict(part.split("=") for part in listed.name.split("/")[:-1])
                rows += [row | folders for row in self.decode((await self.store.get(listed.name)).data)]
        return rows

    async def totals(self) -> tuple[int, int]:
        if self.options.format == "parquet":
            names = [listed.name async for listed in self.store.list()]
            columns = [pq.read_table(pa.BufferReader((await self.store.get(name)).data), columns=["k"])["k"] for name in names]
            return sum(map(len, columns)), sum(pc.sum(column).as_py() for column in columns)
        if "://" in self.url:
            return await super().totals()
        ending = self.options.format
        source = {"parquet": "read_parquet", "json": "read_json", "csv": "read_csv"}[ending]
        [(count, total)] = duckdb.connect().sql(f"SELECT count(*), sum(k) FROM {source}('{self.url}/**/*.{ending}')").fetchall()
        return count, total

    def decode(self, data: bytes) -> list[Row]:
        if self.options.format == "parquet":
            return pq.read_table(pa.BufferReader(data)).to_pylist()
        if self.options.format == "json":
            return [json.loads(line, parse_float=Decimal) for line in data.decode().splitlines()]
        names = next(csv.reader(io.StringIO(data.decode())))
        how = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=False
        )
        lines = pa_csv.ParseOptions(newlines_in_values=True)
        return pa_csv.read_csv(pa.BufferReader(data), parse_options=lines, convert_options=how).to_pylist()

    def crash_in_write(self, at: int) -> None:
        self.crash_at = at

    def no_crash(self) -> None:
        self.crash_at = 0

    def down(self, away: bool) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.down = away
        elif self.gate:
            self.gate.shut = away
            self.gate.close_all()
        else:
            pytest.skip("a disk is not taken away")


class TestParquetOnDisk(SinkConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return FilesPlace(str(tmp_path), {})

    async def test_nested_types_come_back(self, place: Place) -> None:
        await check_nested(place)


class TestJsonOnDisk(SinkConformance):
    many_rows = 300_000

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return FilesPlace(str(tmp_path), {"format": "json"})

    async def test_nested_types_come_back(self, place: Place) -> None:
        await check_nested(place)


class TestCsvOnDisk(SinkConformance):
    many_rows = 300_000

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return FilesPlace(str(tmp_path), {"format": "csv"})


class TestManyFilesOnDisk(SinkConformance):
    many_rows = 100_000
    streams = False  # a hundred thousand rows are less than a row group

    @pytest.fixture
    def place(self, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
        return FilesPlace(str(tmp_path), {"max_rows_per_file": 40_000 if "many_rows" in request.node.name else 17})


class TestPartitionsOnDisk(SinkConformance):
    many_rows = 100_000
    streams = False
    ordered = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return FilesPlace(str(tmp_path), {"partition_by": ["page"], "format": "json"})

    @pytest.mark.skip(reason="test_sink_files.py shows the text of partition values")
    async def test_every_type_comes_back(self, place: Place) -> None: ...


class TestParquetInMemory(SinkConformance):
    many_rows = 100_000
    streams = False  # the store holds it

    @pytest.fixture
    def place(self) -> Place:
        return FilesPlace("memory://", {"max_rows_per_file": 50_000}, MemoryStore())


class TestParquetInS3(SinkConformance):
    @pytest.fixture
    async def place(self, use_s3: UseS3, ministack_environment: dict[str, str], gated: Gated) -> Place:
        return await behind_a_gate(use_s3, ministack_environment, gated)


class TestJsonPartitionsInS3(SinkConformance):
    many_rows = 50_000
    streams = False
    ordered = False

    @pytest.fixture
    def place(self, use_s3: UseS3, ministack_environment: dict[str, str]) -> Place:
        return FilesPlace(use_s3(ministack_environment), {"partition_by": ["page"], "format": "json", "compression": "none"})

    @pytest.mark.skip(reason="test_sink_files.py shows the text of partition values")
    async def test_every_type_comes_back(self, place: Place) -> None: ...


@pytest.mark.s3
class TestParquetInVersitygw(SinkConformance):
    @pytest.fixture
    async def place(self, use_s3: UseS3, versitygw_environment: dict[str, str], gated: Gated) -> Place:
        return await behind_a_gate(use_s3, versitygw_environment, gated)


async def behind_a_gate(use_s3: UseS3, environment: dict[str, str], gated: Gated) -> Place:
    gate, through = await gated(environment)
    place = FilesPlace(use_s3(through), {})
    place.gate = gate
    return place


async def test_objects_are_encrypted_with_the_key(use_s3: UseS3, ministack_environment: dict[str, str]) -> None:
    url = use_s3(ministack_environment)
    await Files(FilesOptions(type="files", path=url, kms_key="alias/lake"), World(), "out").write(
        FIRST, pa.table({"k": [1]}).to_reader(), "append"
    )
    client = Session().create_client("s3", endpoint_url=ministack_environment["AWS_ENDPOINT_URL"])
    bucket, prefix = url.removeprefix("s3://").split("/")
    [found] = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    head = client.head_object(Bucket=bucket, Key=found["Key"])
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/lake")


async def check_nested(place: Place) -> None:
    table = nested_types()
    await place.sink().write(FIRST, reader(table), "append")
    for got, wanted in zip(await place.read(), table.to_pylist(), strict=True):
        for name, value in wanted.items():
            assert same(got[name], value), f"{name}: {got[name]!r} is not {value!r}"
