"""Functions of strings and binaries. Positions are Spark's: from 1, characters are code points."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import cast, convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions import regexes
from streamproc.plan.functions.call import Builder, Call, plain
from streamproc.plan.types import BIGINT, BINARY, BOOLEAN, INT, NULL, STRING, Sql, bound, is_integral, text_literal


def _concat(call: Call) -> Sql:
    """Strings, binaries or arrays; NULL if any part is."""
    if not len(call):
        return Sql("''", STRING)
    if pa.types.is_list(call[0].type):
        arrays = unify(call.values)
        return Sql(f"({' || '.join(a.text for a in arrays)})", arrays[0].type)
    kind = BINARY if all(v.type == BINARY for v in call.values) else STRING
    return Sql(f"({' || '.join(_text(v, kind) for v in call.values)})", kind)


def _text(value: Sql, kind: pa.DataType) -> str:
    return cast(value, STRING).text if kind == STRING and value.type == BINARY else convert(value, kind).text


def _concat_ws(call: Call) -> Sql:
    """NULL parts are left out, arrays are several parts; a NULL separator gives NULL."""
    call.expect(1, 1000)
    arrays = any(pa.types.is_list(v.type) for v in call.values[1:])
    if not arrays:
        parts = "".join(f", {call.text(i, STRING)}" for i in range(1, len(call)))
        return Sql(
            f"concat_ws({call.text(0, STRING)}{parts})" if parts else f"(CASE WHEN {call.text(0, STRING)} IS NOT NULL THEN '' END)", STRING
        )
    lists = [convert(v, pa.list_(STRING)).text if pa.types.is_list(v.type) else f"[{convert(v, STRING).text}]" for v in call.values[1:]]
    parts = " || ".join(f"COALESCE({part}, []::VARCHAR[])" for part in lists)
    if not isinstance(call[0].literal, str):
        raise LocatedError("concat_ws() of arrays: the separator must be written as a literal")
    return Sql(f"COALESCE(array_to_string({parts}, {call.text(0, STRING)}), '')", STRING)


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
    """From `pos` (0 as 1, negative from the end; what lies before the string counts towards the length). Bytes of a binary."""
    call.expect(2, 3)
    kind = BINARY if call[0].type == BINARY else STRING
    text, position = call.text(0, kind), call[1].literal
    if kind == STRING and type(position) is int and position >= 0:
        length = f", CASE WHEN {call.text(2, INT)} < 0 THEN 0 ELSE {call.text(2, INT)} END" if len(call) == 3 else ""
        return Sql(f"substring({text}, {max(position, 1)}{length})", STRING)
    size = "octet_length(@s)" if kind == BINARY else "length(@s)"
    values = {
        "s": text,
        "p": f"CAST({call.text(1, INT)} AS BIGINT)",
        "n": f"CAST({call.text(2, INT)} AS BIGINT)" if len(call) == 3 else "2147483647",
    }
    start = f"CASE WHEN @p > 0 THEN @p - 1 WHEN @p < 0 THEN {size} + @p ELSE 0 END"
    known = "@s IS NOT NULL AND @p IS NOT NULL AND @n IS NOT NULL"
    places = bound(values, f"CASE WHEN {known} THEN {{'s': @s, 'b': {start}, 'e': {start} + greatest(@n, 0)}} END")
    first, count = "greatest(@r.b, 0) + 1", f"greatest(least(@r.e, {size.replace('@s', '@r.s')}) - greatest(@r.b, 0), 0)"
    made = f"substring(@r.s, {first}, {count})"
    if kind == BINARY:
        made = f"unhex(substring(hex(@r.s), 2 * greatest(@r.b, 0) + 1, 2 * {count}))"
    return Sql(bound({"r": places}, made), kind)


def _end_part(name: str) -> Builder:
    """`left` and `right`; bytes of a binary."""

    def build(call: Call) -> Sql:
        call.expect(2)
        count = f"greatest({call.text(1, INT)}, 0)"
        if call[0].type == BINARY:
            return Sql(f"unhex({name}(hex({call[0].text}), 2 * CAST({count} AS BIGINT)))", BINARY)
        return Sql(f"(CASE WHEN {call.text(1, INT)} IS NOT NULL THEN {name}({call.text(0, STRING)}, {count}) END)", STRING)

    return build


def _instr(text: int, part: int) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2, 2 if text == 0 else 3)
        if len(call) == 2:
            return Sql(f"CAST(strpos({call.text(text, STRING)}, {call.text(part, STRING)}) AS INTEGER)", INT)
        found = "strpos(substring(@s, @n), @p)"
        body = f"WHEN @n < 1 THEN 0 WHEN @p = '' THEN 1 WHEN {found} > 0 THEN {found} + @n - 1 ELSE 0 END"
        body = f"CASE WHEN @n IS NULL THEN 0 WHEN @s IS NULL OR @p IS NULL THEN NULL {body}"
        return Sql(f"CAST({bound({'s': call.text(1, STRING), 'p': call.text(0, STRING), 'n': call.text(2, INT)}, body)} AS INTEGER)", INT)

    return build


def _pad(name: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2, 3)
        if call[0].type == BINARY:
            raise LocatedError(f"{name}() of a BINARY is not supported; use hex(x), which is text")
        pad = call.string(2, "the padding") if len(call) == 3 else " "
        text, size = call.text(0, STRING), f"greatest({call.text(1, INT)}, 0)"
        return Sql(f"{name}({text}, {size}, {text_literal(pad)})" if pad else f"left({text}, {size})", STRING)

    return build


def _split_part(call: Call) -> Sql:
    call.expect(3)
    if call[2].literal == 0:
        raise LocatedError("split_part(): parts are counted from 1, or from -1 at the end")
    whole = "CASE WHEN abs(@n) = 1 THEN @s ELSE '' END"
    zero = "CAST(error('split_part(): parts are counted from 1') AS VARCHAR)"
    body = f"WHEN @n = 0 THEN {zero} WHEN @d = '' THEN {whole} ELSE split_part(@s, @d, @n) END"
    body = f"CASE WHEN @s IS NULL OR @d IS NULL OR @n IS NULL THEN NULL {body}"
    return Sql(bound({"s": call.text(0, STRING), "d": call.text(1, STRING), "n": call.text(2, INT)}, body), STRING)


def _substring_index(call: Call) -> Sql:
    """What stands before the n-th delimiter; of a negative n after it, counted from the end."""
    call.expect(3)
    parts = "string_split(@s, @d)"
    first, last = f"list_slice({parts}, 1, @n)", f"list_slice({parts}, greatest(len({parts}) + @n + 1, 1), len({parts}))"
    joined = f"list_reduce(CASE WHEN @n > 0 THEN {first} ELSE {last} END, lambda _a, _b: _a || @d || _b)"
    body = f"CASE WHEN @s IS NULL OR @d IS NULL OR @n IS NULL THEN NULL WHEN @n = 0 OR @d = '' THEN '' ELSE {joined} END"
    values = {"s": call.text(0, STRING), "d": call.text(1, STRING), "n": f"CAST({call.text(2, INT)} AS BIGINT)"}
    return Sql(bound(values, body), STRING)


def _overlay(call: Call) -> Sql:
    """The text before the position, the new text, and what follows its length (or the one said)."""
    call.expect(3, 4)
    if not (type(call[2].literal) is int and call[2].literal > 0):
        raise LocatedError("overlay(): the position must be written as a literal from 1 on")
    length = call.text(3, INT) if len(call) == 4 else "-1"
    values = {"s": call.text(0, STRING), "r": call.text(1, STRING), "n": length, "p": f"{call[2].literal}"}
    rest = "substring(@s, @p + CASE WHEN @n >= 0 THEN @n ELSE length(@r) END)"
    known = "@s IS NOT NULL AND @r IS NOT NULL AND @n IS NOT NULL"
    return Sql(bound(values, f"CASE WHEN {known} THEN substring(@s, 1, @p - 1) || @r || {rest} END"), STRING)


_UPPER = {"ß": "SS", "ŉ": "ʼN", "ﬀ": "FF", "ﬁ": "FI", "ﬂ": "FL", "ﬃ": "FFI", "ﬄ": "FFL", "ﬅ": "ST", "ﬆ": "ST", "ǰ": "J̌", "և": "ԵՒ"}


def _upper(call: Call) -> Sql:
    """DuckDB changes letter by letter; Java makes SS of ß, and several of ligatures."""
    call.expect(1)
    replaced = "@s"
    for letter, several in _UPPER.items():
        replaced = f"replace({replaced}, '{letter}', '{several}')"
    special = "".join(_UPPER)
    return Sql(
        bound({"s": call.text(0, STRING)}, f"upper(CASE WHEN regexp_matches(@s, '[{special}]') THEN {replaced} ELSE @s END)"), STRING
    )


def _lower(call: Call) -> Sql:
    """A sigma that ends a word, and a dotted capital I, which becomes two signs."""
    call.expect(1)
    final = "regexp_replace(@s, '(\\pL\\pM*)Σ(\\PL|$)', '\\1ς\\2', 'g')"
    special = f"replace({final}, 'İ', 'i\u0307')"
    return Sql(bound({"s": call.text(0, STRING)}, f"lower(CASE WHEN regexp_matches(@s, '[Σİ]') THEN {special} ELSE @s END)"), STRING)


def _initcap(call: Call) -> Sql:
    call.expect(1)
    text = "".join(["lower(", call.text(0, STRING), ")"])
    word = "upper(_w[1]) || _w[2:]"
    return Sql(f"array_to_string(list_transform(string_split({text}, ' '), lambda _w: {word}), ' ')", STRING)


def _chr(call: Call) -> Sql:
    """Of the number modulo 256; '' of a negative one."""
    call.expect(1)
    made = "CASE WHEN @n < 0 THEN '' ELSE chr(CAST(@n & 255 AS INTEGER)) END"
    return Sql(bound({"n": call.text(0, BIGINT)}, f"CASE WHEN @n IS NOT NULL THEN {made} END"), STRING)


_SOUNDEX = ("BFPVCGJKQSXZDTLMNRAEIOUY", "111122222222334556000000")


def _soundex(call: Call) -> Sql:
    """A text that begins with no ASCII letter is its own."""
    call.expect(1)
    first = f"translate(upper(left(@s, 1)), '{_SOUNDEX[0]}HW', '{_SOUNDEX[1]}00')"
    letters = "regexp_replace(regexp_replace(upper(substring(@s, 2)), '[HW]', '', 'g'), '[^A-Z]', '0', 'g')"
    body = f"translate({letters}, '{_SOUNDEX[0]}', '{_SOUNDEX[1]}')"
    squeezed = f"{first} || {body}"
    for digit in "123456":
        squeezed = f"regexp_replace({squeezed}, '{digit}+', '{digit}', 'g')"
    made = f"upper(left(@s, 1)) || left(replace(substring({squeezed}, 2), '0', '') || '000', 3)"
    return Sql(bound({"s": call.text(0, STRING)}, f"CASE WHEN regexp_matches(@s, '^[A-Za-z]') THEN {made} ELSE @s END"), STRING)


def _levenshtein(call: Call) -> Sql:
    call.expect(2)
    return Sql(f"CAST(levenshtein({call.text(0, STRING)}, {call.text(1, STRING)}) AS INTEGER)", INT)


def _find_in_set(call: Call) -> Sql:
    call.expect(2)
    body = "CASE WHEN contains(@x, ',') THEN 0 ELSE COALESCE(list_position(string_split(@s, ','), @x), 0) END"
    known = f"CASE WHEN @x IS NOT NULL AND @s IS NOT NULL THEN {body} END"
    return Sql(f"CAST({bound({'x': call.text(0, STRING), 's': call.text(1, STRING)}, known)} AS INTEGER)", INT)


def _elt(call: Call) -> Sql:
    """The n-th of the others; outside is an error."""
    call.expect(2, 1000)
    wrong = "CAST(error('elt(): the index is outside') AS VARCHAR)"
    parts = ", ".join(call.text(i, STRING) for i in range(1, len(call)))
    values = {"n": call.text(0, INT), "v": f"[{parts}]"}
    return Sql(bound(values, f"CASE WHEN @n IS NULL THEN NULL WHEN @n < 1 OR @n > {len(call) - 1} THEN {wrong} ELSE @v[@n] END"), STRING)


def _mask(call: Call) -> Sql:
    """Upper case letters, lower case letters, digits and others by what stands for them; NULL keeps them."""
    call.expect(1, 5)
    signs = ["X", "x", "n", None]
    for i in range(1, len(call)):
        signs[i - 1] = None if call[i].type == NULL else call.string(i, "what stands for them")
    if signs[3] is not None:
        raise LocatedError("mask() of other characters is not supported; use regexp_replace(x, '[^A-Za-z0-9]', '*')")
    text = call.text(0, STRING)
    marks = [("\\p{Lu}", signs[0], "\x01"), ("\\p{Ll}", signs[1], "\x02"), ("\\p{Nd}", signs[2], "\x03")]
    for letters, sign, mark in marks:
        text = f"regexp_replace({text}, '{letters}', '{mark}', 'g')" if sign is not None else text
    for _, sign, mark in marks:
        text = f"replace({text}, '{mark}', {text_literal(sign)})" if sign is not None else text
    return Sql(text, STRING)


def _url_encode(call: Call) -> Sql:
    """As forms do: a blank is +, and * stays."""
    call.expect(1)
    return Sql(f"replace(replace(replace(url_encode({call.text(0, STRING)}), '%20', '+'), '%2A', '*'), '~', '%7E')", STRING)


def _trimmed(name: str) -> Builder:
    """Blanks, or with two arguments the characters in the first; `btrim` has them second."""

    def build(call: Call) -> Sql:
        call.expect(1, 2)
        if len(call) == 1:
            return Sql(f"{name}({call.text(0, STRING)}, ' ')", STRING)
        text, characters = (0, 1) if name == "trim" else (1, 0)
        return Sql(f"{name}({call.text(text, STRING)}, {call.text(characters, STRING)})", STRING)

    return build


def _tested(template: str) -> Builder:
    """A test of strings or of binaries."""

    def build(call: Call) -> Sql:
        call.expect(2)
        binary = call[0].type == call[1].type == BINARY
        values = [f"hex({v.text})" for v in call.values] if binary else [call.text(i, STRING) for i in (0, 1)]
        if binary and template.startswith("contains"):
            raise LocatedError("contains() of BINARY is not supported; compare hex(x), which is text, by LIKE")
        return Sql(template.format(*values), BOOLEAN)

    return build


def _replace(call: Call) -> Sql:
    """'' is found nowhere."""
    call.expect(2, 3)
    new = call.text(2, STRING) if len(call) == 3 else "''"
    return Sql(f"replace({call.text(0, STRING)}, {call.text(1, STRING)}, {new})", STRING)


def _unhex(call: Call) -> Sql:
    """NULL of what is not hexadecimal."""
    call.expect(1)
    return Sql(bound({"x": call.text(0, STRING)}, "CASE WHEN regexp_full_match(@x, '[0-9A-Fa-f]*') THEN unhex(@x) END"), BINARY)


def _encode(call: Call) -> Sql:
    call.expect(2)
    charset = call.string(1, "the character set").upper()
    if charset not in ("UTF-8", "UTF8"):
        raise LocatedError(f"encode(): {charset} is not supported; use UTF-8")
    return Sql(f"encode({call.text(0, STRING)})", BINARY)


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
    """Lines of 76 characters, as MIME has them."""
    call.expect(1)
    lines = "regexp_replace(@t, '(.{76})', '\\1' || chr(13) || chr(10), 'g')"
    broken = f"CASE WHEN length(@t) <= 76 THEN @t ELSE regexp_replace({lines}, '\\r\\n$', '') END"
    return Sql(bound({"t": f"to_base64({convert(call[0], BINARY).text})"}, broken), STRING)


def _unbase64(call: Call) -> Sql:
    """Signs that are not of base64 are passed over, as is missing padding."""
    call.expect(1)
    clean = f"regexp_replace({call.text(0, STRING)}, '[^A-Za-z0-9+/]', '', 'g')"
    return Sql(bound({"t": clean}, "from_base64(rpad(@t, CAST((length(@t) + 3) // 4 * 4 AS INTEGER), '='))"), BINARY)


FUNCTIONS: Mapping[str, Builder] = {
    "upper": _upper, "ucase": _upper, "lower": _lower, "lcase": _lower, "initcap": _initcap,
    **dict.fromkeys(("length", "len", "char_length", "character_length"), _length),
    "octet_length": _bytes(1), "bit_length": _bytes(8), "concat": _concat, "concat_ws": _concat_ws,
    "substring": _substring, "substr": _substring, "substring_index": _substring_index, "overlay": _overlay,
    "left": _end_part("left"), "right": _end_part("right"), "trim": _trimmed("trim"), "btrim": _trimmed("trim"), "ltrim": _trimmed("ltrim"),
    "rtrim": _trimmed("rtrim"), "instr": _instr(0, 1), "locate": _instr(1, 0), "position": _instr(1, 0), "replace": _replace,
    "translate": plain("translate({0}, {1}, {2})", STRING, STRING, STRING, STRING),
    "repeat": plain("repeat({0}, CASE WHEN {1} < 0 THEN 0 ELSE {1} END)", STRING, STRING, INT), "lpad": _pad("lpad"), "rpad": _pad("rpad"),
    "space": plain("repeat(' ', CASE WHEN {0} < 0 THEN 0 ELSE {0} END)", STRING, INT), "startswith": _tested("starts_with({0}, {1})"),
    "endswith": _tested("ends_with({0}, {1})"), "contains": _tested("contains({0}, {1})"), "split_part": _split_part,
    "ascii": plain("ascii({0})", INT, STRING), "chr": _chr, "char": _chr, "soundex": _soundex, "levenshtein": _levenshtein,
    "find_in_set": _find_in_set, "elt": _elt, "mask": _mask, "url_encode": _url_encode,
    "hex": _hex, "unhex": _unhex, "md5": _digest("md5({0})"), "sha": _digest("sha1({0})"), "encode": _encode,
    "sha1": _digest("sha1({0})"), "sha2": _sha2, "base64": _base64, "unbase64": _unbase64, **regexes.FUNCTIONS,
}  # fmt: skip
