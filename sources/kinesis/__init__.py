"""Kinesis Data Streams: shard by shard by GetRecords, or pushed to a registered consumer; KPL aggregates unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sources.kinesis.fan_out import FanOut, FanOutReader
from sources.kinesis.polling import PollingReader, Reading
from streamproc.clients.kinesis import KinesisStream
from streamproc.offset import Position, Start
from streamproc.options import SourceOptions
from streamproc.source import Reader, Shard, Source
from streamproc.world import World


class KinesisOptions(SourceOptions):
    """Keys of a `kinesis` source."""

    type: Literal["kinesis"] = "kinesis"
    stream: str | None = Field(None, description="name of the stream; or stream_arn")
    stream_arn: str | None = Field(None, description="ARN of the stream, also in another account")
    region: str | None = Field(None, description="default: the platform's (AWS_REGION, profile)")
    endpoint_url: str | None = Field(None, description="default: the platform's (AWS_ENDPOINT_URL), else AWS")
    read: Literal["polling", "fan_out"] = Field(
        "polling", description="polling: GetRecords, five a second a shard at most; fan_out: pushed, 2 MB/s a shard of one's own"
    )
    consumer: str | None = Field(
        None,
        description="fan_out: name of the consumer, one for each job; registered if it is not, and never removed (it costs money)",
    )
    outside_hash_range: Literal["keep", "drop"] = Field(
        "keep", description="user records of KPL aggregates whose hash lies outside the shard: keep (counted) or drop"
    )

    @model_validator(mode="after")
    def _consistent(self) -> KinesisOptions:
        if (self.stream is None) == (self.stream_arn is None):
            raise ValueError("a kinesis source needs stream or stream_arn, one of the two")
        if self.format == "parquet":
            raise ValueError("format: parquet is of files only; Kinesis records are json, csv or raw")
        if self.partitioned_by and self.outside_hash_range == "keep" and "outside_hash_range" in self.model_fields_set:
            raise ValueError("partitioned_by cannot hold together with outside_hash_range: keep; use drop")
        if (self.read == "fan_out") != (self.consumer is not None):
            raise ValueError("read: fan_out and consumer: NAME (one that no other job uses) go together")
        if self.read == "fan_out" and find_spec("httpx2") is None:
            raise ValueError("read: fan_out needs a package that is missing: pip install 'streamproc[fan_out]'")
        return self


class Kinesis(Source):
    """One stream, a reader a shard. Which records of a shard are left depends on the stream's retention."""

    Options: ClassVar[type[KinesisOptions]] = KinesisOptions
    lag_unit = "ms"
    optional_columns = frozenset({"_partition_key", "_sub_sequence"})

    def __init__(self, options: KinesisOptions, world: World, name: str) -> None:
        self._options = options
        self._world = world
        self._name = name
        self._stream = KinesisStream(name, options.stream, options.stream_arn, options.region, options.endpoint_url)
        self._fan_out = FanOut(self._stream, options.consumer, world, name) if options.consumer else None

    async def shards(self) -> Sequence[Shard]:
        return await self._stream.list_shards()

    async def position(self, shard: Shard, start: Start) -> Position:
        """Latest is this moment by the clock of this machine; arrival times are in milliseconds."""
        del shard
        if start.kind == "earliest":
            return "TRIM_HORIZON"
        at_ms = self._world.clock.now_us() // 1000 if start.at_us is None else -(-start.at_us // 1000)
        return f"AT_TIMESTAMP:{at_ms}"

    async def open(self, shard: Shard, after: Position) -> Reader:
        reading = Reading(self._stream, shard, self.wanted, self._options.outside_hash_range == "drop", self._world, self._name)
        if self._fan_out is None:
            return PollingReader(reading, after)
        await self._fan_out.look()
        return FanOutReader(reading, after, self._fan_out)

    async def shared_name(self) -> str | None:
        return await self._stream.identifier()

    async def close(self) -> None:
        if self._fan_out is not None:
            await self._fan_out.close()
        await self._stream.close()

    def __repr__(self) -> str:
        return f"<Kinesis {self._name} {self._stream!r}>"
