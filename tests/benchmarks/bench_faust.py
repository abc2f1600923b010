"""What a row costs on its way to a Faust app: as a Record, as its JSON, through a topic and through a channel to an agent.

    python tests/benchmarks/bench_faust.py [--rows 20000]

The topic is on noida-db; the row is a moment, a page and a count.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import faust
import pyarrow as pa

from streamproc.clients.faust.records import values_of
from streamproc.clients.faust.sending import ByApp, ByProducer, ToAgents
from streamproc.testing.noida import NoidaBroker
from streamproc.world import World


class Views(faust.Record):
    minute: datetime
    page: str
    views: int


def rows_of(count: int) -> pa.RecordBatch:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return pa.RecordBatch.from_pydict({"minute": [moment] * count, "page": ["/"] * count, "views": list(range(count))})


async def measured(what: str, count: int, run: Callable[[], Awaitable[Any]]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await run()
    print(f"{what:24} {(time.perf_counter() - began) / count * 1e6:6.1f} µs a row, {(time.process_time() - cpu) / count * 1e6:6.1f} of CPU")


async def main(count: int) -> None:
    with NoidaBroker() as broker:
        app = faust.App("bench", broker=f"kafka://{broker.bootstrap_servers}", web_enabled=False)
        topic, channel = app.topic("views", value_type=Views, partitions=1), app.channel(value_type=Views)
        rows = rows_of(count)
        pairs = [(None, value) for value in values_of(rows, Views)]

        async def records() -> None:
            for _ in values_of(rows, Views):
                pass

        async def dumped() -> None:
            for _, value in pairs:
                topic.prepare_value(value, None)

        async def agent() -> None:
            async for _ in app.stream(channel):
                pass

        async def sent(way: Any) -> None:
            for first in range(0, count, 1000):
                await way.send(pairs[first : first + 1000])

        await measured("Arrow to Record", count, records)
        await measured("Record to JSON", count, dumped)
        producer = ByProducer(topic)
        await producer.send(pairs[:1])
        await measured("topic, own producer", count, lambda: sent(producer))
        await producer.close()
        by_app = ByApp(topic)
        await by_app.send(pairs[:1])
        await measured("topic, the app's", count, lambda: sent(by_app))
        await app.producer.stop()
        app.flow_control.resume()
        listening = asyncio.ensure_future(agent())
        while not channel.subscriber_count:
            await asyncio.sleep(0.01)
        await measured("channel to an agent", count, lambda: sent(ToAgents(channel, World())))
        listening.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().rows))
