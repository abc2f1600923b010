"""Lease tables in DynamoDB: the contract, and KCL's layout to the letter."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from streamproc.errors import LeaseLost, Unavailable
from streamproc.lease.dynamodb import DynamoLeases
from streamproc.lease.lease import SHARD_END, Lease, LeaseTable, Mark
from streamproc.testing.lease_suite import A, B, LeaseTableConformance
from streamproc.testing.manual_clock import ManualClock
from streamproc.world import World

ROWS = json.loads((Path(__file__).parent / "kcl_rows.json").read_text())
"""What KCL applications of three versions wrote."""
SHARD = "shardId-000000000000"


@pytest.fixture(scope="module")
def dynamodb(ministack_environment: dict[str, str]) -> Any:
    return Session().create_client(
        "dynamodb",
        endpoint_url=ministack_environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture
def aws(ministack_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in ministack_environment.items():
        monkeypatch.setenv(name, value)
    return ministack_environment


@pytest.fixture
async def table(aws: dict[str, str]) -> AsyncIterator[LeaseTable]:
    async with opened() as table:
        yield table


@asynccontextmanager
async def opened(name: str = "", **keys: Any) -> AsyncIterator[DynamoLeases]:
    table = DynamoLeases(name or f"app-{uuid.uuid4().hex}", World(), **{"shards": True, "tasks": True} | keys)
    try:
        yield table
    finally:
        await table.close()


class TestDynamoLeases(LeaseTableConformance):
    """Rows of shards and of tasks in two tables."""


@pytest.mark.kcl
class TestDynamoLeasesInDynamoDBLocal(LeaseTableConformance):
    @pytest.fixture
    async def table(self, dynamodb_local: str, aws: dict[str, str]) -> AsyncIterator[LeaseTable]:
        async with opened(endpoint_url=dynamodb_local) as table:
            yield table


@pytest.fixture
def put(dynamodb: Any) -> Callable[[str, list[dict[str, Any]]], str]:
    """A table with the rows of a KCL application."""

    def put(version: str, more: list[dict[str, Any]]) -> str:
        name = f"app-{uuid.uuid4().hex}"
        keys = [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
        attributes = [{"AttributeName": "leaseKey", "AttributeType": "S"}]
        dynamodb.create_table(TableName=name, KeySchema=keys, AttributeDefinitions=attributes, BillingMode="PAY_PER_REQUEST")
        for item in [*ROWS.get(version, []), *more]:
            dynamodb.put_item(TableName=name, Item=item)
        return name

    return put


@pytest.fixture
def row(dynamodb: Any) -> Callable[..., dict[str, Any]]:
    """A row as it stands in a table, as plain values."""

    def row(table: str, key: str = SHARD) -> dict[str, Any]:
        item = dynamodb.get_item(TableName=table, Key={"leaseKey": {"S": key}}, ConsistentRead=True).get("Item", {})
        return {name: next(iter(value.values())) for name, value in item.items()}

    return row


Put, Row = Callable[[str, list[dict[str, Any]]], str], Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("version", "owner"), [("2.7.2", "w1"), ("3.3.0", "w1"), ("3.5.1", "kcl-w1")])
async def test_rows_of_kcl_are_read_and_other_entities_skipped(aws: Any, put: Put, version: str, owner: str) -> None:
    async with opened(put(version, [])) as table:
        listing = await table.list()
    items = {item["leaseKey"]["S"]: item for item in ROWS[version] if item["leaseKey"]["S"].startswith("shardId-")}
    assert [lease.key for lease in listing.leases] == sorted(items)
    for lease in listing.leases:
        item = items[lease.key]
        assert (lease.owner, lease.counter, lease.foreign) == (owner, int(item["leaseCounter"]["N"]), True)
        checkpoint = item["checkpoint"]["S"]
        assert lease.mark is not None
        assert (lease.mark.position, lease.mark.ours) == (checkpoint if checkpoint == SHARD_END else f"{checkpoint}:0", False)
        assert lease.mark.children == tuple(item.get("childShardIds", {}).get("SS", ()))
        assert lease.mark.parents == tuple(item.get("parentShardId", {}).get("SS", ()))
        assert lease.mark.hash_range == (int(item["startingHashKey"]["S"]), int(item["endingHashKey"]["S"]))
    assert listing.workers == ({"kcl-w1": 1795385453} if version == "3.5.1" else {})


@pytest.mark.parametrize("version", ["2.7.2", "3.5.1"])
async def test_what_we_do_not_know_is_kept(aws: Any, put: Put, row: Row, version: str) -> None:
    name = put(version, [])
    key = "shardId-000000000001"
    before = row(name, key)
    async with opened(name) as table:
        seen = {lease.key: lease for lease in (await table.list()).leases}
        taken = await table.take(seen[key], A)
        after = row(name, key)
        changed = {"leaseOwner": A, "leaseCounter": str(seen[key].counter + 1), "ownerSwitchesSinceCheckpoint": "1"}
        assert after == before | changed
        assert taken.mark == seen[key].mark
        renewed = await table.renew(taken, Mark("77:3"), 5.5)
        after = row(name, key)
        counter = str(renewed.counter)
        changed |= {"leaseCounter": counter, "streamprocCounter": counter, "checkpoint": "77", "checkpointSubSequenceNumber": "3"}
        assert after == before | changed | {"ownerSwitchesSinceCheckpoint": "0", "throughputKBps": "5.5"}
        assert renewed.mark is not None
        assert renewed.mark.ours
        await table.give(renewed)
        assert "leaseOwner" not in row(name, key)


async def test_attributes_of_other_programs_survive_every_change(aws: Any, put: Put, row: Row) -> None:
    item = {"leaseKey": {"S": SHARD}, "leaseCounter": {"N": "0"}, "checkpoint": {"S": "TRIM_HORIZON"}, "theirs": {"S": "x"}}
    pending = {"pendingCheckpoint": {"S": "5"}, "pendingCheckpointSubSequenceNumber": {"N": "0"}, "pendingCheckpointState": {"B": b"s"}}
    name = put("none", [item | pending])
    async with opened(name) as table:
        [lease] = (await table.list()).leases
        taken = await table.take(lease, A)
        assert row(name)["pendingCheckpoint"] == "5"
        asked = await table.request(await table.renew(taken), B)
        assert {row(name)[key] for key in ("leaseOwner", "checkpointOwner", "theirs")} == {A, B, "x"}
        await table.release(asked, Mark("9:0"))
        [lease] = await table.get([SHARD])
        await table.give(lease)
    left = row(name)
    assert left.pop("leaseCounter") == "5"
    assert left == {
        "leaseKey": SHARD, "checkpoint": "9", "checkpointSubSequenceNumber": "0", "ownerSwitchesSinceCheckpoint": "0",
        "streamprocCounter": "5", "theirs": "x",
    }  # fmt: skip


async def test_new_rows_are_as_kcl_writes_them(aws: Any, row: Row) -> None:
    async with opened() as table:
        name = repr(table).split()[1].rstrip(",")
        await table.add(SHARD, Mark("TRIM_HORIZON", ("shardId-000000000007",), (), (0, 5)))
        assert row(name) == {
            "leaseKey": SHARD, "entityType": "LEASE", "leaseCounter": "0", "checkpoint": "TRIM_HORIZON", "checkpointSubSequenceNumber": "0",
            "ownerSwitchesSinceCheckpoint": "0", "parentShardId": ["shardId-000000000007"], "startingHashKey": "0", "endingHashKey": "5",
            "streamprocCounter": "0",
        }  # fmt: skip
        key = "123456789012:clicks:1700000000:shardId-000000000003"
        await table.take(Lease(key, None, 0), A, Mark("AT_TIMESTAMP:1700000000123"))
        assert row(name, key) == {
            "leaseKey": key, "entityType": "LEASE", "leaseCounter": "1", "checkpoint": "AT_TIMESTAMP", "checkpointSubSequenceNumber": "0",
            "ownerSwitchesSinceCheckpoint": "0", "leaseOwner": A, "streamName": "123456789012:clicks:1700000000",
            "shardId": "shardId-000000000003", "streamprocCounter": "1",
        }  # fmt: skip
        assert {lease.key for lease in (await table.list()).leases} == {SHARD, key}


@pytest.mark.parametrize(
    ("position", "checkpoint", "sub", "back"),
    [
        (
            "49680472216205137103914301406841641943065628237895827458",
            "49680472216205137103914301406841641943065628237895827458",
            "0",
            "{}:0",
        ),
        ("123:7", "123", "7", "123:7"),
        ("123:0", "123", "0", "123:0"),
        ("TRIM_HORIZON", "TRIM_HORIZON", "0", "{}"),
        ("LATEST", "LATEST", "0", "{}"),
        ("AT_TIMESTAMP:1700000000123", "AT_TIMESTAMP", "0", "AT_TIMESTAMP"),
        (SHARD_END, "SHARD_END", "0", "{}"),
    ],
)
async def test_positions(aws: Any, put: Put, row: Row, position: str, checkpoint: str, sub: str, back: str) -> None:
    name = put("none", [{"leaseKey": {"S": SHARD}, "leaseCounter": {"N": "4"}}])
    async with opened(name) as table:
        [lease] = (await table.list()).leases
        assert lease.mark == Mark(None, ours=False)
        await table.renew(await table.take(lease, A), Mark(position))
        [lease] = (await table.list()).leases
    assert (row(name)["checkpoint"], row(name)["checkpointSubSequenceNumber"]) == (checkpoint, sub)
    assert lease.mark == Mark(back.format(position))


async def test_a_counter_that_another_program_moved_is_not_ours_until_the_next_mark(aws: Any, put: Put, dynamodb: Any) -> None:
    name = put("3.5.1", [])

    def kcl_writes(counter: int) -> None:
        values = {":c": {"N": str(counter)}, ":k": {"S": "kcl-w1"}}
        update = "SET leaseCounter = :c, leaseOwner = :k REMOVE checkpointOwner"
        dynamodb.update_item(TableName=name, Key={"leaseKey": {"S": SHARD}}, UpdateExpression=update, ExpressionAttributeValues=values)

    async def seen() -> Lease:
        [lease] = await table.get([SHARD])
        return lease

    async def ours() -> bool:
        mark = (await seen()).mark
        return mark is not None and mark.ours

    async with opened(name) as table:
        taken = await table.take(await seen(), A)
        assert not await ours()
        renewed = await table.renew(taken)
        assert not await ours()
        marked = await table.renew(renewed, Mark("5:0"))
        assert await ours()
        await table.give(await table.renew(marked))
        assert await ours()
        kcl_writes(90)
        assert not await ours()
        asked = await table.request(await seen(), A)
        assert not await ours()
        kcl_writes(95)
        await table.take(await seen(), B)
        assert not await ours()
        assert asked.checkpoint_owner == "kcl-w1"


async def test_the_old_owner_releases_to_another_program(aws: Any, put: Put, dynamodb: Any, row: Row) -> None:
    """KCL's leader takes a row from us: owner is its worker, we are the checkpoint owner."""
    name = put("3.5.1", [])
    async with opened(name) as table:
        [lease] = await table.get([SHARD])
        taken = await table.renew(await table.take(lease, A), Mark("5:0"))
        values = {":c": {"N": str(taken.counter + 1)}, ":k": {"S": "kcl-w1"}, ":a": {"S": A}}
        update = "SET leaseCounter = :c, leaseOwner = :k, checkpointOwner = :a ADD ownerSwitchesSinceCheckpoint :c"
        dynamodb.update_item(TableName=name, Key={"leaseKey": {"S": SHARD}}, UpdateExpression=update, ExpressionAttributeValues=values)
        with pytest.raises(LeaseLost):
            await table.renew(taken)
        [asked] = await table.get([SHARD])
        assert (asked.owner, asked.checkpoint_owner, asked.foreign) == ("kcl-w1", A, True)
        await table.release(asked, Mark("6:1"))
    left = row(name)
    assert "checkpointOwner" not in left
    assert [left[key] for key in ("leaseOwner", "checkpoint", "checkpointSubSequenceNumber", "ownerSwitchesSinceCheckpoint")] == [
        "kcl-w1", "6", "1", "0",
    ]  # fmt: skip
    assert int(left["leaseCounter"]) == asked.counter + 1


