"""One stream of purchases for several jobs: sent in the order of event time, on a server whose shards may be split, merged or added
while it is sent. What was acknowledged is kept.

No row of it is late, however shards change: of every shard the rows lie in the order of event time but for DISORDER_US, a child's
are newer than its parents', and rows go to an added partition only when every job has said that it reads it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

DISORDER_US = 150_000
TICK_S = 0.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stream(ABC):
    """A stream or topic whose partition key is the user."""

    rows_max: int

    @abstractmethod
    async def open(self, shards: int) -> None: ...

    @abstractmethod
    async def put(self, users: Sequence[str], payloads: Sequence[bytes]) -> None:
        """Send in this order; returns when all are acknowledged. Not called twice at once."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def source(self) -> str:
        """The source's own keys in a job file."""


class KinesisShards(Stream):
    """A stream on the emulator at `endpoint_url`, which `credentials` (an environment) are for."""

    rows_max = 500

    def __init__(self, endpoint_url: str, credentials: Mapping[str, str]) -> None:
        self.name = f"purchases-{uuid.uuid4().hex}"
        self._endpoint_url, self._credentials = endpoint_url, credentials
        self._stack = AsyncExitStack()
        self._client: Any = None

    def source(self) -> str:
        return f"type: kinesis\n    stream: {self.name}\n    endpoint_url: {self._endpoint_url}"

    async def open(self, shards: int) -> None:
        from aiobotocore.session import get_session

        made = get_session().create_client(
            "kinesis",
            region_name=self._credentials["AWS_REGION"],
            endpoint_url=self._endpoint_url,
            aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
        )
        self._client = await self._stack.enter_async_context(made)
        await self._client.create_stream(StreamName=self.name, ShardCount=shards)
        await self._active()

    async def put(self, users: Sequence[str], payloads: Sequence[bytes]) -> None:
        records = [{"Data": payload, "PartitionKey": user} for user, payload in zip(users, payloads, strict=True)]
        answer = await self._client.put_records(StreamName=self.name, Records=records)
        if answer["FailedRecordCount"]:
            raise RuntimeError(f"{self.name}: {answer['FailedRecordCount']} of {len(payloads)} records were not taken")

    async def split(self, users: Sequence[str], chance: random.Random) -> bool:
        """Split the shard of most `users` between two of them; false if no shard has two."""
        places = sorted(_place(user) for user in users)
        inside = {shard: [place for place in places if first <= place <= last] for shard, first, last in await self._open_shards()}
        shard, held = max(inside.items(), key=lambda each: len(each[1]))
        if len(held) < 2:
            return False
        at = held[chance.randrange(1, len(held))]
        await self._client.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(at))
        await self._active()
        return True

    async def merge(self, chance: random.Random) -> bool:
        """Merge two shards that lie side by side; false if there is only one."""
        shards = sorted(await self._open_shards(), key=lambda each: each[1])
        if len(shards) < 2:
            return False
        left = chance.randrange(len(shards) - 1)
        await self._client.merge_shards(StreamName=self.name, ShardToMerge=shards[left][0], AdjacentShardToMerge=shards[left + 1][0])
        await self._active()
        return True

    async def _open_shards(self) -> list[tuple[str, int, int]]:
        answer = await self._client.list_shards(StreamName=self.name)
        return [
            (shard["ShardId"], int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]))
            for shard in answer["Shards"] if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        ]  # fmt: skip

    async def _active(self) -> None:
        async with asyncio.timeout(30):
            while True:
                answer = await self._client.describe_stream_summary(StreamName=self.name)
                if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                    return
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._stack.aclose()

    def __repr__(self) -> str:
        return f"<KinesisShards {self.name} at {self._endpoint_url}>"


