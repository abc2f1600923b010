"""The `tests:` of a job file as values, and their faults."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streamproc.errors import InvalidJob
from streamproc.job import Added, Reshard, TestCase, load_job

HEAD = """\
sources:
  clicks: {type: kinesis, stream: clicks, schema: 'user STRING, ts TIMESTAMP', watermark: {column: ts}}
  plain: {type: kinesis, stream: plain, schema: 'user STRING'}
sinks:
  out: {type: console, query: SELECT user FROM clicks}
tests:
  - name: it works
    steps:
"""
BEGIN_US = 1_767_225_600_000_000


def read(steps: str, head: str = HEAD) -> TestCase:
    text = head + "".join(f"      - {step}\n" for step in steps.strip().splitlines())
    return load_job("job.yaml", text=text, environment={}).tests[0]


def faults(steps: str, head: str = HEAD) -> list[tuple[int, str]]:
    with pytest.raises(InvalidJob) as caught:
        read(steps, head)
    return [(fault.line, fault.message) for fault in caught.value.faults]


def test_every_kind_of_step() -> None:
    test = read("""
add: {clicks: {shard: s1, rows: [{user: a, ts: 2026-01-01T00:00:05Z, _key: k}]}, plain: [{user: NO}]}
add: {clicks: {raw: ['{"bad', !!binary aGVq]}}
add: {clicks: {shard: 7}}
expect: {out: []}
expect: {out: [{user: a}, {}]}
watermark: {clicks: 2026-01-01T00:01:10Z}
watermark: {clicks: null}
state_rows: {out: 1}
late: {out: 0}
dead: 2
reshard: {clicks: {split: s1, into: [s2, s3]}}
reshard: {clicks: {split: s1}}
reshard: {clicks: {merge: [s2, s3]}}
reshard: {clicks: {merge: [s2, s3], into: s4}}
reshard: {clicks: {add: p2}}
crash: before_commit
tick: 2 minutes
restart: {}
fails: broke its promise
""")
    row = {"user": "a", "ts": datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC), "_key": "k"}
    assert [(step.kind, step.payload) for step in test.steps] == [
        ("add", {"clicks": Added("s1", (row,)), "plain": Added("0", ({"user": "NO"},))}),
        ("add", {"clicks": Added("0", (), (b'{"bad', b"hej"))}),
        ("add", {"clicks": Added("7")}),
        ("expect", {"out": ()}),
        ("expect", {"out": ({"user": "a"}, {})}),
        ("watermark", {"clicks": BEGIN_US + 70_000_000}),
        ("watermark", {"clicks": None}),
        ("state_rows", {"out": 1}),
        ("late", {"out": 0}),
        ("dead", 2),
        ("reshard", {"clicks": Reshard("split", ("s1",), ("s2", "s3"))}),
        ("reshard", {"clicks": Reshard("split", ("s1",), ("s1-0", "s1-1"))}),
        ("reshard", {"clicks": Reshard("merge", ("s2", "s3"), ("s2+s3",))}),
        ("reshard", {"clicks": Reshard("merge", ("s2", "s3"), ("s4",))}),
        ("reshard", {"clicks": Reshard("add", ("p2",), ("p2",))}),
        ("crash", "before_commit"),
        ("tick", 120_000_000),
        ("restart", None),
        ("fails", "broke its promise"),
    ]
    assert [step.line for step in test.steps] == list(range(9, 9 + len(test.steps)))
    assert (test.name, test.line, test.clock_us, test.tables) == ("it works", 7, BEGIN_US, {})


def test_the_clock_of_a_test() -> None:
    head = HEAD.replace("    steps:", "    clock: 2026-02-01T00:00:00+01:00\n    steps:")
    assert read("dead: 0", head).clock_us == BEGIN_US + (31 * 24 - 1) * 3_600_000_000


@pytest.mark.parametrize(
    ("step", "part"),
    [
        ("ad: {}", "unknown key 'ad'; did you mean 'add'?"),
        ("{}", "a step is empty; write one of add, expect"),
        ("{dead: 1, restart: {}}", "a step has dead and restart; write a list item for each"),
        ("restart", "steps.0: should be a valid mapping"),
        ("restart:", "restart has no value; write restart: {}"),
        ("restart: {now: 1}", "a restart takes no keys"),
        ("add: {click: []}", "unknown source 'click'; did you mean 'clicks'?"),
        ("add: {clicks: [{usr: a}]}", "source 'clicks' has no column 'usr'; did you mean 'user'?"),
        ("add: {clicks: {rows: [{usr: a}]}}", "source 'clicks' has no column 'usr'"),
        ("add: {clicks: {row: []}}", "unknown key 'row'; did you mean 'rows'?"),
        ("add: {clicks: [a]}", "should be a valid mapping"),
        ("add: {clicks: {raw: [1]}}", "should be a valid string or a valid bytes"),
        ("add: [clicks]", "should be a valid mapping"),
        ("expect: {outt: []}", "unknown sink 'outt'; did you mean 'out'?"),
        ("expect: {out: {user: a}}", "should be a valid list"),
        ("watermark: {clicks: soon}", "is no time"),
        ("watermark: {plain: 2026-01-01T00:00:00Z}", "source 'plain' has no watermark"),
        ("state_rows: {clicks: 1}", "unknown sink 'clicks'"),
        ("late: {out: -1}", "greater than or equal to 0"),
        ("dead: many", "should be a valid integer"),
        ("reshard: {clicks: {}}", "exactly one of split, merge and add"),
        ("reshard: {clicks: {split: a, add: b}}", "exactly one of split, merge and add"),
        ("reshard: {clicks: {split: a, into: b}}", "split needs two names in into"),
        ("reshard: {clicks: {merge: [a]}}", "at least 2 items"),
        ("reshard: {clicks: {add: a, into: b}}", "add names the new shard itself"),
        ("crash: now", "should be 'after_begin', 'before_commit' or 'after_commit'"),
        ("tick: 5", "a duration needs a unit"),
        ("tick: -5 s", "greater than or equal to 0"),
    ],
)
def test_faults_of_steps(step: str, part: str) -> None:
    found = faults(step)
    assert [line for line, _ in found] == [9] * len(found)
    assert any(part in message for _, message in found), found


def test_fails_is_the_last_step() -> None:
    assert faults("dead: 0\nfails: x\ndead: 1\n") == [(10, "fails must be the last step: the job has stopped")]


def test_faults_of_several_steps_and_tests_at_once() -> None:
    text = "ad: {}\ncrash: now\nadd: {click: []}\n"
    found = faults(text, HEAD.replace("tests:", "tests:\n  - {nam: x, steps: []}"))
    assert {line for line, _ in found} == {7, 10, 11, 12}
    assert any("missing key 'name'" in message for _, message in found)


def test_columns_of_tables_in_tests_must_exist() -> None:
    text = HEAD.replace("sinks:", "tables: {users: {type: files, path: u, schema: user STRING}}\nsinks:", 1)
    text = text.replace("    steps:", "    tables: {users: [{user: a}, {usr: b}]}\n    steps:")
    assert any("table 'users' has no column 'usr'; did you mean 'user'?" in message for _, message in faults("dead: 0", text))


def test_tables_in_tests_must_exist() -> None:
    head = HEAD.replace("    steps:", "    tables: {users: [{user: a}]}\n    steps:")
    assert faults("dead: 0", head) == [(8, "unknown table 'users'")]
