"""`streamproc demo` as users see it, and the comparison at its end: one that finds nothing wrong proves nothing unless it can."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamproc.demo.clickstream import ClickStream
from streamproc.demo.comparison import Comparison, compare

WINDOW_US = 5_000_000
SINCE_US = 1_767_225_600_000_000


def demo(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streamproc", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # background jobs of a shell ignore it
    )


def test_kinesis_with_a_kill_in_the_middle(tmp_path: Path) -> None:
    output, _ = demo(tmp_path, "--seconds", "4", "--kill").communicate()
    lines = output.splitlines()
    assert re.fullmatch(r"demo: [1-9]\d* windows written, 0 lost, 0 twice, 0 wrong", lines[-1]), output
    assert any("kill -9" in line for line in lines)
    assert any(re.search(r"recovered, first commit \d+\.\d s", line) for line in lines)
    assert any("exit code 0" in line for line in lines)
    assert list(tmp_path.glob("streamproc-demo-*")) == []


def test_kafka(tmp_path: Path) -> None:
    process = demo(tmp_path, "--source", "kafka", "--seconds", "1")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert re.fullmatch(r"demo: [1-9]\d* windows written, 0 lost, 0 twice, 0 wrong", output.splitlines()[-1]), output
    assert "first windows after" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_every_process_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path, "--source", "kafka", "--seconds", "60")
    assert process.stdout is not None
    while " sent " not in process.stdout.readline():
        assert process.poll() is None
    started = children(process.pid)
    assert len(started) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    deadline_s = time.monotonic() + 5
    while any(alive(pid) for pid in started):
        assert time.monotonic() < deadline_s, f"still there: {started}"
        time.sleep(0.02)
    if number == signal.SIGINT:
        assert list(tmp_path.glob("streamproc-demo-*")) == []


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Lake:
    """The files of a job without a fault: windows of 10,000 events, 3 of them late, the bad ones as dead letters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kinds, payloads = ClickStream(seed=1, rate=1000, since_us=SINCE_US, shards=1).rows(0, 0, 10_000)
        self.events = pa.table({"kind": kinds, "payload": pa.array(payloads, pa.binary())})
        import duckdb

        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            database.register("events", self.events)
            database.execute("CREATE TABLE bad AS SELECT to_base64(payload) AS raw FROM events WHERE kind = 'bad'")
            database.execute(
                "CREATE TABLE sent AS SELECT kind, j->>'page' AS page, (j->>'amount')::DECIMAL(10,2) AS amount, (j->>'ts')::TIMESTAMP AS ts"
                " FROM (SELECT kind, decode(payload)::JSON AS j FROM events WHERE kind <> 'bad')"
            )
            database.execute("CREATE TABLE late AS SELECT page, amount, ts FROM sent WHERE kind = 'late' LIMIT 3")
            windows = database.sql(
                'SELECT time_bucket(INTERVAL 5 seconds, ts) AS "window", page, count(*) AS views, sum(amount) AS revenue'
                " FROM (SELECT page, amount, ts FROM sent EXCEPT ALL FROM late) GROUP BY ALL ORDER BY ALL"
            ).to_arrow_table()
            for name in ("views", "late", "dead"):
                (folder / name).mkdir()
            database.execute(f"COPY late TO '{folder}/late/part-1.json'")
            database.execute(f"COPY bad TO '{folder}/dead/part-1.json'")
        self.write(windows)

    def write(self, windows: pa.Table) -> None:
        pq.write_table(windows, self.folder / "views" / "part-1.parquet")

    def windows(self) -> pa.Table:
        return pq.read_table(self.folder / "views" / "part-1.parquet")

    def compare(self) -> Comparison:
        return compare(self.events, self.folder, WINDOW_US)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def differences(found: Comparison) -> tuple[int, int, int]:
    return found.lost, found.twice, found.wrong


def test_the_comparison_finds_no_difference_where_there_is_none(lake: Lake) -> None:
    found = lake.compare()
    assert (differences(found), found.equal, found.late, found.dead) == ((0, 0, 0), True, 3, 10)
    assert found.windows == lake.windows().num_rows


def test_the_comparison_finds_a_lost_window(lake: Lake) -> None:
    lake.write(lake.windows().slice(1))
    assert differences(lake.compare()) == (1, 0, 0)


def test_the_comparison_finds_a_window_written_twice(lake: Lake) -> None:
    pq.write_table(lake.windows().slice(3, 1), lake.folder / "views" / "part-2.parquet")
    assert differences(lake.compare()) == (0, 1, 0)


def test_the_comparison_finds_a_wrong_count_and_a_window_that_nobody_asked_for(lake: Lake) -> None:
    rows = lake.windows()
    views = [rows["views"][0].as_py() + 1, *rows["views"].to_pylist()[1:]]
    pages = [*rows["page"].to_pylist()[:-1], "/nowhere"]
    lake.write(rows.set_column(2, "views", pa.array(views)).set_column(1, "page", pa.array(pages)))
    assert differences(lake.compare()) == (1, 0, 2)


@pytest.mark.parametrize("folder", ["late", "dead"])
def test_the_comparison_finds_late_rows_and_dead_letters_that_are_lost_or_twice(lake: Lake, folder: str) -> None:
    file = lake.folder / folder / "part-1.json"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[0]]))
    assert differences(lake.compare())[1] == 1
    file.write_text("".join(lines[1:]))
    assert sum(differences(lake.compare())) == 1


def test_the_comparison_finds_a_row_refused_as_late_that_was_in_time(lake: Lake) -> None:
    (lake.folder / "late" / "part-2.json").write_text('{"page":"/page/1","amount":1.00,"ts":"2026-01-01 00:00:05"}\n')
    assert differences(lake.compare()) == (0, 0, 1)
