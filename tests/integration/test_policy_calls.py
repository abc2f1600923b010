"""Every call that a real job makes to AWS is allowed by the policy printed for it: a recorder stands between it and ministack."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from aiohttp import web
from servers import BUCKET

from streamproc.demo.producer import KinesisStream
from streamproc.job import load_job
from streamproc.policy import Account, policy

REGION, ACCOUNT = "us-east-1", "000000000000"
LARGE = b"x" * 200_000
HOP = {"host", "content-length", "transfer-encoding", "connection"}
"""Headers of one connection."""
JOB = """
name: views
sources:
  clicks: {type: kinesis, stream: policy-clicks, region: us-east-1, schema: 'page STRING, ts TIMESTAMP', watermark: {column: ts},
           bad_records: dead_letter}
  pages: {type: files, path: 's3://lake/policy/pages/*.json', schema: 'page STRING'}
tables:
  kinds: {type: files, path: 's3://lake/policy/kinds/', schema: 'page STRING, kind STRING', refresh: 1 second}
sinks:
  views:
    type: files
    path: s3://lake/policy/views
    late: {type: files, path: 's3://lake/policy/late'}
    query: |
      SELECT window.start AS at, kind, count(*) AS n FROM clicks LEFT JOIN kinds ON clicks.page = kinds.page
      GROUP BY window(ts, '1 second'), kind
  pages: {type: files, path: 's3://lake/policy/copied/', format: json, query: SELECT * FROM pages}
dead_letter: {type: files, path: 's3://lake/policy/dead/'}
checkpoint: s3://lake/policy/checkpoint
leases: {type: dynamodb}
"""
NEVER_SEEN = {"s3:AbortMultipartUpload", "dynamodb:BatchGetItem", "kinesis:DescribeStreamSummary"}
"""What only a failed upload, a hand-over between workers and rows near the end of their retention ask for."""

Need = tuple[str, str, str | None]
"""Action, ARN, and for listings the prefix."""


class Recorder:
    """Passes requests on and notes what IAM would be asked about each."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.needs: set[Need] = set()
        self.unknown: list[str] = []
        self._upstream, self._session = upstream, session

    async def pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._note(request, body)
        url = aiohttp.client.URL(f"{self._upstream}{request.raw_path}", encoded=True)
        sent = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        asked = self._session.request(request.method, url, headers=sent, data=body)
        async with asked as answer:
            got = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            if request.method == "HEAD":
                got["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, headers=got, body=await answer.read())

    def _note(self, request: web.Request, body: bytes) -> None:
        target = request.headers.get("X-Amz-Target", "")
        found = list(self._of_target(target, json.loads(body)) if target else self._of_s3(request, body))
        self.needs.update(found)
        if not found:
            self.unknown.append(f"{request.method} {request.raw_path} {target}")

    def _of_target(self, target: str, arguments: dict[str, Any]) -> Iterator[Need]:
        version, _, action = target.partition(".")
        if version.startswith("Kinesis"):
            yield f"kinesis:{action}", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/policy-clicks", None
        else:
            for table in arguments.get("RequestItems") or [arguments["TableName"]]:
                yield f"dynamodb:{action}", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}", None

    def _of_s3(self, request: web.Request, body: bytes) -> Iterator[Need]:
        bucket, _, key = unquote(request.path.lstrip("/")).partition("/")
        arn, query = f"arn:aws:s3:::{bucket}/{key}", request.query
        match request.method:
            case "GET" if "list-type" in query:
                yield "s3:ListBucket", f"arn:aws:s3:::{bucket}", query.get("prefix")
            case "GET" | "HEAD":
                yield "s3:GetObject", arn, None
                yield "s3:ListBucket", f"arn:aws:s3:::{bucket}", key  # or an absent object looks forbidden
            case "DELETE":
                yield ("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"), arn, None
            case "POST" if "delete" in query:
                for part in body.decode().split("<Key>")[1:]:
                    yield "s3:DeleteObject", f"arn:aws:s3:::{bucket}/{part.partition('</Key>')[0]}", None
            case "PUT" | "POST":
                yield "s3:PutObject", arn, None
                if source := request.headers.get("x-amz-copy-source"):
                    yield "s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}", None


def allowed(document: dict[str, Any], need: Need) -> bool:
    """IAM's judgement, as far as the document goes: any statement with the action, the ARN and the condition."""
    action, arn, prefix = need
    for statement in document["Statement"]:
        prefixes = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        if (
            action in statement["Action"]
            and any(fnmatchcase(arn, pattern) for pattern in statement["Resource"])
            and (prefixes is None or any(fnmatchcase(prefix or "", pattern) for pattern in prefixes))
        ):
            return True
    return False


@asynccontextmanager
async def recording(upstream: str) -> AsyncIterator[tuple[Recorder, str]]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        recorder = Recorder(upstream, session)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", recorder.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield recorder, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def filled(environment: dict[str, str]) -> None:
    """Rows for the sources and the table; so many pages that their file is uploaded in parts."""
    import obstore
    from obstore.store import from_url

    stream = KinesisStream("policy-clicks", environment)
    await stream.open(2)
    rows = [b'{"page": "/a", "ts": "2026-01-01T00:00:0%dZ"}' % second for second in range(9)]
    for shard in (0, 1):
        await stream.put(shard, [*rows, b"not json"])
    await stream.close()
    store: Any = from_url(
        f"s3://{BUCKET}",
        endpoint=environment["AWS_ENDPOINT_URL"],
        region=REGION,
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )
    await obstore.put_async(store, "policy/kinds/1.json", b'{"page": "/a", "kind": "odd"}\n')
    lines = b"".join(b'{"page": "%d %s"}\n' % (number, LARGE) for number in range(100))
    await obstore.put_async(store, "policy/pages/1.json", lines)


async def run(job: Path, environment: dict[str, str], *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamproc", *arguments, str(job), env=os.environ | environment, stderr=asyncio.subprocess.PIPE
    )
    said = (await process.communicate())[1]
    assert process.returncode == 0, said.decode()[-3000:]


@pytest.mark.slow
async def test_a_job_asks_for_what_its_policy_allows_and_for_all_of_it(tmp_path: Path, s3: dict[str, str]) -> None:
    await filled(s3)
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    async with recording(s3["AWS_ENDPOINT_URL"]) as (recorder, url):
        environment = s3 | {"AWS_ENDPOINT_URL": url}
        await run(job, environment, "check", "--connect")
        await run(job, environment, "run", "--available-now", "--drain")
    document = policy(load_job(str(job)), Account(ACCOUNT, REGION))
    assert recorder.unknown == []
    assert sorted(need for need in recorder.needs if not allowed(document, need)) == []
    granted = {action for statement in document["Statement"] for action in statement["Action"]}
    assert granted - {action for action, _, _ in recorder.needs} <= NEVER_SEEN
