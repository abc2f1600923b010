"""`partitioned_by` is a promise of the producer: a row that breaks it stops the job with both values."""

from __future__ import annotations

from streamproc.job import load_job
from streamproc.testing import JobRun

TEXT = """
name: promise
sources:
  clicks:
    type: kafka
    topic: clicks
    bootstrap_servers: 127.0.0.1:1
    schema: user STRING, page STRING
    partitioned_by: user
    bad_records: skip
sinks:
  out: {type: console, query: SELECT page FROM clicks}
"""


async def run(*keys: str | None) -> JobRun:
    job = JobRun(load_job("promise.yaml", text=TEXT), 0)
    await job.start()
    payloads = [b'{"user":"a","page":"/"}'] * len(keys)
    job.sources["clicks"].put("0", payloads, keys=[k if k is None else k.encode() for k in keys])
    await job.process()
    await job.close()
    return job


async def test_rows_that_keep_the_promise_go_through():
    job = await run("a", "a")
    assert job.stopped is None
    assert len(job.sinks["out"].rows()) == 2


async def test_a_row_that_breaks_it_stops_the_job_with_both_values():
    job = await run("a", "b")
    assert "shard 0, offset 1" in str(job.stopped)
    assert "'b'" in str(job.stopped)
    assert "'a'" in str(job.stopped)
    assert job.sinks["out"].rows() == []


async def test_a_missing_key_breaks_it_too():
    assert "None" in str((await run(None)).stopped)
