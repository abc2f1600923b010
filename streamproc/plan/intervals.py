"""Intervals: literals, arithmetic with times, numbers and each other, and their fields.

An INTERVAL of years and months is a number of months, one of days to seconds a number of microseconds; that of make_interval
is DuckDB's own. Spark adds months and whole days by the calendar of the session's zone, the rest as elapsed time.
"""

from __future__ import annotations

import re
from decimal import Decimal

import pyarrow as pa
from sqlglot import exp

from streamproc.batch import TIMESTAMP
from streamproc.plan import zone
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import (
    BIGINT,
    DATE,
    DAY_TIME,
    DOUBLE,
    INT,
    INTERVAL,
    SMALLINT,
    STRING,
    TIMESTAMP_NTZ,
    TINYINT,
    YEAR_MONTH,
    AnsiInterval,
    Sql,
    bound,
    duck_type,
    fail,
    is_decimal,
    is_fractional,
    is_integral,
    is_numeric,
    is_time,
    spark_type,
    widest_interval,
)

DAY_US = 86_400_000_000
_UNIT_US = {"DAY": DAY_US, "HOUR": 3_600_000_000, "MINUTE": 60_000_000, "SECOND": 1_000_000}
_UNITS: dict[str, tuple[str, int]] = {
    "YEAR": ("YEAR", 12), "MONTH": ("MONTH", 1), "WEEK": ("DAY", 7 * DAY_US),
    **{name: (name, micros) for name, micros in _UNIT_US.items()}, "MILLISECOND": ("SECOND", 1000), "MICROSECOND": ("SECOND", 1),
}  # fmt: skip
"""A unit's field, and its length in months or microseconds."""
_PAIR = re.compile(r"([+-]?\s*\d*\.?\d+)\s+([A-Za-z]+)\s*")
_SPANS = {
    ("YEAR", "MONTH"): r"(\d+)-(\d+)", ("DAY", "HOUR"): r"(\d+) (\d+)", ("DAY", "MINUTE"): r"(\d+) (\d+):(\d+)",
    ("DAY", "SECOND"): r"(\d+) (\d+):(\d+):(\d+(?:\.\d{1,9})?)", ("HOUR", "MINUTE"): r"(\d+):(\d+)",
    ("HOUR", "SECOND"): r"(\d+):(\d+):(\d+(?:\.\d{1,9})?)", ("MINUTE", "SECOND"): r"(\d+):(\d+(?:\.\d{1,9})?)",
}  # fmt: skip


def literal(node: exp.Expr) -> Sql:
    """INTERVAL '1' DAY, INTERVAL '1 02:03' DAY TO MINUTE, INTERVAL '1 day 2 hours', …"""
    value, unit = node.this, node.args.get("unit")
    sign = -1 if isinstance(value, exp.Neg) else 1
    text = (value.this if isinstance(value, exp.Neg) else value).name.strip()
    if isinstance(unit, exp.IntervalSpan):
        return _span(text, unit.this.name.upper(), unit.expression.name.upper(), sign)
    return _units(f"{text} {unit.name}" if unit else text, sign)


def _units(text: str, sign: int) -> Sql:
    pairs = _PAIR.findall(text)
    if not pairs or "".join(_PAIR.split(text)[::3]).strip():
        raise LocatedError(f"INTERVAL {text!r} is not understood; write for example INTERVAL '5' MINUTE")
    fields, total = list[str](), Decimal(0)
    for number, unit in pairs:
        name = unit.upper().removesuffix("S")
        if name not in _UNITS or ("." in number and name != "SECOND"):
            raise LocatedError(f"INTERVAL {text!r} is not understood; units are {', '.join(_UNITS)}, and only seconds have a fraction")
        fields.append(_UNITS[name][0])
        total += Decimal(number.replace(" ", "")) * _UNITS[name][1]
    kinds = [AnsiInterval(f, f) for f in fields]
    kind = kinds[0]
    for other in kinds[1:]:
        wider = widest_interval(kind, other)
        if wider is None:
            raise LocatedError("an interval has years and months, or days to seconds, not both; add the two one after the other")
        kind = wider
    return constant(kind, sign * int(total))


