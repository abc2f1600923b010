"""A schema and a watermark out of samples: what is guessed, and what the snippet says."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from click.testing import CliRunner

from streamproc.cli import cli
from streamproc.formats.guess import Number, Seen, guess, guesses
from streamproc.schema import parse_ddl


def guessed(name, values, **how):
    seen = Seen()
    for value in json.loads(json.dumps(values), parse_int=Number, parse_float=Number):
        seen.add(value)
    found = guess(name, seen, **how)
    parse_ddl(f"c {found.kind}")
    return (found.kind, found.timestamps) if found.timestamps else found.kind


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a", [1, None, 2], "BIGINT"),
        ("a", [2**70], "DECIMAL(38,0)"),
        ("a", [1, 2.5], "DOUBLE"),
        ("price", [1, 2.5, 3.25], "DECIMAL(18,2)"),
        ("price", [1e30], "DOUBLE"),
        ("a", [True, None], "BOOLEAN"),
        ("a", [None], "STRING"),
        ("a", ["x", ""], "STRING"),
        ("a", [1, "x"], "STRING"),
        ("a", ["2026-01-01T00:00:00Z", "2026-01-01"], "TIMESTAMP"),
        ("a", ["2026-01-01"], "DATE"),
        ("a", ["1.50", "2"], "DECIMAL(18,2)"),
        ("a", ["007", "1"], "STRING"),
        ("a", ["15", "1"], "STRING"),
        ("ts", [1767225600], ("TIMESTAMP", "epoch_s")),
        ("createdAt", [1767225600123], ("TIMESTAMP", "epoch_ms")),
        ("event_time", [1767225600123456], ("TIMESTAMP", "epoch_us")),
        ("session", [1767225600123], "BIGINT"),
        ("ts", [5, 6], "BIGINT"),
        ("a", ["24/12/2026 18:30:00"] * 3, ("TIMESTAMP", "dd/MM/yyyy HH:mm:ss")),
        ("a", [[1], [], [2]], "ARRAY<BIGINT>"),
        ("a", [[]], "ARRAY<STRING>"),
        ("a", [{"x": 1, "when at": "2026-01-01T00:00:00Z"}, {"y": [{"z": True}]}],
         "STRUCT<x: BIGINT, `when at`: TIMESTAMP, y: ARRAY<STRUCT<z: BOOLEAN>>>"),
        ("a", [{f"k{i}": i} for i in range(100)], "MAP<STRING, BIGINT>"),
        ("a", [{}], "MAP<STRING, STRING>"),
        ("a", [{"x": 1}, "text"], "STRING"),
    ],
)  # fmt: skip
def test_types_of_json(name, values, expected):
    assert guessed(name, values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2"], "BIGINT"),
        (["1.5"], "DOUBLE"),
        (["true", "false"], "BOOLEAN"),
        (["True"], "STRING"),
        (["007"], "STRING"),
        (["2026-01-01"], "DATE"),
    ],
)
def test_types_of_text(values, expected):
    assert guessed("a", values, plain=True) == expected


def test_names_that_are_taken_or_differ_in_case_alone_are_left_out():
    seen = {name: Seen() for name in ("a", "A", "_key", "", "b")}
    assert list(guesses(seen, ["_key"])) == ["a", "b"]


def infer(path, *arguments):
    result = CliRunner().invoke(cli, ["infer", str(path), *arguments])
    return result.exit_code, result.output


def lines(folder, name, *texts):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(texts) + "\n")


def test_a_folder_of_json(tmp_path):
    rows = [{"user": "u", "ts": 1767225600000 + 1000 * i - 3000 * (i % 2), "amount": 1.5, "gone": None} for i in range(20)]
    lines(tmp_path / "in", "a.json", *map(json.dumps, rows), "{broken")
    job = tmp_path / "clicks.yaml"
    job.write_text(f"type: files\npath: {tmp_path}/in\n")
    code, output = infer(job)
    assert code == 0
    found = yaml.safe_load(output)["sources"]["clicks"]
    assert re.sub(r"\s*--.*", "", found["schema"]).split(",\n") == ["user STRING", "ts TIMESTAMP", "amount DECIMAL(18,2)", "gone STRING"]
    assert parse_ddl(found["schema"]).names == ["user", "ts", "amount", "gone"]
    assert found["timestamps"] == {"ts": "epoch_ms"}
    assert found["watermark"] == {"column": "ts", "delay": "5 seconds"}  # 2 s were seen
    assert "from 21 records of 1 shard; 1 do not fit" in output
    assert "-- only NULL in the samples" in output


def test_the_snippet_is_a_part_of_a_job_that_check_accepts(tmp_path):
    lines(tmp_path / "in", "a.csv", "user,amount,at", "u,1.50,2026-01-01T00:00:00Z", "v,,2026-01-01T00:00:09Z")
    source = {"type": "files", "path": f"{tmp_path}/in", "format": "csv", "csv": {"header": True}}
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"sources": {"orders": source}}))
    code, output = infer(job)
    assert code == 0
    assert "amount DECIMAL(18,2)" in output
    whole = {
        "sources": {"orders": source | yaml.safe_load(output)["sources"]["orders"]},
        "sinks": {"out": {"type": "console", "query": "SELECT user FROM orders"}},
    }
    job.write_text(yaml.safe_dump(whole))
    checked = CliRunner().invoke(cli, ["check", str(job)])
    assert checked.exit_code == 0, checked.output


def test_parquet_files_have_their_types(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"n": pa.array([1], pa.uint64()), "t": pa.array([1], pa.timestamp("ms", "UTC")), "s": [{"x": [1]}]}),
        tmp_path / "in/a.parquet",
    )
    job = tmp_path / "job.yaml"
    job.write_text(f"type: files\npath: {tmp_path}/in\nformat: parquet\n")
    _, output = infer(job)
    found = yaml.safe_load(output)["sources"]["job"]
    assert found["schema"] == "n DECIMAL(20,0),\nt TIMESTAMP,\ns STRUCT<x: ARRAY<BIGINT>>"
    assert found["watermark"]["column"] == "t"


def test_generated_events_in_a_job_with_several_sources(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        yaml.safe_dump({"sources": {"a": {"type": "generator", "rows": 500}, "b": {"type": "generator", "rows": 500, "shards": 2}}})
    )
    code, output = infer(job)
    assert (code, "--source a or --source b" in output) == (2, True)
    code, output = infer(job, "--source", "b")
    assert code == 0
    assert "from 500 records of 2 shards" in output
    assert yaml.safe_load(output)["sources"]["b"]["schema"].split(",\n") == [
        "user STRING",
        "page STRING",
        "amount DECIMAL(18,2)",
        "ts TIMESTAMP",
    ]
    code, output = infer(job, "--source", "c")
    assert (code, "there is no source 'c'" in output) == (2, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: kafk", "did you mean 'kafka'?"),
        ("- 1", "write the keys of one source"),
        ("type: files", "missing key 'path'"),
        ("sources: {}", "there is no source"),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path, text, says):
    job = tmp_path / "job.yaml"
    job.write_text(text)
    code, output = infer(job)
    assert (code, says in output) == (2, True)


def test_nothing_to_look_at(tmp_path):
    (tmp_path / "in").mkdir()
    job = tmp_path / "job.yaml"
    job.write_text(f"type: files\npath: {tmp_path}/in\n")
    code, output = infer(job)
    assert (code, "has no records" in output) == (1, True)
