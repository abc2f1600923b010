"""A lease table in DynamoDB, in the layout of KCL: a job may share its table with a KCL application, one after the other or both alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from streamproc.clients.aws import AwsClient, InUse, NotFound, Throttled
from streamproc.errors import Bug, LeaseLost, Unavailable
from streamproc.lease.kcl_rows import INDEX, KEY, READ, WORKER, Change, Item, beat, beat_of, is_task_row, lease_of, new_row, text
from streamproc.lease.lease import Lease, LeaseTable, Listing, Mark, is_ours
from streamproc.lease.steps import changed_elsewhere, requested
from streamproc.world import World

log = structlog.get_logger()
TASKS = "-streamproc"
"""What the name of the table of rows that KCL does not know ends in."""
_KEYS_A_CALL = 100
_READ_AGAIN = 8
_POLL_S = 0.25
_PAUSES_S = (0.05, 0.1)
"""Between attempts of one call, on average. Botocore's are up to a second, in which a short lease ends."""


class DynamoLeases(LeaseTable):
    """Rows of Kinesis shards in `table`, KCL's; rows of tasks (`<job>/<task>`) in `<table>-streamproc`.

    `shards` and `tasks` say which of the two the job needs; a table that is not there is made by the first `list` or `beat`, or
    by the first row that belongs in it. The client belongs to the loop of the first call.

    A hand-over by another program is as in KCL 3 (DynamoDBLeaseRefresher): a request leaves the counter alone, and `renew` only reads
    the row until the old owner, who renews it, has let go.
    """

    def __init__(
        self, table: str, world: World, *, shards: bool, tasks: bool, region: str | None = None, endpoint_url: str | None = None
    ) -> None:
        if not (shards or tasks):
            raise Bug("a lease table without rows")
        self.keeps_marks = shards  # type: ignore[misc]  # a job without shards has rows that nobody else reads
        self._aws = AwsClient("dynamodb", region=region, endpoint_url=endpoint_url, attempts=1)
        self._shards = _Table(self._aws, table, world, indexed=True)
        self._tasks = _Table(self._aws, f"{table}{TASKS}", world, indexed=False)
        self._needed = [each for each, needed in ((self._shards, shards), (self._tasks, tasks)) if needed]
        self._world = world

    async def list(self) -> Listing:
        items = [item for table in self._needed async for item in table.scan()]
        leases = sorted((lease for item in items if (lease := lease_of(item))), key=lambda lease: lease.key)
        return Listing(tuple(leases), dict(found for item in items if (found := beat_of(item))))

    async def get(self, keys: Sequence[str]) -> Sequence[Lease]:
        found = {lease.key: lease for table, own in self._by_table(keys) for item in await table.read(own) if (lease := lease_of(item))}
        return [found[key] for key in keys if key in found]

    async def take(self, lease: Lease, owner: str, mark: Mark | None = None) -> Lease:
        new = new_row(lease.key, owner, 1, mark)
        if lease == Lease(lease.key, None, 0) and lease.mark is None and await self._of(lease.key).create(new):
            return _known(new)
        change = Change(lease.key).as_seen(lease).raise_counter(lease, None).set("leaseOwner", text(owner)).remove("checkpointOwner")
        return await self._change(_switched(change, lease, owner))

    async def request(self, lease: Lease, owner: str) -> Lease:
        before = str(requested(lease, owner).checkpoint_owner)
        change = Change(lease.key).as_seen(lease).set("leaseOwner", text(owner)).set("checkpointOwner", text(before))
        if not is_ours(before):  # KCL goes on renewing by the counter alone until it lets go, and would take another one for a loss
            return await self._change(change)
        return await self._change(_switched(change.raise_counter(lease, None), lease, owner))

    async def release(self, lease: Lease, mark: Mark | None = None) -> None:
        if lease.checkpoint_owner is None:
            raise LeaseLost(f"lease {lease.key} is not being handed over")
        change = Change(lease.key).when("checkpointOwner", text(lease.checkpoint_owner)).raise_any_counter(mark)
        await self._change(change.remove("checkpointOwner"))

    async def renew(self, lease: Lease, mark: Mark | None = None, throughput_kbps: float | None = None) -> Lease:
        if lease.checkpoint_owner is not None and not is_ours(lease.checkpoint_owner):
            return await self._wait(lease)
        change = Change(lease.key).as_seen(lease).raise_counter(lease, mark)
        if throughput_kbps is not None:
            change.set("throughputKBps", {"N": f"{throughput_kbps:.6g}"})
        return await self._change(change)

    async def give(self, lease: Lease, mark: Mark | None = None) -> Lease:
        return await self._change(Change(lease.key).as_seen(lease).raise_counter(lease, mark).remove("leaseOwner"))

    async def drop(self, lease: Lease) -> None:
        await self._of(lease.key).delete(Change(lease.key).as_seen(lease))

    async def add(self, key: str, mark: Mark) -> None:
        if not self.keeps_marks or is_task_row(key):
            await super().add(key, mark)
        await self._shards.create(new_row(key, None, 0, mark))

    async def beat(self, worker: str) -> None:
        await self._needed[0].write(beat(worker, self._world.clock.now_us() // 1_000_000))

    async def leave(self, worker: str) -> None:
        with suppress(LeaseLost):  # it is not there
            await self._needed[0].delete(Change(worker).when("entityType", text(WORKER)))

    async def close(self) -> None:
        await self._aws.close()

    def __repr__(self) -> str:
        return f"<DynamoLeases {', '.join(table.name for table in self._needed)}>"

    async def _wait(self, lease: Lease) -> Lease:
        """The row, unchanged, while another program that hands it over to us still renews it."""
        for row in await self.get([lease.key]):
            if row.owner == lease.owner:
                return row
        raise changed_elsewhere(lease.key)

    async def _change(self, change: Change) -> Lease:
        return _known(await self._of(change.key).write(change))

    def _of(self, key: str) -> _Table:
        table = self._tasks if is_task_row(key) else self._shards
        if table not in self._needed:
            self._needed.append(table)
        return table

    def _by_table(self, keys: Sequence[str]) -> Sequence[tuple[_Table, Sequence[str]]]:
        split = ((table, [key for key in keys if is_task_row(key) == (table is self._tasks)]) for table in (self._shards, self._tasks))
        return [(table, own) for table, own in split if own]


def _switched(change: Change, lease: Lease, owner: str) -> Change:
    """KCL counts how often a row has changed hands since its last checkpoint."""
    if lease.owner in (None, owner) or is_task_row(lease.key):
        return change
    return change.add("ownerSwitchesSinceCheckpoint", 1)


def _known(item: Item) -> Lease:
    lease = lease_of(item)
    if lease is None:
        raise Bug(f"a lease was written and is none: {item}")
    return lease


class _Table:
    """Calls of one table, which is made when it is not there: at the first call, and after somebody deleted it. Its rows are gone then:
    who held one finds out by its next renewal.
    """

    def __init__(self, aws: AwsClient, name: str, world: World, *, indexed: bool) -> None:
        self.name = name
        self._aws = aws
        self._world = world
        self._what = f"lease table {name}"
        self._definition = _definition(name, indexed=indexed)

    async def scan(self) -> AsyncIterator[Item]:
        """Every row, as it was not long ago: a consistent read costs twice, and every change is conditional."""
        names = {f"#{place}": name for place, name in enumerate(READ)}
        arguments: dict[str, Any] = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        while True:
            page = await self._made("scan", arguments)
            for item in page["Items"]:
                yield item
            if not page.get("LastEvaluatedKey"):
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def read(self, keys: Sequence[str]) -> Sequence[Item]:
        """The rows with these keys that are there, as they are now."""
        pages = [keys[at : at + _KEYS_A_CALL] for at in range(0, len(keys), _KEYS_A_CALL)]
        return [item for page in await asyncio.gather(*map(self._read_page, pages)) for item in page]

    async def _read_page(self, keys: Sequence[str]) -> list[Item]:
        found: list[Item] = []
        wanted = {self.name: {"Keys": [{KEY: text(key)} for key in keys], "ConsistentRead": True}}
        for turn in range(_READ_AGAIN):
            answer = await self._made("batch_get_item", {"RequestItems": wanted})
            found += answer["Responses"].get(self.name, [])
            wanted = answer.get("UnprocessedKeys") or {}
            if not wanted:
                return found
            await self._world.clock.sleep(0.05 * 2**turn * self._world.random.uniform(0.5, 1))
        raise Throttled(f"{self._what}: not all rows were read")

    async def create(self, item: Mapping[str, Any]) -> bool:
        """Make a row; False if it is there already."""
        try:
            await self._made("put_item", {"Item": item, "ConditionExpression": f"attribute_not_exists({KEY})"})
        except LeaseLost:
            return False
        return True

    async def write(self, change: Change) -> Item:
        """The row after the change. LeaseLost if it was not as the change asks."""
        answer: dict[str, Item] = await self._made("update_item", change.arguments() | {"ReturnValues": "ALL_NEW"})
        return answer["Attributes"]

    async def delete(self, change: Change) -> None:
        await self._made("delete_item", change.delete_arguments())

    async def _made(self, action: str, arguments: dict[str, Any]) -> Any:
        if action != "batch_get_item":
            arguments["TableName"] = self.name
        try:
            return await self._call(action, arguments)
        except NotFound:
            await self._create_table()
            return await self._call(action, arguments)

    async def _create_table(self) -> None:
        """Make the table unless somebody has, and wait until it takes rows."""
        with suppress(InUse):  # somebody else makes it
            await self._call("create_table", self._definition)
            log.info("made a lease table", table=self.name)
        while (await self._call("describe_table", {"TableName": self.name}))["Table"]["TableStatus"] != "ACTIVE":
            await self._world.clock.sleep(_POLL_S)

    async def _call(self, action: str, arguments: Mapping[str, Any]) -> Any:
        for pause_s in _PAUSES_S:
            try:
                return await self._attempt(action, arguments)
            except InUse:
                raise
            except Unavailable:
                await self._world.clock.sleep(pause_s * self._world.random.uniform(0.5, 1.5))
        return await self._attempt(action, arguments)

    async def _attempt(self, action: str, arguments: Mapping[str, Any]) -> Any:
        async with self._aws.calls(self._what) as client:
            try:
                return await getattr(client, action)(**arguments)
            except client.exceptions.ConditionalCheckFailedException:
                keys = arguments.get("Key") or arguments.get("Item") or {}
                raise changed_elsewhere(keys.get(KEY, {}).get("S", "")) from None

    def __repr__(self) -> str:
        return f"<_Table {self.name}>"


def _definition(name: str, *, indexed: bool) -> dict[str, Any]:
    """KCL's table; with the index by which workers of 3.x find their leases."""
    made: dict[str, Any] = {
        "TableName": name,
        "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexed:
        made["AttributeDefinitions"].append({"AttributeName": "leaseOwner", "AttributeType": "S"})
        keys = [{"AttributeName": "leaseOwner", "KeyType": "HASH"}, {"AttributeName": KEY, "KeyType": "RANGE"}]
        made["GlobalSecondaryIndexes"] = [{"IndexName": INDEX, "KeySchema": keys, "Projection": {"ProjectionType": "KEYS_ONLY"}}]
    return made
