"""Instants from text: ISO 8601 as the job file promises it, numbers since 1970, and Spark datetime patterns.

Every form has a Python judge and SQL with the same verdict. Instants are microseconds since 1970 UTC, years 1 to 9999 as in Spark.
Local times are read as java.time does: in a gap shifted forward by its length, in an overlap the earlier instant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from zoneinfo import ZoneInfo

from streamproc.formats.spark_pattern import SparkPattern

_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]+))?)?"
    r"(Z|[+-](?:0[0-9]|1[0-7])(?::?[0-5][0-9])?|[+-]18(?::?00)?)?)?"
)
_ZONE_SQL = "(Z|[+-](0[0-9]|1[0-7])(:?[0-5][0-9])?|[+-]18(:?00)?)"
_TIME_SQL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
UNIT_US = {"epoch_s": 1_000_000, "epoch_ms": 1000, "epoch_us": 1}
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def iso_moment(text: str, zone: ZoneInfo | None) -> int | None:
    """Microseconds since 1970; a text without zone is local to `zone` (None: UTC). None if it is no ISO time."""
    parts = _ISO.fullmatch(text)
    if parts is None:
        return None
    year, month, day = int(parts[1]), int(parts[2]), int(parts[3])
    try:
        days = date(year, month, day).toordinal() - 719_163
    except ValueError:
        return None
    seconds = days * 86400 + int(parts[4] or 0) * 3600 + int(parts[5] or 0) * 60 + int(parts[6] or 0)
    micros = seconds * 1_000_000 + int((parts[7] or "")[:6].ljust(6, "0"))
    micros -= _local_offset_us(micros, zone) if parts[8] is None and zone else _offset_us(parts[8])
    return micros if FIRST_US <= micros <= LAST_US else None


def _offset_us(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:] if len(zone) > 3 else 0)
    return (-minutes if zone[0] == "-" else minutes) * 60_000_000


def _local_offset_us(micros: int, zone: ZoneInfo) -> int:
    wall = _EPOCH + micros * _US
    offset = wall.replace(tzinfo=zone).utcoffset()
    assert offset is not None  # a ZoneInfo always has one
    return offset // _US


@dataclass(frozen=True)
class MomentFormat:
    """How one column writes times: `written` is "" (ISO 8601), epoch_s, epoch_ms, epoch_us or a Spark datetime pattern.

    ValueError at construction, with what may be written instead, for a pattern or zone that is unknown.
    """

    written: str = ""
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        _ = self._zone, self._pattern

    @property
    def numeric(self) -> bool:
        return self.written in UNIT_US

    @cached_property
    def _zone(self) -> ZoneInfo | None:
        return None if self.time_zone == "UTC" else ZoneInfo(self.time_zone)

    @cached_property
    def _pattern(self) -> SparkPattern | None:
        return SparkPattern(self.written) if self.written and not self.numeric else None

    def judge(self, text: str, *, zoned: bool) -> int | None:
        """Microseconds since 1970 (`zoned` false: of a wall clock, which takes no zone); None if it is no time."""
        if self.numeric:
            return self._since_1970(text)
        iso: str | None = self._pattern.to_iso(text) if self._pattern else text
        if iso is None or not (zoned or len(iso) == 10 or re.fullmatch(_TIME_SQL, iso)):
            return None
        return iso_moment(iso, self._zone if zoned else None)

    def _since_1970(self, text: str) -> int | None:
        if not _NUMBER.fullmatch(text) or abs(number := float(text)) > LAST_US:
            return None
        # a fraction is a double for every JSON reader
        exact = Decimal(text) if text.lstrip("-").isdigit() else Decimal(repr(number))
        micros = (exact * UNIT_US[self.written]).to_integral_value("ROUND_FLOOR")
        return int(micros) if FIRST_US <= micros <= LAST_US else None

    def sql(self, text: str, *, zoned: bool) -> str:
        """The same in SQL over plain text, as TIMESTAMP in UTC; NULL where it is no time or where only the judge can tell."""
        if self.numeric:
            return self._numeric_sql(text)
        if self._pattern:
            return self._iso_sql(self._pattern.iso_sql(text), zoned)
        return self._iso_sql(text, zoned)

    def _numeric_sql(self, text: str) -> str:
        unit = UNIT_US[self.written]
        whole = f"TRY_CAST({text} AS BIGINT)"
        within = f"{whole} BETWEEN {-(-FIRST_US // unit)} AND {LAST_US // unit}"
        return f"CASE WHEN regexp_full_match({text}, '-?(0|[1-9][0-9]*)') AND {within} THEN make_timestamp({whole} * {unit}) END"

    def _iso_sql(self, text: str, zoned: bool) -> str:
        if not zoned:
            return f"CASE WHEN regexp_full_match({text}, '{_TIME_SQL}') THEN TRY_CAST({text} AS TIMESTAMP) END"
        instant = f"make_timestamp(epoch_us(TRY_CAST({text} AS TIMESTAMPTZ)))"
        with_zone = f"WHEN regexp_full_match({text}, '{_TIME_SQL}{_ZONE_SQL}') THEN {instant}"
        local = f"WHEN regexp_full_match({text}, '{_TIME_SQL}') THEN TRY_CAST({text} AS TIMESTAMP)" if self._zone is None else ""
        return f"CASE {with_zone} {local} END"
