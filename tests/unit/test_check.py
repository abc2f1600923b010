"""`check`: every fault of every file, at its line, without touching anything but the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.check import check, examine
from streamproc.errors import InvalidJob
from streamproc.job import load_job, plan

JOB = """\
name: NAME
sources:
  clicks:
    type: kinesis
    stream: clicks
    schema: user STRING, page STRING, ts TIMESTAMP
    watermark: {column: ts}
views:
  real: SELECT * FROM clicks WHERE page <> '/health'
sinks:
  minutes:
    type: files
    path: lake/minutes/
    partition_by: [day]
    query: |
      SELECT date(window.start) AS day, page, count(*) AS views
      FROM real
      GROUP BY window(ts, '1 minute'), page
tests:
  - name: counts
    steps:
      - expect: {minutes: [{page: /, views: 1, _epoch: 1}]}
"""
KAFKA = "type: kafka\n    topic: clicks\n    bootstrap_servers: b:9092"


def write(folder: Path, name: str, text: str = JOB) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("NAME", name), encoding="utf-8")
    return path


def found(path: Path) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in check([path], environment={})]


def test_a_right_file_has_no_faults(tmp_path: Path) -> None:
    path = write(tmp_path, "one")
    [checked] = examine([path], environment={})
    assert (checked.faults, checked.notes) == ((), ())
    assert checked.job is not None
    assert plan(checked.job).queries["minutes"].schema.names == ["day", "page", "views"]


@pytest.mark.parametrize(
    ("change", "line", "part"),
    [
        (("count(*) AS views", "count(*)) AS views"), 16, ""),
        (("FROM real\n", "FROM reel\n"), 17, "reel"),
        (("window(ts,", "window(tss,"), 18, "tss"),
        (("SELECT * FROM clicks WHERE page", "SELECT * FROM clicks WHERE pag"), 9, "pag"),
        (("real: SELECT * FROM clicks WHERE page <> '/health'", "real: >\n    SELECT *\n\n    FROM clicks\n    WHERE pag <> 1"), 12, "pag"),
        (("partition_by: [day]", "partition_by: [month]"), 14, "there is no column 'month' in the rows"),
        (("partition_by: [day]", "partition_by:\n      - day\n      - pge"), 16, "'pge' in the rows; did you mean 'page'?"),
        (("partition_by: [day]", "partition_by: [day, page, views]"), 14, "partition_by names every column"),
        (("count(*) AS views", "count(*) AS views, window"), 12, "nested, which CSV cannot hold"),
        (("views: 1, _epoch", "view: 1, _epoch"), 22, "the query of sink 'minutes' yields no column 'view'; did you mean 'views'?"),
    ],
)  # fmt: skip
def test_faults_of_the_sql_are_at_their_lines(tmp_path: Path, change: tuple[str, str], line: int, part: str) -> None:
    text = JOB.replace("type: files", "type: files\n    format: csv").replace("    partition_by: [day]\n", "") if "CSV" in part else JOB
    faults = found(write(tmp_path, "one", text.replace(*change)))
    assert [at for at, _ in faults] == [line], faults
    assert part in faults[0][1]


@pytest.mark.parametrize(
    ("keys", "column"), [("type: kinesis\n    stream: clicks", "_headers"), (KAFKA, "_partition_key"), (KAFKA, "_sub_sequence")]
)
def test_extra_columns_are_those_the_source_has(tmp_path: Path, keys: str, column: str) -> None:
    text = JOB.replace("type: kinesis\n    stream: clicks", keys)
    assert found(write(tmp_path, "one", text.replace("SELECT * FROM clicks", "SELECT *, _key, _timestamp FROM clicks"))) == []
    [(line, message)] = found(write(tmp_path, "one", text.replace("SELECT * FROM clicks", f"SELECT *, {column} FROM clicks")))
    assert line == 9 + keys.count("\n") - 1
    assert column in message


def test_a_refused_query_is_at_its_first_line(tmp_path: Path) -> None:
    text = JOB.replace(
        "      GROUP BY window(ts, '1 minute'), page\n", "      GROUP BY window(ts, '1 minute'), page\n      ORDER BY page\n"
    )
    assert [line for line, _ in found(write(tmp_path, "one", text))] == [16]


def test_faults_of_file_and_sql_come_at_once(tmp_path: Path) -> None:
    text = JOB.replace("FROM real\n", "FROM reel\n").replace("name: NAME", "nam: x") + "trigger: soon\n"
    assert [line for line, _ in found(write(tmp_path, "one", text))] == [1, 17, 23]


def test_a_fault_in_sql_given_by_set_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob) as caught:
        load_job(write(tmp_path, "one"), overrides=["sinks.minutes.query=SELECT nope FROM real"], environment={})
    assert caught.value.faults[0].message.startswith("--set sinks.minutes.query=SELECT nope FROM real: ")


def test_a_folder_is_its_job_files_and_every_fault_is_told(tmp_path: Path) -> None:
    write(tmp_path, "two", JOB.replace("type: kinesis", "type: kineses"))
    write(tmp_path, "one", "sources: {}\n")
    (tmp_path / "readme.txt").write_text("not a job")
    faults = check([tmp_path, tmp_path / "none.yaml"], environment={})
    assert [Path(fault.file).name for fault in faults] == ["one.yaml", "one.yaml", "two.yaml", "none.yaml"]


def test_two_jobs_must_not_share_a_checkpoint(tmp_path: Path) -> None:
    one, two = write(tmp_path, "one"), write(tmp_path, "two", JOB.replace("name: NAME", "name: one"))
    faults = check([one, two], environment={})
    assert [(fault.file, fault.line) for fault in faults] == [(str(two), 1)]
    assert "./checkpoints/one is also that of" in faults[0].message


def test_sinks_that_can_show_rows_again_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path, "one", JOB.replace("tests:", "  shown: {type: console, query: SELECT page FROM clicks}\ntests:"))
    [checked] = examine([path], environment={})
    assert checked.faults == ()
    assert [note.line for note in checked.notes if "a crash can show its rows again" in note.message] == [19]
