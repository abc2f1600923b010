"""Which edits of a job go on with its checkpoint, and what is said of those that do not."""

from __future__ import annotations

import pytest

from streamproc.job import Job, load_job, plan
from streamproc.job.changes import Change, changes

JOB = """\
name: sums
sources:
  clicks:
    type: kafka
    topic: clicks
    bootstrap_servers: ${BROKERS:-localhost:9092}
    schema: user STRING, page STRING, amount INT, extra STRING, ts TIMESTAMP
    watermark: {column: ts, delay: 30 seconds}
views:
  real: SELECT * FROM clicks WHERE page <> '/health'
sinks:
  sums:
    type: files
    path: lake/sums/
    query: |
      SELECT window.start AS minute, page, sum(amount) AS total, count(*) FILTER (WHERE amount > 1) AS large
      FROM real GROUP BY window(ts, '1 minute'), page HAVING count(*) > 0
  shown: {type: console, query: SELECT user FROM clicks}
"""
KAFKA = "type: kafka\n    topic: clicks\n    bootstrap_servers: ${BROKERS:-localhost:9092}"


def load(text: str) -> Job:
    return load_job("job.yaml", text=text, environment={})


def compared(*edits: tuple[str, str]) -> list[Change]:
    text = JOB
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    old, new = load(JOB), load(text)
    return changes(old, new, plan(old), plan(new))


def test_no_edit_is_no_change() -> None:
    assert compared() == []
    assert compared(("user STRING, page STRING", "user  string,page STRING")) == []
    assert compared(("delay: 30 seconds", "delay: 30 s"), ("name: sums", "# why\nname: sums")) == []


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (("delay: 30 seconds", "delay: 1 minute"), "sources.clicks.watermark.delay"),
        (("delay: 30 seconds", "delay: 30 seconds, idle: never"), "sources.clicks.watermark.idle"),
        (("    topic: clicks", "    topic: clicks\n    max_rows_per_epoch: 5"), "sources.clicks.max_rows_per_epoch"),
        (("    topic: clicks", "    topic: clicks\n    bad_records: skip"), "sources.clicks.bad_records"),
        (("    topic: clicks", "    topic: clicks\n    start: latest"), "sources.clicks.start"),
        (("localhost:9092", "other:9092"), "sources.clicks.bootstrap_servers"),
        (("extra STRING", "extra INT, more STRING"), "sources.clicks.schema"),
        (("page <> '/health'", "page <> '/ready'"), "views.real"),
        (("HAVING count(*) > 0", "HAVING count(*) > 5"), "sinks.sums.query"),
        (("sum(amount) AS total", "sum(amount) * 2 AS total"), "sinks.sums.query"),
        (("SELECT user FROM clicks", "SELECT upper(page) AS p FROM clicks WHERE amount > 3"), "sinks.shown.query"),
        (("    path: lake/sums/", "    path: lake/sums/\n    compression: gzip"), "sinks.sums.compression"),
        (("  shown:", "  more: {type: console, query: SELECT page FROM clicks}\n  shown:"), "sinks.more"),
        (("  shown: {type: console, query: SELECT user FROM clicks}\n", ""), "sinks.shown"),
        (("name: sums", "trigger: 5 seconds"), "trigger"),
        (("name: sums", "metrics: {port: 0}"), "metrics"),
        (("name: sums", "tables: {users: {type: files, path: u, schema: a INT}}"), "tables.users"),
        (("name: sums", "functions: {dumps: {function: 'json:dumps', returns: STRING}}"), "functions.dumps"),
        (("name: sums", "dead_letter: {type: files, path: lake/dead/}"), "dead_letter"),
        (("    path: lake/sums/", "    path: lake/sums/\n    late: {type: files, path: lake/late/}"), "sinks.sums.late"),
    ],
)
def test_compatible_edits(edit: tuple[str, str], path: str) -> None:
    found = compared(edit)
    assert [(change.path, change.compatible) for change in found] == [(path, True)], found


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (("    topic: clicks", "    topic: other"), "sources.clicks.topic"),
        ((KAFKA, "type: kinesis\n    stream: clicks"), "sources.clicks.type"),
        (("views:", "  more: {type: kinesis, stream: s, schema: a INT}\nviews:"), "sources.more"),
        (("  clicks:\n", "  hits:\n"), "sources.clicks"),
        (("watermark: {column: ts, delay", "watermark: {column: other, delay"), "sources.clicks.watermark"),
        (("name: sums", "timezone: Europe/Berlin"), "timezone"),
        (("'1 minute'), page", "'2 minutes'), page"), "sinks.sums.query (aggregate window)"),
        (("'1 minute'), page", "'1 minute'), user, page"), "sinks.sums.query (aggregate keys)"),
        (("sum(amount) AS total", "max(amount) AS total"), "sinks.sums.query (aggregate values)"),
        (("sum(amount) AS total", "sum(amount + 1) AS total"), "sinks.sums.query (aggregate values)"),
        (("amount > 1", "amount > 2"), "sinks.sums.query (aggregate values)"),
        (("amount INT", "amount BIGINT"), "sinks.sums.query (aggregate values)"),
        (("    path: lake/sums/", "    path: lake/sums/\n    mode: update"), "sinks.sums.mode"),
        (("    path: lake/sums/", "    path: lake/other/"), "sinks.sums.path"),
        (("    path: lake/sums/", "    path: lake/sums/\n    partition_by: [page]"), "sinks.sums.partition_by"),
        (("    path: lake/sums/", "    path: lake/sums/\n    format: json"), "sinks.sums.format"),
        (("{type: console, query", "{type: files, path: lake/shown/, query"), "sinks.shown.type"),
        (("sum(amount) AS total", "CAST(sum(amount) AS STRING) AS total"), "sinks.sums.query (column total)"),
    ],
)  # fmt: skip
def test_edits_that_need_a_new_checkpoint_or_sink(edit: tuple[str, str], path: str) -> None:
    edits = [edit]
    if edit[1].startswith("  hits"):
        edits += [("FROM clicks", "FROM hits")]
    if "column: other" in edit[1]:
        edits += [("ts TIMESTAMP", "ts TIMESTAMP, other TIMESTAMP"), ("window(ts", "window(other")]
    found = {change.path: change for change in compared(*edits)}
    assert path in found, found
    assert not found[path].compatible
    assert "or take the change back" in found[path].advice


