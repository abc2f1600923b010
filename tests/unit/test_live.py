"""The live picture on a console of fixed width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from streamproc.live import SHARDS_SHOWN, LivePicture, count, render, size, watermark
from streamproc.status import ShardStatus, SinkStatus, Status

AT_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
STATUS = Status(
    job="page-views", now_us=AT_US, lease_held=True, epoch=42, epochs=40, rows_in=1_234_567, rows_out=890,
    rows_in_per_s=520_300, bytes_in_per_s=94_000_000, rows_out_per_s=99.6, watermark_us=AT_US - 35_000_000,
    steps={"read": 0.012, "run": 0.3, "commit": 1.5}, state_rows=12_000, state_bytes=3_400_000,
    shards=(ShardStatus("clicks", "0", 10, watermark_us=AT_US - 35_000_000),
            ShardStatus("clicks", "1", 2_500, idle=True), ShardStatus("k", "a", 61_000, "ms")),
    sinks=(SinkStatus("views", 890, 3),), dead=2,
)  # fmt: skip


def picture(status: Status, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(render(status))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_render() -> None:
    assert picture(STATUS) == (
        "page-views  lease held  epoch 42  2026-01-01 00:00:00Z\n"
        "in         520 k rows/s, 94 MB/s, 1,234,567 rows\n"
        "out        100 rows/s, 890 rows\n"
        "watermark  2025-12-31 23:59:25Z, 35 s behind the clock\n"
        "epoch      read 12 ms  run 300 ms  commit 1.5 s\n"
        "state      12,000 rows, 3.4 MB\n"
        "refused    3 late, 2 dead letters\n"
        "shard           lag             watermark\n"
        "k/a       1 min 1 s              none yet\n"
        "clicks/1      2,500                  idle\n"
        "clicks/0         10  2025-12-31 23:59:25Z\n"
        "sink   rows  late\n"
        "views   890     3"
    )


def test_a_new_job_has_a_picture_too() -> None:
    text = picture(Status("new", AT_US))
    assert "waiting for the lease of another worker" in text
    assert text.count("none yet") == 2


def test_a_source_that_is_down_is_shown() -> None:
    assert "k does not answer, retrying: connection refused" in picture(Status("j", AT_US, source_faults={"k": "connection refused"}))


def test_only_the_shards_furthest_behind_are_listed() -> None:
    text = picture(Status("j", AT_US, shards=tuple(ShardStatus("s", f"n{i}", i) for i in range(SHARDS_SHOWN + 5))))
    assert "s/n12 " in text
    assert "s/n4 " not in text
    assert "and 5 more" in text


def test_markup_in_names_is_text() -> None:
    assert "[bold]x" in picture(Status("[bold]x", AT_US, sinks=(SinkStatus("a[/b]"),), source_faults={"s": "[/red]"}))


def test_the_picture_shows_the_newest_status() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    with LivePicture(console) as live:
        live.show(STATUS)
    assert "1,234,567 rows" in console.file.getvalue()


@pytest.mark.parametrize(
    ("behind_s", "text"), [(0.5, "500 ms"), (59, "59 s"), (250, "4 min 10 s"), (11_100, "3 h 5 min"), (1_051_200, "12 d 4 h")]
)
def test_durations(behind_s: float, text: str) -> None:
    assert watermark(Status("j", AT_US, watermark_us=AT_US - int(behind_s * 1e6))).endswith(f", {text} behind the clock")


def test_numbers() -> None:
    assert [count(n) for n in (0, 950, 12_340, 1_200_000)] == ["0", "950", "12.3 k", "1.2 M"]
    assert [size(n) for n in (0, 950, 12_340, 1_200_000, 5e9)] == ["0 B", "950 B", "12.3 kB", "1.2 MB", "5 GB"]
