"""The live picture of `streamproc run` on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamproc.status import ShardStatus, Status

SHARDS_SHOWN = 8
REFRESHES_PER_S = 2.0


class LivePicture:
    """Redraws the newest status in place; `show` only keeps it, so an epoch never waits for the terminal."""

    def __init__(self, console: Console) -> None:
        self._status: Status | None = None
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=REFRESHES_PER_S, transient=False)

    def show(self, status: Status) -> None:
        self._status = status

    def _picture(self) -> RenderableType:
        return render(self._status) if self._status else Text("starting", style="dim")

    def __enter__(self) -> LivePicture:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __repr__(self) -> str:
        return f"<LivePicture of {self._status.job if self._status else 'nothing yet'}>"


def render(status: Status) -> RenderableType:
    """The picture of one status: pure, so that a test can look at it on a console of fixed width."""
    return Group(_title(status), *_faults(status), _figures(status), _shards(status), _sinks(status))


def _title(status: Status) -> Text:
    lease = "lease held" if status.lease_held else f"waiting for the lease of {status.lease_owner or 'another worker'}"
    title = Text.assemble((status.job, "bold"), "  ", (lease, "green" if status.lease_held else "yellow"))
    return title.append(f"  epoch {status.epoch}  {_instant(status.now_us)}", "dim")


def _faults(status: Status) -> Iterator[Text]:
    for source, reason in sorted(status.source_faults.items()):
        yield Text(f"{source} does not answer, retrying: {reason}", style="yellow")


def _figures(status: Status) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(status):
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def _facts(status: Status) -> Iterator[tuple[str, str]]:
    yield "in", f"{count(status.rows_in_per_s)} rows/s, {size(status.bytes_in_per_s)}/s, {status.rows_in:,} rows"
    yield "out", f"{count(status.rows_out_per_s)} rows/s, {status.rows_out:,} rows"
    yield "watermark", watermark(status)
    yield "epoch", "  ".join(f"{step} {_duration(seconds)}" for step, seconds in status.steps.items()) or "none yet"
    yield "state", f"{status.state_rows:,} rows, {size(status.state_bytes)}"
    yield "refused", f"{sum(s.late for s in status.sinks):,} late, {status.dead:,} dead letters"


def _shards(status: Status) -> Table:
    """The shards that are furthest behind; the others only as a number."""
    table = _table("shard", "lag", "watermark")
    ranked = sorted(status.shards, key=lambda s: (-(s.lag or 0), s.source, s.shard))
    for shard in ranked[:SHARDS_SHOWN]:
        table.add_row(Text(f"{shard.source}/{shard.shard}"), _lag(shard), "idle" if shard.idle else _instant(shard.watermark_us))
    if len(ranked) > SHARDS_SHOWN:
        table.add_row(f"and {len(ranked) - SHARDS_SHOWN} more", "", "")
    return table


def _sinks(status: Status) -> Table:
    table = _table("sink", "rows", "late")
    for sink in status.sinks:
        table.add_row(Text(sink.name), f"{sink.rows:,}", f"{sink.late:,}")
    return table


def _table(name: str, *numbers: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(name)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def watermark(status: Status) -> str:
    """The watermark and how far it lies behind the clock."""
    if status.watermark_us is None:
        return "none yet"
    return f"{_instant(status.watermark_us)}, {_duration((status.now_us - status.watermark_us) / 1e6)} behind the clock"


def _lag(shard: ShardStatus) -> str:
    if shard.lag is None:
        return "unknown"
    return _duration(shard.lag / 1000) if shard.lag_unit == "ms" else f"{shard.lag:,}"


def _instant(at_us: int | None) -> str:
    if at_us is None:
        return "none yet"
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _duration(seconds: float) -> str:
    """Three figures and a unit: 3 ms, 1.25 s, 4 min 10 s, 3 h 5 min, 12 d 4 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    for larger, smaller, unit, sub in ((60, 1, "min", "s"), (3600, 60, "h", "min")):
        if seconds < larger * (60 if unit == "min" else 24):
            return f"{seconds // larger:.0f} {unit} {seconds % larger // smaller:.0f} {sub}"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


def count(number: float) -> str:
    """A rate in few figures: 950, 12.3 k, 1.20 M."""
    for factor, unit in ((1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in few figures: 950 B, 12.3 kB, 1.2 MB."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} B"
