"""The workload of the benchmarks: page views as JSON, the same events for the same seed.

Events of 181 bytes with 8 fields, over 10 minutes of event time, up to 2 seconds out of order, 1,000 pages, cut evenly over the
partitions. 5 million by default.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

EVENT_BYTES = 181
SPAN_S = 600
DISORDER_S = 2.0
PAGES = 1000
BATCH_ROWS = 500
"""Events a record batch: about 90 kB, what a busy producer with linger sends."""
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"  # cut where the event is full
START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = """
name: bench
checkpoint: {folder}/checkpoint
sources:
  clicks:
    type: kafka
    bootstrap_servers: {servers}
    topic: {topic}
    schema: page STRING, amount BIGINT, ts TIMESTAMP
    watermark: {{column: ts, delay: 5 seconds}}
sinks:
  sums:
    type: files
    path: {folder}/sums
    query: |
      SELECT window.start AS start, page, count(*) AS n, sum(amount) AS total, max(amount) AS largest
      FROM clicks GROUP BY window(ts, '10 seconds'), page
"""
"""The job over them; a further sink may follow."""


def events(count: int, seed: int, partition: int, partitions: int) -> Iterator[bytes]:
    """The events of one partition, in the order in which they are produced."""
    draw = random.Random(f"{seed}/{partition}")
    seconds = [(START + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S") for second in range(SPAN_S + 1)]
    mine = count // partitions + (partition < count % partitions)
    for i in range(mine):
        at = max(0.0, i * SPAN_S / mine - draw.random() * DISORDER_S)
        second = int(at)
        yield event(
            user=int(draw.random() * 100_000),
            page=int(draw.random() * PAGES),
            amount=int(draw.random() * 100_000),
            when=f"{seconds[second]}.{int((at - second) * 1e6):06d}Z",
            session=int(draw.random() * 0xFFFFFFFF),
            status=200 if draw.random() < 0.97 else 500,
        )


def event(user: int, page: int, amount: int, when: str, session: int, status: int) -> bytes:
    text = (
        f'{{"user":"u{user:06d}","page":"/p/{page:04d}","amount":{amount},"ts":"{when}","session":"{session:08x}",'
        f'"country":"DE","status":{status},"agent":"{AGENT}'
    )
    return f'{text[: EVENT_BYTES - 2]}"}}'.encode()


async def load(servers: str, topic: str, count: int = 5_000_000, *, seed: int = 7, partitions: int = 4) -> None:
    """Create `topic` (kept for ever: the event times are old) and fill it, all partitions side by side."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs={"retention.ms": "-1"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=1 << 20, max_request_size=8 << 20, linger_ms=0)
    await producer.start()
    try:
        await asyncio.gather(*(_fill(producer, topic, events(count, seed, n, partitions), n) for n in range(partitions)))
    finally:
        await producer.stop()


async def _fill(producer: Any, topic: str, rows: Iterator[bytes], partition: int) -> None:
    batch = producer.create_batch()
    acknowledged = None
    for i, value in enumerate(rows):
        batch.append(key=None, value=value, timestamp=None)
        if i % BATCH_ROWS == BATCH_ROWS - 1:
            acknowledged = await producer.send_batch(batch, topic, partition=partition)
            batch = producer.create_batch()
    if batch.record_count():
        acknowledged = await producer.send_batch(batch, topic, partition=partition)
    if acknowledged is not None:
        await acknowledged
