"""JSON verdicts and values against Python's own strict reader, on random and mutated payloads."""

from __future__ import annotations

import json
import math
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.batch import BAD_SCHEMA
from streamproc.formats import decoder as decoder_module
from streamproc.formats import make_decoder
from streamproc.schema import ddl_type, parse_ddl


def decode(payloads, ddl, **options):
    """(rows by input index, bad by input index); the SQL of large batches must say what the judge of small ones says."""
    schema = parse_ddl(ddl) if ddl else pa.schema([])
    decoder = make_decoder("json", schema, **options)
    assert decoder.schema == schema
    values = pa.array([p.encode() if isinstance(p, str) else p for p in payloads], pa.binary())
    small = verdicts(decoder.decode(values), len(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "SMALL_ROWS", 0)
        large = verdicts(decoder.decode(values), len(values))
    assert repr(small) == repr(large)
    return small


def verdicts(decoded, count):
    assert decoded.bad.schema == BAD_SCHEMA
    at = range(count) if decoded.index is None else decoded.index.to_pylist()
    rows = dict(zip(at, decoded.rows.to_pylist() if decoded.rows.num_columns else [{}] * decoded.rows.num_rows, strict=True))
    bad = {b["index"]: b for b in decoded.bad.to_pylist()}
    assert list(bad) == sorted(bad)
    assert sorted([*rows, *bad]) == list(range(count))
    return rows, bad


texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=True), st.integers(-200, 200))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(["s", "i", "d", "b", "x", "é"]), values, max_size=5)


@st.composite
def payload(draw):
    indent, separators = draw(st.sampled_from([(None, (",", ":")), (None, (", ", ": ")), (1, None)]))
    text = json.dumps(draw(records), ensure_ascii=draw(st.booleans()), indent=indent, separators=separators)
    return bytes(draw(mutations)(text.encode(), draw(st.integers(0, 2**16)), draw(st.sampled_from(b'{}[],:"\\ \n\x00\xff019aeNnuI-.+'))))


mutations = st.sampled_from(
    [
        lambda text, at, byte: text,
        lambda text, at, byte: text[: at % len(text)] + bytes([byte]) + text[at % len(text) :],
        lambda text, at, byte: text[: at % len(text)] + text[at % len(text) + 1 :],
        lambda text, at, byte: text[: at % len(text)] + bytes([byte]) + text[at % len(text) + 1 :],
        lambda text, at, byte: text.replace(b"}", b",}", 1),
    ]
)


class NumberText(str):
    __slots__ = ()


def refuse(constant):
    raise ValueError(constant)


def oracle(payload):
    """The record as Python's strict reader sees it, numbers as text; None if it is bad."""
    try:
        pairs = []
        found = json.loads(
            payload.decode().removeprefix("\ufeff"),
            parse_constant=refuse, parse_int=NumberText, parse_float=NumberText, object_pairs_hook=lambda p: pairs.extend(p) or p,
        )  # fmt: skip
        json.dumps(pairs, ensure_ascii=False).encode()  # lone surrogates
    except ValueError:
        return None
    if not isinstance(found, list) or payload.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return None
    return dict(reversed(found))  # the first of duplicates


def expected_row(record):
    s, i, d, b = (record.get(k) for k in "sidb")
    fits = (
        (i is None or (isinstance(i, NumberText) and i.lstrip("-").isdigit() and -(2**63) <= int(i) < 2**63))
        and (d is None or (isinstance(d, NumberText) and math.isfinite(float(d))))
        and (b is None or isinstance(b, bool))
    )
    text = s if s is None or type(s) in (str, NumberText) else json.dumps(s) if isinstance(s, bool) else ...
    return (text, i and int(i), d and float(d), b) if fits else None


@settings(max_examples=200, deadline=None)
@given(st.lists(payload(), min_size=1, max_size=8))
def test_verdicts_and_values_are_those_of_pythons_reader(payloads):
    rows, _ = decode(payloads, "s STRING, i BIGINT, d DOUBLE, b BOOLEAN")
    well_formed, _ = decode(payloads, "")
    for i, text in enumerate(payloads):
        record = oracle(text)
        assert (i in well_formed) == (record is not None), text
        row = record and expected_row(record) if record else record and () if record is None else (None,) * 4
        assert (i in rows) == (row is not None), text
        if row is not None:
            s, *others = rows[i].values()
            assert others == list(row[1:]), text
            assert row[0] is ... or s == row[0], text


