"""Names in a job file → classes, by dotted name: the one place that knows which connectors exist.

A connector is added by one line here. Nothing is imported before it is named by a job.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from streamproc.errors import Bug
from streamproc.window import MergingWindow, Window

if TYPE_CHECKING:
    from streamproc.bounded import TableOptions
    from streamproc.options import SinkOptions, SourceOptions

SOURCES: dict[str, str] = {
    "kinesis": "sources.kinesis:Kinesis",
    "kafka": "sources.kafka:Kafka",
    "faust": "sources.faust:Faust",
    "files": "sources.files:Files",
    "generator": "sources.generator:Generator",
}
TABLES: dict[str, str] = {
    "files": "sources.bounded_files:BoundedFiles",
}
"""Bounded tables."""
SINKS: dict[str, str] = {
    "files": "sinks.files:Files",
    "console": "sinks.console:Console",
    "faust": "sinks.faust:Faust",
}
DAY_US = 86_400_000_000

WINDOWS: dict[str, tuple[str, ...]] = {
    "window": ("windows.tumbling:Tumbling", "windows.sliding:Sliding"),  # for equal size and slide, and for the rest
    "session_window": ("windows.session:Session",),
    "cumulate_window": ("windows.cumulate:Cumulate",),
}
"""SQL function → its classes."""


def source_class(kind: str) -> Any:
    """The Source class of a `type`; KeyError if there is none, ImportError if its extra is not installed."""
    return _load(SOURCES[kind])


def table_class(kind: str) -> Any:
    """The BoundedTable class of a `type`; KeyError if there is none, ImportError if its extra is not installed."""
    return _load(TABLES[kind])


def sink_class(kind: str) -> Any:
    """The Sink class of a `type`; KeyError if there is none, ImportError if its extra is not installed."""
    return _load(SINKS[kind])


def source_options(kind: str) -> type[SourceOptions]:
    """The keys that a source of this `type` takes."""
    return source_class(kind).Options  # type: ignore[no-any-return]  # the connectors' convention


def table_options(kind: str) -> type[TableOptions]:
    """The keys that a bounded table of this `type` takes."""
    return table_class(kind).Options  # type: ignore[no-any-return]  # the connectors' convention


def sink_options(kind: str) -> type[SinkOptions]:
    """The keys that a sink of this `type` takes."""
    return sink_class(kind).Options  # type: ignore[no-any-return]  # the connectors' convention


def window(durations_us: list[int]) -> Window:
    """The window of `window(ts, size[, slide[, offset]])`, durations in µs; ValueError says what does not fit (Spark's rules)."""
    if not 1 <= len(durations_us) <= 3:
        raise ValueError("window() takes a size, then optionally a slide and an offset")
    size, slide, offset = (*durations_us, durations_us[0], 0)[:3] if len(durations_us) == 1 else (*durations_us, 0)[:3]
    tumbling, sliding = WINDOWS["window"]
    if size == slide:
        return _load(tumbling)(size, offset)  # type: ignore[no-any-return]  # the connectors' convention
    return _load(sliding)(size, slide, offset)  # type: ignore[no-any-return]


def cumulate_window(step_us: int, size_us: int) -> Window:
    """The windows of `cumulate_window(ts, step, size)`; ValueError says what does not fit."""
    return _load(*WINDOWS["cumulate_window"])(step_us, size_us)  # type: ignore[no-any-return]


def session_window() -> MergingWindow:
    """The rule of `session_window(ts, gap)`."""
    return _load(*WINDOWS["session_window"])()  # type: ignore[no-any-return]


def in_zone(window: Window, time_zone: str) -> Window:
    """Windows that begin by the day do so at midnight of the job's time zone; the others are the same in every zone."""
    if time_zone == "UTC" or window.step_us % DAY_US:
        return window
    return _load("windows.zoned:Zoned")(window, time_zone)  # type: ignore[no-any-return]


def _load(dotted: str) -> Any:
    module, _, name = dotted.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise Bug(f"registry names {dotted}, which does not exist") from error