def _span(text: str, start: str, end: str, sign: int) -> Sql:
    pattern = _SPANS.get((start, end))
    found = re.fullmatch(rf"([+-]?)\s*{pattern}", text) if pattern else None
    if found is None:
        raise LocatedError(f"INTERVAL {text!r} {start} TO {end} is not understood; write for example INTERVAL '1 02:30:00' DAY TO SECOND")
    kind = AnsiInterval(start, end)
    total = sum(int(Decimal(n) * _UNITS[f][1]) for n, f in zip(found.groups()[1:], kind.fields, strict=True))
    return constant(kind, -sign * total if found[1] == "-" else sign * total)


def constant(kind: AnsiInterval, amount: int) -> Sql:
    if not -(2**63) <= amount < 2**63 or (kind.is_months and not -(2**31) <= amount < 2**31):
        raise LocatedError("the interval is too long")
    return Sql(f"CAST({amount} AS {duck_type(kind)})", kind, ("months" if kind.is_months else "micros", amount))


def calculate(symbol: str, left: Sql, right: Sql) -> Sql:
    """`left symbol right` where one is a time or an interval."""
    if symbol == "+" and is_time(right.type):
        left, right = right, left
    if symbol in "+-" and is_time(left.type) and (isinstance(right.type, AnsiInterval) or right.type == INTERVAL):
        return shift(left, symbol, right)
    if symbol in "+-" and left.type == DATE and right.type in (INT, SMALLINT, TINYINT):
        return Sql(f"({left.text} {symbol} {convert(right, INT).text})", DATE)
    if symbol == "-" and _differ(left, right):
        return difference(left, right)
    if symbol in "+-" and isinstance(left.type, AnsiInterval) and isinstance(right.type, AnsiInterval):
        kind = widest_interval(left.type, right.type)
        if kind is not None:
            return Sql(f"({left.text} {symbol} {right.text})", kind)
    if symbol == "*" and is_numeric(left.type):
        left, right = right, left
    if symbol in "*/" and isinstance(left.type, AnsiInterval) and is_numeric(right.type):
        return _scaled(symbol, left, right)
    raise LocatedError(f"{spark_type(left.type)} {symbol} {spark_type(right.type)} is not supported")


def _differ(left: Sql, right: Sql) -> bool:
    return all(is_time(v.type) or v.type == STRING for v in (left, right))


def difference(left: Sql, right: Sql) -> Sql:
    """`left - right` of times: what lies between their local times, days of 23 hours being days."""
    if left.type == DATE and right.type == DATE:
        return Sql(f"(CAST({left.text} - {right.text} AS BIGINT) * {DAY_US})", AnsiInterval("DAY", "DAY"))
    kind = TIMESTAMP_NTZ if TIMESTAMP_NTZ in (left.type, right.type) else TIMESTAMP
    end, start = (zone.local_of(convert(v, kind)) for v in (left, right))
    return Sql(f"(epoch_us({end}) - epoch_us({start}))", DAY_TIME)


def shift(value: Sql, symbol: str, interval: Sql) -> Sql:
    """A time moved by an interval."""
    if interval.type == INTERVAL:
        return _shift_by_all(value, symbol, interval)
    if interval.type.is_months:
        return _by_months(value, f"to_months({'-' if symbol == '-' else ''}{interval.text})")
    if value.type == DATE and interval.type.end == "DAY":
        return Sql(f"({value.text} {symbol} {_days(interval)})", DATE)
    value = convert(value, TIMESTAMP) if value.type == DATE else value
    if value.type == TIMESTAMP_NTZ or zone.is_fixed():  # every day has 24 hours
        made = "make_timestamp" if value.type == TIMESTAMP_NTZ else "make_timestamptz"
        return Sql(f"{made}(epoch_us({value.text}) {symbol} {interval.text})", value.type)
    rest = "" if interval.type.end == "DAY" else f" + to_microseconds({interval.text} % {DAY_US})"
    return Sql(f"({value.text} {symbol} (to_days({_days(interval)}){rest}))", TIMESTAMP)


def _days(interval: Sql) -> str:
    return f"CAST({interval.text} // {DAY_US} AS INTEGER)"


def _by_months(value: Sql, months: str) -> Sql:
    if value.type == DATE:
        return Sql(f"CAST({value.text} + {months} AS DATE)", DATE)
    if value.type == TIMESTAMP_NTZ or zone.is_fixed():
        return Sql(f"({value.text} + {months})", value.type)
    return Sql(zone.near(f"({zone.local_of(value)} + {months})", value.text), TIMESTAMP)