async def test_a_request_to_another_program_leaves_it_the_counter(aws: Any, put: Put, row: Row) -> None:
    """KCL renews, checkpoints and lets go by conditions on the counter and the checkpoint owner (DynamoDBLeaseRefresher)."""
    name = put("3.5.1", [])
    async with opened(name) as table:
        [lease] = await table.get([SHARD])
        before = row(name)
        asked = await table.request(lease, A)
        assert row(name) == before | {"leaseOwner": A, "checkpointOwner": "kcl-w1"}
        assert await table.renew(asked) == asked
        assert row(name) == before | {"leaseOwner": A, "checkpointOwner": "kcl-w1"}
        with pytest.raises(LeaseLost):
            await table.renew(Lease(SHARD, B, asked.counter, "kcl-w1"))
        forced = await table.take(asked, A)
        assert (forced.counter, forced.checkpoint_owner) == (lease.counter + 1, None)


async def test_a_beat_is_a_row_of_worker_metrics(aws: Any, row: Row) -> None:
    name = f"app-{uuid.uuid4().hex}"
    table = DynamoLeases(name, World(clock=ManualClock(1_795_385_453_900_000)), shards=True, tasks=False)
    try:
        await table.beat(A)
        await table.beat(A)
        assert row(name, A) == {
            "leaseKey": A, "entityType": "WORKER_METRIC_STATS", "lut": "1795385453", "slu": "1795385453", "sup": "1", "opr": {}, "sts": {},
            "streamprocBeat": "2",
        }  # fmt: skip
        await table.leave(A)
        assert row(name, A) == {}
    finally:
        await table.close()


