"""One lease table, Amazon's KCL and ours: rows, then whole jobs, taken over, balanced and handed over in both directions."""

import asyncio
import itertools
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from botocore.session import Session

from streamproc.engine.worker import run_job
from streamproc.errors import LeaseLost, StreamprocError
from streamproc.job import load_job
from streamproc.lease.dynamodb import DynamoLeases
from streamproc.lease.lease import Lease, Mark
from streamproc.world import World

sys.path.append(str(Path(__file__).resolve().parents[1] / "servers" / "kcl"))
from kcl import NEW, OLD, KclApp

pytestmark = [pytest.mark.kcl, pytest.mark.timeout(150)]
US = "streamproc:test"
Records = dict[str, list[tuple[str, str]]]
"""Position and payload of each user record by shard."""
Start = Callable[..., KclApp]


def client(service: str, url: str) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return Session().create_client(service, endpoint_url=url, region_name="us-east-1", **keys)


@pytest.fixture
def aws(kinesis: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of Kinesis; this process has what it needs in its environment."""
    for name, value in kinesis.items():
        monkeypatch.setenv(name, value)
    return kinesis["AWS_ENDPOINT_URL"]


@pytest.fixture
def name() -> str:
    """Of the stream and of the application."""
    return f"kcl-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def start(aws: str, dynamodb_local: str, name: str, tmp_path: Path) -> Iterator[Start]:
    apps = []

    def start(version: str, worker: str = "kcl-1", **keys: Any) -> KclApp:
        app = KclApp(version, tmp_path, kinesis=aws, dynamodb=dynamodb_local).start(name, name, worker, failover_ms=2000, **keys)
        apps.append(app)
        return app

    yield start
    for app in apps:
        app.stop(kill=True)


@pytest.fixture
async def table(aws: str, dynamodb_local: str, name: str) -> AsyncIterator[DynamoLeases]:
    table = DynamoLeases(name, World(), shards=True, tasks=False, endpoint_url=dynamodb_local)
    yield table
    await table.close()


def payload(text: str) -> bytes:
    return json.dumps({"t": text}).encode()


def make_stream(url: str, name: str, shards: int) -> Records:
    """A stream of so many shards with some records in each."""
    kinesis = client("kinesis", url)
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    written: Records = {}
    write(url, name, written, "a")
    return written


def write(url: str, name: str, written: Records, prefix: str, rounds: int = 6) -> None:
    """To every shard, aggregates of four user records and plain records between them."""
    kinesis = client("kinesis", url)
    for at, shard in enumerate(kinesis.list_shards(StreamName=name)["Shards"]):
        place = shard["HashKeyRange"]["StartingHashKey"]
        own = written.setdefault(shard["ShardId"], [])
        for number in range(rounds):
            aggregator = RecordAggregator()
            texts = [f"{prefix}{at}-{number}{user}" for user in "0123"]
            for text in texts:
                aggregator.add_user_record("k", payload(text), place)
            data = aggregator.clear_and_get().get_contents()[2]
            answer = kinesis.put_record(StreamName=name, Data=data, PartitionKey="k", ExplicitHashKey=place)
            own += [(f"{answer['SequenceNumber']}:{sub}", text) for sub, text in enumerate(texts)]
            plain = f"{prefix}{at}-{number}p"
            answer = kinesis.put_record(StreamName=name, Data=payload(plain), PartitionKey="k", ExplicitHashKey=place)
            own.append((f"{answer['SequenceNumber']}:0", plain))


def after(written: Records, positions: dict[str, str]) -> list[str]:
    """The payloads behind positions."""
    rest = []
    for shard, records in written.items():
        names = [position for position, _ in records]
        rest += [text for _, text in records[names.index(positions[shard]) + 1 :]]
    return sorted(rest)


def texts(lines: list[str], shard: str = "") -> list[str]:
    """What an application has read, of one shard or of all."""
    return sorted(json.loads(line.split(" ", 3)[3])["t"] for line in lines if line.startswith(f"RECORD {shard}"))


def read_all(app: KclApp, expected: list[str]) -> None:
    """Wait until the application has read so many records; they are the expected ones, each once."""
    app.wait(lambda lines: sum(line.startswith("RECORD ") for line in lines) >= len(expected))
    assert texts(app.lines) == expected


async def hold(table: DynamoLeases, written: Records, owner: str = US) -> dict[str, Lease]:
    """A row for every shard, taken by us, at its start."""
    return {shard: await table.take(Lease(shard, None, 0), owner, Mark("TRIM_HORIZON")) for shard in written}


def raw(url: str, name: str) -> dict[str, dict[str, Any]]:
    items = client("dynamodb", url).scan(TableName=name, ConsistentRead=True)["Items"]
    return {item["leaseKey"]["S"]: item for item in items if item.get("entityType", {}).get("S", "LEASE") == "LEASE"}


@pytest.mark.parametrize("version", [NEW, OLD])
async def test_kcl_goes_on_where_we_stopped_and_we_where_it_stopped(
    version: str, aws: str, dynamodb_local: str, table: DynamoLeases, name: str, start: Start
) -> None:
    written = make_stream(aws, name, 2)
    leases = await hold(table, written)
    inside, plain = (records[place][0] for records, place in zip(written.values(), (6, 9), strict=True))  # an aggregate's second record
    stood = dict(zip(written, (inside, plain), strict=True))
    for shard, lease in leases.items():
        position = stood[shard] if shard == next(iter(written)) else stood[shard].removesuffix(":0")
        await table.give(await table.renew(lease, Mark(position)))
    before = raw(dynamodb_local, name)

    app = start(version)
    read_all(app, after(written, stood))
    assert app.began() == stood
    app.wait(lambda lines: sum(line.startswith("CHECKPOINT ") for line in lines) >= 2)
    app.stop()

    rows = {lease.key: lease for lease in (await table.list()).leases}
    assert {shard: (rows[shard].owner, rows[shard].mark) for shard in written} == {
        shard: ("kcl-1", Mark(records[-1][0], ours=False)) for shard, records in written.items()
    }
    now = raw(dynamodb_local, name)
    assert {shard: row.keys() - {"throughputKBps", "leaseOwner"} for shard, row in now.items()} == {s: r.keys() for s, r in before.items()}
    taken = await table.take(rows[next(iter(written))], US)
    assert (await table.renew(taken)).mark == taken.mark


@asynccontextmanager
async def working(table: DynamoLeases, written: Records, leases: dict[str, Lease]) -> AsyncIterator["Ours"]:
    ours = Ours(table, written, leases)
    task = asyncio.create_task(ours.run())
    try:
        yield ours
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Ours:
    """A worker of ours as far as the table sees it: reads a record of each of its shards a round and hands over what is asked for."""

    def __init__(self, table: DynamoLeases, written: Records, leases: dict[str, Lease]) -> None:
        self.table, self.written, self.leases = table, written, leases
        self.stood = dict.fromkeys(leases, 0)
        self.released: dict[str, str] = {}

    async def run(self) -> None:
        while True:
            await self.table.beat(US)
            for shard, lease in list(self.leases.items()):
                position = self.written[shard][self.stood[shard]][0]
                try:
                    self.leases[shard] = await self.table.renew(lease, Mark(position), 100.0)
                    self.stood[shard] = min(self.stood[shard] + 1, 10)
                except LeaseLost:
                    await self._hand_over(shard, position)
            await asyncio.sleep(0.3)

    async def _hand_over(self, shard: str, position: str) -> None:
        """The epoch that runs ends one record further on."""
        [row] = await self.table.get([shard])
        assert row.checkpoint_owner == US, f"lost without being asked: {row}"
        await asyncio.sleep(0.5)
        await self.table.release(row, Mark(position))
        self.released[shard] = position
        del self.leases[shard]


async def test_a_live_kcl_leader_takes_its_part_from_us_and_hands_it_back(aws: str, table: DynamoLeases, name: str, start: Start) -> None:
    written = make_stream(aws, name, 4)
    async with working(table, written, await hold(table, written)) as ours:
        app = start(NEW)
        await asyncio.to_thread(app.wait, lambda lines: len(app.began()) >= 1, 90)
        shard, position = next(iter(app.began().items()))
        assert position == ours.released[shard]
        expected = after({shard: written[shard]}, {shard: position})
        await asyncio.to_thread(app.wait, lambda lines: len(texts(lines, shard)) >= len(expected))
        assert texts(app.lines, shard) == expected

        [row] = await table.get([shard])
        assert (row.owner, row.checkpoint_owner, row.foreign) == ("kcl-1", None, True)
        row = await until_released(table, await request(table, row))
        assert (row.owner, row.mark) == (US, Mark(written[shard][-1][0], ours=False))
        assert (await table.renew(row)).owner == US
        await asyncio.to_thread(app.wait, lambda lines: f"LOST {shard}" in lines)


async def request(table: DynamoLeases, row: Lease) -> Lease:
    """KCL renews meanwhile."""
    while True:
        with suppress(LeaseLost):
            return await table.request(row, US)
        [row] = await table.get([row.key])


async def until_released(table: DynamoLeases, asked: Lease) -> Lease:
    """Renews as a new owner does that waits, until the one before has let go."""
    async with asyncio.timeout(30):
        while True:
            [row] = await table.get([asked.key])
            assert row.owner == US, row
            if row.checkpoint_owner is None:
                return row
            with suppress(LeaseLost):
                await table.renew(row)
            await asyncio.sleep(0.3)


JOB = """
name: {name}
sources:
  s: {{type: kinesis, stream: {name}, schema: t STRING}}
sinks:
  out: {{type: files, path: {folder}/out/, format: json, query: SELECT t FROM s}}
checkpoint: {folder}/checkpoint
trigger: 100 ms
leases: {{type: dynamodb, endpoint_url: {dynamodb}, lease_ttl: 3 seconds, adopt: {adopt}}}
"""


class Ran:
    """Our job on the table of the application; `texts` are the rows that it has written."""

    def __init__(self, folder: Path, name: str, dynamodb: str, adopt: str = "false") -> None:
        self.folder = folder
        (folder / "job.yaml").write_text(JOB.format(name=name, folder=folder, dynamodb=dynamodb, adopt=adopt))

    async def all_there_is(self) -> None:
        assert await run_job(load_job(self.folder / "job.yaml"), available_now=True) == 0

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[asyncio.Future[int]]:
        stop = asyncio.Event()
        running = asyncio.ensure_future(run_job(load_job(self.folder / "job.yaml"), stop=stop))
        try:
            yield running
        finally:
            stop.set()
            await running

    def texts(self) -> list[str]:
        files = sorted((self.folder / "out").rglob("*.json"))
        return sorted(json.loads(line)["t"] for file in files for line in file.read_text().splitlines())


@pytest.fixture
def job(tmp_path: Path, name: str, dynamodb_local: str) -> Callable[..., Ran]:
    return lambda **keys: Ran(tmp_path, name, dynamodb_local, **keys)


async def test_a_job_goes_on_where_kcl_stopped_and_kcl_where_the_job_did(
    aws: str, table: DynamoLeases, name: str, start: Start, job: Callable[..., Ran]
) -> None:
    written = make_stream(aws, name, 1)
    [shard] = written
    for lease in (await hold(table, written)).values():
        await table.give(lease)
    app = start(NEW, checkpoints="7")
    app.wait(lambda lines: any(line.startswith("CHECKPOINT ") for line in lines))
    app.stop(kill=True)
    assert await position(table, shard) == written[shard][6][0]
    assert written[shard][6][0].endswith(":1")  # inside an aggregate
    await job().all_there_is()
    first = sorted(text for _, text in written[shard][7:])
    assert job().texts() == first
    assert await position(table, shard) == written[shard][-1][0]

    ours = written[shard][-1][0]
    write(aws, name, written, "b")
    app = start(NEW)
    read_all(app, after(written, {shard: ours}))
    app.stop()

    theirs = written[shard][-1][0]
    write(aws, name, written, "c")
    with pytest.raises(StreamprocError, match="moved by another program") as stopped:
        await job().all_there_is()
    assert theirs in str(stopped.value)
    assert ours.removesuffix(":0") in str(stopped.value)
    assert job().texts() == first
    assert await position(table, shard) == theirs
    await job(adopt="true").all_there_is()
    assert job().texts() == sorted([*first, *after(written, {shard: theirs})])


async def position(table: DynamoLeases, shard: str) -> str | None:
    [row] = await table.get([shard])
    return row.mark.position if row.mark else None


async def test_a_job_and_kcl_share_a_stream_while_it_grows(
    aws: str, table: DynamoLeases, name: str, start: Start, job: Callable[..., Ran]
) -> None:
    """KCL's leader takes its part from our worker, then ours from KCL, each time between two epochs: every row is read, and read once."""
    written = make_stream(aws, name, 4)
    ours = job(adopt="true")
    growing = asyncio.create_task(grow(aws, name, written))
    async with ours.alive():
        await until(lambda: len(ours.texts()) >= 120)
        app = start(NEW)
        await until(lambda: len(app.began()) >= 2)
        assert all(shard.split(":")[0].isdigit() for shard in app.began().values()), "begun where we had stopped"
    await until(lambda: len(app.began()) == 4)
    before = len(ours.texts())
    async with ours.alive():
        await until(lambda: len([line for line in app.lines if line.startswith("ASKED ")]) == 2)
        await until(lambda: len(ours.texts()) >= before + 20)
        rows = (await table.list()).leases
        assert sorted(lease.foreign for lease in rows) == [False, False, True, True]
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)
        await asyncio.to_thread(app.stop)
        write(aws, name, written, "z", 1)
        expected = sorted(text for records in written.values() for _, text in records)
        await until(lambda: len(ours.texts()) + len(texts(app.lines)) >= len(expected))
    assert sorted([*ours.texts(), *texts(app.lines)]) == expected


async def grow(url: str, name: str, written: Records) -> None:
    for number in itertools.count():
        await asyncio.to_thread(write, url, name, written, f"m{number}-", 1)
        await asyncio.sleep(0.2)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not met():
            await asyncio.sleep(0.2)
