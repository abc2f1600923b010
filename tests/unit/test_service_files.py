"""What a second reading of the job files means for the jobs that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.service.job_files import JobFiles, Reload, compare, read_jobs

JOB = """
{name}
sources: {{clicks: {{type: generator, rows: {rows}, watermark: {{column: ts, delay: 1 second}}}}}}
sinks:
  out:
    type: console
    rows: {shown}
    query: SELECT window.start AS s, {key}, count(*) AS n FROM clicks GROUP BY window(ts, '1 second'), {key}
checkpoint: {checkpoint}
"""


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def write(self, file: str, name: str = "", checkpoint: str = "", key: str = "page", shown: int = 20) -> None:
        line, place = f"name: {name}" if name else "", checkpoint or str(self.path.parent / f"cp-{file}")
        (self.path / f"{file}.yaml").write_text(JOB.format(name=line, rows=10, shown=shown, key=key, checkpoint=place))

    def read(self) -> JobFiles:
        return read_jobs([str(self.path)])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "jobs")
    made.write("a")
    made.write("b")
    return made


def again(folder: Folder, before: JobFiles, down: frozenset[str] = frozenset()) -> Reload:
    return compare(before.jobs, down, folder.read())


def test_a_folder_is_its_yaml_files_and_not_those_below(folder: Folder) -> None:
    (folder.path / "c.yml").write_text((folder.path / "a.yaml").read_text().replace("cp-a", "cp-c"))
    (folder.path / "notes.txt").write_text("no job")
    (folder.path / "below").mkdir()
    (folder.path / "below" / "d.yaml").write_text("broken")
    found = folder.read()
    assert (list(found.jobs), found.faults) == (["a", "b", "c"], ())


def test_every_fault_of_every_file_is_told(folder: Folder) -> None:
    folder.write("c", name="a")
    folder.write("d", checkpoint=str(folder.path.parent / "cp-b"))
    (folder.path / "e.yaml").write_text("sources: {c: {type: genrator}}\n")
    found = read_jobs([str(folder.path), str(folder.path.parent / "none"), str(folder.path.parent)])
    said = [str(fault).removeprefix(str(folder.path.parent)) for fault in found.faults]
    assert list(found.jobs) == ["a", "b"]
    assert [line.partition(": ")[0] for line in said] == [
        ":1",
        "/jobs/c.yaml:1",
        "/jobs/d.yaml:1",
        "/jobs/e.yaml:1",
        "/jobs/e.yaml:1",
        "/none:1",
    ]
    assert "holds no job file" in said[0]
    assert "name 'a' is also that of" in said[1]
    assert "checkpoint" in said[2]


def test_nothing_changed(folder: Folder) -> None:
    assert again(folder, folder.read()) == Reload(unchanged=folder.read().jobs)


def test_files_come_and_go(folder: Folder) -> None:
    before = folder.read()
    (folder.path / "a.yaml").unlink()
    folder.write("c")
    asked = again(folder, before)
    assert ([job.name for job in asked.started], asked.stopped, list(asked.unchanged)) == (["c"], ("a",), ["b"])


def test_an_edit_that_fits_the_checkpoint_is_followed(folder: Folder) -> None:
    before = folder.read()
    folder.write("a", shown=5)
    asked = again(folder, before)
    assert (list(asked.replaced), list(asked.unchanged), asked.kept) == (["a"], ["b"], {})


def test_an_edit_that_does_not_fit_keeps_what_runs_and_says_why(folder: Folder) -> None:
    before = folder.read()
    folder.write("a", key="user")
    asked = again(folder, before)
    assert (list(asked.replaced), list(asked.kept)) == ([], ["a"])
    assert "sinks.out.query" in asked.kept["a"][0]
    assert asked.kept["a"][0].startswith(f"{folder.path}/a.yaml:1: ")


def test_of_a_job_that_is_down_every_edit_is_followed(folder: Folder) -> None:
    before = folder.read()
    folder.write("a", key="user")
    assert list(again(folder, before, frozenset("a")).replaced) == ["a"]


def test_with_another_checkpoint_any_edit_is_followed(folder: Folder) -> None:
    before = folder.read()
    folder.write("a", key="user", checkpoint=str(folder.path.parent / "fresh"))
    assert list(again(folder, before).replaced) == ["a"]


def test_a_broken_file_keeps_what_runs(folder: Folder) -> None:
    before = folder.read()
    (folder.path / "a.yaml").write_text("sources: [")
    asked = again(folder, before)
    assert (asked.stopped, list(asked.kept), list(asked.unchanged)) == ((), ["a"], ["b"])
    assert asked.kept["a"][0].startswith(f"{folder.path}/a.yaml:1: ")


def test_a_folder_that_is_gone_stops_nothing(folder: Folder) -> None:
    before = folder.read()
    folder.path.rename(folder.path.parent / "elsewhere")
    asked = again(folder, before)
    assert (asked.stopped, sorted(asked.kept)) == ((), ["a", "b"])
    folder.path.mkdir()  # not mounted yet
    asked = again(folder, before)
    assert (asked.stopped, sorted(asked.kept)) == ((), ["a", "b"])


def test_a_renamed_file_of_the_same_job_goes_on(folder: Folder) -> None:
    folder.write("a", name="orders")
    before = folder.read()
    (folder.path / "a.yaml").rename(folder.path / "z.yaml")
    asked = again(folder, before)
    assert asked.unchanged["orders"].file == f"{folder.path}/z.yaml"
    assert (asked.started, asked.stopped, asked.replaced) == ((), (), {})


def test_a_renamed_job_is_found_by_its_checkpoint(folder: Folder) -> None:
    before = folder.read()
    folder.write("a", name="orders")
    asked = again(folder, before)
    assert {name: job.name for name, job in asked.replaced.items()} == {"a": "orders"}
    folder.write("a", name="orders", key="user")
    assert list(again(folder, before).kept) == ["a"]
