"""The job file of the demo: clicks in, views and revenue by page in short windows out."""

from __future__ import annotations

from pathlib import Path

WINDOW_S = 5
STREAM = "clicks"

_JOB = """\
name: demo
sources:
  clicks:
{source}
    format: json
    schema: user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP
    watermark: {{column: ts, delay: {delay}, idle: {idle}}}
    bad_records: dead_letter
sinks:
  views:
    type: files
    path: {lake}/views/
    format: parquet
    mode: append
    late: {{type: files, path: {lake}/late/}}
    query: |
      SELECT window.start AS window, page, count(*) AS views, sum(amount) AS revenue
      FROM clicks GROUP BY window(ts, '{window_s} seconds'), page
dead_letter: {{type: files, path: {lake}/dead/}}
checkpoint: {checkpoint}
metrics: {{host: 127.0.0.1, port: 0}}
"""
_KINESIS = """\
    type: kinesis
    stream: clicks
    endpoint_url: ${AWS_ENDPOINT_URL:-}"""
_KAFKA = """\
    type: kafka
    topic: clicks
    bootstrap_servers: """


def kinesis() -> str:
    """The source's own keys; the server is the one that the environment names."""
    return _KINESIS


def kafka(bootstrap_servers: str) -> str:
    return _KAFKA + bootstrap_servers


def write_job(
    path: Path,
    source: str,
    lake: str,
    checkpoint: str,
    *,
    window_s: int = WINDOW_S,
    delay: str = "2 seconds",
    idle: str = "2 seconds",
    more: str = "",
) -> Path:
    """Write the job file; `lake` and `checkpoint` are folders or object-store URLs, `more` further keys of the job."""
    text = _JOB.format(source=source, lake=lake, checkpoint=checkpoint, delay=delay, idle=idle, window_s=window_s)
    path.write_text(text + more, encoding="utf-8")
    return path
