"""One trial of workers that share jobs, on each server: which faults it gets, and a line of what came of it."""

from __future__ import annotations

import logging
import random
import runpy
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import SERVERS, apache_kafka
from shared_jobs import Outcome
from shared_stream import KafkaPartitions, KinesisShards, Purchases, Stream
from worker_fleet import WorkerFleet

from streamproc.testing.ministack import CREDENTIALS, Ministack

ON = ("ministack", "kinesis-local", "kafka")
"""ministack has no resharding that could be followed (it removes parents), kinesis-local has, and is slow; leases are in
DynamoDB (another ministack). Kafka's are objects in the checkpoint: a worker put to sleep in the middle of a change would keep sqlite
locked. Its topic gets one more partition on the way."""
RATES = {"ministack": 500, "kinesis-local": 60, "kafka": 2_000}
USERS = 40
COLUMNS = (
    "server",
    "kills",
    "zombies",
    "reshards",
    "events",
    "rows",
    "windows",
    "lost",
    "twice",
    "wrong",
    "late",
    "median",
    "worst",
    "took",
)
WIDTHS = (14, 6, 8, 9, 9, 9, 8, 5, 6, 6, 5, 8, 8, 8)


@dataclass(frozen=True)
class Faults:
    """How many of each; a zombie sleeps for `asleep_s`, longer than `lease_ttl_s`."""

    kills: int
    zombies: int
    splits: int = 0
    merges: int = 0
    growths: int = 0
    asleep_s: float = 20.0
    lease_ttl_s: float = 3.0

    def in_some_order(self, chance: random.Random) -> list[str]:
        counts = {"kill": self.kills, "zombie": self.zombies, "split": self.splits, "merge": self.merges, "grow": self.growths}
        order = [name for name, count in counts.items() for _ in range(count)]
        chance.shuffle(order)
        if self.splits and "split" in order:  # something to merge, and to split
            order.remove("split")
            order.insert(0, "split")
        return order


@dataclass(frozen=True)
class Trial:
    """What came out of `fleet`, and how long it took."""

    fleet: WorkerFleet
    outcome: Outcome
    took_s: float

    def cells(self, server: str) -> list[object]:
        """One for each of COLUMNS."""
        done, outcome, recoveries_s = self.fleet.done, self.outcome, sorted(self.fleet.recoveries_s) or [0.0]
        reshards = f"{done['splits']}+{done['merges']}" if "splits" in done else f"+{done['growths']}" if done["growths"] else "-"
        return [
            server, done["kills"], done["zombies"], reshards, self.fleet.purchases.count, outcome.rows["rows"],
            outcome.rows["users"] + outcome.rows["totals"], outcome.lost, outcome.twice, outcome.wrong, outcome.late,
            f"{recoveries_s[len(recoveries_s) // 2]:.1f} s", f"{recoveries_s[-1]:.1f} s", f"{self.took_s:.0f} s",
        ]  # fmt: skip


async def trial(folder: Path, stream: Stream, leases: str, faults: Faults, *, rate: int, shards: int, seed: int) -> Trial:
    """Three workers on `stream`, the faults in random order, the comparison."""
    began_s = time.monotonic()
    purchases = Purchases(stream, rate=rate, users=USERS, seed=seed)
    leases = leases.replace("{ttl}", f"{faults.lease_ttl_s * 1000:.0f} milliseconds")
    async with WorkerFleet(folder, purchases, leases, CREDENTIALS, shards=shards, seed=seed) as fleet:
        await fleet.started()
        for fault in faults.in_some_order(fleet.random):
            await (fleet.zombie(faults.asleep_s) if fault == "zombie" else getattr(fleet, fault)())
            logging.getLogger(__name__).info("%s: %s, %.1f s after the start", fault, dict(fleet.done), time.monotonic() - began_s)
        outcome = await fleet.drain()
    return Trial(fleet, outcome, time.monotonic() - began_s)


@contextmanager
def stream_on(server: str, folder: Path) -> Iterator[tuple[Stream, str]]:
    """A new stream on a server of its own, and the leases of jobs that read it."""
    with ExitStack() as stack:
        if server == "kafka":
            broker = stack.enter_context(apache_kafka(folder / "kafka"))
            yield KafkaPartitions(broker.bootstrap_servers), "{type: object, lease_ttl: '{ttl}'}"
            return
        kinesis = Ministack() if server == "ministack" else kinesis_local(folder)
        url = stack.enter_context(kinesis).endpoint_url
        yield KinesisShards(url, CREDENTIALS), dynamodb(stack.enter_context(Ministack()))


def dynamodb(server: Ministack) -> str:
    """Leases on it: not the server of the stream, which is busy with large pages of records while leases are to be renewed."""
    return f"{{type: dynamodb, table: 'leases-{{name}}', lease_ttl: '{{ttl}}', endpoint_url: '{server.endpoint_url}'}}"


def kinesis_local(folder: Path) -> Any:
    """A `KinesisLocal` of tests/servers/kinesis, not started."""
    (folder / "kinesis").mkdir()
    return runpy.run_path(str(SERVERS / "kinesis" / "kinesis_local.py"))["KinesisLocal"](folder / "kinesis")


async def soak_workers(server: str, faults: Faults, seed: int) -> bool:
    """One line of the table. The folder of a trial that differs is kept."""
    folder = Path(tempfile.mkdtemp(prefix=f"soak-workers-{server}-"))
    with tempfile.TemporaryDirectory(prefix="soak-servers-") as servers, stream_on(server, Path(servers)) as (stream, leases):
        done = await trial(folder, stream, leases, faults, rate=RATES[server], shards=2 if server == "kinesis-local" else 4, seed=seed)
    print("".join(f"{cell:>{width}}" for cell, width in zip(done.cells(server), WIDTHS, strict=True)), flush=True)
    for complaint, count in done.fleet.complaints().most_common():
        print(f"  {count} times {complaint}", flush=True)
    if done.outcome.equal:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}", *done.outcome.examples, sep="\n  ", flush=True)
    return done.outcome.equal
