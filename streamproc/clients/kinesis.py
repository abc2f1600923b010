"""Kinesis over aiobotocore: calls of one stream, and GetRecords bodies as Arrow without botocore's parser.

botocore signs, retries, refreshes credentials and parses errors; the body of a good GetRecords answer is taken out before
its parser (event `before-parse`) and decoded by msgspec, base64 included, into a column each; likewise the events of
SubscribeToShard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.clients.aws import AwsClient, NotFound
from streamproc.clients.event_stream import EventStream, EventStreams
from streamproc.clients.kpl import MAGIC, Aggregate, unpack
from streamproc.errors import Fault, InvalidJob, Unavailable
from streamproc.source import Shard

MAX_RECORDS = 10_000
"""Records of one GetRecords answer at most; also 10 MB."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

IteratorType = Literal["TRIM_HORIZON", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]


class Record(msgspec.Struct, gc=False):
    """A record of a GetRecords body (JSON 1.1); field names are the service's."""

    SequenceNumber: str
    Data: bytes
    PartitionKey: str
    ApproximateArrivalTimestamp: float = 0.0


class BareRecord(msgspec.Struct, gc=False):
    """What is always needed of a record; a third quicker to decode."""

    SequenceNumber: str
    Data: bytes


class HashKeyRange(msgspec.Struct):
    StartingHashKey: str
    EndingHashKey: str


class ChildShard(msgspec.Struct):
    """A shard that goes on where the one that is read was closed."""

    ShardId: str
    ParentShards: list[str]
    HashKeyRange: HashKeyRange


class Answer(msgspec.Struct):
    """A GetRecords body, or an event of SubscribeToShard. Without NextShardIterator, or with ChildShards, the shard is closed and
    wholly read. A continuation number lies behind everything so far and names no record.
    """

    Records: list[Record]
    NextShardIterator: str | None = None
    ContinuationSequenceNumber: str | None = None
    MillisBehindLatest: int = 0
    ChildShards: list[ChildShard] | None = None

    def children(self) -> tuple[Shard, ...]:
        return tuple(
            Shard(
                child.ShardId,
                tuple(child.ParentShards),
                (int(child.HashKeyRange.StartingHashKey), int(child.HashKeyRange.EndingHashKey)),
            )
            for child in self.ChildShards or ()
        )


class BareAnswer(Answer):
    Records: list[BareRecord]  # type: ignore[assignment]  # what is left out is not looked at


_FULL = msgspec.json.Decoder(Answer)
_BARE = msgspec.json.Decoder(BareAnswer)


@dataclass(frozen=True, slots=True)
class Rows:
    """Records as rows of the wire. `sequences`: of the Kinesis records; `end`: position after the last of them (also if it was
    dropped); `outside`: user records whose hash lies outside the shard.
    """

    rows: pa.RecordBatch
    sequences: list[str]
    end: str | None
    outside: int = 0


@dataclass(frozen=True, slots=True)
class Consumer:
    """A registered consumer (enhanced fan-out). `status`: CREATING, ACTIVE or DELETING."""

    arn: str
    status: str


