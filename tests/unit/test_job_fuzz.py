"""Whatever a job file holds, reading it ends soon, with a Job or with faults that have lines: never another error."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.errors import InvalidJob
from streamproc.job import Job, load_job

VALID = """\
name: page-views
sources:
  clicks:
    type: kinesis
    stream: clicks
    endpoint_url: ${AWS_ENDPOINT_URL:-}
    start: 2026-01-01T00:00:00Z
    schema: user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP
    watermark: {column: ts, delay: 30 seconds, idle: 1 minute, max_ahead: 1 day}
    timestamps: {ts: epoch_ms}
    bad_records: dead_letter
  orders: {type: kafka, topic: [a, b], bootstrap_servers: 'b:9092', format: raw, security: {ca_file: x}}
views:
  real: &sql SELECT * FROM clicks WHERE page <> '/health'
sinks:
  views_per_minute:
    type: files
    path: lake/views/
    mode: append
    late: {type: files, path: s3://lake/late/}
    query: |
      SELECT window.start AS minute, page, count(*) AS views
      FROM real GROUP BY window(ts, '1 minute'), page
  shown: {type: console, rows: 5, query: *sql}
trigger: 10 seconds
dead_letter: {type: files, path: lake/dead/}
metrics: {port: 0}
leases: {type: sqlite}
timezone: Europe/Berlin
tests:
  - name: works
    steps:
      - add: {clicks: {shard: s1, rows: [{user: a, page: /, ts: 2026-01-01T00:00:05Z}]}}
      - expect: {views_per_minute: [{page: /, views: 1}]}
      - watermark: {clicks: 2026-01-01T00:01:10Z}
      - reshard: {clicks: {split: s1, into: [s2, s3]}}
      - crash: before_commit
      - tick: 2 minutes
"""
LIMIT_S = 20
MODES = ["append", "update", "complete"]
PIECES = st.sampled_from(
    [":", "- ", "\n", "  ", "{", "}", "[", "]", "&a ", "*a", "<<: *sql", "!!binary ", "!x ", "'", '"', "|\n", ">", "#", "${", "${A}", "$${",
     "~", "\t", "? ", "--- ", "%", "@", "`", "\x00", "\ud800", "\u2028", "9" * 50, "1e999", ".nan", "-1", "0", "a" * 300, "type: ",
     "query: ",      "SELECT", "(", ")", "window(", "''", ";", "true", "2026-99-99", "🙂", "secret://env/", "s3://", "([a-z]+)+$",
     "🙂" * 40]
)  # fmt: skip


def judge(text: str, *overrides: str, environment: dict[str, str] | None = None) -> None:
    began = time.monotonic()
    try:
        assert isinstance(load_job("job.yaml", text=text, overrides=overrides, environment=environment or {}), Job)
    except InvalidJob as error:
        assert error.faults
        assert all(1 <= fault.line <= text.count("\n") + 2 and fault.message for fault in error.faults)
        assert all(fault.file == "job.yaml" for fault in error.faults)
    assert time.monotonic() - began < LIMIT_S


def test_the_unchanged_file_is_a_job() -> None:
    assert isinstance(load_job("job.yaml", text=VALID, environment={}), Job)


@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 30), PIECES | st.text(max_size=5)), min_size=1, max_size=4))
def test_any_edit_of_the_text(edits: list[tuple[int, int, str]]) -> None:
    text = VALID
    for at, length, piece in edits:
        text = text[:at] + piece + text[at + length :]
    judge(text)


@given(st.text())
def test_any_text(text: str) -> None:
    judge(text)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path of a value, deepest last."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5) | st.datetimes() | PIECES,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8) | PIECES | st.integers(), children, max_size=4),
    max_leaves=8,
)
NAMES = ("name", "sources", "clicks", "schema", "watermark", "late", "query", "mode", "tests", "steps", "add", "apply", "format", "type")


@given(st.data())
def test_any_change_of_the_structure(data: st.DataObject) -> None:
    value = yaml.safe_load(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(value)[1:]))
        holder = value
        for part in path[:-1]:
            holder = holder[part]
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(st.sampled_from(NAMES))] = holder.pop(path[-1]) if data.draw(st.booleans()) else data.draw(ANY)
        else:
            holder[path[-1]] = data.draw(ANY)
        if not isinstance(value, dict):
            break
    judge(yaml.safe_dump(value, allow_unicode=True))


@given(st.data())
def test_any_override(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(yaml.safe_load(VALID))[1:]))
    text = data.draw(st.text(max_size=10) | PIECES)
    judge(VALID, ".".join(map(str, path)) + data.draw(st.sampled_from(["=", ".x=", ""])) + text, environment={"A": "\ud800"})


DDL = st.lists(
    st.sampled_from(
        ["a", "STRING", "INT", ",", "<", ">", "ARRAY", "MAP<", "STRUCT<", "(", ")", "10", ":", "NOT NULL", "`", "'", ";", "--", " "]
    )
)
DURATION = st.lists(st.sampled_from(["1", "9" * 400, "-", ".", " ", "s", "seconds", "months", "interval", "e9", "days", "٣"]), max_size=8)


@settings(max_examples=60)
@given(DDL.map(" ".join), DURATION.map("".join))
def test_any_schema_and_duration(schema: str, duration: str) -> None:
    judge(VALID, f"sources.clicks.schema={schema}", f"sources.clicks.watermark.delay={duration}", f"trigger={duration}")


WORDS = """
    SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT DISTINCT AS ON JOIN UNION ALL EXPLODE LATERAL VIEW WITH CASE WHEN THEN END CAST NULL
    NOT IN LIKE BETWEEN AND OR INTERVAL FILTER OVER PARTITION ( ) ( ) , , . * + - / = <> > :: [ ] real clicks user page amount ts window
    window.start count(*) sum( avg( max( first( collect_list( window(ts, window_time(window) date( '1 '5 minutes' minute') 'x' 1 0 -1 1.5
    true current_timestamp() rand() `a b` "x" -- /* */ ; @ # $ {x} :p ? ARRAY( MAP( STRUCT( transform( x -> _offset _key _headers
"""
TOKENS = WORDS.split()
BEGINNINGS = ["SELECT", "SELECT page FROM real WHERE", "SELECT page, count(*) FROM real GROUP BY", ""]


@given(
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=25),
    st.sampled_from(BEGINNINGS),
    st.sampled_from(MODES),
)
def test_any_query(tokens: list[str], begin: str, mode: str) -> None:
    query = " ".join([begin, *tokens])
    judge(
        VALID,
        f"sinks.views_per_minute.query={query}",
        f"sinks.views_per_minute.mode={mode}",
        f"views.real=SELECT * FROM clicks {begin[6:]}",
    )


@pytest.mark.parametrize(
    "query", ["(" * 3000 + "1" + ")" * 3000, "1" + " + 1" * 5000, "CASE WHEN 1 THEN " * 500, "a" * 100_000, "SELECT " * 2000]
)
def test_deep_and_long_queries_end(query: str) -> None:
    judge(VALID, f"sinks.views_per_minute.query=SELECT {query} AS x FROM real")


@pytest.mark.parametrize("text", ["a: " + "x" * 900_000, "- a\n" * 30_000, "a: '" + "${" * 100_000 + "'", "trigger: " + "1" * 100_000])
def test_large_files_end(text: str) -> None:
    with pytest.raises(InvalidJob):
        load_job("job.yaml", text=text, environment={})
