"""A stub of Kinesis over HTTP for what the emulators get wrong: closed shards and their parents, expired iterators, empty
answers of a shard that is behind, retention, paged ListShards. Records are in memory; it answers as AWS documents it.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from streamproc.clock import Clock

HASHES = 2**128


class StubShard:
    """`first`: index of the oldest record that retention has left."""

    def __init__(self, name: str, low: int, high: int, parents: Sequence[str] = ()) -> None:
        self.name, self.low, self.high, self.parents = name, low, high, parents
        self.records: list[dict[str, Any]] = []
        self.first = 0
        self.closed = False

    def described(self) -> dict[str, Any]:
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))
        return {
            "ShardId": self.name,
            "HashKeyRange": {"StartingHashKey": str(self.low), "EndingHashKey": str(self.high)},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        } | parents


class Stub:
    """One stream `clicks` of two shards, from `start` to `stop`. The attributes are knobs: shards a page of ListShards, records
    an answer, iterators that have expired, answers of GetRecords that are errors (code, HTTP status) or empty.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.shards: dict[str, StubShard] = {}
        self.sequence = itertools.count(10**55)
        self.page = 100
        self.limit = 10_000
        self.expired_before = 0
        self.iterators: dict[str, tuple[StubShard, int]] = {}
        self.calls: list[str] = []
        self.errors: list[tuple[str, int]] = []
        self.empty_pages = 0
        self.behind_ms: int | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None
        self.add(0, HASHES // 2 - 1)
        self.add(HASHES // 2, HASHES - 1)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port as before."""
        app = web.Application()
        app.router.add_post("/", self.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def add(self, low: int, high: int, parents: Sequence[str] = ()) -> str:
        name = f"shardId-{len(self.shards):012d}"
        self.shards[name] = StubShard(name, low, high, parents)
        return name

    def put(self, shard: str, data: bytes, key: str = "k") -> str:
        sequence = str(next(self.sequence))
        record = {
            "SequenceNumber": sequence,
            "ApproximateArrivalTimestamp": self.clock.now_us() // 1000 / 1000,
            "Data": base64.b64encode(data).decode(),
            "PartitionKey": key,
        }
        self.shards[shard].records.append(record)
        return sequence

    def split(self, shard: str) -> list[str]:
        old = self.shards[shard]
        old.closed = True
        middle = (old.low + old.high) // 2
        return [self.add(old.low, middle, [shard]), self.add(middle + 1, old.high, [shard])]

    async def handle(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].split(".")[1]
        self.calls.append(operation)
        if self.errors and operation == "GetRecords":
            return self.error(*self.errors.pop(0))
        answer: web.Response = getattr(self, operation)(await request.json())
        return answer

    def error(self, code: str, status: int = 400) -> web.Response:
        return web.json_response({"__type": code, "message": f"stub says {code}"}, status=status)

    def ListShards(self, asked: dict[str, Any]) -> web.Response:
        if asked.get("StreamName", asked.get("StreamARN", "").partition("/")[2]) != "clicks":
            return self.error("ResourceNotFoundException")
        assert "NextToken" not in asked
        after = asked.get("ExclusiveStartShardId", "")
        left = [shard for name, shard in sorted(self.shards.items()) if name > after]
        more = {"NextToken": "t"} if len(left) > self.page else {}
        return web.json_response({"Shards": [shard.described() for shard in left[: self.page]]} | more)

    def DescribeStreamSummary(self, asked: dict[str, Any]) -> web.Response:
        return web.json_response({"StreamDescriptionSummary": {"RetentionPeriodHours": 24}})

    def GetShardIterator(self, asked: dict[str, Any]) -> web.Response:
        shard = self.shards.get(asked["ShardId"])
        if shard is None:
            return self.error("ResourceNotFoundException")
        kind, records = asked["ShardIteratorType"], shard.records
        if kind == "AT_TIMESTAMP":
            if asked["Timestamp"] * 1e6 > self.clock.now_us():
                return self.error("InvalidArgumentException")
            at = next((i for i, r in enumerate(records) if r["ApproximateArrivalTimestamp"] >= asked["Timestamp"]), len(records))
        elif kind == "AT_SEQUENCE_NUMBER":
            if not asked["StartingSequenceNumber"].startswith("1000"):
                return self.error("InvalidArgumentException")
            at = next((i for i, r in enumerate(records) if int(r["SequenceNumber"]) >= int(asked["StartingSequenceNumber"])), len(records))
        else:
            at = 0
        return web.json_response({"ShardIterator": self.iterator(shard, at)})

    def iterator(self, shard: StubShard, at: int) -> str:
        token = str(len(self.iterators))
        self.iterators[token] = shard, at
        return token

    def GetRecords(self, asked: dict[str, Any]) -> web.Response:
        token = asked["ShardIterator"]
        if int(token) < self.expired_before:
            return self.error("ExpiredIteratorException")
        shard, at = self.iterators[token]
        at = max(at, shard.first)
        records = [] if self.empty_pages else shard.records[at : at + self.limit]
        left = len(shard.records) - at - len(records)
        self.empty_pages = max(0, self.empty_pages - 1)
        following = None if shard.closed and not left else self.iterator(shard, at + len(records))
        behind = {"MillisBehindLatest": 1000 * left if self.behind_ms is None else self.behind_ms}
        return web.json_response({"Records": records, "NextShardIterator": following} | behind)
