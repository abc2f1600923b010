"""Regular expressions: Java's written so that RE2 means the same, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import BOOLEAN, INT, STRING, Sql, bound, text_literal

_LINE_ENDS = r"\n\r\x{85}\x{2028}\x{2029}"
_LAST_LINE_END = rf"(?:\r\n|[{_LINE_ENDS}])?"
_BLANKS = r"\t\n\x{0B}\f\r "
_HORIZONTAL = r" \t\x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}"
_NAMED = {
    "Alpha": "A-Za-z", "Lower": "a-z", "Upper": "A-Z", "Digit": "0-9", "Alnum": "0-9A-Za-z", "XDigit": "0-9A-Fa-f", "ASCII": r"\x00-\x7F",
    "Space": _BLANKS, "Blank": r" \t", "Punct": r"!-/:-@\[-`{-~", "Cntrl": r"\x00-\x1F\x7F", "Graph": "!-~", "Print": " -~",
}  # fmt: skip
_TOKEN = re.compile(
    r"\\Q(?P<quoted>.*?)(?:\\E|$)|\\(?:u(?P<unicode>[0-9A-Fa-f]{4})|x(?P<hex>[0-9A-Fa-f]{2})|x\{(?P<code>[0-9A-Fa-f]+)\}"
    r"|(?P<negated>[pP])(?:\{(?P<name>\w+)\}|(?P<letter>[A-Z]))|(?P<escaped>.))|(?P<open>\((?:\?[^)\w<]|\?<?[\w-]*[:)>]?|\?<[=!])?)|(?P<plain>.)",
    re.DOTALL,
)


class _UnlikeError(Exception):  # stays in this module
    """What means something else in RE2, in words."""


@dataclass
class Regex:
    """`text` is for RE2; `groups` are the capturing ones; `can_be_empty`: it may match nothing; `at_end`: it ends with `$`."""

    text: str
    groups: int = 0
    can_be_empty: bool = False
    at_end: bool = False


def regex(call: Call, index: int) -> Regex:
    """An argument that is a literal regular expression; LocatedError if RE2 has none of that meaning."""
    java = call.string(index, "the regular expression")
    try:
        return java_regex(java)
    except _UnlikeError as error:
        raise LocatedError(f"{call.name}(): {error} in {java!r} is not supported here; write it another way") from None


def java_regex(java: str) -> Regex:
    flags, java = _flags(java)
    reader = _Reader(flags)
    for match in _TOKEN.finditer(java):
        reader.read(match)
    made = Regex("(?s)" * ("s" in flags) + "(?m)" * ("m" in flags) + reader.text, reader.groups)
    made.at_end = reader.ends > 0
    if reader.ends and (reader.ends > 1 or not reader.text.endswith("$") or "|" in reader.text):
        raise _UnlikeError("a $ that is not the last sign")
    made.can_be_empty = _can_be_empty(made.text)
    return made


def _flags(java: str) -> tuple[str, str]:
    match = re.match(r"\(\?([imsdxuU]+)\)", java)
    if match is None:
        return "", java
    if set(match[1]) & set("xuU") or ("m" in match[1] and "d" not in match[1]):
        raise _UnlikeError(f"(?{match[1]})" + " (write (?md) for lines that end with \\n)" * ("m" in match[1]))
    if "i" in match[1] and not java.isascii():
        raise _UnlikeError("(?i) with letters beyond ASCII")
    return match[1], java[match.end() :]


class _Reader:
    """Takes a pattern's tokens one by one; `class_` is what stands in an open […]."""

    def __init__(self, flags: str) -> None:
        self.flags, self.text, self.groups, self.ends = flags, "", 0, 0
        self.in_class = False
        self._last = ""

    def read(self, token: re.Match[str]) -> None:
        kind = token.lastgroup or "quoted"
        if kind == "open" and self.in_class:
            kind = "plain"
        made = getattr(self, f"_{kind}")(token)
        self._last = token[0]
        self.text += made

    def _quoted(self, token: re.Match[str]) -> str:
        return "".join(self._letter_of(c) for c in token["quoted"])

    def _unicode(self, token: re.Match[str]) -> str:
        return rf"\x{{{token['unicode']}}}"

    def _hex(self, token: re.Match[str]) -> str:
        return rf"\x{{{token['hex']}}}"

    def _code(self, token: re.Match[str]) -> str:
        return rf"\x{{{token['code']}}}"

    def _name(self, token: re.Match[str]) -> str:
        name, sign = token["name"], token["negated"]
        if name in _NAMED:
            if self.in_class and sign == "P":
                raise _UnlikeError(token[0])
            return _NAMED[name] if self.in_class else f"[{'^' * (sign == 'P')}{_NAMED[name]}]"
        if not re.fullmatch(r"[LMNPSZ][a-z]?", name.removeprefix("Is")):
            raise _UnlikeError(token[0])
        return rf"\{sign}{{{name.removeprefix('Is')}}}"

    def _letter(self, token: re.Match[str]) -> str:
        return rf"\{token['negated']}{token['letter']}"

    def _escaped(self, token: re.Match[str]) -> str:
        sign = token["escaped"]
        blanks = {"s": _BLANKS, "h": _HORIZONTAL, "v": r"\x{0B}" + _LINE_ENDS}
        if sign in blanks:
            return blanks[sign] if self.in_class else f"[{blanks[sign]}]"
        if sign in "SHV" and not self.in_class:
            return f"[^{blanks[sign.lower()]}]"
        if sign == "Z" and not self.in_class:
            self.ends += 1
            return "$"
        if sign == "e":
            return r"\x{1B}"
        if sign in "dDwWtnrfa" or (sign in "bBAz" and not self.in_class):
            return token[0]
        if sign.isalnum():
            raise _UnlikeError(token[0])
        return re.escape(sign) if sign.isascii() else sign

    def _open(self, token: re.Match[str]) -> str:
        mark = token["open"]
        if mark == "(":
            self.groups += 1
            return mark
        if mark == "(?:":
            return mark
        if re.fullmatch(r"\(\?<\w+>", mark):
            self.groups += 1
            return mark.replace("?<", "?P<")
        raise _UnlikeError("look-around" if mark[2] in "=!<" else mark)

    def _plain(self, token: re.Match[str]) -> str:
        sign = token["plain"] or token[0]
        if self.in_class:
            return self._inside(sign)
        if sign == "[":
            self.in_class = True
        if sign == "." and "s" not in self.flags:
            return "." if "d" in self.flags else f"[^{_LINE_ENDS}]"
        if sign == "$" and "m" not in self.flags:
            self.ends += 1
            return "$"
        if sign == "+" and self._last in ("*", "+", "?", "}"):
            raise _UnlikeError("a possessive quantifier")
        return self._letter_of(sign)

    def _inside(self, sign: str) -> str:
        if sign == "[" or (sign == "&" and self._last == "&"):
            raise _UnlikeError("a class within a class" if sign == "[" else "&&")
        if sign == "]":
            if self._last in ("[", "^") and self.text.endswith(("[", "[^")):
                raise _UnlikeError("[]…]")
            self.in_class = False
            return sign
        if "i" in self.flags and (sign == "-" or self._last == "-") and self._last != "[":
            raise _UnlikeError("a range in a class with (?i)")
        return sign + sign.swapcase() if "i" in self.flags and sign.isalpha() else sign

    def _letter_of(self, sign: str) -> str:
        """A literal sign; ASCII letters in both cases with (?i), since RE2 would take ſ for s too."""
        if "i" in self.flags and sign.isalpha():
            return f"[{sign.lower()}{sign.upper()}]"
        return re.escape(sign) if self._last.startswith("\\Q") and sign.isascii() else sign


