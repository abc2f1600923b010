"""What `console` prints."""

import io

import pyarrow as pa
import pytest

from sinks.console import Console, ConsoleOptions
from streamproc.sink import EpochId
from streamproc.world import World

EPOCH = EpochId("c0ffee", 0, "out", "task-0", 7, 1)


async def printed(table: pa.Table, change: str = "append", rows: int = 20) -> str:
    out = io.StringIO()
    await Console(ConsoleOptions(type="console", rows=rows), World(), "out", out).write(EPOCH, table.to_reader(2), change)  # type: ignore[arg-type]
    return out.getvalue()


async def test_the_first_rows_are_shown() -> None:
    text = await printed(pa.table({"page": ["/a", "[red]", None], "n": [1, 2, 3]}), rows=2)
    assert "out, epoch 7: 3 rows, the first 2" in text
    assert "/a" in text
    assert "[red]" in text
    assert "NULL" not in text


async def test_null_is_told_from_text() -> None:
    assert "NULL" in await printed(pa.table({"page": pa.array([None, ""])}))


@pytest.mark.parametrize(("change", "shown"), [("append", False), ("upsert", False), ("replace", True)])
async def test_no_rows_are_shown_only_as_a_whole_result(change: str, shown: bool) -> None:
    text = await printed(pa.table({"page": pa.array([], pa.string())}), change)
    assert ("0 rows" in text) is shown


async def test_an_epoch_is_shown_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Console(ConsoleOptions(type="console"), World(), "out")
    await sink.write(EPOCH, pa.table({"page": ["/a"]}).to_reader(), "append")
    assert "/a" in capsys.readouterr().out
    assert await sink.undo(EPOCH) is not None
