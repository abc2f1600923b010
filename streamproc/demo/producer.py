"""Producers: a Kinesis stream or a Kafka topic of a few shards, and the task that sends click events to it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Any

from streamproc.demo.clickstream import Acknowledged, ClickStream
from streamproc.world import World

TICK_S = 0.1


class Channel(ABC):
    """Where events are sent. `put` returns when the server has acknowledged all of them, in their order."""

    rows_max: int
    """Events of one `put` at most."""

    @abstractmethod
    async def open(self, shards: int) -> None:
        """Connect and create the stream or topic."""

    @abstractmethod
    async def put(self, shard: int, payloads: list[bytes]) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class KinesisStream(Channel):
    """A stream on an emulator: any key is accepted there. `credentials` is the environment of its clients."""

    rows_max = 500

    def __init__(self, name: str, credentials: dict[str, str]) -> None:
        self._name, self._credentials = name, credentials
        self._stack = AsyncExitStack()
        self._shards = 0
        self._client: Any = None

    async def open(self, shards: int) -> None:
        from aiobotocore.session import get_session

        made = get_session().create_client(
            "kinesis",
            region_name=self._credentials["AWS_REGION"],
            endpoint_url=self._credentials["AWS_ENDPOINT_URL"],
            aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
        )
        self._client = await self._stack.enter_async_context(made)
        self._shards = shards
        await self._client.create_stream(StreamName=self._name, ShardCount=shards)

    async def put(self, shard: int, payloads: list[bytes]) -> None:
        place = str((2 * shard + 1) * 2**127 // self._shards)
        records = [{"Data": payload, "PartitionKey": "click", "ExplicitHashKey": place} for payload in payloads]
        answer = await self._client.put_records(StreamName=self._name, Records=records)
        if answer["FailedRecordCount"]:
            raise RuntimeError(f"{self._name}: {answer['FailedRecordCount']} of {len(payloads)} records were not taken")

    async def close(self) -> None:
        await self._stack.aclose()

    def __repr__(self) -> str:
        return f"<KinesisStream {self._name} of {self._shards} shards>"


class KafkaTopic(Channel):
    """A topic; the producer is idempotent, so a broker that is away for a while gets every event once."""

    rows_max = 2000

    def __init__(self, name: str, bootstrap_servers: str) -> None:
        self._name, self._servers = name, bootstrap_servers
        self._producer: Any = None

    async def open(self, shards: int) -> None:
        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.create_topics([NewTopic(self._name, shards, 1)])
        await admin.close()
        self._producer = AIOKafkaProducer(bootstrap_servers=self._servers, enable_idempotence=True, max_batch_size=1 << 20)
        await self._producer.start()

    async def put(self, shard: int, payloads: list[bytes]) -> None:
        batch = self._producer.create_batch()
        for payload in payloads:
            batch.append(key=None, value=payload, timestamp=None)
        acknowledged = await self._producer.send_batch(batch, self._name, partition=shard)
        await acknowledged

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    def __repr__(self) -> str:
        return f"<KafkaTopic {self._name} at {self._servers}>"


class Producer:
    """Sends what is due of every shard, in the shard's order, until `until_us` (which may be set while it runs)."""

    def __init__(self, channel: Channel, stream: ClickStream, world: World, until_us: int | None = None) -> None:
        self.acknowledged = Acknowledged()
        self.until_us = until_us
        self._channel, self._stream, self._clock = channel, stream, world.clock

    async def run(self) -> None:
        await asyncio.gather(*(self._send(shard) for shard in range(self._stream.shards)))

    async def _send(self, shard: int) -> None:
        sent = 0
        while True:
            now_us = self._clock.now_us()
            over = self.until_us is not None and now_us >= self.until_us
            due = self._stream.due(self.until_us if self.until_us is not None and over else now_us)
            while sent < due:
                kinds, payloads = self._stream.rows(shard, sent, min(due - sent, self._channel.rows_max))
                await self._channel.put(shard, payloads)
                self.acknowledged.add(kinds, payloads)
                sent += len(payloads)
            if over:
                return
            await self._clock.sleep(TICK_S)

    def __repr__(self) -> str:
        return f"<Producer to {self._channel!r}, {self.acknowledged.count} acknowledged>"
