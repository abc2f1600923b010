"""Kinesis servers behind a gate, for the source's conformance tests."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from streamproc.clock import SystemClock
from streamproc.testing.gate import Gate
from streamproc.testing.source_suite import SourceHarness

NUMBERS = itertools.count()
SHARDS = 2


class GatedHarness(SourceHarness):
    """A stream of its own on a server that is away while the gate is shut. `client` goes around the gate."""

    def __init__(self, client: Any, gate: Gate, name: str) -> None:
        self.client = client
        self.gate = gate
        self.stream = f"{name}-{next(NUMBERS)}"

    async def stop(self) -> None:
        await self.gate.shut()

    async def start(self) -> None:
        await self.gate.open()

    async def now_us(self) -> int:
        now_us = SystemClock().now_us()
        await asyncio.sleep(0.002)
        return now_us


class MinistackHarness(GatedHarness):
    """Shards are numbered and share the hashes evenly."""

    async def put(self, shard: str, count: int) -> Sequence[bytes]:
        payloads = [b"row %d" % next(NUMBERS) for _ in range(count)]
        place = str(int(shard.removeprefix("shardId-")) * 2**128 // SHARDS)
        records = [{"Data": data, "PartitionKey": "k", "ExplicitHashKey": place} for data in payloads]
        await self.client.put_records(StreamName=self.stream, Records=records)
        await asyncio.sleep(0.002)  # arrival times are in milliseconds
        return payloads
