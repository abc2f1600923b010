"""Functions of windows as values."""

from __future__ import annotations

from collections.abc import Mapping

from streamproc.batch import TIMESTAMP
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import WINDOW_TYPE, Sql


def last_moment(window: Sql) -> Sql:
    """The last microsecond of a window, by which it can be windowed again."""
    return Sql(f"make_timestamptz(epoch_us(struct_extract({window.text}, 'end')) - 1)", TIMESTAMP)


def _window_time(call: Call) -> Sql:
    call.expect(1)
    if call[0].type != WINDOW_TYPE:
        raise call.misfit()
    return last_moment(call[0])


FUNCTIONS: Mapping[str, Builder] = {"window_time": _window_time}
