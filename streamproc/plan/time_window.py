"""`window(ts, size[, slide[, offset]])`, `cumulate_window` and `session_window` in SQL → a window of windows/ and the SQL of its time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from streamproc import registry
from streamproc.batch import TIMESTAMP
from streamproc.options import duration_us
from streamproc.plan.casts import convert
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.functions.windows import last_moment
from streamproc.plan.relation import RelationScope, Time
from streamproc.plan.types import INTERVAL, STRING, WINDOW_TYPE, Sql, is_interval
from streamproc.window import Window


@dataclass(frozen=True)
class TimeWindow:
    """`text` is SQL of an instant over the input rows; `time`: what it says of event time, None if that has no watermark.
    Either fixed windows, or sessions with `end`, SQL of the instant up to which a row's own session reaches.
    """

    text: str
    time: Time | None
    window: Window | None = None
    end: str = ""

    @property
    def length_us(self) -> int | None:
        return self.window.length_us if self.window else None


WINDOWS = frozenset({"window", "session_window", "cumulate_window"})


def is_window(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in WINDOWS


def column_of(node: exp.Expr) -> str:
    """The column that a window's call makes."""
    return "session_window" if node.name.lower() == "session_window" else "window"


def read_window(scope: RelationScope, node: exp.Expr, time_zone: str) -> TimeWindow:
    """The window of a call; LocatedError or RefusedError if it cannot be."""
    name, compiler = node.name.lower(), Compiler(scope)
    least, most = {"window": (2, 4), "session_window": (2, 2), "cumulate_window": (3, 3)}[name]
    if not least <= len(node.expressions) <= most:
        raise LocatedError(_ARGUMENTS[name], node)
    over, *durations = node.expressions
    value, time = _instant(compiler, scope, over)
    if name == "session_window":
        return TimeWindow(value.text, time, end=_session_end(compiler, value, durations[0]))
    try:
        if name == "cumulate_window":
            window = registry.cumulate_window(*(_duration(d, name) for d in durations))
        else:
            window = registry.window([_duration(d, name) for d in durations])
    except ValueError as error:
        raise LocatedError(str(error), node) from None
    return TimeWindow(value.text, time, registry.in_zone(window, time_zone))


_ARGUMENTS = {
    "window": "window() takes a time, a size, then optionally a slide and an offset",
    "session_window": "session_window() takes a time and a gap",
    "cumulate_window": "cumulate_window() takes a time, a step and a size",
}


def _instant(compiler: Compiler, scope: RelationScope, node: exp.Expr) -> tuple[Sql, Time | None]:
    """The time that a window is over. Of a window it is its last moment."""
    value, time = compiler.compile(node), scope.time_of(node)
    if value.type == WINDOW_TYPE:
        return last_moment(value), time and replace(time, kind="event")
    return convert(value, TIMESTAMP), time


def window_value(found: TimeWindow) -> Sql:
    """SQL of a row's window as a value; where a time has several, it makes a row for each (`unnest`)."""
    window = found.window
    if window is None:
        raise RefusedError("a session is not known row by row; GROUP BY session_window(…) and select its column")
    time = f"epoch_us({found.text})"
    if window.single:
        return Sql(_window_struct(window, window.assign_one(time)), WINDOW_TYPE)
    keys = f"list_transform({window.assign(time)}, lambda _k: {_window_struct(window, '_k')})"
    return Sql(f"unnest({keys})", WINDOW_TYPE)


def _window_struct(window: Window, key: str) -> str:
    return f"{{'start': make_timestamptz({window.begin(key)}), 'end': make_timestamptz({window.end(key)})}}"


def _session_end(compiler: Compiler, start: Sql, gap: exp.Expr) -> str:
    """SQL of `start + gap`; the gap is a literal, or an expression of the row that is an interval or its text."""
    if isinstance(gap, exp.Literal | exp.Interval):
        length_us = _duration(gap, "session_window")
        if length_us <= 0:
            raise LocatedError(f"the gap of session_window must be above 0, not {length_us} µs", gap)
        return f"make_timestamptz(epoch_us({start.text}) + {length_us})"
    value = compiler.compile(gap)
    if value.type == STRING:
        return f"({start.text} + CAST({value.text} AS INTERVAL))"
    if not is_interval(value.type) or getattr(value.type, "is_months", False):
        raise LocatedError("the gap of session_window is an interval of days or less, or its text: '5 minutes'", gap)
    return f"({start.text} + {value.text})" if value.type == INTERVAL else f"make_timestamptz(epoch_us({start.text}) + {value.text})"


def _duration(node: exp.Expr, name: str) -> int:
    if isinstance(node, exp.Interval):
        return duration_us(f"{node.this.name} {node.args['unit'].name if node.args.get('unit') else ''}".lower())
    if isinstance(node, exp.Literal) and node.is_string:
        return duration_us(node.name)
    raise LocatedError(f"the durations of {name}() are literals: '10 minutes'", node)
