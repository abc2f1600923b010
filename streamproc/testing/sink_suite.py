"""Every promise of a sink, as a test of its own. Subclass it and give a `place` fixture."""

from __future__ import annotations

import base64
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from streamproc.batch import TIMESTAMP
from streamproc.errors import Unavailable
from streamproc.sink import EpochId, Sink

FIRST = EpochId("c0ffee", 0, "out", "task-0", 1, 1)
ROWS = pa.schema([("k", pa.int64()), ("page", pa.string())])
Row = dict[str, Any]


class Crash(BaseException):
    """The process dies here."""


class Place(ABC):
    """Where a sink under test writes: it makes sinks over one place and reads it as anybody would."""

    @abstractmethod
    def sink(self) -> Sink:
        """A new sink over the same place, as another process would make it."""

    @abstractmethod
    async def read(self) -> list[Row]:
        """The rows that a plain reader of the place sees now; within a file or table in the order written."""

    async def totals(self) -> tuple[int, int]:
        """How many rows there are, and the sum of their `k`."""
        rows = await self.read()
        return len(rows), sum(keys(rows))

    def crash_in_write(self, at: int) -> None:
        """Let the sinks made from now on raise `Crash` at the `at`-th thing they make durable; optional."""
        pytest.skip(f"{type(self).__name__} cannot crash in the middle ({at})")

    def no_crash(self) -> None:
        """Undo `crash_in_write`."""
        return

    def down(self, away: bool) -> None:
        """Take the server away, or bring it back; optional."""
        pytest.skip(f"{type(self).__name__} cannot be taken away ({away})")


def at(epoch: int) -> EpochId:
    return replace(FIRST, epoch=epoch, now_us=epoch)


def rows_of(first: int, count: int) -> pa.Table:
    numbers = list(range(first, first + count))
    return pa.table({"k": numbers, "page": [f"/{n % 7}" for n in numbers]}, schema=ROWS)


