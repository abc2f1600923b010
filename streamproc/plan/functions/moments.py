"""Times from and to text, numbers and parts: date_format, to_timestamp, unix_timestamp, make_timestamp, make_interval, …"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from streamproc.batch import TIMESTAMP
from streamproc.plan import zone
from streamproc.plan.casts import cast, convert, try_cast
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.functions.patterns import Reading, printed, readings
from streamproc.plan.functions.times import NOW, moment, time
from streamproc.plan.types import (
    BIGINT,
    DATE,
    DAY_TIME,
    DOUBLE,
    INT,
    INTERVAL,
    STRING,
    TIMESTAMP_NTZ,
    YEAR_MONTH,
    Sql,
    bound,
    duck_type,
    is_decimal,
    is_fractional,
    is_integral,
    is_numeric,
    text_literal,
)

SECONDS = pa.decimal128(16, 6)
_DEFAULT_PATTERN = "yyyy-MM-dd HH:mm:ss"


def _date_format(call: Call) -> Sql:
    call.expect(2)
    value = moment(call)
    return Sql(printed(call.string(1, "the pattern"), zone.local_of(value), value.text), STRING)


def _from_unixtime(call: Call) -> Sql:
    call.expect(1, 2)
    pattern = call.string(1, "the pattern") if len(call) == 2 else _DEFAULT_PATTERN
    instant = f"make_timestamptz({_truncated(call[0])} * 1000000)"
    return Sql(printed(pattern, zone.local(instant), instant), STRING)


def _truncated(value: Sql) -> str:
    return cast(value, BIGINT).text if is_numeric(value.type) else convert(value, BIGINT).text


def _parsed(call: Call, kind: pa.DataType, *, strict: bool, pattern: str | None = None) -> Sql:
    """A string by a pattern. What does not fit is an error, or NULL where not `strict`."""
    pattern = pattern or call.string(1, "the pattern")
    ways, text = readings(pattern), convert(call[0], STRING).text
    if kind == TIMESTAMP_NTZ and any(way.zoned for way in ways):
        raise LocatedError(f"{call.name}(): the pattern has a zone; use to_timestamp")
    cases = " ".join(f"WHEN regexp_full_match({text}, {text_literal(way.regex)}) THEN {_read(text, way, kind, strict)}" for way in ways)
    wrong = f"CAST(error('cannot read ''' || {text} || ''' by the pattern') AS {duck_type(kind)})" if strict else "NULL"
    return Sql(f"(CASE WHEN {text} IS NULL THEN NULL {cases} ELSE {wrong} END)", kind)


def _read(text: str, way: Reading, kind: pa.DataType, strict: bool) -> str:
    if way.edit:
        text = f"regexp_replace({text}, {text_literal(way.edit[0])}, {text_literal(way.edit[1])})"
    made = f"{'strptime' if strict else 'try_strptime'}({text}, {text_literal(way.format)})"
    local = zone.local(made) if way.zoned else made
    if kind == TIMESTAMP:
        return made if way.zoned else zone.instant(made)
    return f"CAST({local} AS DATE)" if kind == DATE else local


def _to(kind: pa.DataType, *, strict: bool = True) -> Builder:
    """to_date, to_timestamp and their like: a CAST, or a string by a pattern."""

    def build(call: Call) -> Sql:
        call.expect(1, 2)
        if len(call) == 1:
            return cast(call[0], kind) if strict else try_cast(call[0], kind)
        if call[0].type != STRING:  # the pattern is not looked at
            return convert(time(call), kind)
        return _parsed(call, kind, strict=strict)

    return build


def _unix_timestamp(call: Call) -> Sql:
    """Whole seconds towards zero."""
    call.expect(0, 2)
    if not len(call):
        value = Sql(NOW, TIMESTAMP)
    elif call[0].type == STRING:
        value = _parsed(call, TIMESTAMP, strict=True, pattern=None if len(call) == 2 else _DEFAULT_PATTERN)
    else:
        value = time(call) if time(call).type == TIMESTAMP_NTZ else moment(call)
    return Sql(f"(epoch_us({value.text}) // 1000000)", BIGINT)


def _timestamp_seconds(call: Call) -> Sql:
    call.expect(1)
    value = call[0]
    if is_integral(value.type):
        return Sql(f"make_timestamptz({convert(value, BIGINT).text} * 1000000)", TIMESTAMP)
    if is_decimal(value.type):
        if value.type.scale > 6:
            raise LocatedError("timestamp_seconds() takes at most 6 digits after the point; CAST to DECIMAL(p,6)")
        return Sql(f"make_timestamptz(CAST(CAST({value.text} AS DECIMAL(38,6)) * 1000000 AS BIGINT))", TIMESTAMP)
    if not is_fractional(value.type):
        raise call.misfit()
    seconds = convert(value, DOUBLE).text
    return Sql(f"(CASE WHEN isfinite({seconds}) THEN make_timestamptz(CAST(trunc({seconds} * 1e6) AS BIGINT)) END)", TIMESTAMP)


def _instant(factor: int) -> Builder:
    """timestamp_millis and timestamp_micros."""

    def build(call: Call) -> Sql:
        call.expect(1)
        if not is_integral(call[0].type):
            raise call.misfit()
        return Sql(f"make_timestamptz({convert(call[0], BIGINT).text} * {factor})", TIMESTAMP)

    return build


def _count(micros: int) -> Builder:
    """unix_seconds and its like: rounded down."""

    def build(call: Call) -> Sql:
        call.expect(1)
        if call[0].type not in (TIMESTAMP, pa.null()):
            raise call.misfit()
        epoch = f"epoch_us({moment(call).text})"
        return Sql(epoch if micros == 1 else f"(({epoch} - (({epoch} % {micros}) + {micros}) % {micros}) // {micros})", BIGINT)

    return build


def _make_date(call: Call) -> Sql:
    call.expect(3)
    return Sql(f"make_date({', '.join(call.text(i, INT) for i in range(3))})", DATE)


def _make_timestamp(kind: pa.DataType, *, strict: bool = True) -> Builder:
    """make_timestamp(year, month, day, hour, minute, seconds[, zone]): 60 seconds are the next minute's begin."""

    def build(call: Call) -> Sql:
        call.expect(6, 6 if kind == TIMESTAMP_NTZ else 7)
        values = {name: call.text(i, INT) for i, name in enumerate(("y", "m", "d", "h", "i"))}
        values["s"] = _exact(call[5], SECONDS)
        place = zone.named(call.string(6, "the time zone")) if len(call) == 7 else None
        fits = "@h BETWEEN 0 AND 23 AND @i BETWEEN 0 AND 59 AND @s BETWEEN 0 AND 60"
        fits = fits if strict else f"{fits} AND @m BETWEEN 1 AND 12 AND @d BETWEEN 1 AND {_DAYS_OF_MONTH}"
        missing = " OR ".join(f"@{name} IS NULL" for name in values)
        clock = "CAST(@h AS BIGINT) * 3600000000 + CAST(@i AS BIGINT) * 60000000 + CAST(CAST(@s AS DECIMAL(18,6)) * 1000000 AS BIGINT)"
        local = f"make_timestamp(epoch_us(make_date(@y, @m, @d)) + {clock})"
        wrong = "CAST(error('make_timestamp(): a part is out of bounds') AS TIMESTAMP)" if strict else "NULL"
        made = bound(values, f"CASE WHEN {missing} THEN NULL WHEN {fits} THEN {local} ELSE {wrong} END")
        return Sql(zone.instant(made, place) if kind == TIMESTAMP else made, kind)

    return build