def _can_be_empty(text: str) -> bool:
    python = re.sub(r"\\[pP](\{\w+\}|[A-Z])|\\x\{[0-9A-Fa-f]+\}", "a", text.replace("(?s)", "").replace("(?m)", "")).replace("\\z", "\\Z")
    try:
        return re.compile(python).match("") is not None or _least_width(python) == 0
    except re.error:
        raise _UnlikeError("what is no regular expression, or one of Java alone,") from None


def _least_width(python: str) -> int:
    from re import _parser  # type: ignore[attr-defined]

    return int(_parser.parse(python).getwidth()[0])


def tested(made: Regex) -> str:
    """For a test whether it matches: `$` is also before a last line end."""
    return made.text[:-1] + _LAST_LINE_END + r"\z" if made.at_end else made.text


def _regexp_like(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"regexp_matches({call.text(0, STRING)}, {text_literal(tested(regex(call, 1)))})", BOOLEAN)


def _grouped(call: Call, place: int = 2) -> tuple[Regex, int]:
    """The pattern and the number of the group that is asked for."""
    made = regex(call, 1)
    group = call.integer(place, "the group") if len(call) > place else 1
    if not 0 <= group <= made.groups:
        raise LocatedError(f"{call.name}(): the pattern has no group {group}; put brackets round it, or take group 0 for the whole match")
    if made.at_end and group == 0:
        made, group = Regex(f"({made.text[:-1]}){_LAST_LINE_END}\\z", made.groups + 1, made.can_be_empty), 1
    return made, group


def _regexp_extract(call: Call) -> Sql:
    """Group 1 unless said; '' where nothing matches."""
    call.expect(2, 3)
    made, group = _grouped(call)
    return Sql(f"regexp_extract({call.text(0, STRING)}, {text_literal(tested(made))}, {group})", STRING)


def _each(call: Call, made: Regex) -> str:
    """The pattern for what finds all matches: one that may be empty is found at other places by RE2."""
    if made.can_be_empty:
        raise LocatedError(f"{call.name}(): a pattern that may match nothing is not supported; write one that matches at least a character")
    return text_literal(tested(made))


