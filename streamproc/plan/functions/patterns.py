"""Spark's datetime patterns: what each letter prints, and how text is read by them.

The letters are Java's DateTimeFormatter's, without those that Spark refuses:
https://spark.apache.org/docs/latest/sql-ref-datetime-pattern.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from streamproc.plan import zone
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import text_literal

_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[\[\]{}#]|[^A-Za-z'\[\]{}#]+")
_PRINTED = {
    "y": "%Y", "yyy": "%Y", "yyyy": "%Y", "yy": "%y", "yyyyy": "0%Y", "yyyyyy": "00%Y", "G": "AD",
    **dict.fromkeys(("M", "L"), "%-m"), **dict.fromkeys(("MM", "LL"), "%m"), **dict.fromkeys(("MMM", "LLL"), "%b"),
    **dict.fromkeys(("MMMM", "LLLL"), "%B"), "d": "%-d", "dd": "%d", "D": "%-j", "DDD": "%j", **dict.fromkeys(("E", "EE", "EEE"), "%a"),
    "EEEE": "%A", "a": "%p", "h": "%-I", "hh": "%I", "H": "%-H", "HH": "%H", "m": "%-M", "mm": "%M", "s": "%-S", "ss": "%S",
    "SSS": "%g", "SSSSSS": "%f",
}  # fmt: skip
"""By strftime, for the years 1000 to 9999."""
_QUARTERS = "CASE quarter({0}) WHEN 1 THEN '1st' WHEN 2 THEN '2nd' WHEN 3 THEN '3rd' ELSE '4th' END || ' quarter'"
_EXPRESSIONS = {
    "DD": "CASE WHEN dayofyear({0}) < 10 THEN '0' ELSE '' END || strftime({0}, '%-j')", "F": "CAST((day({0}) - 1) % 7 + 1 AS VARCHAR)",
    "K": "CAST(hour({0}) % 12 AS VARCHAR)", "KK": "lpad(CAST(hour({0}) % 12 AS VARCHAR), 2, '0')",
    "k": "CAST((hour({0}) + 23) % 24 + 1 AS VARCHAR)", "kk": "lpad(CAST((hour({0}) + 23) % 24 + 1 AS VARCHAR), 2, '0')",
    **dict.fromkeys(("Q", "q"), "CAST(quarter({0}) AS VARCHAR)"), **dict.fromkeys(("QQ", "qq"), "'0' || CAST(quarter({0}) AS VARCHAR)"),
    **dict.fromkeys(("QQQ", "qqq"), "'Q' || CAST(quarter({0}) AS VARCHAR)"), **dict.fromkeys(("QQQQ", "qqqq"), _QUARTERS),
    **{"S" * n: f"left(strftime({{0}}, '%f'), {n})" for n in (1, 2, 4, 5)},
    **{"S" * n: f"strftime({{0}}, '%f') || '{'0' * (n - 6)}'" for n in (7, 8, 9)},
}  # fmt: skip
_YEARS = {
    "G": "CASE WHEN year({0}) > 0 THEN 'AD' ELSE 'BC' END", "y": "CAST(year({0}) AS VARCHAR)",
    "yy": "lpad(CAST(abs(year({0})) % 100 AS VARCHAR), 2, '0')",
    "yyyy": "CASE WHEN year({0}) < 0 THEN '-' WHEN year({0}) > 9999 THEN '+' ELSE '' END || " + "{padded}",
    **{"y" * n: "CASE WHEN year({0}) < 0 THEN '-' ELSE '' END || {padded}" for n in (3, 5, 6)},
}  # fmt: skip
"""Of every year; `{padded}` are its digits with zeros before them."""
_SECONDS = "lpad(CAST(abs({0}) % 60 AS VARCHAR), 2, '0')"
_HOURS, _MINUTES = "lpad(CAST(abs({0}) // 3600 AS VARCHAR), 2, '0')", "lpad(CAST(abs({0}) // 60 % 60 AS VARCHAR), 2, '0')"
_SIGN = "CASE WHEN {0} < 0 THEN '-' ELSE '+' END || "
_SHORT = _SIGN + _HOURS + " || CASE WHEN abs({0}) // 60 % 60 <> 0 THEN " + _MINUTES + " ELSE '' END"
_PLAIN, _COLON = _SIGN + _HOURS + " || " + _MINUTES, _SIGN + _HOURS + " || ':' || " + _MINUTES
_LONG = _PLAIN + " || CASE WHEN abs({0}) % 60 <> 0 THEN " + _SECONDS + " ELSE '' END"
_TAIL = " || CASE WHEN abs({0}) % 60 <> 0 THEN ':' || " + _SECONDS + " ELSE '' END"
_OFFSETS = {"x": _SHORT, "xx": _PLAIN, "xxx": _COLON, "xxxx": _LONG, "xxxxx": _COLON + _TAIL, **dict.fromkeys(("Z", "ZZ", "ZZZ"), _PLAIN)}
_GMT = _SIGN + "CAST(abs({0}) // 3600 AS VARCHAR) || CASE WHEN abs({0}) % 3600 <> 0 THEN ':' || " + _MINUTES + _TAIL + " ELSE '' END"
_ZONES = {
    **_OFFSETS,
    **{"X" * n: "CASE WHEN {0} = 0 THEN 'Z' ELSE " + _OFFSETS["x" * n] + " END" for n in range(1, 6)},
    "ZZZZZ": "CASE WHEN {0} = 0 THEN 'Z' ELSE " + _COLON + _TAIL + " END",
    "O": "'GMT' || CASE WHEN {0} = 0 THEN '' ELSE " + _GMT + " END",
    **dict.fromkeys(("OOOO", "ZZZZ"), "'GMT' || CASE WHEN {0} = 0 THEN '' ELSE " + _COLON + _TAIL + " END"),
}  # fmt: skip
"""Of the zone's offset in seconds."""

