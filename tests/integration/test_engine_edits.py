"""An edited job on an old checkpoint: what fits goes on, what does not is refused with what to do; and going back in time."""

from __future__ import annotations

import duckdb
import pytest

from streamproc.checkpoint.records import Commit, decode
from streamproc.engine import inspect
from streamproc.engine.rollback import rollback
from streamproc.engine.worker import run_job
from streamproc.errors import BadRecord, InvalidJob, StreamprocError
from streamproc.job import load_job
from streamproc.stores import open_store
from streamproc.testing import Died, JobRun
from streamproc.world import World

START_US = 1_767_225_600_000_000
TEXT = """
name: edit
sources:
  clicks:
    type: generator
    schema: user STRING, page STRING, ts TIMESTAMP
    watermark: {column: ts, delay: 5 seconds}
sinks:
  out: {type: console, mode: update, query: "SELECT page, count(*) AS n FROM clicks GROUP BY page"}
"""


def put(run: JobRun, *pages: str) -> None:
    rows = [f'{{"user":"u","page":"{page}","ts":"2026-01-01T00:00:00Z"}}'.encode() for page in pages]
    run.sources["clicks"].put("0", rows)


def newest(run: JobRun) -> dict[str, int]:
    return {r["page"]: r["n"] for r in run.sinks["out"].rows()}


async def edited(run: JobRun, text: str) -> None:
    """Stop the worker, edit the file, start it again."""
    await run.close()
    run.job = load_job("edit.yaml", text=text)
    await run.start()


async def begun(text: str = TEXT) -> JobRun:
    run = JobRun(load_job("edit.yaml", text=text), START_US)
    await run.start()
    put(run, "/a", "/a", "/b")
    await run.process()
    return run


@pytest.mark.parametrize(
    "change",
    [
        ("delay: 5 seconds", "delay: 1 minute"),
        ("count(*) AS n", "count(*) AS n, 1 AS one"),
        ("GROUP BY page", "GROUP BY page HAVING count(*) > 0"),
    ],
    ids=["delay", "projection over the result", "having"],
)
async def test_a_compatible_edit_goes_on_with_its_state(change):
    run = await begun()
    await edited(run, TEXT.replace(*change))
    put(run, "/a")
    await run.process()
    assert newest(run) == {"/a": 3, "/b": 1}
    await run.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("GROUP BY page", "GROUP BY page, user"), "sinks.out"),
        (("count(*) AS n", "count(user) AS n"), "sinks.out"),
        (("mode: update", "mode: complete"), "sinks.out.mode"),
        (("type: generator", "type: generator\n    seed: 7"), "sources.clicks.seed"),
    ],
    ids=["keys", "aggregate", "mode", "input"],
)
async def test_an_edit_that_does_not_fit_the_state_is_refused_and_says_what_to_do(change, says):
    run = await begun()
    with pytest.raises(InvalidJob) as refused:
        await edited(run, TEXT.replace(*change))
    assert says in str(refused.value)
    assert "or" in str(refused.value)
    await edited(run, TEXT)  # nothing was changed in the checkpoint
    put(run, "/b")
    await run.process()
    assert newest(run) == {"/a": 2, "/b": 2}
    await run.close()


async def test_an_epoch_that_was_begun_is_finished_with_the_text_it_began_with():
    run = await begun()
    put(run, "/a", "/c")
    run.crash.armed = "after_begin"
    await run._the_task().settle()
    with pytest.raises(Died):
        await run._the_task().step()
    await run._die()
    await edited(run, TEXT.replace("FROM clicks", "FROM clicks WHERE page <> '/c'"))
    put(run, "/c")
    await run.process()
    assert newest(run) == {"/a": 3, "/b": 1, "/c": 1}  # the /c before the edit counts, the one after does not
    await run.close()


async def test_a_job_that_stopped_at_a_bad_record_reads_it_anew_once_it_is_edited():
    run = await begun()
    run.sources["clicks"].put("0", [b"{bad"])
    put(run, "/d")
    await run.process()
    assert isinstance(run.stopped, BadRecord)
    assert "shard 0, offset 3" in str(run.stopped)
    run.stopped = None
    await edited(run, TEXT.replace("    watermark", "    bad_records: skip\n    watermark"))
    await run.process()
    assert newest(run)["/d"] == 1
    await run.close()


async def test_a_job_that_stopped_at_a_row_its_sql_cannot_take_reads_it_anew_once_it_is_edited():
    text = TEXT.replace("count(*) AS n", "sum(CAST(substr(page, 2) AS INT)) AS n")
    run = JobRun(load_job("edit.yaml", text=text), START_US)
    await run.start()
    put(run, "/1", "/x", "/2")
    await run.process()
    assert isinstance(run.stopped, BadRecord)
    assert "shard 0, offset 1" in str(run.stopped)
    assert run.sinks["out"].rows() == []
    run.stopped = None
    await edited(run, text.replace("    watermark", "    bad_records: skip\n    watermark"))
    await run.process()
    assert {r["page"]: r["n"] for r in run.sinks["out"].rows()} == {"/1": 1, "/2": 2}
    await run.close()


FILES = """
name: back
sources:
  clicks:
    type: generator
    rows: 3000
    shards: 2
    max_rows_per_epoch: 300
    schema: user STRING, page STRING, ts TIMESTAMP
    watermark: {{column: ts}}
sinks:
  rows: {{type: files, path: {folder}/rows/, query: 'SELECT user, page, ts FROM clicks'}}
  counts: {{type: files, path: {folder}/counts/, mode: complete, query: "SELECT page, count(*) AS n FROM clicks GROUP BY page"}}
checkpoint: {folder}/checkpoint
"""


def fetch(sql: str) -> list[tuple]:
    with duckdb.connect() as reader:
        return reader.sql(sql).fetchall()


async def test_a_rollback_goes_back_to_a_commit_and_the_rows_come_once(tmp_path):
    job = load_job("back.yaml", text=FILES.format(folder=tmp_path))
    await run_job(job, available_now=True)
    read = f"SELECT count(*), count(DISTINCT (user, ts)) FROM '{tmp_path}/rows/*.parquet'"
    counts = f"SELECT page, n FROM '{tmp_path}/counts/*.parquet' ORDER BY ALL"
    before, table = fetch(read), fetch(counts)
    store = open_store(job.checkpoint, World())
    half = decode((await store.get("g1/all/epochs/0000000005.commit")).data, Commit, "")

    said = await rollback(job, half.now_us, yes=True)
    assert "epoch 5" in said[0]
    assert (await inspect.status(job))["generation"] == 2
    await run_job(job, available_now=True)
    assert fetch(read) == before
    assert fetch(counts) == table
    assert len(await inspect.epochs(job)) > 1


async def test_a_rollback_to_before_everything_kept_is_refused(tmp_path):
    job = load_job("back.yaml", text=FILES.format(folder=tmp_path))
    with pytest.raises(InvalidJob, match="no checkpoint"):
        await rollback(job, 0, yes=True)
    await run_job(job, available_now=True)
    with pytest.raises(StreamprocError, match="no commit"):
        await rollback(job, 0, yes=True)


async def test_a_drained_checkpoint_is_finished(tmp_path):
    job = load_job("back.yaml", text=FILES.format(folder=tmp_path))
    await run_job(job, available_now=True, drain=True)
    with pytest.raises(InvalidJob, match="finished"):
        await run_job(job)