@settings(max_examples=25, deadline=None)
@given(st.lists(payload(), min_size=2, max_size=10), st.integers(1, 9))
def test_decoding_is_the_same_however_the_payloads_are_cut(few, at):
    payloads, at = few * 100, at * 30 % (len(few) * 100)
    decoder = make_decoder("json", parse_ddl("s STRING, i BIGINT, d DOUBLE, b BOOLEAN"))
    whole, first, second = (verdicts(decoder.decode(pa.array(p, pa.binary())), len(p)) for p in (payloads, payloads[:at], payloads[at:]))
    for of_whole, of_first, of_second in zip(whole, first, second, strict=True):
        shifted = {i + at: row if "index" not in row else row | {"index": i + at} for i, row in of_second.items()}
        assert repr(dict(sorted(of_whole.items()))) == repr(dict(sorted((of_first | shifted).items())))


NESTED = (
    "o STRUCT<i: INT, s: STRING, d: DECIMAL(6,2), `a/b`: ARRAY<INT>>, l ARRAY<DECIMAL(8,3)>, t ARRAY<STRING>,"
    " m MAP<STRING, BIGINT>, b BINARY, n ARRAY<STRUCT<k: STRING, v: DOUBLE, w: ARRAY<STRUCT<x: TIMESTAMP, y: DATE>>>>,"
    " k MAP<STRING, ARRAY<BOOLEAN>>, z MAP<INT, STRING>"
)
TOKENS = [
    "1", "-0", "2.50", "1.00499999999999999999999", "1e3", "99999999999", '"a"', '"1.5"', '"AP8="', '"AP8"',
    '"2026-01-01"', '"2026-01-01T00:00:00Z"',
    "true", "null", "[]", "{}", '"\\u00e9"', '"x, y: z"', "NaN", "[1,]", '"\\ud800"',
]  # fmt: skip


def nested_value(draw, depth=0):
    """Any JSON value, made of what the columns expect and of what they do not."""
    kind = draw.random()
    if depth > 3 or kind < 0.5:
        return draw.choice(TOKENS)
    comma, colon = draw.choice([(",", ":"), (", ", ": ")])
    if kind < 0.75:
        return "[" + comma.join(nested_value(draw, depth + 1) for _ in range(draw.randrange(3))) + "]"
    return members(draw, ["i", "s", "d", "a/b", "k", "v", "w", "x", "y", "0"], comma, colon, depth)


def members(draw, names, comma, colon, depth):
    fields = (f'"{draw.choice(names)}"{colon}{nested_value(draw, depth + 1)}' for _ in range(draw.randrange(4)))
    return "{" + comma.join(fields) + "}"


FITTING = [
    '"o":{"i":1,"s":"x","d":2.50,"a/b":[1]}', '"o":{"i":null,"s":5}', '"l":[1,2.5,null]', '"l":["1.5",1.00499999999999999999999]',
    '"t":["a",1,true]',
    '"m":{"a":1,"b":null}', '"m":{"a":1,"a":2}', '"b":"AP8="', '"n":[{"k":"x","v":1.5,"w":[{"x":"2026-01-01","y":"2026-01-01"}]},null]',
    '"k":{"a":[true,false],"b":[]}', '"z":{"1":"a"}', '"t":["a, b",1.50]', '"l": [1.5, 2]', '"o": {"i": 1, "d": 1.005}',
    '"l":[1.5],"q":{"l":[1.5]}',
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_nested_columns_are_judged_by_sql_as_by_the_judge(seed):
    draw = random.Random(seed)
    payloads = []
    for _ in range(120):  # few enough for the judge to see all of them
        odd = [f'"{draw.choice("oltmbnkz")}":{nested_value(draw)}'] if draw.random() < 0.4 else []
        payloads.append("{" + ",".join([*draw.sample(FITTING, draw.randrange(4)), *odd]) + "}")
    for column in columns_of(NESTED):
        decode(payloads, column)
    rows, bad = decode(payloads, NESTED)
    assert len(rows) > 30
    assert len(bad) > 10


def columns_of(text):
    return [f"{f.name} {ddl_type(f.type)}".replace("a/b:", "`a/b`:") for f in parse_ddl(text)]
