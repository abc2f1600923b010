"""Instants and local times: what clocks of a zone show, with the choices that Java makes and ICU does not.

A local time that clocks show twice is the earlier instant, or the one with the offset that a calculation came with; one that
they skip is moved on by the gap. DuckDB takes the later instant, so it is asked by way of the day before.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from functools import cache
from zoneinfo import available_timezones

from streamproc.batch import TIMESTAMP
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import TIMESTAMP_NTZ, Sql, bound, text_literal

SESSION: ContextVar[str] = ContextVar("zone", default="UTC")
"""The time zone of the job that is planned."""

_FIXED = re.compile(r"UTC|GMT|Z|Etc/(UTC|UCT|GMT|Zulu|Universal|Greenwich|GMT[+-]?\d+)|UCT|Zulu|Universal|Greenwich")
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{1,2})(?::(\d{2})(?::(\d{2}))?)?")
_UTC = re.compile(r"UTC|GMT|Z|Etc/(UTC|UCT|GMT|Zulu|Universal|Greenwich)|UCT|Zulu|Universal|Greenwich")
SHORT_IDS = {"PST": "America/Los_Angeles", "CST": "America/Chicago", "IST": "Asia/Kolkata", "JST": "Asia/Tokyo", "ECT": "Europe/Paris"}


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_fixed(zone: str | None = None) -> bool:
    """The zone has one offset for all times."""
    return _FIXED.fullmatch(zone or SESSION.get()) is not None


def is_utc(zone: str | None = None) -> bool:
    return _UTC.fullmatch(zone or SESSION.get()) is not None


def named(zone: str) -> str:
    """A zone as it is written in SQL, if it means the same to Java and to DuckDB; LocatedError otherwise."""
    if zone in SHORT_IDS:
        return SHORT_IDS[zone]
    if zone in ("EST", "MST", "HST") or not (_OFFSET.fullmatch(zone) or zone in _zones() or is_utc(zone)):
        raise LocatedError(f"the time zone {zone!r} is not supported; write a region such as 'Europe/Berlin', or '+02:00'")
    return zone


def local(instant: str, zone: str | None = None) -> str:
    """SQL of the TIMESTAMP (without zone) that clocks of `zone` (the session's) show at an instant."""
    offset = _OFFSET.fullmatch(zone or "")
    if offset:
        return f"make_timestamp(epoch_us({instant}) + {_offset_us(offset)})"
    if is_utc(zone):
        known = re.fullmatch(r"make_timestamptz\((\w+)\)", instant)
        return f"make_timestamp({known[1] if known else f'epoch_us({instant})'})"
    return f"timezone({text_literal(zone)}, {instant})" if zone else f"CAST({instant} AS TIMESTAMP)"


def instant(local_time: str, zone: str | None = None) -> str:
    """SQL of the first instant at which clocks of `zone` (the session's) show a local time."""
    offset = _OFFSET.fullmatch(zone or "")
    if offset:
        return f"make_timestamptz(epoch_us({local_time}) - {_offset_us(offset)})"
    if is_utc(zone):
        return f"make_timestamptz(epoch_us({local_time}))"
    if is_fixed(zone):
        return _later(local_time, zone)
    earlier = f"({_later('@l - to_days(1)', zone)} + to_days(1))"
    if zone and zone != SESSION.get():  # days are added by the session's calendar
        earlier = f"({_later('@l - to_days(1)', zone)} + to_hours(24))"
    return bound({"l": local_time}, f"CASE WHEN {local(earlier, zone)} = @l THEN {earlier} ELSE {_later('@l', zone)} END")


def _later(local_time: str, zone: str | None) -> str:
    return f"timezone({text_literal(zone)}, {local_time})" if zone else f"CAST({local_time} AS TIMESTAMPTZ)"


def near(local_time: str, origin: str) -> str:
    """SQL of the instant of a local time that was calculated from `origin`: with its offset if clocks are shown twice."""
    if is_fixed():
        return instant(local_time)
    same = f"make_timestamptz(epoch_us(@l) - epoch_us({local('@o')}) + epoch_us(@o))"
    found = f"CASE WHEN {local(same)} = @l THEN {same} ELSE {instant('_v.l')} END"
    return bound({"l": local_time, "o": origin}, found)


def local_of(value: Sql) -> str:
    """What the session's clocks show at a DATE, TIMESTAMP or TIMESTAMP_NTZ."""
    if value.type == TIMESTAMP:
        return local(value.text)
    return value.text if value.type == TIMESTAMP_NTZ else f"CAST({value.text} AS TIMESTAMP)"


def _offset_us(offset: re.Match[str]) -> int:
    sign, hours, minutes, seconds = offset.groups()
    return (-1 if sign == "-" else 1) * (int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) * 1_000_000