class KinesisStream:
    """Calls of one stream. `name` is the source's, for messages. Exactly one of `stream` and `arn` is given."""

    def __init__(self, name: str, stream: str | None, arn: str | None, region: str | None, endpoint_url: str | None) -> None:
        self.what = f"source {name}: stream {stream or arn}"
        self._target = {"StreamName": stream} if stream else {"StreamARN": arn}
        handlers = {"before-parse.kinesis.GetRecords": _keep_body}
        self._aws = AwsClient("kinesis", region=region or _arn_region(arn), endpoint_url=endpoint_url, handlers=handlers)
        self._events = EventStreams(self._aws, self.what, "Kinesis_20131202")
        self._first: dict[str, int] = {}
        self._closed: set[str] = set()

    async def list_shards(self) -> list[Shard]:
        """Every shard that still holds records or may get some, closed ones included. Parents that are gone are left out."""
        listed: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            async with self._calls() as client:
                page = await client.list_shards(**self._target, **after)
            listed += page["Shards"]
            if not page.get("NextToken") or not page["Shards"]:
                break
            # by shard id instead of by token: emulators answer tokens wrongly, AWS answers both
            after = {"ExclusiveStartShardId": page["Shards"][-1]["ShardId"]}
        numbers = {entry["ShardId"]: entry["SequenceNumberRange"] for entry in listed}
        self._first = {shard: int(of["StartingSequenceNumber"]) for shard, of in numbers.items()}
        self._closed = {shard for shard, of in numbers.items() if of.get("EndingSequenceNumber") is not None}
        return _shards(listed)

    async def first_sequence(self, shard: str) -> int:
        """The number where a shard begins; -1 if there is no such shard."""
        if shard not in self._first:
            await self.list_shards()
        return self._first.get(shard, -1)

    def closed(self, shard: str) -> bool:
        """Whether no record comes to it any more, as of the newest listing."""
        return shard in self._closed

    async def iterator(self, shard: str, kind: IteratorType, sequence: str | None = None, at_ms: int | None = None) -> str:
        """A shard iterator; NotFound if the shard is gone, Refused if the sequence number or time is not accepted."""
        start: dict[str, Any] = {} if sequence is None else {"StartingSequenceNumber": sequence}
        if at_ms is not None:
            start["Timestamp"] = _EPOCH + timedelta(milliseconds=at_ms)
        async with self._aws.calls(self.what) as client:
            answer = await client.get_shard_iterator(**self._target, ShardId=shard, ShardIteratorType=kind, **start)
        return str(answer["ShardIterator"])

    async def get_records(self, iterator: str, *, bare: bool) -> Answer:
        """One GetRecords; Expired if the iterator is older than five minutes, NotFound if the shard is gone."""
        async with self._aws.calls(self.what) as client:
            answer = await client.get_records(ShardIterator=iterator, Limit=MAX_RECORDS)
        return self._decoded(answer["Body"], bare)

    async def identifier(self) -> str:
        """What KCL calls the stream in a table of several: `account:stream:creation epoch in seconds`."""
        summary = await self._summary()
        account = str(summary["StreamARN"]).split(":")[4]
        return f"{account}:{summary['StreamName']}:{int(summary['StreamCreationTimestamp'].timestamp())}"

    async def retention_ms(self) -> int:
        return int((await self._summary())["RetentionPeriodHours"]) * 3_600_000

    async def consumer(self, name: str) -> Consumer | None:
        """The consumer of that name, None if it is not registered."""
        arn = await self.arn()
        try:
            async with self._aws.calls(f"{self.what}, consumer {name}") as client:
                answer = await client.describe_stream_consumer(StreamARN=arn, ConsumerName=name)
        except NotFound:
            return None
        found = answer["ConsumerDescription"]
        return Consumer(found["ConsumerARN"], found["ConsumerStatus"])

    async def register(self, name: str) -> None:
        """Register a consumer. InUse: another was quicker; LimitExceeded: the stream has as many as it may, or too many calls."""
        arn = await self.arn()
        async with self._aws.calls(f"{self.what}, consumer {name}") as client:
            await client.register_stream_consumer(StreamARN=arn, ConsumerName=name)

    async def subscribe(self, consumer_arn: str, shard: str, start: Mapping[str, Any]) -> EventStream:
        """Have records pushed from `start` (a StartingPosition, times in seconds). InUse within five seconds of the last time."""
        body = {"ConsumerARN": consumer_arn, "ShardId": shard, "StartingPosition": start}
        return await self._events.open("SubscribeToShard", body)

    async def pushed(self, events: EventStream, *, bare: bool) -> Answer | None:
        """The next event; None if the subscription is over."""
        payload = await events.next("SubscribeToShardEvent")
        return None if payload is None else self._decoded(payload, bare)

    async def arn(self) -> str:
        return str(self._target.get("StreamARN") or (await self._summary())["StreamARN"])

    async def _summary(self) -> dict[str, Any]:
        async with self._calls() as client:
            answer = await client.describe_stream_summary(**self._target)
        return dict(answer["StreamDescriptionSummary"])

    def _decoded(self, body: bytes, bare: bool) -> Answer:
        try:
            return (_BARE if bare else _FULL).decode(body)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{self.what}: the server's answer is not what it should be: {error}") from error

    async def close(self) -> None:
        await self._aws.close()

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[Any]:
        try:
            async with self._aws.calls(self.what) as client:
                yield client
        except NotFound as error:
            raise InvalidJob([Fault(self.what, 0, "there is no such stream here; check its name, region and endpoint_url")]) from error

    def __repr__(self) -> str:
        return f"<KinesisStream {self.what} {self._aws!r}>"


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Hand the raw body of a good answer through botocore's parser, which then has nothing to parse."""
    if response_dict["status_code"] < 300:
        customized_response_dict["Body"], response_dict["body"] = response_dict["body"], b"{}"


def _arn_region(arn: str | None) -> str | None:
    return arn.split(":")[3] if arn and arn.count(":") >= 5 else None


def _shards(listed: Sequence[dict[str, Any]]) -> list[Shard]:
    ids = {entry["ShardId"] for entry in listed}
    return [Shard(entry["ShardId"], _parents(entry, ids), _hash_range(entry["HashKeyRange"])) for entry in listed]


def _parents(entry: dict[str, Any], ids: set[str]) -> tuple[str, ...]:
    named = (entry.get("ParentShardId"), entry.get("AdjacentParentShardId"))
    return tuple(parent for parent in named if parent in ids)