async def test_the_tables_are_made_when_they_are_needed(aws: Any, dynamodb: Any) -> None:
    name = f"app-{uuid.uuid4().hex}"

    def made() -> list[str]:
        return [each for each in dynamodb.list_tables()["TableNames"] if each.startswith(name)]

    async with opened(name, tasks=False) as table:
        assert (await table.list()).leases == ()
        assert made() == [name]
        described = dynamodb.describe_table(TableName=name)["Table"]
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        [index] = described["GlobalSecondaryIndexes"]
        assert (index["IndexName"], index["Projection"]) == ("LeaseOwnerToLeaseKeyIndex", {"ProjectionType": "KEYS_ONLY"})
        assert [key["AttributeName"] for key in index["KeySchema"]] == ["leaseOwner", "leaseKey"]
        await table.take(Lease("job/all", None, 0), A)
        assert made() == [name, f"{name}-streamproc"]
        assert [lease.key for lease in (await table.list()).leases] == ["job/all"]
    async with opened(f"{name}-2", shards=False) as table:
        await table.beat(A)
        assert not table.keeps_marks
        assert (await table.take(Lease("job/all", None, 0), A, Mark("1"))).mark is None
        with pytest.raises(NotImplementedError):
            await table.add(SHARD, Mark("1"))
        assert (await table.list()).workers.keys() == {A}
    assert made() == [name, f"{name}-2-streamproc", f"{name}-streamproc"]