def reader(table: pa.Table, seed: int = 0) -> pa.RecordBatchReader:
    """The rows cut into batches at random: a replay may cut them otherwise."""
    draw, cuts = random.Random(seed), [0]
    while cuts[-1] < table.num_rows:
        cuts.append(min(table.num_rows, cuts[-1] + draw.randint(1, max(1, table.num_rows // 3))))
    batches = [batch for low, high in pairwise(cuts) for batch in table.slice(low, high - low).to_batches()]
    return pa.RecordBatchReader.from_batches(table.schema, batches)


def keys(rows: list[Row]) -> list[int]:
    return [int(row["k"]) for row in rows]


class SinkConformance:
    """Subclass as `class TestMySink(SinkConformance)` with a fixture `place`: a new `Place` for each test."""

    many_rows: ClassVar[int] = 1_000_000
    ordered: ClassVar[bool] = True
    """Whether `Place.read` shows the rows of one epoch in the order they were written."""
    streams: ClassVar[bool] = True
    """Whether rows go through without being held."""

    async def test_rows_are_there_when_write_returns(self, place: Place) -> None:
        await place.sink().write(FIRST, reader(rows_of(0, 5)), "append")
        assert sorted(keys(await place.read())) == [0, 1, 2, 3, 4]

    async def test_epochs_add_up(self, place: Place) -> None:
        sink = place.sink()
        for epoch in range(1, 4):
            await sink.write(at(epoch), reader(rows_of(epoch * 10, 2)), "append")
        assert sorted(keys(await place.read())) == [10, 11, 20, 21, 30, 31]
        await sink.close()

    async def test_an_epoch_without_rows_shows_nothing(self, place: Place) -> None:
        sink = place.sink()
        await sink.write(at(1), reader(rows_of(0, 0)), "append")
        await sink.write(at(2), reader(rows_of(0, 1)), "append")
        await sink.write(at(3), reader(rows_of(0, 0)), "append")
        assert keys(await place.read()) == [0]

    async def test_the_same_id_again_writes_nothing(self, place: Place) -> None:
        await place.sink().write(FIRST, reader(rows_of(0, 100), seed=1), "append")
        before = await place.read()
        await place.sink().write(FIRST, reader(rows_of(0, 100), seed=2), "append")
        assert await place.read() == before

    async def test_other_tasks_sinks_checkpoints_and_generations_are_other_writers(self, place: Place) -> None:
        sink = place.sink()
        ids = [
            FIRST,
            replace(FIRST, task="task-1"),
            replace(FIRST, sink="late"),
            replace(FIRST, checkpoint="beef"),
            replace(FIRST, generation=1),
        ]
        ids += [replace(FIRST, sink="out-task", task="0"), replace(FIRST, task="shard/ü -1")]
        for i, epoch in enumerate(ids):
            await sink.write(epoch, reader(rows_of(i, 1)), "append")
        assert sorted(keys(await place.read())) == list(range(len(ids)))

    async def test_rows_keep_their_order(self, place: Place) -> None:
        table = rows_of(0, 1000).take(pa.array(random.Random(1).sample(range(1000), 1000)))
        await place.sink().write(FIRST, reader(table), "append")
        seen = keys(await place.read())
        expected = table["k"].to_pylist()
        assert seen == expected if self.ordered else sorted(seen) == sorted(expected)

    async def test_a_crash_anywhere_in_write_is_finished_by_the_next_try(self, place: Place) -> None:
        expected: list[int] = []
        for step in range(1, 8):
            table = rows_of(step * 100, 50)
            place.crash_in_write(step)
            with suppress(Crash):
                await place.sink().write(at(step), reader(table, seed=step), "append")
            place.no_crash()
            seen = keys(await place.read())
            assert len(set(seen)) == len(seen)
            expected += table["k"].to_pylist()
            await place.sink().write(at(step), reader(table, seed=-step), "append")
            assert sorted(keys(await place.read())) == expected

    async def test_undo_removes_later_epochs_of_that_line_only(self, place: Place) -> None:
        sink = place.sink()
        for epoch in (1, 2, 3):
            await sink.write(at(epoch), reader(rows_of(epoch, 1)), "append")
        await sink.write(replace(at(3), task="task-1"), reader(rows_of(30, 1)), "append")
        await sink.write(replace(at(3), generation=1), reader(rows_of(31, 1)), "append")
        stays = await place.sink().undo(at(1))
        left = sorted(keys(await place.read()))
        assert (left == [1, 30, 31]) if stays is None else (left == [1, 2, 3, 30, 31] and stays)
        assert sink.undoes is (stays is None)

    async def test_a_server_that_is_away_is_unavailable_and_the_same_call_works_later(self, place: Place) -> None:
        sink = place.sink()
        place.down(True)
        with pytest.raises(Unavailable):
            await sink.write(FIRST, reader(rows_of(0, 5)), "append")
        place.down(False)
        await sink.write(FIRST, reader(rows_of(0, 5)), "append")
        assert sorted(keys(await place.read())) == [0, 1, 2, 3, 4]

    async def test_many_rows_are_written_with_bounded_memory(self, place: Place) -> None:
        """Batches are made as they are taken: what Arrow holds then is less than half of all the rows."""
        start, most = pa.total_allocated_bytes(), 0
        text = pa.array(["x" * 200] * 10_000)

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal most
            for first in range(0, self.many_rows, 10_000):
                most = max(most, pa.total_allocated_bytes() - start)
                yield pa.record_batch({"k": range(first, first + 10_000), "page": pc.utf8_lower(text)}, schema=ROWS)

        await place.sink().write(FIRST, pa.RecordBatchReader.from_batches(ROWS, batches()), "append")
        assert await place.totals() == (self.many_rows, self.many_rows * (self.many_rows - 1) // 2)
        assert not self.streams or most < self.many_rows * 208 / 2

    async def test_every_type_comes_back(self, place: Place) -> None:
        table = every_type()
        await place.sink().write(FIRST, reader(table), "append")
        seen = sorted(await place.read(), key=lambda row: int(row["k"]))
        for got, wanted in zip(seen, table.to_pylist(), strict=True):
            for name, value in wanted.items():
                assert same(got[name], value), f"{name}: {got[name]!r} is not {value!r}"


def every_type() -> pa.Table:
    moment = datetime(2026, 1, 1, 12, 30, 15, 250, tzinfo=UTC)
    columns = {
        "k": pa.array([0, 1, 2]),
        "string": pa.array(["", 'a "quoted", text\nwith lines ü', None]),
        "decimal": pa.array([Decimal("12345678901234567890.123456789012345678"), Decimal("-0.10"), None], pa.decimal128(38, 18)),
        "decimal18": pa.array([Decimal("1234567890123456.78"), Decimal("-0.10"), None], pa.decimal128(18, 2)),
        "double": pa.array([0.1, float("nan"), None]),
        "infinite": pa.array([float("inf"), float("-inf"), None]),
        "float": pa.array([0.1, -1.5, None], pa.float32()),
        "boolean": pa.array([True, False, None]),
        "tiny": pa.array([-128, 127, None], pa.int8()),
        "big": pa.array([2**63 - 1, -(2**63), None]),
        "date": pa.array([date(2026, 1, 1), date(1969, 12, 31), None]),
        "timestamp": pa.array([moment.replace(microsecond=0), moment, None], TIMESTAMP),
        "ntz": pa.array([moment.replace(tzinfo=None), moment.replace(year=1969, tzinfo=None), None], pa.timestamp("us")),
        "binary": pa.array([b"\x00\xff", b"", None]),
        "nothing": pa.nulls(3, pa.string()),
    }
    return pa.table(columns)


def nested_types() -> pa.Table:
    moment = datetime(2026, 1, 1, 12, 30, 15, 250, tzinfo=UTC)
    struct = pa.struct([("at", TIMESTAMP), ("raw", pa.binary()), ("x", pa.float64()), ("d", pa.decimal128(20, 2))])
    exact = Decimal("123456789012345678.90")
    columns = {
        "k": pa.array([0, 1, 2]),
        "list": pa.array([[moment, None], [], None], pa.list_(TIMESTAMP)),
        "struct": pa.array(
            [{"at": moment, "raw": b"\xff", "x": float("nan"), "d": exact}, {"at": None, "raw": None, "x": None, "d": None}, None], struct
        ),
        "map": pa.array([[("a", 1.5)], [], None], pa.map_(pa.string(), pa.float64())),
        "deep": pa.array([[{"raw": b"a", "at": None, "x": 1.0, "d": exact}], [None], None], pa.list_(struct)),
    }
    return pa.table(columns)


def same(got: Any, wanted: Any) -> bool:
    """Equal, or the text that stands for it in a file of texts."""
    if isinstance(wanted, float):
        return got is not None and (math.isclose(float(got), wanted, rel_tol=1e-7) or (math.isnan(wanted) and math.isnan(float(got))))
    if isinstance(wanted, dict):
        return all(same(got[name], value) for name, value in wanted.items())
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], tuple):
        return all(same(dict(got)[name], value) for name, value in wanted)
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(same(*pair) for pair in zip(got, wanted, strict=True))
    return got == wanted or (wanted is not None and got is not None and _text(got) == _text(wanted))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        text = value.isoformat(timespec="microseconds" if value.microsecond else "seconds")
        return text.replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