_DAYS_OF_MONTH = "day(last_day(make_date(@y, greatest(least(@m, 12), 1), 1)))"


def _exact(value: Sql, kind: pa.DataType) -> str:
    return cast(value, kind).text if is_numeric(value.type) else convert(value, kind).text


def _parts(call: Call, most: int) -> list[str]:
    """Numbers of units, 0 where left out."""
    call.expect(0, most)
    return [convert(call[i], INT).text if i < len(call) else "0" for i in range(most)]


def _make_interval(call: Call) -> Sql:
    """make_interval(years, months, weeks, days, hours, minutes, seconds)."""
    years, months, weeks, days, hours, minutes = _parts(call, 7)[:6] if len(call) < 7 else [call.text(i, INT) for i in range(6)]
    micros = _micros(call, 6, hours, minutes)
    text = f"(to_months({years} * 12 + {months}) + to_days({weeks} * 7 + {days}) + to_microseconds({micros}))"
    return Sql(text, INTERVAL)


def _micros(call: Call, index: int, hours: str, minutes: str) -> str:
    seconds = _exact(call[index], pa.decimal128(18, 6)) if len(call) > index else "CAST(0 AS DECIMAL(18,6))"
    whole = f"CAST(CAST({seconds} AS DECIMAL(24,6)) * 1000000 AS BIGINT)"
    return f"(CAST({hours} AS BIGINT) * 3600000000 + CAST({minutes} AS BIGINT) * 60000000 + {whole})"


def _make_dt_interval(call: Call) -> Sql:
    """make_dt_interval(days, hours, minutes, seconds)."""
    call.expect(0, 4)
    days, hours, minutes = (call.text(i, INT) if i < len(call) else "0" for i in range(3))
    return Sql(f"(CAST({days} AS BIGINT) * 86400000000 + {_micros(call, 3, hours, minutes)})", DAY_TIME)


def _make_ym_interval(call: Call) -> Sql:
    """make_ym_interval(years, months)."""
    years, months = _parts(call, 2)
    return Sql(f"CAST({years} * 12 + {months} AS INTEGER)", YEAR_MONTH)


FUNCTIONS: Mapping[str, Callable[[Call], Sql]] = {
    "date_format": _date_format, "from_unixtime": _from_unixtime,
    "to_date": _to(DATE), "try_to_date": _to(DATE, strict=False), **dict.fromkeys(("to_timestamp", "to_timestamp_ltz"), _to(TIMESTAMP)),
    "try_to_timestamp": _to(TIMESTAMP, strict=False), "to_timestamp_ntz": _to(TIMESTAMP_NTZ),
    "unix_timestamp": _unix_timestamp, "to_unix_timestamp": _unix_timestamp,
    "timestamp_seconds": _timestamp_seconds, "timestamp_millis": _instant(1000), "timestamp_micros": _instant(1),
    "unix_seconds": _count(1_000_000), "unix_millis": _count(1000), "unix_micros": _count(1),
    "make_date": _make_date, **dict.fromkeys(("make_timestamp", "make_timestamp_ltz"), _make_timestamp(TIMESTAMP)),
    "make_timestamp_ntz": _make_timestamp(TIMESTAMP_NTZ),
    **dict.fromkeys(("try_make_timestamp", "try_make_timestamp_ltz"), _make_timestamp(TIMESTAMP, strict=False)),
    "try_make_timestamp_ntz": _make_timestamp(TIMESTAMP_NTZ, strict=False),
    "make_interval": _make_interval, "make_dt_interval": _make_dt_interval, "make_ym_interval": _make_ym_interval,
}  # fmt: skip
