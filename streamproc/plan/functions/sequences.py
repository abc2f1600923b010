"""sequence(start, stop[, step]) of whole numbers, dates and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan import intervals, zone
from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Call
from streamproc.plan.types import BIGINT, DATE, AnsiInterval, Sql, bound, duck_type, fail, is_integral, is_time

_WRONG = "sequence(): the step leads away from the stop"
_DAY_US = intervals.DAY_US


def _sequence(call: Call) -> Sql:
    call.expect(2, 3)
    if is_integral(call[0].type):
        return _numbers(call)
    if not all(is_time(v.type) for v in call.values[:2]):
        raise call.misfit()
    return _times(call)


def _numbers(call: Call) -> Sql:
    """The stop is in it. Without a step by 1 towards the stop."""
    if not all(is_integral(v.type) for v in call.values):
        raise call.misfit(1)
    start, stop, *_ = unify(call.values)
    values = {"s": convert(start, BIGINT).text, "e": convert(stop, BIGINT).text}
    values["k"] = convert(call[2], BIGINT).text if len(call) == 3 else f"(CASE WHEN {values['s']} <= {values['e']} THEN 1 ELSE -1 END)"
    kind = pa.list_(start.type)
    made = "CASE WHEN @k = 0 THEN [@s] ELSE generate_series(@s, @e, @k) END"
    return Sql(f"CAST({bound(values, _guarded(made, 'BIGINT[]'))} AS {duck_type(kind)})", kind)


def _guarded(made: str, kind: str) -> str:
    fits = "(@k > 0 AND @s <= @e) OR (@k < 0 AND @s >= @e) OR (@k = 0 AND @s = @e)"
    missing = "@s IS NULL OR @e IS NULL OR @k IS NULL"
    return f"CASE WHEN {missing} THEN NULL WHEN {fits} THEN {made} ELSE CAST({fail(_WRONG)} AS {kind}) END"


def _times(call: Call) -> Sql:
    """Each is counted from the start, so months keep their day."""
    start, stop = unify(call.values[:2])
    day = f"(CASE WHEN {start.text} <= {stop.text} THEN {_DAY_US} ELSE -{_DAY_US} END)"
    step = call[2] if len(call) == 3 else Sql(day, AnsiInterval("DAY", "DAY"))
    if not isinstance(step.type, AnsiInterval):
        raise LocatedError("sequence() of times takes an INTERVAL as its step: sequence(a, b, INTERVAL 1 DAY)")
    if start.type == DATE and not step.type.is_months and step.type.end != "DAY":
        raise LocatedError("sequence() of dates takes a step of days or months; CAST the dates to TIMESTAMP")
    kind = pa.list_(start.type)
    steps = "CAST(@k * _i AS INTEGER)" if step.type.is_months else "(@k * CAST(_i AS BIGINT))"
    moved = intervals.shift(Sql("@s", start.type), "+", Sql(steps, step.type))
    items = f"list_transform(generate_series(0, {_most(start.type, step.type)}), lambda _i: {moved.text})"
    made = f"list_filter({items}, lambda _e: CASE WHEN @k >= 0 THEN _e <= @e ELSE _e >= @e END)"
    made = f"CASE WHEN @k = 0 THEN [@s] ELSE {made} END"
    return Sql(bound({"s": start.text, "e": stop.text, "k": step.text}, _guarded(made, duck_type(kind))), kind)


def _most(kind: pa.DataType, step: AnsiInterval) -> str:
    """No more steps than this are possible; a day of the calendar may lack an hour."""
    start, end = (zone.local_of(Sql(name, kind)) if kind == TIMESTAMP else name for name in ("@s", "@e"))
    if step.is_months:
        months = f"abs((year({end}) - year({start})) * 12 + month({end}) - month({start}))"
        return f"{months} // abs(@k) + 1"
    return "abs(epoch_us(@e) - epoch_us(@s)) // abs(@k) + 2"


FUNCTIONS: Mapping[str, Callable[[Call], Sql]] = {"sequence": _sequence}