def _regexp_extract_all(call: Call) -> Sql:
    call.expect(2, 3)
    made, group = _grouped(call)
    return Sql(f"regexp_extract_all({call.text(0, STRING)}, {_each(call, made)}, {group})", pa.list_(STRING))


def _regexp_replace(call: Call) -> Sql:
    call.expect(3, 4)
    if len(call) == 4 and call.integer(3, "the position") != 1:
        raise LocatedError("regexp_replace() from a position on is not supported; cut the text with substring() first")
    made = regex(call, 1)
    new = _replacement(call, call.string(2, "the replacement"), made.groups)
    if made.at_end:
        if made.groups > 8:
            raise LocatedError("regexp_replace(): $ after nine groups is not supported")
        made = Regex(f"{made.text[:-1]}({_LAST_LINE_END})\\z", made.groups + 1, made.can_be_empty and made.text != "$")
        new += f"\\{made.groups}"
    return Sql(f"regexp_replace({call.text(0, STRING)}, {_each(call, made)}, {text_literal(new)}, 'g')", STRING)


def _replacement(call: Call, text: str, groups: int) -> str:
    """Java writes a group `$1` and a dollar with a backslash before it; RE2 writes groups with a backslash."""
    if re.search(r"(?<!\\)\$(?!\d)|\\$|(?<!\\)\$\d\d", text):
        raise LocatedError(f"the replacement {text!r} is not supported; groups are $1 to $9, a dollar is \\$")
    if any(int(n) > groups for n in re.findall(r"(?<!\\)\$(\d)", text)):
        raise LocatedError(f"{call.name}(): the replacement {text!r} names a group that the pattern has not")
    return re.sub(r"\\(.)|\$(\d)|\\", lambda m: m[1].replace("\\", "\\\\") if m[1] else f"\\{m[2]}", text)


def _regexp_count(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"CAST(len(regexp_extract_all({call.text(0, STRING)}, {_each(call, regex(call, 1))})) AS INTEGER)", INT)


def _regexp_substr(call: Call) -> Sql:
    """NULL where nothing matches."""
    call.expect(2)
    made = regex(call, 1)
    inner = Regex(f"({made.text[:-1]}){_LAST_LINE_END}\\z" if made.at_end else f"({made.text})")
    found = text_literal(tested(inner))
    return Sql(
        bound({"s": call.text(0, STRING)}, f"CASE WHEN regexp_matches(@s, {_at(found)}) THEN regexp_extract(@s, {_at(found)}, 1) END"),
        STRING,
    )


def _regexp_instr(call: Call) -> Sql:
    """The position of the first match, 0 if there is none."""
    call.expect(2, 3)
    made = regex(call, 1)
    before = _at(text_literal(f"(?s)^(.*?)(?:{tested(made)})"))
    if made.text.startswith("("):
        raise LocatedError("regexp_instr() of a pattern that begins with a group or flags is not supported; leave the brackets out")
    body = f"CASE WHEN regexp_matches(@s, {before}) THEN length(regexp_extract(@s, {before}, 1)) + 1 ELSE 0 END"
    return Sql(f"CAST({bound({'s': call.text(0, STRING)}, f'CASE WHEN @s IS NOT NULL THEN {body} END')} AS INTEGER)", INT)


def _at(literal: str) -> str:
    """A literal inside of `bound`, where @ begins a name."""
    return literal.replace("@", r"\x{40}")


def _split(call: Call) -> Sql:
    """Limits of 0 or less split all, and keep empty parts at the end."""
    call.expect(2, 3)
    if len(call) == 3 and call.integer(2, "the limit") > 0:
        raise LocatedError("split() with a limit is not supported; take the parts with split_part(), or regexp_extract the rest")
    made = regex(call, 1)
    kind, java = pa.list_(STRING), call.string(1, "the regular expression")
    if java == "":
        parts = "regexp_extract_all(@s, '(?s).')"
        return Sql(bound({"s": call.text(0, STRING)}, f"CASE WHEN @s = '' THEN [''] WHEN @s IS NOT NULL THEN {parts} END"), kind)
    simple = re.sub(r"\\([^a-zA-Z0-9])", r"\1", java) if not re.search(r"(?<!\\)[.^$*+?{}()|\[\]]|\\[a-zA-Z0-9]", java) else None
    if simple is not None:
        return Sql(f"string_split({call.text(0, STRING)}, {text_literal(simple)})", kind)
    return Sql(f"string_split_regex({call.text(0, STRING)}, {_each(call, made)})", kind)


FUNCTIONS: Mapping[str, Builder] = {
    **dict.fromkeys(("regexp_like", "rlike", "regexp"), _regexp_like), "regexp_extract": _regexp_extract,
    "regexp_extract_all": _regexp_extract_all, "regexp_replace": _regexp_replace, "regexp_count": _regexp_count,
    "regexp_substr": _regexp_substr, "regexp_instr": _regexp_instr, "split": _split,
}  # fmt: skip
