"""A stub of Kinesis over HTTP for what the emulators get wrong: closed shards and their parents, expired iterators, empty
answers of a shard that is behind, retention, paged ListShards; consumers, subscriptions and how they break. Records are in
memory; it answers as AWS documents it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from binascii import crc32
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from streamproc.clock import Clock

HASHES = 2**128
STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/clicks"
_TICK_S = 0.01


class StubShard:
    """`first`: index of the oldest record that retention has left."""

    def __init__(self, name: str, low: int, high: int, parents: Sequence[str] = ()) -> None:
        self.name, self.low, self.high, self.parents = name, low, high, parents
        self.records: list[dict[str, Any]] = []
        self.first = 0
        self.closed = False
        self.begins = 1

    def described(self) -> dict[str, Any]:
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))
        return {
            "ShardId": self.name,
            "HashKeyRange": {"StartingHashKey": str(self.low), "EndingHashKey": str(self.high)},
            "SequenceNumberRange": {"StartingSequenceNumber": str(self.begins)}
            | ({"EndingSequenceNumber": "9" * 56} if self.closed else {}),
        } | parents


class Stub:
    """One stream `clicks` of two shards, from `start` to `stop`. The attributes are knobs: shards a page of ListShards, records
    an answer, iterators and access keys that have expired, answers that are empty or errors (`errors` of GetRecords, `refusals` of
    any operation: code, HTTP status; without a code the connection is cut; `texts` by code). How many consumers there may be, how
    often one is looked at before it is active; `breaks` are exceptions in the middle of a subscription, likewise; `exclusive`: a
    shard has one subscription a consumer.

    A subscription lasts `subscription_s`, says something every `beat_s` and cannot be taken over for `taken_s`.
    """

    def __init__(self, clock: Clock, *, subscription_s: float = 300, beat_s: float = 5, taken_s: float = 5) -> None:
        self.clock = clock
        self.subscription_s, self.beat_s, self.taken_s = subscription_s, beat_s, taken_s
        self.refusals: dict[str, list[tuple[str, int]]] = {}
        self.texts: dict[str, str] = {}
        self.expired_keys: set[str] = set()
        self.consumers: dict[str, int] = {}
        self.consumers_max = 20
        self.looks_till_active = 0
        self.breaks: list[str] = []
        self.exclusive = True
        self.subscribed: dict[tuple[str, str], tuple[object, float]] = {}
        self.subscriptions: list[dict[str, Any]] = []
        self.pushed = 0
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

    async def handle(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].split(".")[1]
        self.calls.append(operation)
        refused = self.errors if operation == "GetRecords" else self.refusals.get(operation)
        if refused:
            return self.refuse(request, *refused.pop(0))
        if any(f"Credential={key}/" in request.headers["Authorization"] for key in self.expired_keys):
            return self.error("ExpiredTokenException")
        if operation == "SubscribeToShard":
            return await self.subscribe(request, await request.json())
        answer: web.Response = getattr(self, operation)(await request.json())
        return answer

    def refuse(self, request: web.Request, code: str, status: int) -> web.Response:
        """An error; without a code the connection is cut."""
        if not code and request.transport is not None:
            request.transport.abort()
        return self.error(code, status)

    def error(self, code: str, status: int = 400) -> web.Response:
        return web.json_response({"__type": code, "message": self.texts.get(code, f"stub says {code}")}, status=status)

    def ListShards(self, asked: dict[str, Any]) -> web.Response:
        if asked.get("StreamName", asked.get("StreamARN", "").partition("/")[2]) != "clicks":
            return self.error("ResourceNotFoundException")
        assert "NextToken" not in asked
        after = asked.get("ExclusiveStartShardId", "")
        left = [shard for name, shard in sorted(self.shards.items()) if name > after]
        more = {"NextToken": "t"} if len(left) > self.page else {}
        return web.json_response({"Shards": [shard.described() for shard in left[: self.page]]} | more)

    def DescribeStreamSummary(self, asked: dict[str, Any]) -> web.Response:
        return web.json_response({"StreamDescriptionSummary": {"RetentionPeriodHours": 24, "StreamARN": STREAM_ARN}})

    def GetShardIterator(self, asked: dict[str, Any]) -> web.Response:
        shard = self.shards.get(asked["ShardId"])
        if shard is None:
            return self.error("ResourceNotFoundException")
        at = self.place(shard, asked["ShardIteratorType"], asked.get("StartingSequenceNumber", ""), asked.get("Timestamp", 0))
        return self.error("InvalidArgumentException") if at is None else web.json_response({"ShardIterator": self.iterator(shard, at)})

    def place(self, shard: StubShard, kind: str, sequence: str, timestamp_s: float) -> int | None:
        """Index of the first record to be read; None if the start is not accepted."""
        records = shard.records
        if kind == "TRIM_HORIZON":
            return 0
        if kind == "AT_TIMESTAMP":
            if timestamp_s * 1e6 > self.clock.now_us():
                return None
            return next((i for i, r in enumerate(records) if r["ApproximateArrivalTimestamp"] >= timestamp_s), len(records))
        if not sequence.startswith("1000"):
            return None
        first = int(sequence) + (kind == "AFTER_SEQUENCE_NUMBER")
        return next((i for i, r in enumerate(records) if int(r["SequenceNumber"]) >= first), len(records))

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
        children = {"ChildShards": self.children(shard)} if following is None and self.children(shard) else {}
        return web.json_response({"Records": records, "NextShardIterator": following} | behind | children)

    def children(self, shard: StubShard) -> list[dict[str, Any]]:
        found = (child for child in self.shards.values() if shard.name in child.parents)
        return [{"ShardId": c.name, "ParentShards": list(c.parents), "HashKeyRange": c.described()["HashKeyRange"]} for c in found]

    def RegisterStreamConsumer(self, asked: dict[str, Any]) -> web.Response:
        name = asked["ConsumerName"]
        if name in self.consumers:
            return self.error("ResourceInUseException")
        if len(self.consumers) == self.consumers_max:
            return self.error("LimitExceededException")
        self.consumers[name] = self.looks_till_active
        return web.json_response({"Consumer": {"ConsumerARN": self.consumer_arn(name), "ConsumerStatus": "CREATING"}})

    def DescribeStreamConsumer(self, asked: dict[str, Any]) -> web.Response:
        name = asked["ConsumerName"]
        if name not in self.consumers:
            return self.error("ResourceNotFoundException")
        looks = self.consumers[name]
        self.consumers[name] = max(0, looks - 1)
        described = {"ConsumerARN": self.consumer_arn(name), "ConsumerStatus": "CREATING" if looks else "ACTIVE"}
        return web.json_response({"ConsumerDescription": described})

    def consumer_arn(self, name: str) -> str:
        return f"{STREAM_ARN}/consumer/{name}:1"

    async def subscribe(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        self.subscriptions.append(asked)
        arn, shard, start = asked["ConsumerARN"], self.shards.get(asked["ShardId"]), asked["StartingPosition"]
        if shard is None or arn not in map(self.consumer_arn, self.consumers):
            return self.error("ResourceNotFoundException")
        at = self.place(shard, start["Type"], start.get("SequenceNumber", ""), start.get("Timestamp", 0))
        if at is None:
            return self.error("InvalidArgumentException")
        key, now_s = (arn, shard.name), asyncio.get_running_loop().time()
        if self.exclusive and key in self.subscribed and now_s < self.subscribed[key][1] + self.taken_s:
            return self.error("ResourceInUseException")
        self.subscribed[key] = (asked, now_s)
        answer = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        await answer.prepare(request)
        with suppress(ConnectionError):
            await answer.write(frame({":message-type": "event", ":event-type": "initial-response"}, {}))
            await self.push(request, answer, shard, at, asked)
        return answer

    async def push(self, request: web.Request, answer: web.StreamResponse, shard: StubShard, at: int, asked: dict[str, Any]) -> None:
        """Events until the subscription is over, taken over, broken off or the shard has ended."""
        loop = asyncio.get_running_loop()
        key, end_s, spoke_s = (asked["ConsumerARN"], shard.name), loop.time() + self.subscription_s, 0.0
        while loop.time() < end_s:
            taken_over = self.exclusive and self.subscribed[key][0] is not asked
            if (self.breaks and spoke_s) or taken_over:
                return await self.break_off(request, answer, "ResourceInUseException" if taken_over else self.breaks.pop(0))
            at = max(at, shard.first)
            records = shard.records[at : at + self.limit]
            ended = shard.closed and at + len(records) == len(shard.records)
            if records or ended or loop.time() >= spoke_s + self.beat_s:
                at, spoke_s, self.pushed = at + len(records), loop.time(), self.pushed + len(records)
                event = self.event(shard, records, at)
                await answer.write(frame({":message-type": "event", ":event-type": "SubscribeToShardEvent"}, event))
            if ended:
                return None
            await asyncio.sleep(_TICK_S)  # noqa: TID251  # a server's own time
        return None

    async def break_off(self, request: web.Request, answer: web.StreamResponse, code: str) -> None:
        if code:
            await answer.write(frame({":message-type": "exception", ":exception-type": code}, {"message": f"stub says {code}"}))
        elif request.transport is not None:
            request.transport.abort()

    def event(self, shard: StubShard, records: list[dict[str, Any]], at: int) -> dict[str, Any]:
        left = len(shard.records) - at
        over = {"ChildShards": self.children(shard)} if shard.closed and not left else {}
        continuation = None if over else str(next(self.sequence))
        return {"Records": records, "MillisBehindLatest": 1000 * left, "ContinuationSequenceNumber": continuation} | over


def frame(headers: dict[str, str], payload: dict[str, Any]) -> bytes:
    """One message of an event stream, headers being strings (docs.aws.amazon.com/transcribe/latest/dg/event-stream.html)."""
    body = json.dumps(payload).encode()
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode() for name, value in headers.items()
    )
    prelude = (16 + len(head) + len(body)).to_bytes(4, "big") + len(head).to_bytes(4, "big")
    message = prelude + crc32(prelude).to_bytes(4, "big") + head + body
    return message + crc32(message).to_bytes(4, "big")
