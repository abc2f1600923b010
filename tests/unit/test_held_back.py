"""Which shards a job's watermark waits for."""

from __future__ import annotations

from pathlib import Path

from streamproc.checkpoint.records import ShardEnd
from streamproc.engine.inspect import held_back_by
from streamproc.job import load_job

JOB = """
sources:
  t: {type: kafka, topic: t, bootstrap_servers: 'localhost:9092', schema: 'ts TIMESTAMP', watermark: {column: ts, idle: 1 minute}}
  plain: {type: kafka, topic: p, bootstrap_servers: 'localhost:9092', schema: 'x INT'}
sinks:
  out: {type: console, query: SELECT * FROM t}
  other: {type: console, query: SELECT * FROM plain}
"""


def test_the_least_of_the_shards_that_are_awaited(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    job = load_job(tmp_path / "job.yaml")

    def held(**shards: ShardEnd) -> list[str]:
        ends = {"t": shards, "plain": {"0": ShardEnd("1")}}
        return held_back_by(job, ends)

    assert held(a=ShardEnd("1", 5), b=ShardEnd("1", 7)) == ["t/a"]
    assert held(a=ShardEnd("1", 5, idle_us=60_000_000), b=ShardEnd("1", 7), c=ShardEnd("1", 7)) == ["t/b", "t/c"]
    assert held(a=ShardEnd("1", 5), b=ShardEnd("")) == ["t/b"]
    assert held(a=ShardEnd("1", 5, ended=True)) == []
