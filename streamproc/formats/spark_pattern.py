"""Spark datetime patterns, rewritten to ISO 8601: `dd/MM/yyyy HH:mm:ss` turns 24/12/2026 18:00:00 into 2026-12-24T18:00:00."""

from __future__ import annotations

import re
from functools import cached_property

_FIELDS = {
    "yyyy": ("year", "[0-9]{4}"), "uuuu": ("year", "[0-9]{4}"), "MM": ("month", "[0-9]{2}"), "dd": ("day", "[0-9]{2}"),
    "HH": ("hour", "[0-9]{2}"), "mm": ("minute", "[0-9]{2}"), "ss": ("second", "[0-9]{2}"),
    "XXX": ("zone", "Z|[+-][0-9]{2}:[0-9]{2}"), "XX": ("zone", "Z|[+-][0-9]{4}"), "X": ("zone", "Z|[+-][0-9]{2}(?:[0-9]{2})?"),
    "xxx": ("zone", "[+-][0-9]{2}:[0-9]{2}"), "xx": ("zone", "[+-][0-9]{4}"), "Z": ("zone", "[+-][0-9]{4}"),
}  # fmt: skip
_PART = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']")


class SparkPattern:
    """Compiled pattern. ValueError names the letters that are not supported."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._regex, self._groups = _compile(pattern)

    def __repr__(self) -> str:
        return f"SparkPattern({self.pattern!r})"

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._regex)

    @cached_property
    def _iso(self) -> str:
        r"""Replacement text with \1 … for the groups."""
        where = {name: f"\\{i + 1}" for i, name in enumerate(self._groups)}
        fraction = f".{where['fraction']}" if "fraction" in where else ""
        time = f"T{where.get('hour', '00')}:{where.get('minute', '00')}:{where.get('second', '00')}{fraction}{where.get('zone', '')}"
        return f"{where['year']}-{where.get('month', '01')}-{where.get('day', '01')}{time}"

    def to_iso(self, text: str) -> str | None:
        """The time in ISO 8601, None if the text does not have the pattern."""
        found = self._compiled.fullmatch(text)
        return found.expand(self._iso) if found else None

    def iso_sql(self, text: str) -> str:
        regex, iso = (part.replace("'", "''") for part in (self._regex, self._iso))
        return f"CASE WHEN regexp_full_match({text}, '{regex}') THEN regexp_replace({text}, '^{regex}$', '{iso}') END"


def _compile(pattern: str) -> tuple[str, tuple[str, ...]]:
    regex, groups, at = "", [], 0
    while at < len(pattern):
        part = _PART.match(pattern, at)
        if part is None:
            raise ValueError(f"datetime pattern {pattern!r}: a quote is not closed")
        at = part.end()
        if part[2] is None:
            regex += re.escape(part[1].replace("''", "'") or "'" if part[1] is not None else part[0])
            continue
        name, form = _field(pattern, part[0])
        groups.append(name)
        regex += f"({form})"
    if "year" not in groups or len(set(groups)) < len(groups):
        raise ValueError(f"datetime pattern {pattern!r}: write each field once, the year (yyyy) among them")
    return regex, tuple(groups)


def _field(pattern: str, letters: str) -> tuple[str, str]:
    if set(letters) == {"S"}:
        return "fraction", f"[0-9]{{{len(letters)}}}"
    if letters not in _FIELDS:
        raise ValueError(f"datetime pattern {pattern!r}: {letters} is not supported; use yyyy MM dd HH mm ss S… X and quoted text")
    return _FIELDS[letters]