async def test_a_table_that_was_deleted_is_made_again(aws: Any, dynamodb: Any) -> None:
    async with opened(tasks=False) as table:
        name = repr(table).split()[1].rstrip(">")
        taken = await table.take(Lease(SHARD, None, 0), A)
        dynamodb.delete_table(TableName=name)
        with pytest.raises(LeaseLost):
            await table.renew(taken)
        assert (await table.list()).leases == ()
        assert (await table.take(Lease(SHARD, None, 0), A)).owner == A


async def test_many_rows_in_pages(aws: Any) -> None:
    """A page of a scan ends at 1 MB, a BatchGetItem at 100 keys."""
    async with opened(tasks=False) as table:
        parents = tuple(f"shardId-{i:012}" for i in range(400))
        keys = [f"shardId-{i:012}" for i in range(220)]
        await asyncio.gather(*(table.add(key, Mark("TRIM_HORIZON", parents)) for key in keys))
        assert [lease.key for lease in (await table.list()).leases] == keys
        assert [lease.key for lease in await table.get(keys)] == keys


async def test_a_server_that_is_away_is_unavailable(
    aws: dict[str, str], gated: Callable[[dict[str, str]], Awaitable[tuple[Any, dict[str, str]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, environment = await gated(aws)
    async with opened(endpoint_url=environment["AWS_ENDPOINT_URL"]) as table:
        taken = await table.take(Lease(SHARD, None, 0), A)
        gate.shut = True
        gate.close_all()
        for call in (table.list(), table.renew(taken), table.beat(A), table.get([SHARD])):
            with pytest.raises(Unavailable, match="lease table app-"):
                await call
        gate.shut = False
        assert (await table.renew(taken)).owner == A