def _shift_by_all(value: Sql, symbol: str, interval: Sql) -> Sql:
    """By the interval of make_interval: months, then days, then the rest, which a date must not have."""
    months = "(CAST(datepart('year', @i) AS INTEGER) * 12 + CAST(datepart('month', @i) AS INTEGER))"
    sign = "-" if symbol == "-" else ""
    moved = _by_months(Sql("@t", value.type), f"to_months({sign}{months})")
    rest = f"(@i - to_months({months}))"
    if value.type == DATE:
        whole = f"@i - to_months({months}) - to_days(CAST(datepart('day', @i) AS INTEGER)) = to_days(0)"
        wrong = fail("an interval with hours, minutes or seconds cannot be added to a DATE; CAST it to TIMESTAMP")
        text = (
            f"CASE WHEN {whole} OR @i IS NULL OR @t IS NULL THEN CAST({moved.text} {symbol} {rest} AS DATE) ELSE CAST({wrong} AS DATE) END"
        )
    else:
        text = f"{moved.text} {symbol} {rest}"
    return Sql(bound({"t": value.text, "i": interval.text}, text), value.type)


def _scaled(symbol: str, interval: Sql, factor: Sql) -> Sql:
    """Times or divided by a number, rounded half up."""
    if symbol == "/" and factor.literal == 0:
        raise LocatedError("an interval / 0 fails for every row; write nullif(x, 0), or leave it out")
    kind = YEAR_MONTH if interval.type.is_months else DAY_TIME
    store = duck_type(kind)
    zero = f"CASE WHEN @f = 0 AND @i IS NOT NULL THEN CAST({fail('an interval is divided by zero')} AS {{0}}) ELSE @f END"
    if is_integral(factor.type):
        text = f"@i * {convert(Sql('@f', factor.type), BIGINT).text}" if symbol == "*" else _divided(zero.format("BIGINT"))
    elif is_fractional(factor.type):
        factor = convert(factor, DOUBLE)
        text = "round(@i * @f)" if symbol == "*" else f"round(@i / {zero.format('DOUBLE')})"
    elif is_decimal(factor.type) and symbol == "*" and factor.type.precision <= 19:
        text = "round(CAST(@i AS DECIMAL(19,0)) * @f, 0)"
    else:
        raise LocatedError(f"an interval {symbol} {spark_type(factor.type)} is not supported; CAST the number to DOUBLE")
    return Sql(bound({"i": interval.text, "f": factor.text}, f"CAST({text} AS {store})"), kind)


def _divided(divisor: str) -> str:
    away = "CASE WHEN (@i < 0) = (@f < 0) THEN 1 ELSE -1 END"
    return f"@i // {divisor} + CASE WHEN abs(CAST(@i AS HUGEINT) % @f) * 2 >= abs(CAST(@f AS HUGEINT)) THEN {away} ELSE 0 END"


def part(field: str, interval: Sql) -> Sql | None:
    """extract(FIELD FROM interval); None if it has no such field."""
    if interval.type == INTERVAL:
        return _part_of_all(field, interval.text)
    if field not in interval.type.fields:
        return None
    text = interval.text
    if field == "SECOND":
        whole = f"({text} % {_UNIT_US['MINUTE']})"
        return Sql(f"CAST(CAST({whole} AS DECIMAL(8,0)) * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(8,6))", pa.decimal128(8, 6))
    if field in ("YEAR", "DAY"):
        return Sql(f"CAST({text} // {12 if field == 'YEAR' else DAY_US} AS INTEGER)", INT)
    if field == "MONTH":
        return Sql(f"CAST({text} % 12 AS TINYINT)", TINYINT)
    above = {"HOUR": "DAY", "MINUTE": "HOUR"}[field]
    return Sql(f"CAST({text} % {_UNIT_US[above]} // {_UNIT_US[field]} AS TINYINT)", TINYINT)


def _part_of_all(field: str, text: str) -> Sql | None:
    if field == "SECOND":
        micros = f"CAST(datepart('microsecond', {text}) AS DECIMAL(8,0))"
        return Sql(f"CAST({micros} * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(8,6))", pa.decimal128(8, 6))
    kinds = {"YEAR": INT, "MONTH": TINYINT, "DAY": INT, "HOUR": TINYINT, "MINUTE": TINYINT}
    if field not in kinds:
        return None
    hours = " % 24" if field == "HOUR" else ""
    return Sql(f"CAST(datepart('{field.lower()}', {text}){hours} AS {duck_type(kinds[field])})", kinds[field])
