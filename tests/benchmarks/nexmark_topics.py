"""Fills Kafka topics bid, auction and person with Nexmark's events as JSON, for deploy/jobs/nexmark/kafka.yaml.

python tests/benchmarks/nexmark_topics.py localhost:9092 [--events 500000] [--partitions 2]
"""

from __future__ import annotations

import argparse
import asyncio

from sources.generator import Generator
from streamproc.demo.producer import KafkaTopic
from streamproc.formats.nexmark import CYCLE, EVENTS_PER_SECOND, SLOTS, NexmarkKind
from streamproc.world import World


async def fill(servers: str, events: int, *, partitions: int = 2, events_per_second: int = EVENTS_PER_SECOND) -> None:
    """Create the topics and produce `events` of all kinds; returns once all are acknowledged."""
    for kind, (_, share) in SLOTS.items():
        topic = KafkaTopic(kind, servers)
        await topic.open(partitions)
        await asyncio.gather(*(_fill(topic, kind, events // CYCLE * share, n, partitions, events_per_second) for n in range(partitions)))
        await topic.close()


async def _fill(topic: KafkaTopic, kind: NexmarkKind, rows: int, partition: int, partitions: int, events_per_second: int) -> None:
    options = Generator.Options(kind=f"nexmark.{kind}", format="json", rows=rows, shards=partitions, events_per_second=events_per_second)
    source = Generator(options, World(), kind)
    reader = await source.open((await source.shards())[partition], "-1")
    ended = False
    while not ended:
        chunk = await reader.read()
        payloads, ended = chunk.rows["_value"].to_pylist(), chunk.ended
        for at in range(0, len(payloads), topic.rows_max):
            await topic.put(partition, payloads[at : at + topic.rows_max])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers")
    parser.add_argument("--events", type=int, default=500_000, help="of all three kinds")
    parser.add_argument("--partitions", type=int, default=2)
    arguments = parser.parse_args()
    asyncio.run(fill(arguments.servers, arguments.events, partitions=arguments.partitions))


if __name__ == "__main__":
    main()
