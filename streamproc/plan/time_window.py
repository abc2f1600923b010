"""`window(ts, size[, slide[, offset]])` in SQL → a `Window` of windows/ and the SQL of its time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from streamproc import registry
from streamproc.batch import TIMESTAMP
from streamproc.options import duration_us
from streamproc.plan.casts import convert
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.relation import RelationScope, Time
from streamproc.window import Window

_LATER = {
    "session_window": "session_window is not supported yet; use window(ts, '5 minutes') and join the sessions where the table is read",
    "cumulate_window": "cumulate_window is not supported yet; use window(ts, step) and sum up where the table is read",
}


@dataclass(frozen=True)
class TimeWindow:
    """`text` is SQL of an instant over the input rows; `time`: what it says of event time, None if that has no watermark."""

    window: Window
    text: str
    time: Time | None


def is_window(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in ("window", *_LATER)


def read_window(scope: RelationScope, node: exp.Expr) -> TimeWindow:
    """The window of a call; LocatedError or RefusedError if it cannot be."""
    name = node.name.lower()
    if name in _LATER:
        raise RefusedError(_LATER[name])
    if not 2 <= len(node.expressions) <= 4:
        raise LocatedError("window() takes a time, a size, then optionally a slide and an offset", node)
    time, *durations = node.expressions
    value = convert(Compiler(scope).compile(time), TIMESTAMP)
    try:
        window = registry.window(name, [_duration(d) for d in durations])
    except ValueError as error:
        raise LocatedError(str(error), node) from None
    return TimeWindow(window, value.text, scope.time_of(time))


def _duration(node: exp.Expr) -> int:
    if isinstance(node, exp.Interval):
        return duration_us(f"{node.this.name} {node.args['unit'].name if node.args.get('unit') else ''}".lower())
    if isinstance(node, exp.Literal) and node.is_string:
        return duration_us(node.name)
    raise LocatedError("the durations of window() are literals: '10 minutes'", node)
