"""A JSON scanner without recursion, for what the fast readers cannot do: 1,000 levels of nesting, the first of duplicate keys.

It works on text that is already decoded from UTF-8 and gives values as their JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

MAX_DEPTH = 1000
_TOKEN = re.compile(
    r'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)|([{}\[\],:]))"
)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|([{\[])|([}\]])', re.DOTALL)
_OPEN = {"{": "}", "[": "]"}


def is_too_deep(text: str) -> bool:
    """Objects and arrays are nested in more than MAX_DEPTH levels; brackets inside strings do not count."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    level = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        level += (token[1] is not None) - (token[2] is not None)
        if level > MAX_DEPTH:
            return True
    return False


def scan_object(text: str) -> dict[str, str]:
    """Fields of the object that `text` is, the first of duplicate keys; msgspec.DecodeError if it is none."""
    fields: dict[str, str] = {}
    for key, value in _members(text, "{"):
        fields.setdefault(msgspec.json.decode(key, type=str), value)
    return fields


def scan_array(text: str) -> list[str]:
    """Items of the array that `text` is; msgspec.DecodeError if it is none."""
    return [value for _, value in _members(text, "[")]


def _members(text: str, opening: str) -> Iterator[tuple[str, str]]:
    """(key or "", value) of the members at the first level, while everything below is checked."""
    closers: list[str] = []  # of the open brackets, outermost first
    expected = "value"  # or: first (value or closer), key, first_key (key or closer), colon, more (comma or closer)
    key, start, at = "", 0, 0
    while expected != "end":
        token = _TOKEN.match(text, at)
        if token is None:
            raise msgspec.DecodeError(f"JSON is malformed: invalid character (byte {at})")
        kind, at = _kind(token), token.end()
        if len(closers) == 1 and expected in ("value", "first"):
            start = token.start(token.lastindex or 0)
        expected, closed = _step(expected, kind, closers, at)
        if kind == "string":
            msgspec.json.decode(token[1], type=str)  # lone surrogates
        if len(closers) == 1 and kind == "string" and expected == "colon":
            key = token[1]
        if len(closers) == 1 and closed and expected == "more":
            yield key, text[start:at]
    if text[at:].strip(" \t\r\n") or not text.lstrip(" \t\r\n").startswith(opening):
        raise msgspec.DecodeError(f"JSON is malformed: trailing characters (byte {at})")


def _kind(token: re.Match[str]) -> str:
    return "string" if token[1] is not None else "scalar" if token[2] is not None else token[3]


def _step(expected: str, kind: str, closers: list[str], at: int) -> tuple[str, bool]:
    """What is expected after a token of `kind`, and whether the token ended a value. Opens and closes brackets."""
    if kind in _OPEN and expected in ("value", "first"):
        closers.append(_OPEN[kind])
        return ("first_key" if kind == "{" else "first"), False
    if kind in ("string", "scalar") and expected in ("value", "first"):
        return _after_value(closers), True
    if kind == "string" and expected in ("key", "first_key"):
        return "colon", False
    if kind == ":" and expected == "colon":
        return "value", False
    if kind == "," and expected == "more":
        return ("key" if closers[-1] == "}" else "value"), False
    if closers and kind == closers[-1] and expected in ("more", "first" if kind == "]" else "first_key"):
        closers.pop()
        return _after_value(closers), True
    raise msgspec.DecodeError(f"JSON is malformed: unexpected {kind} (byte {at})")


def _after_value(closers: list[str]) -> str:
    return "more" if closers else "end"
