"""Spark's datetime patterns (Java's letters) as DuckDB's strftime formats and as regular expressions."""

from __future__ import annotations

import re

from streamproc.plan.faults import LocatedError

_LETTERS = {
    "yyyy": ("%Y", "[0-9]{4}"), "yy": ("%y", "[0-9]{2}"), "MMMM": ("%B", "[A-Za-z]+"), "MMM": ("%b", "[A-Za-z]{3}"),
    "MM": ("%m", "[0-9]{2}"),
    "M": ("%-m", "[0-9]{1,2}"), "dd": ("%d", "[0-9]{2}"), "d": ("%-d", "[0-9]{1,2}"), "HH": ("%H", "[0-9]{2}"), "H": ("%-H", "[0-9]{1,2}"),
    "hh": ("%I", "[0-9]{2}"), "h": ("%-I", "[0-9]{1,2}"), "mm": ("%M", "[0-9]{2}"), "m": ("%-M", "[0-9]{1,2}"), "ss": ("%S", "[0-9]{2}"),
    "s": ("%-S", "[0-9]{1,2}"), "SSS": ("%g", "[0-9]{3}"), "SSSSSS": ("%f", "[0-9]{6}"), "a": ("%p", "[AP]M"),
    "E": ("%a", ""), "EEE": ("%a", ""), "EEEE": ("%A", ""), "DDD": ("%j", "[0-9]{3}"), "D": ("%-j", "[0-9]{1,3}"),
}  # fmt: skip
_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")


def strftime(pattern: str) -> str:
    """The format that prints what Spark's pattern prints."""
    return "".join(made for made, _ in _tokens(pattern))


def strptime(pattern: str) -> tuple[str, str]:
    """The format that reads what Spark's pattern reads, and a regular expression that Spark's strictness asks for."""
    tokens = _tokens(pattern)
    if not all(regex for _, regex in tokens):
        raise LocatedError(f"the pattern {pattern!r} can be printed but not read; leave the day of the week out")
    return "".join(made.replace("%-", "%") for made, _ in tokens), "".join(regex for _, regex in tokens)


def _tokens(pattern: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(pattern):
        match = _TOKEN.match(pattern, at)
        if match is None:
            raise LocatedError(f"the pattern {pattern!r} has an open quote")
        tokens.append(_token(match, pattern))
        at = match.end()
    return tokens


def _token(match: re.Match[str], pattern: str) -> tuple[str, str]:
    text = match[0]
    if match[2] is None:
        literal = "'" if text == "''" else (match[1] or "").replace("''", "'") if text.startswith("'") else text
        return literal.replace("%", "%%"), re.escape(literal)
    if text not in _LETTERS:
        raise LocatedError(f"the pattern {pattern!r}: {text!r} is not supported; use yyyy MM dd HH mm ss SSS")
    return _LETTERS[text]
