"""Functions of strings and binaries. Positions are Spark's: from 1, characters are code points."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call, either, plain
from streamproc.plan.types import BIGINT, BINARY, BOOLEAN, INT, STRING, Sql, is_integral, text_literal


def _concat(call: Call) -> Sql:
    """Strings or arrays; NULL if any part is."""
    call.expect(1, 1000)
    if pa.types.is_list(call[0].type):
        arrays = unify(call.values)
        return Sql(f"({' || '.join(a.text for a in arrays)})", arrays[0].type)
    return Sql(f"({' || '.join(convert(v, STRING).text for v in call.values)})", STRING)


def _concat_ws(call: Call) -> Sql:
    """NULL parts are left out; a NULL separator gives NULL."""
    call.expect(1, 1000)
    parts = "".join(f", {call.text(i, STRING)}" for i in range(1, len(call)))
    return Sql(f"concat_ws({call.text(0, STRING)}{parts})" if parts else "''", STRING)


def _length(call: Call) -> Sql:
    call.expect(1)
    if call[0].type == BINARY:
        return Sql(f"CAST(octet_length({call[0].text}) AS INTEGER)", INT)
    return Sql(f"CAST(length({call.text(0, STRING)}) AS INTEGER)", INT)


def _bytes(factor: int) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        value = call[0].text if call[0].type == BINARY else f"encode({call.text(0, STRING)})"
        return Sql(f"CAST(octet_length({value}) * {factor} AS INTEGER)", INT)

    return build


def _substring(call: Call) -> Sql:
    """From `pos` (0 as 1, negative from the end; what lies before the string counts towards the length)."""
    call.expect(2, 3)
    text, at = call.text(0, STRING), call.text(1, INT)
    position = call[1].literal
    if isinstance(position, int) and position >= 0:
        length = f", greatest({call.text(2, INT)}, 0)" if len(call) == 3 else ""
        return Sql(f"substring({text}, {max(position, 1)}{length})", STRING)
    start = f"(CASE WHEN {at} > 0 THEN {at} - 1 WHEN {at} < 0 THEN length({text}) + {at} ELSE 0 END)"
    if len(call) == 2:
        return Sql(f"substring({text}, greatest({start}, 0) + 1)", STRING)
    end = f"({start} + greatest({call.text(2, INT)}, 0))"
    return Sql(f"substring({text}, greatest({start}, 0) + 1, greatest({end} - greatest({start}, 0), 0))", STRING)


def _instr(text: int, part: int) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        return Sql(f"CAST(strpos({call.text(text, STRING)}, {call.text(part, STRING)}) AS INTEGER)", INT)

    return build


def _pad(name: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2, 3)
        pad = call.string(2, "the padding") if len(call) == 3 else " "
        if not pad:
            raise LocatedError(f"{name}(): the padding is empty")
        return Sql(f"{name}({call.text(0, STRING)}, greatest({call.text(1, INT)}, 0), {text_literal(pad)})", STRING)

    return build


def pattern(call: Call, index: int) -> str:
    """A regular expression: a literal that means the same in Java and in RE2."""
    text = call.string(index, "the regular expression")
    if re.search(r"\(\?[=!<>]|\\[1-9]|(?:[*+?]|\{\d+,?\d*\})\+|\\[GZRXhHvV]|&&|\[[^\]]*\[(?!:)", text):
        raise LocatedError(f"{call.name}(): look-around, back references, possessive quantifiers and \\G \\Z \\R \\h are not supported")
    return text


def _regexp_like(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"regexp_matches({call.text(0, STRING)}, {text_literal(pattern(call, 1))})", BOOLEAN)


def _group(call: Call) -> int:
    group = call.integer(2, "the group") if len(call) == 3 else 1
    bare = re.sub(r"\\.|\[[^\]]*\]", "", pattern(call, 1))  # without escapes and classes
    groups = len(re.findall(r"\((?!\?)", bare))
    if not 0 <= group <= groups:
        raise LocatedError(f"{call.name}(): the pattern has no group {group}; put brackets round it, or take group 0 for the whole match")
    return group


def _regexp_extract(call: Call) -> Sql:
    """Group 1 unless said; '' where nothing matches."""
    call.expect(2, 3)
    return Sql(f"regexp_extract({call.text(0, STRING)}, {text_literal(pattern(call, 1))}, {_group(call)})", STRING)


def _regexp_extract_all(call: Call) -> Sql:
    call.expect(2, 3)
    made = f"regexp_extract_all({call.text(0, STRING)}, {text_literal(pattern(call, 1))}, {_group(call)})"
    return Sql(made, pa.list_(STRING))


def _regexp_replace(call: Call) -> Sql:
    call.expect(3)
    made = _replacement(call.string(2, "the replacement"))
    return Sql(f"regexp_replace({call.text(0, STRING)}, {text_literal(pattern(call, 1))}, {text_literal(made)}, 'g')", STRING)


def _replacement(text: str) -> str:
    """Java writes a group `$1` and a dollar with a backslash before it; RE2 writes groups with a backslash."""
    if re.search(r"\$\{|\$\d\d|\$(?!\d)(?<!\\\$)|\\$", text):
        raise LocatedError(f"the replacement {text!r} is not supported; groups are $1 to $9, a dollar is \\$")
    return re.sub(r"\\(.)|\$(\d)", lambda m: m[1].replace("\\", "\\\\") if m[1] else f"\\{m[2]}", text)


def _regexp_count(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"CAST(len(regexp_extract_all({call.text(0, STRING)}, {text_literal(pattern(call, 1))})) AS INTEGER)", INT)


def _split(call: Call) -> Sql:
    call.expect(2)
    text, by = call.text(0, STRING), pattern(call, 1)
    if not by or re.fullmatch(r"[^\\]?[*?]", by):
        raise LocatedError("split(): a pattern that matches nothing is not supported")
    plain_text = re.sub(r"\\([^a-zA-Z0-9])", r"\1", by) if not re.search(r"(?<!\\)[.^$*+?{}()|\[\]]|\\[a-zA-Z0-9]", by) else None
    made = f"string_split_regex({text}, {text_literal(by)})" if plain_text is None else f"string_split({text}, {text_literal(plain_text)})"
    return Sql(made, pa.list_(STRING))


def _split_part(call: Call) -> Sql:
    call.expect(3)
    if call.integer(2, "the part") == 0:
        raise LocatedError("split_part(): parts are counted from 1, or from -1 at the end")
    return Sql(f"split_part({call.text(0, STRING)}, {call.text(1, STRING)}, {call.text(2, INT)})", STRING)


def _initcap(call: Call) -> Sql:
    call.expect(1)
    words = f"string_split(lower({call.text(0, STRING)}), ' ')"
    return Sql(f"array_to_string(list_transform({words}, lambda _w: upper(_w[1]) || _w[2:]), ' ')", STRING)


def _hex(call: Call) -> Sql:
    call.expect(1)
    value = convert(call[0], BIGINT) if is_integral(call[0].type) else call[0]
    if value.type not in (BIGINT, STRING, BINARY):
        raise call.misfit()
    return Sql(f"hex({value.text})", STRING)


def _digest(template: str) -> Builder:
    def build(call: Call) -> Sql:
        value = call[0].text if call[0].type == BINARY else f"encode({call.text(0, STRING)})"
        return Sql(template.format(value), STRING)

    return build


def _sha2(call: Call) -> Sql:
    call.expect(2)
    if call.integer(1, "the number of bits") not in (0, 256):
        raise LocatedError("sha2(): only 256 bits are supported")
    return _digest("sha256({0})")(call)


def _base64(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"to_base64({convert(call[0], BINARY).text})", STRING)


def _get_json_object(call: Call) -> Sql:
    """NULL where the text is no JSON or has nothing at the path; objects and arrays as JSON text."""
    call.expect(2)
    path = call.string(1, "the path")
    if not re.fullmatch(r"\$(\.[A-Za-z_][\w-]*|\['[^'*]+'\]|\[\d+\])*", path):
        raise LocatedError(f"get_json_object(): the path {path!r} is not supported; write $.a.b[0]")
    place = re.sub(r"\['([^']+)'\]", r'."\1"', path)
    place = re.sub(r"\.([A-Za-z_][\w-]*)", r'."\1"', place)
    text = call.text(0, STRING)
    return Sql(f"(CASE WHEN json_valid({text}) THEN json_extract_string({text}, {text_literal(place)}) END)", STRING)


_TRIM_ONE = plain("trim({0}, ' ')", STRING, STRING)

FUNCTIONS: Mapping[str, Builder] = {
    "upper": plain("upper({0})", STRING, STRING), "ucase": plain("upper({0})", STRING, STRING),
    "lower": plain("lower({0})", STRING, STRING), "lcase": plain("lower({0})", STRING, STRING),
    **dict.fromkeys(("length", "len", "char_length", "character_length"), _length),
    "octet_length": _bytes(1), "bit_length": _bytes(8),
    "concat": _concat, "concat_ws": _concat_ws, "substring": _substring, "substr": _substring,
    "left": plain("left({0}, greatest({1}, 0))", STRING, STRING, INT), "right": plain("right({0}, greatest({1}, 0))", STRING, STRING, INT),
    "trim": _TRIM_ONE, "btrim": either(_TRIM_ONE, plain("trim({0}, {1})", STRING, STRING, STRING)),
    "ltrim": plain("ltrim({0}, ' ')", STRING, STRING), "rtrim": plain("rtrim({0}, ' ')", STRING, STRING),
    "instr": _instr(0, 1), "locate": _instr(1, 0), "position": _instr(1, 0), "charindex": _instr(1, 0),
    "replace": either(plain("{0}", STRING, STRING), plain("replace({0}, {1}, '')", STRING, STRING, STRING),
                      plain("replace({0}, {1}, {2})", STRING, STRING, STRING, STRING)),
    "translate": plain("translate({0}, {1}, {2})", STRING, STRING, STRING, STRING),
    "repeat": plain("repeat({0}, greatest({1}, 0))", STRING, STRING, INT), "lpad": _pad("lpad"), "rpad": _pad("rpad"), "initcap": _initcap,
    "space": plain("repeat(' ', greatest({0}, 0))", STRING, INT),
    "startswith": plain("starts_with({0}, {1})", BOOLEAN, STRING, STRING),
    "endswith": plain("ends_with({0}, {1})", BOOLEAN, STRING, STRING),
    "contains": plain("contains({0}, {1})", BOOLEAN, STRING, STRING),
    **dict.fromkeys(("regexp_like", "rlike", "regexp"), _regexp_like), "regexp_extract": _regexp_extract,
    "regexp_extract_all": _regexp_extract_all, "regexp_replace": _regexp_replace, "regexp_count": _regexp_count,
    "split": _split, "split_part": _split_part, "ascii": plain("ascii({0})", INT, STRING),
    "hex": _hex, "unhex": plain("unhex({0})", BINARY, STRING), "md5": _digest("md5({0})"), "sha": _digest("sha1({0})"),
    "sha1": _digest("sha1({0})"), "sha2": _sha2, "base64": _base64, "unbase64": plain("from_base64({0})", BINARY, STRING),
    "get_json_object": _get_json_object,
}  # fmt: skip