_NUMBER = "[0-9]{1,2}"
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_READ = {
    "yyyy": ("%Y", "[0-9]{4}"), "y": ("%Y", "[0-9]{1,4}"), "yy": ("%Y", "[0-9]{2}"), "MM": ("%m", "[0-9]{2}"), "M": ("%m", _NUMBER),
    "MMM": ("%b", f"(?i:{'|'.join(m[:3] for m in _MONTHS)})"), "MMMM": ("%B", f"(?i:{'|'.join(_MONTHS)})"),
    "dd": ("%d", "[0-9]{2}"), "d": ("%d", _NUMBER), "DDD": ("%j", "[0-9]{3}"), "HH": ("%H", "[0-9]{2}"), "H": ("%H", _NUMBER),
    "hh": ("%I", "[0-9]{2}"), "h": ("%I", _NUMBER), "a": ("%p", "(?i:[AP]M)"), "mm": ("%M", "[0-9]{2}"), "m": ("%M", _NUMBER),
    "ss": ("%S", "[0-9]{2}"), "s": ("%S", _NUMBER), **{"S" * n: ("%f", f"[0-9]{{1,{n}}}") for n in range(1, 7)},
    **dict.fromkeys(("xxx", "XXX"), ("%z", "[+-][0-9]{2}:[0-9]{2}")), "X": ("%z", "[+-][0-9]{2}(?:[0-9]{2})?"),
    **dict.fromkeys(("xx", "XX", "Z", "ZZ", "ZZZ"), ("%z", "[+-][0-9]{4}")), "zulu": ("%z", "Z"),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One way to read a text: what strptime reads, the form that Spark asks for, and how the text is made ready for strptime
    (regular expression and replacement).
    """

    format: str
    regex: str
    edit: tuple[str, str] | None

    @property
    def zoned(self) -> bool:
        return "%z" in self.format


def printed(pattern: str, local: str, instant: str) -> str:
    """SQL of what `pattern` prints of a local time; `instant` is the same as TIMESTAMP."""
    tokens = [t for t in _tokens(pattern) if t not in ("[", "]")]
    quick = _joined(tokens, local, instant, quick=True)
    if not any(t[0] in "yG" for t in tokens):
        return f"(CASE WHEN {local} IS NOT NULL THEN {quick} END)"
    slow = _joined(tokens, local, instant, quick=False)
    return f"(CASE WHEN {local} IS NULL THEN NULL WHEN year({local}) BETWEEN 1000 AND 9999 THEN {quick} ELSE {slow} END)"


def _joined(tokens: list[str], local: str, instant: str, *, quick: bool) -> str:
    """Strftime of as many letters at once as it has, and expressions for the others."""
    parts = []
    for simple, group in groupby(tokens, lambda t: t[0] == "'" or (t in _PRINTED and (quick or t not in _YEARS))):
        if simple:
            made = "".join(t[1:].replace("%", "%%") if t[0] == "'" else _PRINTED[t] for t in group)
            parts.append(f"strftime({local}, {text_literal(made)})")
        else:
            parts += [f"({_expression(t, local, instant)})" for t in group]
    return f"({' || '.join(parts)})" if parts else "''"


def _expression(letters: str, local: str, instant: str) -> str:
    if letters in _YEARS:
        digits = "CAST(abs(year({0})) AS VARCHAR)"
        padded = f"lpad({digits}, CAST(greatest({len(letters)}, length({digits})) AS INTEGER), '0')"
        return _YEARS[letters].replace("{padded}", padded).replace("{0}", local)
    if letters in _EXPRESSIONS:
        return _EXPRESSIONS[letters].replace("{0}", local)
    if letters in _ZONES:
        return _ZONES[letters].replace("{0}", f"((epoch_us({local}) - epoch_us({instant})) // 1000000)")
    if letters == "VV":
        return text_literal(zone.SESSION.get())
    if letters in ("z", "zz", "zzz", "zzzz") and zone.SESSION.get() == "UTC":
        return "'UTC'" if letters != "zzzz" else "'Coordinated Universal Time'"
    raise _refused(letters, "printed")


def readings(pattern: str) -> list[Reading]:
    """The ways to read text by `pattern`: one for every choice of its optional parts, and of an offset or Z."""
    ways = [way for tokens in _choices(list(_tokens(pattern))) for way in _zulu(tokens)]
    return [_reading(tokens, pattern) for tokens in ways]


def _zulu(tokens: list[str]) -> list[list[str]]:
    also = [["zulu" if t[0] == "X" else t for t in tokens]] if any(t[0] == "X" for t in tokens) else []
    return [tokens, *also]


def _choices(tokens: list[str]) -> list[list[str]]:
    """The pattern with and without each part in brackets."""
    if "[" not in tokens:
        return [tokens]
    start, depth, end = tokens.index("["), 0, None
    for at, token in enumerate(tokens[start:], start):
        depth += (token == "[") - (token == "]")
        if depth == 0:
            end = at
            break
    if end is None or tokens.count("[") > 3:
        raise LocatedError("a pattern has at most three optional parts, each closed by ]")
    return _choices(tokens[:start] + tokens[start + 1 : end] + tokens[end + 1 :]) + _choices(tokens[:start] + tokens[end + 1 :])


def _reading(tokens: list[str], pattern: str) -> Reading:
    fields = [t for t in tokens if t[0] != "'"]
    for token in fields:
        if token not in _READ:
            raise _refused(token, "read")
    _check(fields, pattern)
    formats = "".join(t[1:].replace("%", "%%") if t[0] == "'" else _READ[t][0] for t in tokens)
    form = "".join(re.escape(t[1:]) if t[0] == "'" else f"({_READ[t][1]})" for t in tokens)
    group = iter(range(1, 10))
    target = "".join(t[1:].replace("\\", "\\\\") if t[0] == "'" else _EDITS.get(t, "\\{0}").format(next(group)) for t in tokens)
    if not any(t[0] == "y" for t in fields):
        return Reading(f"%Y {formats}", form, (f"^{form}$", f"1970 {target}"))
    return Reading(formats, form, (f"^{form}$", target) if any(t in _EDITS for t in fields) else None)


_EDITS = {"yy": "20\\{0}", "zulu": "+00"}
"""What a field becomes where strptime reads it otherwise."""


def _check(fields: list[str], pattern: str) -> None:
    kinds = [_READ[f][0] for f in fields]
    if len(set(kinds)) < len(kinds):
        raise LocatedError(f"the pattern {pattern!r} names a field twice")
    if ("%I" in kinds) != ("%p" in kinds) or ("%H" in kinds and "%p" in kinds):
        raise LocatedError(f"the pattern {pattern!r}: h goes with a (AM or PM), H without")
    if len(kinds) > 9:
        raise LocatedError(f"the pattern {pattern!r} has too many fields")
    if "%j" in kinds and ("%m" in kinds or "%d" in kinds or "%Y" not in kinds):
        raise LocatedError(f"the pattern {pattern!r}: DDD, the day of the year, stands with yyyy alone")


def _refused(letters: str, what: str) -> LocatedError:
    return LocatedError(f"the datetime pattern's {letters!r} cannot be {what} here; use y M d H h m s S a, and X or Z for an offset")


def _tokens(pattern: str) -> Iterator[str]:
    """Runs of a letter, brackets, and `'` with a text after it."""
    at = 0
    while at < len(pattern):
        match = _TOKEN.match(pattern, at)
        if match is None:
            raise LocatedError(f"the pattern {pattern!r} has an open quote")
        at, text = match.end(), match[0]
        if text[0] in "{}#":
            raise LocatedError(f"the pattern {pattern!r}: {text[0]!r} is reserved; write it in quotes")
        if match[2] or text in "[]":
            yield text
        else:
            yield "'" + ("'" if text == "''" else (match[1] if text[0] == "'" else text).replace("''", "'"))
