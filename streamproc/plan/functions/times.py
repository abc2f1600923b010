"""Functions of dates and times. Instants are read in the session's time zone, which the executor sets."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan.casts import cast, convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call, plain
from streamproc.plan.functions.patterns import strftime, strptime
from streamproc.plan.types import BIGINT, DATE, INT, STRING, Sql, is_fractional, is_integral, is_time, text_literal

NOW = "CAST(getvariable('epoch_now') AS TIMESTAMPTZ)"
"""The logged time of the epoch: the same when the epoch runs again."""


def _now(call: Call) -> Sql:
    call.expect(0)
    return Sql(NOW, TIMESTAMP)


def _today(call: Call) -> Sql:
    call.expect(0)
    return Sql(f"CAST({NOW} AS DATE)", DATE)


def time(call: Call, index: int = 0) -> Sql:
    """A date or time; a string is read as TIMESTAMP."""
    value = convert(call[index], TIMESTAMP) if call[index].type == STRING else call[index]
    if not is_time(value.type):
        raise call.misfit(index)
    return value


def _day(call: Call, index: int) -> str:
    value = call[index]
    return value.text if value.type == DATE else cast(time(call, index), DATE).text


_FIELDS = {
    "year": "year({0})", "quarter": "quarter({0})", "month": "month({0})", "day": "day({0})", "dayofmonth": "day({0})",
    "dayofweek": "dayofweek({0}) + 1", "weekday": "isodow({0}) - 1", "dayofyear": "dayofyear({0})", "weekofyear": "weekofyear({0})",
    "hour": "hour({0})", "minute": "minute({0})", "second": "second({0})",
}  # fmt: skip
_PARTS = {
    "YEAR": "year", "YEARS": "year", "Y": "year", "QUARTER": "quarter", "QTR": "quarter", "MONTH": "month", "MON": "month",
    "WEEK": "weekofyear",
    "W": "weekofyear", "DAY": "day", "D": "day", "DAYS": "day", "DOW": "dayofweek", "DAYOFWEEK": "dayofweek", "DOY": "dayofyear",
    "HOUR": "hour", "H": "hour", "HOURS": "hour", "MINUTE": "minute", "MINUTES": "minute", "MIN": "minute", "M": "minute",
}  # fmt: skip


def _field(name: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return _part_of(name, time(call))

    return build


def _part_of(name: str, value: Sql) -> Sql:
    if name in ("hour", "minute", "second"):
        value = convert(value, TIMESTAMP) if value.type == DATE else value
    return Sql(f"CAST({_FIELDS[name].format(value.text)} AS INTEGER)", INT)


def _date_part(call: Call) -> Sql:
    """extract(FIELD FROM x); seconds have a fraction: DECIMAL(8,6)."""
    call.expect(2)
    unit = call.string(0, "the field").upper()
    if unit in ("SECOND", "S", "SECONDS", "SEC"):
        micros = f"CAST(microsecond({convert(time(call, 1), TIMESTAMP).text}) AS DECIMAL(8,0))"
        return Sql(f"CAST({micros} * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(8,6))", pa.decimal128(8, 6))
    if unit not in _PARTS:
        raise LocatedError(f"{call.name}(): field {unit} is not supported; use one of {', '.join(sorted(_PARTS))}, SECOND")
    return _part_of(_PARTS[unit], time(call, 1))


_TRUNCATED = {
    "YEAR": "year", "YYYY": "year", "YY": "year", "QUARTER": "quarter", "MONTH": "month", "MON": "month", "MM": "month", "WEEK": "week",
    "DAY": "day", "DD": "day", "HOUR": "hour", "MINUTE": "minute", "SECOND": "second", "MILLISECOND": "millisecond",
    "MICROSECOND": "microsecond",
}  # fmt: skip


def _truncated_unit(call: Call, index: int) -> str:
    unit = call.string(index, "the unit").upper()
    if unit not in _TRUNCATED:
        raise LocatedError(f"{call.name}(): unit {unit} is unknown (Spark would give NULL); use one of {', '.join(_TRUNCATED)}")
    return _TRUNCATED[unit]


def _date_trunc(call: Call) -> Sql:
    call.expect(2)
    value = convert(time(call, 1), TIMESTAMP) if time(call, 1).type == DATE else time(call, 1)
    return Sql(f"date_trunc('{_truncated_unit(call, 0)}', {value.text})", value.type)


def _trunc(call: Call) -> Sql:
    call.expect(2)
    unit = _truncated_unit(call, 1)
    if unit not in ("year", "quarter", "month", "week"):
        raise LocatedError("trunc() cuts to YEAR, QUARTER, MONTH or WEEK; use date_trunc for smaller units")
    return Sql(f"CAST(date_trunc('{unit}', {_day(call, 0)}) AS DATE)", DATE)


def _add_days(sign: str) -> Builder:
    def build(call: Call) -> Sql:
        if len(call) == 3 and sign == "+":
            return _timestampadd(call)
        call.expect(2)
        return Sql(f"({_day(call, 0)} {sign} {call.text(1, INT)})", DATE)

    return build


def _datediff(call: Call) -> Sql:
    """datediff(end, start) in days, or datediff(UNIT, start, end)."""
    if len(call) == 3:
        return _timestampdiff(call)
    call.expect(2)
    return Sql(f"CAST({_day(call, 0)} - {_day(call, 1)} AS INTEGER)", INT)


_UNITS_US = {
    "MICROSECOND": 1, "MILLISECOND": 1000, "SECOND": 10**6, "MINUTE": 60 * 10**6, "HOUR": 3600 * 10**6, "DAY": 0, "WEEK": 0,
    "MONTH": 0, "QUARTER": 0, "YEAR": 0,
}  # fmt: skip
_CALENDAR = {
    "DAY": "to_days({0})",
    "WEEK": "to_days({0} * 7)",
    "MONTH": "to_months({0})",
    "QUARTER": "to_months({0} * 3)",
    "YEAR": "to_months({0} * 12)",
}


def _unit(call: Call) -> str:
    unit = call.unit(0)
    if unit not in _UNITS_US:
        raise LocatedError(f"{call.name}(): unit {unit} is unknown; use one of {', '.join(_UNITS_US)}")
    return unit


def _timestampadd(call: Call) -> Sql:
    call.expect(3)
    unit, count = _unit(call), call.text(1, INT)
    value = convert(time(call, 2), TIMESTAMP) if time(call, 2).type == DATE else time(call, 2)
    step = _CALENDAR[unit].format(count) if unit in _CALENDAR else f"to_microseconds(CAST({count} AS BIGINT) * {_UNITS_US[unit]})"
    return Sql(f"({value.text} + {step})", value.type)


def _timestampdiff(call: Call) -> Sql:
    """Whole units from start to end, cut towards zero."""
    call.expect(3)
    unit = _unit(call)
    if not _UNITS_US[unit]:
        raise LocatedError(f"{call.name}(): {unit} is not supported: its length varies; use datediff(end, start) or HOUR")
    start, end = (convert(time(call, i), TIMESTAMP).text for i in (1, 2))
    return Sql(f"((epoch_us({end}) - epoch_us({start})) // {_UNITS_US[unit]})", BIGINT)


def _add_months(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"CAST({_day(call, 0)} + to_months({call.text(1, INT)}) AS DATE)", DATE)


def _last_day(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"last_day({_day(call, 0)})", DATE)


def _date_format(call: Call) -> Sql:
    call.expect(2)
    value = convert(time(call), TIMESTAMP) if time(call).type == DATE else time(call)
    return Sql(f"strftime({value.text}, {text_literal(strftime(call.string(1, 'the pattern')))})", STRING)


def _parsed(call: Call, kind: pa.DataType) -> Sql:
    """A string by a pattern; what does not fit is an error."""
    made, regex = strptime(call.string(1, "the pattern"))
    text = call.text(0, STRING)
    parsed = f"CAST(strptime({text}, {text_literal(made)}) AS {'DATE' if kind == DATE else 'TIMESTAMPTZ'})"
    wrong = f"error('cannot read ''' || {text} || ''' by the pattern')"
    fits = f"{text} IS NULL OR regexp_full_match({text}, {text_literal(regex)})"
    return Sql(f"(CASE WHEN {fits} THEN {parsed} ELSE {wrong} END)", kind)


def _to_date(call: Call) -> Sql:
    call.expect(1, 2)
    return cast(call[0], DATE) if len(call) == 1 else _parsed(call, DATE)


def _to_timestamp(call: Call) -> Sql:
    call.expect(1, 2)
    return cast(call[0], TIMESTAMP) if len(call) == 1 else _parsed(call, TIMESTAMP)


def _unix_timestamp(call: Call) -> Sql:
    call.expect(0, 2)
    if not len(call):
        return _seconds(Sql(NOW, TIMESTAMP))
    return _seconds(_parsed(call, TIMESTAMP) if len(call) == 2 else convert(_dated(call), TIMESTAMP))


def _dated(call: Call) -> Sql:
    if call[0].type == STRING:
        raise LocatedError(f"{call.name}() of a string needs its pattern: {call.name}(x, 'yyyy-MM-dd HH:mm:ss')")
    return time(call)


def _seconds(value: Sql) -> Sql:
    return Sql(f"CAST(floor(epoch_us({value.text}) / 1000000) AS BIGINT)", BIGINT)


def _from_unixtime(call: Call) -> Sql:
    call.expect(1, 2)
    pattern = call.string(1, "the pattern") if len(call) == 2 else "yyyy-MM-dd HH:mm:ss"
    return Sql(f"strftime(make_timestamptz({call.text(0, BIGINT)} * 1000000), {text_literal(strftime(pattern))})", STRING)


def _instant(factor: int) -> Builder:
    """timestamp_seconds and its like."""

    def build(call: Call) -> Sql:
        call.expect(1)
        if is_fractional(call[0].type) and factor == 1_000_000:
            return Sql(f"make_timestamptz(CAST(trunc({call[0].text} * 1e6) AS BIGINT))", TIMESTAMP)
        if not is_integral(call[0].type):
            raise call.misfit()
        return Sql(f"make_timestamptz(CAST({call[0].text} AS BIGINT) * {factor})", TIMESTAMP)

    return build


def _count(micros: int) -> Builder:
    """unix_seconds and its like: rounded down."""

    def build(call: Call) -> Sql:
        call.expect(1)
        epoch = f"epoch_us({convert(time(call), TIMESTAMP).text})"
        return Sql(epoch if micros == 1 else f"(({epoch} - (({epoch} % {micros}) + {micros}) % {micros}) // {micros})", BIGINT)

    return build


def _zone(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        zone = text_literal(call.string(1, "the time zone"))
        return Sql(template.format(convert(time(call), TIMESTAMP).text, zone), TIMESTAMP)

    return build


def _name(function: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(f"left({function}({_day(call, 0)}), 3)", STRING)

    return build


def _make_timestamp(call: Call) -> Sql:
    call.expect(6)
    parts = [call.text(i, INT) for i in range(5)] + [convert(call[5], pa.float64()).text]
    return Sql(f"CAST(make_timestamp({', '.join(f'CAST({p} AS BIGINT)' for p in parts[:5])}, {parts[5]}) AS TIMESTAMPTZ)", TIMESTAMP)


FUNCTIONS: Mapping[str, Builder] = {
    **dict.fromkeys(("current_timestamp", "now"), _now), "current_date": _today, "curdate": _today,
    **{name: _field(name) for name in _FIELDS},
    "date_part": _date_part, "datepart": _date_part, "date_trunc": _date_trunc, "trunc": _trunc,
    "date_add": _add_days("+"), "dateadd": _add_days("+"), "date_sub": _add_days("-"), "datediff": _datediff, "date_diff": _datediff,
    "timestampadd": _timestampadd, "timestampdiff": _timestampdiff, "add_months": _add_months, "last_day": _last_day,
    "date_format": _date_format, "to_date": _to_date, "to_timestamp": _to_timestamp,
    "unix_timestamp": _unix_timestamp, "to_unix_timestamp": _unix_timestamp, "from_unixtime": _from_unixtime,
    "timestamp_seconds": _instant(1_000_000), "timestamp_millis": _instant(1000), "timestamp_micros": _instant(1),
    "unix_seconds": _count(1_000_000), "unix_millis": _count(1000), "unix_micros": _count(1),
    "unix_date": plain("CAST({0} - DATE '1970-01-01' AS INTEGER)", INT, DATE),
    "date_from_unix_date": plain("(DATE '1970-01-01' + {0})", DATE, INT),
    "make_date": plain("make_date({0}, {1}, {2})", DATE, INT, INT, INT), "make_timestamp": _make_timestamp,
    "from_utc_timestamp": _zone("CAST(timezone({1}, {0}) AT TIME ZONE 'UTC' AS TIMESTAMPTZ)"),
    "to_utc_timestamp": _zone("timezone({1}, timezone('UTC', {0}))"),
    "dayname": _name("dayname"), "monthname": _name("monthname"),
}  # fmt: skip
