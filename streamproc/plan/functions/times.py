"""Functions of dates and times: now, fields, truncation, days and months. Instants are read in the session's time zone."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan import intervals, zone
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call, plain
from streamproc.plan.types import (
    BIGINT,
    DATE,
    DAY_TIME,
    DOUBLE,
    INT,
    STRING,
    TIMESTAMP_NTZ,
    YEAR_MONTH,
    Sql,
    bound,
    is_integral,
    is_interval,
    is_time,
    text_literal,
)

NOW = "CAST(getvariable('epoch_now') AS TIMESTAMPTZ)"
"""The logged time of the epoch: the same when the epoch runs again."""


def _now(call: Call) -> Sql:
    call.expect(0)
    return Sql(NOW, TIMESTAMP)


def today() -> Sql:
    return Sql(f"CAST({zone.local(NOW)} AS DATE)", DATE)


def _today(call: Call) -> Sql:
    call.expect(0)
    return today()


def _local_now(call: Call) -> Sql:
    call.expect(0)
    return Sql(zone.local(NOW), TIMESTAMP_NTZ)


def _current_zone(call: Call) -> Sql:
    call.expect(0)
    name = zone.SESSION.get()
    return Sql(text_literal(name), STRING, name)


def time(call: Call, index: int = 0) -> Sql:
    """A date or time; a string is read as TIMESTAMP."""
    value = convert(call[index], TIMESTAMP) if call[index].type in (STRING, pa.null()) else call[index]
    if not is_time(value.type):
        raise call.misfit(index)
    return value


def moment(call: Call, index: int = 0) -> Sql:
    """A TIMESTAMP; what else tells a time is converted."""
    return convert(time(call, index), TIMESTAMP)


def day(call: Call, index: int = 0) -> str:
    """SQL of a DATE; a string is read as one."""
    value = call[index]
    return convert(value if value.type == STRING else time(call, index), DATE).text


def whole(call: Call, index: int) -> str:
    """SQL of an INT: Spark takes nothing wider where days or months are counted, but text."""
    value = call[index]
    if value.type == BIGINT or not (is_integral(value.type) or value.type in (STRING, pa.null())):
        raise call.misfit(index)
    return convert(value, INT).text


_DATE_FIELDS = {
    "year": "year({0})", "quarter": "quarter({0})", "month": "month({0})", "day": "day({0})", "dayofmonth": "day({0})",
    "dayofweek": "dayofweek({0}) + 1", "weekday": "isodow({0}) - 1", "dayofyear": "dayofyear({0})", "weekofyear": "weekofyear({0})",
    "isodow": "isodow({0})", "yearofweek": "isoyear({0})",
}  # fmt: skip
_TIME_FIELDS = {"hour": "hour({0})", "minute": "minute({0})", "second": "second({0})"}
_PARTS = {
    "YEAR": "year", "YEARS": "year", "Y": "year", "YR": "year", "YRS": "year", "YEAROFWEEK": "yearofweek", "QUARTER": "quarter",
    "QTR": "quarter", "MONTH": "month", "MONTHS": "month", "MON": "month", "MONS": "month", "WEEK": "weekofyear", "WEEKS": "weekofyear",
    "W": "weekofyear", "DAY": "day", "D": "day", "DAYS": "day", "DAYOFWEEK": "dayofweek", "DOW": "dayofweek", "DAYOFWEEK_ISO": "isodow",
    "DOW_ISO": "isodow", "DOY": "dayofyear", "HOUR": "hour", "H": "hour", "HOURS": "hour", "HR": "hour", "HRS": "hour",
    "MINUTE": "minute", "M": "minute", "MIN": "minute", "MINUTES": "minute", "MINS": "minute", "SECOND": "second", "S": "second",
    "SEC": "second", "SECONDS": "second", "SECS": "second",
}  # fmt: skip


def _field(name: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        value = call[0]
        if value.type == STRING and name in _DATE_FIELDS:
            value = convert(value, DATE)
        return _field_of(name, value if value.type == DATE else time(call))

    return build


def _field_of(name: str, value: Sql) -> Sql:
    if value.type == DATE and name in _TIME_FIELDS:
        return Sql(f"(CASE WHEN {value.text} IS NOT NULL THEN CAST(0 AS INTEGER) END)", INT)
    local = value.text if value.type == DATE else zone.local_of(value)
    return Sql(f"CAST({(_DATE_FIELDS | _TIME_FIELDS)[name].format(local)} AS INTEGER)", INT)


def _date_part(call: Call) -> Sql:
    """extract(FIELD FROM x); seconds have a fraction: DECIMAL(8,6)."""
    call.expect(2)
    unit = call.string(0, "the field").upper()
    name = _PARTS.get(unit)
    if is_interval(call[1].type):
        found = intervals.part(name.upper(), call[1]) if name else None
        if found is None:
            raise LocatedError(f"{call.name}(): {str(call[1].type).upper()} has no field {unit}")
        return found
    if name is None:
        raise LocatedError(f"{call.name}(): field {unit} is not supported; use one of {', '.join(sorted(_PARTS))}")
    if name == "second":
        local = zone.local_of(moment(call, 1))
        micros = f"CAST(microsecond({local}) AS DECIMAL(8,0))"
        return Sql(f"CAST({micros} * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(8,6))", pa.decimal128(8, 6))
    return _field_of(name, time(call, 1))


_DAYS = {
    "YEAR": "year", "YYYY": "year", "YY": "year", "QUARTER": "quarter", "MONTH": "month", "MON": "month", "MM": "month", "WEEK": "week",
}  # fmt: skip
_TIMES = {"DAY": "day", "DD": "day", "HOUR": "hour", "MINUTE": "minute"}
_MICROS = {"SECOND": 1_000_000, "MILLISECOND": 1000, "MICROSECOND": 1}


def _date_trunc(call: Call) -> Sql:
    """TIMESTAMP, also of a DATE or TIMESTAMP_NTZ."""
    call.expect(2)
    unit, value = call.string(0, "the unit").upper(), moment(call, 1)
    if unit in _MICROS:
        text = f"epoch_us({value.text})"
        width = _MICROS[unit]
        rest = f"({text} % {width} + {width}) % {width}"
        return value if width == 1 else Sql(f"make_timestamptz({text} - {rest})", TIMESTAMP)
    if unit in _TIMES:
        return Sql(zone.near(f"date_trunc('{_TIMES[unit]}', {zone.local_of(value)})", value.text), TIMESTAMP)
    if unit not in _DAYS:
        known = ", ".join([*_DAYS, *_TIMES, *_MICROS])
        raise LocatedError(f"{call.name}(): unit {unit} is unknown (Spark would give NULL); use one of {known}")
    return Sql(zone.instant(f"CAST(date_trunc('{_DAYS[unit]}', CAST({zone.local_of(value)} AS DATE)) AS TIMESTAMP)"), TIMESTAMP)


def _trunc(call: Call) -> Sql:
    call.expect(2)
    unit = call.string(1, "the unit").upper()
    if unit not in _DAYS:
        raise LocatedError("trunc() cuts to YEAR, QUARTER, MONTH or WEEK (Spark would give NULL); use date_trunc for smaller units")
    return Sql(f"CAST(date_trunc('{_DAYS[unit]}', {day(call)}) AS DATE)", DATE)


def _add_days(sign: str) -> Builder:
    def build(call: Call) -> Sql:
        if len(call) == 3 and sign == "+":
            return _timestampadd(call)
        call.expect(2)
        return Sql(f"({day(call)} {sign} {whole(call, 1)})", DATE)

    return build


def _datediff(call: Call) -> Sql:
    """datediff(end, start) in days, or datediff(UNIT, start, end)."""
    if len(call) == 3:
        return _timestampdiff(call)
    call.expect(2)
    return Sql(f"CAST({day(call, 0)} - {day(call, 1)} AS INTEGER)", INT)


_ADDED = {
    "MICROSECOND": 1, "MILLISECOND": 1000, "SECOND": 10**6, "MINUTE": 60 * 10**6, "HOUR": 3600 * 10**6, "DAY": 24 * 3600 * 10**6,
    "DAYOFYEAR": 24 * 3600 * 10**6, "WEEK": 7 * 24 * 3600 * 10**6,
}  # fmt: skip
_ADDED_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


def _unit(call: Call) -> str:
    unit = call.unit(0)
    if unit not in _ADDED and unit not in _ADDED_MONTHS:
        raise LocatedError(f"{call.name}(): unit {unit} is unknown; use one of {', '.join([*_ADDED, *_ADDED_MONTHS])}")
    return unit


def _timestampadd(call: Call) -> Sql:
    call.expect(3)
    unit = _unit(call)
    value = time(call, 2) if time(call, 2).type == TIMESTAMP_NTZ else moment(call, 2)
    count = convert(call[1], BIGINT).text
    if unit in _ADDED_MONTHS:
        return intervals.shift(value, "+", Sql(f"CAST({count} * {_ADDED_MONTHS[unit]} AS INTEGER)", YEAR_MONTH))
    if _ADDED[unit] < _ADDED["DAY"]:
        return Sql(f"({value.text} + to_microseconds({count} * {_ADDED[unit]}))", value.type)
    return intervals.shift(value, "+", Sql(f"({count} * {_ADDED[unit]})", DAY_TIME))


def _timestampdiff(call: Call) -> Sql:
    """Whole units between the local times, cut towards zero."""
    call.expect(3)
    unit = _unit(call)
    if unit == "DAYOFYEAR":
        raise LocatedError(f"{call.name}(): unit DAYOFYEAR can be added only; use DAY")
    start, end = (zone.local_of(moment(call, i)) for i in (1, 2))
    if unit in _ADDED:
        return Sql(f"((epoch_us({end}) - epoch_us({start})) // {_ADDED[unit]})", BIGINT)
    later = "CAST(@b AS DATE) > CAST(@a AS DATE) AND CAST(@b AS TIME) < CAST(@a AS TIME)"
    earlier = "CAST(@b AS DATE) < CAST(@a AS DATE) AND CAST(@b AS TIME) > CAST(@a AS TIME)"
    days = f"CAST(@b AS DATE) - CASE WHEN {later} THEN 1 WHEN {earlier} THEN -1 ELSE 0 END"
    months = f"({_packed(f'({days})')} - {_packed('@a')}) // 32 // {_ADDED_MONTHS[unit]}"
    return Sql(bound({"a": start, "b": end}, months), BIGINT)


def _packed(text: str) -> str:
    return f"((year({text}) * 12 + month({text})) * 32 + day({text}))"


def _add_months(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"CAST({day(call)} + to_months({call.text(1, INT)}) AS DATE)", DATE)


def _months_between(call: Call) -> Sql:
    """Whole months if both are the same or the last day of a month, else with 31 days to a month."""
    call.expect(2, 3)
    rounded = len(call) == 2 or bool(call.constant(2, bool, "whether to round"))
    sides: dict[str, str] = {}
    for name, i in (("a", 0), ("b", 1)):
        value = moment(call, i)
        sides |= {name: f"CAST({zone.local_of(value)} AS DATE)", f"{name}s": _second_of_day(value)}
    months = "((year(@a) - year(@b)) * 12 + month(@a) - month(@b))"
    seconds = "((day(@a) - day(@b)) * 86400 + @as - @bs)"
    exact = f"({months} + {seconds} / CAST(2678400 AS DOUBLE))"
    exact = f"floor({exact} * CAST(1e8 AS DOUBLE) + CAST(0.5 AS DOUBLE)) / CAST(1e8 AS DOUBLE)" if rounded else exact
    same = "day(@a) = day(@b) OR (@a = last_day(@a) AND @b = last_day(@b))"
    return Sql(bound(sides, f"CASE WHEN {same} THEN CAST({months} AS DOUBLE) ELSE {exact} END"), DOUBLE)


def _second_of_day(value: Sql) -> str:
    """Seconds since the day began, which in zones may be more than the clock tells."""
    if zone.is_fixed():
        local = zone.local_of(value)
        return f"(epoch_us({local}) - epoch_us(date_trunc('day', {local}))) // 1000000"
    begin = zone.instant(f"date_trunc('day', {zone.local_of(value)})")
    return f"(epoch_us({value.text}) - epoch_us({begin})) // 1000000"


def _last_day(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"last_day({day(call)})", DATE)


_WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")


def _next_day(call: Call) -> Sql:
    call.expect(2)
    if call[1].type == pa.null():
        return Sql("CAST(NULL AS DATE)", DATE)
    name = call.string(1, "the day of the week").strip().upper()
    numbers = [i + 1 for i, full in enumerate(_WEEKDAYS) if name in (full, full[:3], full[:2])]
    if not numbers:
        raise LocatedError(f"next_day(): {name!r} is no day of the week; write for example 'MON'")
    return Sql(f"({day(call)} + CAST(1 + (({numbers[0]} - 1 - isodow({day(call)})) % 7 + 7) % 7 AS INTEGER))", DATE)


def _name(function: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        return Sql(f"left({function}({day(call)}), 3)", STRING)

    return build


def _zoned(call: Call) -> str:
    return zone.named(call.string(1, "the time zone"))


def _from_utc(call: Call) -> Sql:
    """What clocks of a zone show, as if it were UTC."""
    call.expect(2)
    return Sql(f"make_timestamptz(epoch_us({zone.local(moment(call).text, _zoned(call))}))", TIMESTAMP)


def _to_utc(call: Call) -> Sql:
    call.expect(2)
    return Sql(zone.instant(f"make_timestamp(epoch_us({moment(call).text}))", _zoned(call)), TIMESTAMP)


def _convert_timezone(call: Call) -> Sql:
    """convert_timezone([source,] target, local time)."""
    call.expect(2, 3)
    target = zone.named(call.string(len(call) - 2, "the time zone"))
    source = zone.named(call.string(0, "the time zone")) if len(call) == 3 else None
    local = convert(time(call, len(call) - 1), TIMESTAMP_NTZ).text
    return Sql(zone.local(zone.instant(local, source), target), TIMESTAMP_NTZ)


FUNCTIONS: Mapping[str, Builder] = {
    **dict.fromkeys(("current_timestamp", "now"), _now), "current_date": _today, "curdate": _today, "localtimestamp": _local_now,
    "current_timezone": _current_zone,
    **{name: _field(name) for name in _DATE_FIELDS | _TIME_FIELDS if name not in ("isodow", "yearofweek")},
    "date_part": _date_part, "datepart": _date_part, "date_trunc": _date_trunc, "trunc": _trunc,
    "date_add": _add_days("+"), "dateadd": _add_days("+"), "date_sub": _add_days("-"), "datediff": _datediff, "date_diff": _datediff,
    "timestampadd": _timestampadd, "timestampdiff": _timestampdiff, "add_months": _add_months, "months_between": _months_between,
    "last_day": _last_day, "next_day": _next_day, "dayname": _name("dayname"), "monthname": _name("monthname"),
    "unix_date": plain("CAST({0} - DATE '1970-01-01' AS INTEGER)", INT, DATE),
    "date_from_unix_date": plain("(DATE '1970-01-01' + {0})", DATE, INT),
    "from_utc_timestamp": _from_utc, "to_utc_timestamp": _to_utc, "convert_timezone": _convert_timezone,
}  # fmt: skip
