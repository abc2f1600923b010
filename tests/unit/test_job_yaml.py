"""The YAML of a job file: YAML 1.2 values, lines, variables and overrides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from streamproc.job.document import MAX_NODES, Document, read_document
from streamproc.options import Substituted


def read(text: str, environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Document:
    return read_document(text, environment or {}, overrides)


def value(text: str, environment: Mapping[str, str] | None = None) -> Any:
    document = read(f"x: {text}", environment)
    assert document.faults == []
    return document.value["x"]


def faults(text: str, environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> list[tuple[int, str]]:
    return read(text, environment, overrides).faults


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NO", "NO"), ("yes", "yes"), ("on", "on"), ("12:30", "12:30"), ("1_000", "1_000"), ("true", True), ("False", False),
        ("~", None), ("null", None), ("", None), ("007", 7), ("0o17", 15), ("0x1F", 31), ("-5", -5), ("1e3", 1000.0), ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")), ("0b1", "0b1"), ("1,000", "1,000"), ("'5'", "5"), ('"true"', "true"), ("!!str 5", "5"),
        ("2026-01-01", date(2026, 1, 1)), ("2026-13-01", "2026-13-01"), ("2026-01-32T00:00:00Z", "2026-01-32T00:00:00Z"),
        ("!!binary aGVq", b"hej"), ("[1, a, [b]]", [1, "a", ["b"]]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(written: str, meant: object) -> None:
    got = value(written)
    assert got == meant
    assert type(got) is type(meant)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-01-01T00:00:05Z", datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("2026-01-01 00:00:05", datetime(2026, 1, 1, 0, 0, 5)),  # noqa: DTZ001  # no zone, as written
        ("2026-01-01T00:00:05.1234567+02:30", datetime(2026, 1, 1, 0, 0, 5, 123456, timezone(timedelta(hours=2, minutes=30)))),
        ("2026-01-01T00:00:05-0800", datetime(2026, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=-8)))),
        ("2026-01-01T00:00:05+01", datetime(2026, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_iso_times_are_read_as_times(written: str, meant: datetime) -> None:
    got = value(written)
    assert (got, got.utcoffset()) == (meant, meant.utcoffset())


def test_a_duplicate_key_is_a_fault_with_both_lines() -> None:
    assert faults("a: 1\nb: 2\na: 3\n") == [(3, "key 'a' stands twice in this mapping (first in line 1)")]


def test_anchors_and_merge_keys() -> None:
    document = read("d: &d {a: 1, b: 2}\nx:\n  <<: *d\n  b: 3\ny: *d\nz: {<<: [*d, {c: 4, a: 9}]}\n")
    assert document.faults == []
    assert document.value["x"] == {"a": 1, "b": 3}
    assert document.value["y"] == {"a": 1, "b": 2}
    assert document.value["z"] == {"a": 1, "b": 2, "c": 4}


LEVELS = list(zip("abcdefg", "bcdefgh", strict=True))
LISTS = "a: &a [1, 2]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 10)}]\n" for p, c in LEVELS)
MERGES = "a: &a {k: 1}\n" + "".join(f"{c}: &{c} {{<<: [{', '.join(['*' + p] * 10)}]}}\n" for p, c in LEVELS)


@pytest.mark.parametrize("text", [LISTS, MERGES], ids=["lists", "merges"])
def test_a_billion_laughs_end_at_once(text: str) -> None:
    began = time.monotonic()
    assert faults(text) == [(1, f"the file has more than {MAX_NODES:,} values once its aliases are followed")]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "a: &a {<<: *a}", "[" * 100_000, "{" * 100_000, "a: " + "[" * 80 + "]" * 80, "- " * 10_000, "? " * 1000]
)
def test_depth_is_bounded(text: str) -> None:
    assert len(faults(text)) >= 1


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: b: c", 1, "mapping values are not allowed here"),
        ("a: 1\nb: {c: 1", 2, "expected ',' or '}'"),
        ("a: 1\nb:\n\t- c", 3, "cannot start any token"),
        ("a: 1\n--- \nb: 2", 2, "expected a single document"),
        ("a: *b", 1, "undefined alias"),
        ("a: 1\nb: \x00", 2, "special characters are not allowed"),
        ("a: !foo 1", 1, "tag '!foo' is not allowed"),
        ("a: !!python/object:os.system {}", 1, "is not allowed"),
        ("a: 1\nb: !!int x", 2, "b: "),
        ("a: " + "9" * 5000, 1, "too many digits"),
        ("a: !!binary '*'", 1, "not base64"),
        ("? [a]\n: 1", 1, "a key must be plain text"),
        ("a: {<<: 5}", 1, "<< takes a mapping"),
        ("", 1, "the file is empty"),
    ],
)
def test_a_yaml_fault_is_at_the_parsers_mark(text: str, line: int, part: str) -> None:
    found = faults(text)
    assert [at for at, _ in found] == [line]
    assert part in found[0][1]


def test_an_unquoted_variable_in_braces_says_to_quote_it() -> None:
    assert "quote the value" in faults("a: {b: ${X:-1}}")[0][1]


# -- variables


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${A}", "1"), ("x-${A}-${B:-two}", "x-1-two"), ("${E:-default}", "default"), ("'${A:?needed}'", "1"), ("$${A}", "${A}"),
        ("$${${A}}", "${1}"), ("$A", "$A"), ("'$'", "$"), ("${B:-a b: c}", None),
    ],
)  # fmt: skip
def test_variables_are_replaced_in_values(written: str, meant: str | None) -> None:
    if meant is None:
        assert "mapping values" in faults(f"x: {written}")[0][1]
    else:
        assert value(written, {"A": "1", "E": ""}) == meant


def test_a_replaced_value_stays_text_and_knows_its_template() -> None:
    got = value("'${A}'", {"A": "[1, 2]"})
    assert (got, got.template) == ("[1, 2]", "${A}")
    assert isinstance(got, Substituted)
    assert not isinstance(value("$${A}"), Substituted)


def test_a_value_that_becomes_empty_means_that_the_key_is_absent() -> None:
    document = read("a: ${E:-}\nb: '${E}${F:-}'\nc: ['${E}', d]\ne: ''\n", {"E": ""})
    assert document.faults == []
    assert document.value == {"c": ["d"], "e": ""}


def test_variables_are_not_replaced_in_sql_and_keys() -> None:
    text = "views: {v: 'SELECT ${A}'}\nsinks: {s: {query: 'SELECT ${A}', late: {query: '${A}'}}}\nkeys: {'${A}': 1}\n"
    document = read(text)
    assert document.faults == []
    assert document.value["sinks"]["s"] == {"query": "SELECT ${A}", "late": {"query": "${A}"}}
    assert document.value["keys"] == {"${A}": 1}


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("${A}", "x: ${A} is not set; set the variable or write ${A:-default}"),
        ("'${A:?set it to the broker}'", "x: ${A} is not set: set it to the broker"),
        ("'${E:?}'", "x: ${E} is not set"),
        ("${}", "x: ${ begins a variable"),
        ("${A", "x: ${ begins a variable"),
        ("'${A:+b}'", "x: ${ begins a variable"),
    ],
)
def test_faults_of_variables(written: str, part: str) -> None:
    assert [(line, message.startswith(part)) for line, message in faults(f"x: {written}", {"E": ""})] == [(1, True)]


# -- overrides


def test_set_replaces_adds_and_creates() -> None:
    overrides = ["a.b=2", "a.c=10 seconds", "n.m.k=x", "l.0=z", "e=", "q=SELECT a: b # c", "l.1=2026-01-01T00:00:00Z"]
    document = read("a: {b: 1}\nl: [x, y]\ne: 1\n", {}, overrides)
    assert document.faults == []
    assert document.value == {
        "a": {"b": 2, "c": "10 seconds"},
        "l": ["z", datetime(2026, 1, 1, tzinfo=UTC)],
        "e": None,
        "n": {"m": {"k": "x"}},
        "q": "SELECT a: b # c",
    }
    assert document.option(("a", "b")) == "--set a.b=2"
    assert document.option(("n", "m", "k")) == "--set n.m.k=x"
    assert document.option(("l",)) is None


@pytest.mark.parametrize("override", ["a", "=b", "a..b=1", "", "a.b.c=1", "l.5=1", "l.x=1", "l.x.y=1"])
def test_faults_of_overrides_name_the_option(override: str) -> None:
    found = faults("a: {b: 1}\nl: [x]\n", {}, [override])
    assert len(found) == 1
    assert found[0][1].startswith(f"--set {override}: ")


def test_variables_work_in_overrides() -> None:
    assert read("a: 1", {"X": "7"}, ["a=${X}"]).value == {"a": "7"}


# -- lines


def test_places_are_the_keys_line_or_the_scalars() -> None:
    document = read("a:\n  b:\n    c: 1\n  d:\n    x\nl:\n  - e\n  - f: 1\n    g: 2\n")
    wanted = {("a",): 1, ("a", "b"): 2, ("a", "b", "c"): 3, ("a", "d"): 5, ("l",): 6, ("l", 0): 7, ("l", 1): 8, ("l", 1, "g"): 9}
    assert {path: document.line(path) for path in wanted} == wanted
    assert document.line(("a", "b", "missing", "deeper")) == 2
    assert document.line(("nowhere",)) == 1


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("x: |\n  SELECT\n\n  FROM\n", {0: 2, 1: 3, 2: 4}),
        ("x: |2-\n   SELECT\n  FROM\n", {0: 2, 1: 3}),
        ("x: >\n  SELECT a,\n  b\n\n  FROM t\n  WHERE\n\n\n  c\n", {0: 2, 1: 5, 3: 9}),
        ("x: SELECT a\n", {0: 1}),
        ("x:\n  SELECT a\n  FROM\n", {0: 2}),
        ("x: 'SELECT a\n\n  FROM t'\n", {0: 1, 1: 3}),
        ('x: "SELECT a\n\n  FROM t"\n', {0: 1, 1: 3}),
        ("a: &q |\n  SELECT\n  FROM\nx: *q\n", {0: 2, 1: 3}),
    ],
)
def test_lines_inside_a_text_of_any_style(text: str, lines: dict[int, int]) -> None:
    document = read(text)
    assert document.faults == []
    assert {line: document.line_in(("x",), line) for line in lines} == lines