class KafkaPartitions(Stream):
    """A topic; a user's rows go to partition number `user % partitions`."""

    rows_max = 2000

    def __init__(self, bootstrap_servers: str) -> None:
        self.name = f"purchases-{uuid.uuid4().hex}"
        self._servers = bootstrap_servers
        self._partitions = 0
        self._producer: Any = None

    def source(self) -> str:
        return f"type: kafka\n    topic: {self.name}\n    bootstrap_servers: {self._servers}"

    async def open(self, shards: int) -> None:
        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import NewTopic

        await self._administer(lambda admin: admin.create_topics([NewTopic(self.name, shards, 1)]))
        self._partitions = shards
        self._producer = AIOKafkaProducer(bootstrap_servers=self._servers, enable_idempotence=True, max_batch_size=1 << 20)
        await self._producer.start()

    async def put(self, users: Sequence[str], payloads: Sequence[bytes]) -> None:
        batches: dict[int, Any] = {}
        for user, payload in zip(users, payloads, strict=True):
            number = int(user) % self._partitions
            if number not in batches:
                batches[number] = self._producer.create_batch()
            batches[number].append(key=user.encode(), value=payload, timestamp=None)
        sent = [await self._producer.send_batch(batch, self.name, partition=number) for number, batch in batches.items()]
        await asyncio.gather(*sent)

    async def add_partition(self) -> str:
        """Add one; its name. Nothing goes there yet."""
        from aiokafka.admin import NewPartitions

        await self._administer(lambda admin: admin.create_partitions({self.name: NewPartitions(self._partitions + 1)}))
        return str(self._partitions)

    async def use_added(self) -> None:
        """From now on users' rows go to all partitions: most users move to another."""
        while len(await self._producer.partitions_for(self.name)) <= self._partitions:
            await self._producer.client.force_metadata_update()
        self._partitions += 1

    async def _administer(self, call: Any) -> None:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            await call(admin)
        finally:
            await admin.close()

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    def __repr__(self) -> str:
        return f"<KafkaPartitions {self.name} at {self._servers}>"


class Purchases:
    """Sends `rate` rows a second to `stream`, from now on; `stop` sends what is due and ends."""

    def __init__(self, stream: Stream, *, rate: int, users: int, seed: int) -> None:
        self.stream, self.users = stream, [str(user) for user in range(users)]
        self.count = 0
        self._rate, self._random = rate, random.Random(seed)
        self._rows: list[tuple[int, str, str, str]] = []
        self._since_us = time.time_ns() // 1000
        self._until_us: int | None = None
        self._sending: asyncio.Future[None] | None = None

    def start(self) -> None:
        self._since_us = time.time_ns() // 1000
        self._sending = asyncio.ensure_future(self._send())

    async def stop(self) -> None:
        self._until_us = time.time_ns() // 1000
        if self._sending is not None:
            await self._sending

    def cancel(self) -> None:
        if self._sending is not None:
            self._sending.cancel()

    def check(self) -> None:
        """Raise what sending has failed with."""
        if self._sending is not None and self._sending.done():
            self._sending.result()

    def acknowledged(self) -> pa.Table:
        """Columns id, user, amount, ts; the latter two as text."""
        columns = list(zip(*self._rows, strict=True)) or [[], [], [], []]
        return pa.table(dict(zip(("id", "user", "amount", "ts"), columns, strict=True)))

    async def _send(self) -> None:
        while True:
            until_us = self._until_us
            now_us = until_us or time.time_ns() // 1000
            due = (now_us - self._since_us) * self._rate // 1_000_000
            while self.count < due:
                rows = [self._row(number) for number in range(self.count, min(due, self.count + self.stream.rows_max))]
                await self.stream.put([user for _, user, _, _ in rows], [_encoded(*row) for row in rows])
                self._rows += rows
                self.count += len(rows)
            if until_us is not None:
                return
            await asyncio.sleep(TICK_S)

    def _row(self, number: int) -> tuple[int, str, str, str]:
        us = self._since_us + number * 1_000_000 // self._rate - self._random.randrange(DISORDER_US)
        amount = self._random.randrange(100_000)
        moment = (_EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return number, self._random.choice(self.users), f"{amount // 100}.{amount % 100:02}", moment

    def __repr__(self) -> str:
        return f"<Purchases to {self.stream!r}, {self.count} acknowledged>"


def _encoded(number: int, user: str, amount: str, moment: str) -> bytes:
    return f'{{"id": {number}, "user": "{user}", "amount": {amount}, "ts": "{moment}"}}'.encode()


def _place(user: str) -> int:
    """Where Kinesis puts a partition key."""
    return int.from_bytes(hashlib.md5(user.encode()).digest(), "big")