def test_an_edited_table_or_function_is_used_from_the_next_epoch_on() -> None:
    head = "tables: {users: {type: files, path: u, schema: a INT}}\nfunctions: {f: {function: 'json:dumps', returns: STRING}}"
    old, new = (load(JOB.replace("name: sums", text)) for text in (head, head.replace("path: u", "path: v").replace("STRING", "INT")))
    found = changes(old, new, plan(old), plan(new))
    assert [(change.path, change.compatible) for change in found] == [("tables.users", True), ("functions.f", True)]
    moved = load(JOB.replace("name: sums", f"name: sums\n{head}"))
    assert changes(old, moved, plan(old), plan(moved)) == []


def test_a_change_says_what_was_and_what_is_as_written_and_what_to_do() -> None:
    [change] = compared(("    topic: clicks", "    topic: '${TOPIC:-other}'"))
    assert str(change) == (
        "sources.clicks.topic changed from clicks to ${TOPIC:-other}: positions in the checkpoint are of the old input; "
        "write another checkpoint: to begin anew, or take the change back"
    )
    [removed] = compared(("  shown: {type: console, query: SELECT user FROM clicks}\n", ""))
    assert str(removed) == "sinks.shown is gone (it was console): it gets no more rows, and what its query kept in state is given up"
    [added] = compared(("name: sums", "dead_letter: {type: files, path: lake/dead/}"))
    assert str(added) == "dead_letter is new (files): it gets rows from the next epoch on"


def test_without_state_more_may_change() -> None:
    stateless = JOB[: JOB.index("  sums:\n    type")] + "  shown: {type: console, query: 'SELECT user, ts FROM clicks'}\n"
    old = load(stateless)
    for edit in (("name: sums", "timezone: Europe/Berlin"), ("    watermark: {column: ts, delay: 30 seconds}\n", "")):
        new = load(stateless.replace(*edit))
        assert [change.compatible for change in changes(old, new, plan(old), plan(new))] == [True]