def _hash_range(entry: dict[str, str]) -> tuple[int, int]:
    return int(entry["StartingHashKey"]), int(entry["EndingHashKey"])


def rows_of(records: Sequence[Any], wanted: frozenset[str], hash_range: tuple[int, int] | None, *, drop: bool) -> Rows:
    """Records (BareRecord if none of `_timestamp`, `_key`, `_partition_key` is wanted) as rows, KPL aggregates unpacked.

    User records of aggregates whose hash lies outside `hash_range` are counted, and left out if `drop`.
    """
    sequences = [record.SequenceNumber for record in records]
    values = pa.array([record.Data for record in records], pa.binary())
    if pc.any(pc.starts_with(values, pattern=MAGIC)).as_py():
        return _unpacked(records, sequences, wanted, hash_range, drop)
    columns = {"_offset": pa.array(sequences, pa.string()), "_value": values}
    if "_sub_sequence" in wanted:
        columns["_sub_sequence"] = pa.repeat(pa.scalar(0, pa.int64()), len(records))
    keys = [record.PartitionKey for record in records] if wanted & {"_key", "_partition_key"} else None
    columns |= _keys(keys, wanted) | _timestamps(records, wanted, None)
    return Rows(pa.RecordBatch.from_pydict(columns), sequences, sequences[-1] if sequences else None)


def _keys(keys: Sequence[str] | None, wanted: frozenset[str]) -> dict[str, pa.Array]:
    text = pa.array(keys or [], pa.string())
    made = {"_key": text.cast(pa.binary()), "_partition_key": text}
    return {name: column for name, column in made.items() if name in wanted}


def _timestamps(records: Sequence[Any], wanted: frozenset[str], outer: Sequence[int] | None) -> dict[str, pa.Array]:
    """Arrival times (milliseconds, as Kinesis keeps them); `outer` gives each row's record."""
    if "_timestamp" not in wanted:
        return {}
    seconds = pa.array([record.ApproximateArrivalTimestamp for record in records], pa.float64())
    ms = pc.round(pc.multiply(seconds, 1e3)).cast(pa.int64())
    times = pc.multiply(ms, 1000).cast(TIMESTAMP)
    return {"_timestamp": times if outer is None else times.take(pa.array(outer, pa.int64()))}


@dataclass(slots=True)
class _Unpacking:
    """Columns while aggregates are unpacked; `outer` is the index of each row's Kinesis record."""

    offsets: list[str]
    values: list[bytes]
    subs: list[int]
    keys: list[str]
    outer: list[int]
    outside: int = 0
    end: str | None = None

    def plain(self, index: int, sequence: str, data: bytes, key: str) -> None:
        self.offsets.append(sequence)
        self.values.append(data)
        self.subs.append(0)
        self.keys.append(key)
        self.outer.append(index)
        self.end = sequence

    def aggregate(self, index: int, sequence: str, found: Aggregate, hash_range: tuple[int, int] | None, drop: bool) -> None:
        subs = list(range(len(found.payloads)))
        inside = _inside(found, hash_range)
        self.outside += len(subs) - len(inside)
        kept = inside if drop else subs
        keys = found.partition_keys()
        self.offsets += [f"{sequence}:{sub}" for sub in kept]
        self.values += [found.payloads[sub] for sub in kept]
        self.keys += [keys[sub] for sub in kept]
        self.subs += kept
        self.outer += [index] * len(kept)
        self.end = f"{sequence}:{subs[-1]}" if subs else sequence


def _inside(found: Aggregate, hash_range: tuple[int, int] | None) -> list[int]:
    if hash_range is None:
        return list(range(len(found.payloads)))
    low, high = hash_range
    return [sub for sub, place in enumerate(found.hashes()) if low <= place <= high]


def _unpacked(records: Sequence[Any], sequences: list[str], wanted: frozenset[str], hash_range: tuple[int, int] | None, drop: bool) -> Rows:
    made = _Unpacking([], [], [], [], [])
    for index, record in enumerate(records):
        found = unpack(record.Data)
        if found is None:
            made.plain(index, record.SequenceNumber, record.Data, getattr(record, "PartitionKey", ""))
        else:
            made.aggregate(index, record.SequenceNumber, found, hash_range, drop)
    columns = {"_offset": pa.array(made.offsets, pa.string()), "_value": pa.array(made.values, pa.binary())}
    if "_sub_sequence" in wanted:
        columns["_sub_sequence"] = pa.array(made.subs, pa.int64())
    columns |= _keys(made.keys, wanted) | _timestamps(records, wanted, made.outer)
    return Rows(pa.RecordBatch.from_pydict(columns), sequences, made.end, made.outside)
