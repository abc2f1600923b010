"""What goes wrong between a worker and Kinesis and passes by itself: each is an outage that ends, never a row lost or the job's end."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sources.kinesis import Kinesis
from streamproc.clients import aws
from streamproc.errors import Unavailable
from streamproc.offset import EARLIEST
from streamproc.source import Reader
from streamproc.testing.kinesis_stub import Stub
from streamproc.testing.manual_clock import ManualClock
from streamproc.testing.ministack import CREDENTIALS
from streamproc.testing.source_suite import answer, values
from streamproc.world import World

SHARD = "shardId-000000000000"
T = TypeVar("T")


class Quick(ManualClock):
    async def sleep(self, seconds: float) -> None:
        self.advance(round(max(seconds, 0) * 1e6))
        await asyncio.sleep(0)


@pytest.fixture
async def stub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stub]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(aws, "ATTEMPTS", 1)  # botocore would sleep between its own
    stub = Stub(Quick(), beat_s=0.02)
    stub.consumers["job"] = 0
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture(params=["polling", "fan_out"])
async def kinesis(stub: Stub, request: pytest.FixtureRequest) -> AsyncIterator[Kinesis]:
    keys: dict[str, Any] = {} if request.param == "polling" else {"read": "fan_out", "consumer": "job"}
    source = Kinesis(Kinesis.Options(stream="clicks", endpoint_url=stub.endpoint_url, **keys), World(clock=stub.clock), "clicks")
    yield source
    await source.close()


async def outlasted(call: Callable[[], Awaitable[T]], errors: list[str]) -> T:
    """As the engine calls: `Unavailable` is tried again."""
    while True:
        try:
            return await call()
        except Unavailable as error:
            errors.append(str(error))


async def opened(source: Kinesis, errors: list[str]) -> Reader:
    shard = (await outlasted(source.shards, errors))[0]
    return await source.open(shard, await source.position(shard, EARLIEST))


async def read(reader: Reader, count: int, errors: list[str]) -> list[bytes]:
    rows: list[bytes] = []
    async with asyncio.timeout(30):
        while len(rows) < count:
            rows += values([await outlasted(lambda: answer(reader), errors)])
    return rows


FAULTS = [
    ("InternalFailure", 500),
    ("ServiceUnavailable", 503),
    ("ProvisionedThroughputExceededException", 400),
    ("LimitExceededException", 400),
    ("ThrottlingException", 400),
    ("RequestTimeTooSkewed", 403),
    ("ResourceInUseException", 400),
    ("", 200),
]


async def test_every_row_comes_once_through_faults_of_every_call(stub: Stub, kinesis: Kinesis) -> None:
    faults = itertools.cycle(FAULTS)
    operations = ("ListShards", "GetShardIterator", "DescribeStreamSummary", "DescribeStreamConsumer", "SubscribeToShard")
    stub.refusals = {operation: [next(faults) for _ in range(9)] for operation in operations}
    stub.errors = [next(faults) for _ in range(9)]
    errors: list[str] = []
    reader = await opened(kinesis, errors)
    put, got = [], []
    for part in range(12):
        rows = [b"%d %d" % (part, i) for i in range(3)]
        for row in rows:
            stub.put(SHARD, row)
        put += rows
        got += await read(reader, 3, errors)
        if part % 3 == 0:
            stub.errors.append(next(faults))
            stub.breaks.append("InternalFailureException")
            stub.expired_before = len(stub.iterators)
    await reader.close()
    assert got == put
    assert errors
    assert stub.refusals["ListShards"] == []


async def test_shards_are_listed_although_a_page_in_the_middle_is_throttled(stub: Stub, kinesis: Kinesis) -> None:
    stub.page = 1
    stub.refusals = {"ListShards": [("LimitExceededException", 400)] * 5}
    errors: list[str] = []
    assert len(await outlasted(kinesis.shards, errors)) == 2
    assert all("LimitExceededException" in error for error in errors)
    assert errors


async def test_an_answer_that_does_not_come_is_an_outage(stub: Stub, kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "READ_S", 0.2)
    errors: list[str] = []
    reader = await opened(kinesis, errors)
    held = asyncio.Event()
    handle = stub.handle

    async def hang(request: Any) -> Any:
        await held.wait()
        return await handle(request)

    monkeypatch.setattr(stub, "handle", hang)
    await stub.stop()
    await stub.start()
    with pytest.raises(Unavailable, match=r"(?i)time"):
        async with asyncio.timeout(10):
            while True:
                await reader.read()
    held.set()
    await reader.close()


def keep_in_file(path: Path, key: str) -> dict[str, str]:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\naws_session_token = token\n")
    return {"AWS_SHARED_CREDENTIALS_FILE": str(path)}


def keep_in_process(path: Path, key: str) -> dict[str, str]:
    told = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "token", "Expiration": "2099-01-01T00:00:00Z"}
    path.with_suffix(".json").write_text(json.dumps(told))
    path.write_text(f"[default]\ncredential_process = {sys.executable} -c \"print(open('{path.with_suffix('.json')}').read())\"\n")
    return {"AWS_CONFIG_FILE": str(path)}


@pytest.mark.parametrize("keep", [keep_in_file, keep_in_process])
async def test_credentials_that_have_expired_are_read_anew(
    stub: Stub, kinesis: Kinesis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[[Path, str], dict[str, str]]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in keep(tmp_path / "keys", "OLDKEY").items():
        monkeypatch.setenv(name, value)
    errors: list[str] = []
    reader = await opened(kinesis, errors)
    stub.put(SHARD, b"before")
    assert await read(reader, 1, errors) == [b"before"]
    assert errors == []
    stub.expired_keys = {"OLDKEY"}
    stub.breaks = ["InternalFailureException"]
    with pytest.raises(Unavailable, match=r"ExpiredTokenException.*read anew") as caught:
        async with asyncio.timeout(10):
            while True:
                await reader.read()
    assert "secret" not in str(caught.value)
    keep(tmp_path / "keys", "NEWKEY")
    stub.put(SHARD, b"after")
    assert await read(reader, 1, errors) == [b"after"]
    await reader.close()


@pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired"])
async def test_a_clock_that_is_wrong_is_waited_for_and_named(stub: Stub, kinesis: Kinesis, code: str) -> None:
    stub.texts = {code: "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z"}
    stub.refusals = {"ListShards": [(code, 403)] * 3}
    errors: list[str] = []
    await outlasted(kinesis.shards, errors)
    assert errors
    assert all("clock of this machine is wrong" in error for error in errors)


async def test_a_wrong_signature_shows_no_token(stub: Stub, kinesis: Kinesis) -> None:
    code = "InvalidSignatureException"
    stub.texts = {code: "The request signature we calculated does not match.\n\nx-amz-security-token:TOKEN"}
    stub.refusals = {"ListShards": [(code, 403)]}
    with pytest.raises(Exception, match="does not match") as caught:
        await kinesis.shards()
    assert "TOKEN" not in str(caught.value)
