"""The contract of lease tables over every implementation."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from streamproc.errors import InvalidJob, Unavailable
from streamproc.lease import LeaseOptions, open_leases
from streamproc.lease.lease import Lease, LeaseTable, Mark
from streamproc.lease.objects import ObjectLeases
from streamproc.lease.sqlite import SqliteLeases
from streamproc.stores import open_store
from streamproc.stores.local import LocalStore
from streamproc.testing.lease_suite import NEW, A, LeaseTableConformance
from streamproc.testing.memory_leases import MemoryLeases
from streamproc.testing.memory_store import MemoryStore
from streamproc.world import World

OWNER = """
import asyncio, sys
from streamproc.lease.lease import Lease
from streamproc.lease.sqlite import SqliteLeases
table = SqliteLeases(sys.argv[1])
asyncio.run(table.take(Lease("job", None, 0), "first"))
print("taken", flush=True)
input()
"""

MORE = """
import asyncio, sys
async def both():
    await table.beat("first")
    await table.take(Lease("other", None, 0), "first")
"""


class TestMemoryLeases(LeaseTableConformance):
    @pytest.fixture
    def table(self) -> LeaseTable:
        return MemoryLeases()


class TestMemoryLeasesWithMarks(LeaseTableConformance):
    @pytest.fixture
    def table(self) -> LeaseTable:
        return MemoryLeases(keeps_marks=True)

    async def test_a_change_of_another_program_is_told_apart(self, table: LeaseTable) -> None:
        ours = await table.take(NEW, A, Mark("1:0"))
        theirs = await table.renew(await table.take(ours, "kcl-1"))
        assert theirs.mark == Mark("1:0", ours=False)
        back = await table.take(await table.give(theirs, Mark("2:0")), A)
        assert back.mark == Mark("2:0", ours=False)
        assert (await table.renew(back, Mark("3:0"))).mark == Mark("3:0")


class TestObjectLeasesInMemory(LeaseTableConformance):
    @pytest.fixture
    def table(self) -> LeaseTable:
        return ObjectLeases(MemoryStore())

    async def test_a_repeated_request_that_refuses_its_own_success_is_a_success(self) -> None:
        class Repeating(MemoryStore):
            async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
                await super().put(name, data, if_match=if_match, overwrite=overwrite)
                return await super().put(name, data, if_match=if_match, overwrite=overwrite)

        table = ObjectLeases(Repeating())
        taken = await table.take(NEW, "a")
        assert (await table.renew(taken)).owner == "a"


class TestObjectLeasesOnDisk(LeaseTableConformance):
    @pytest.fixture
    def table(self, tmp_path: Path) -> LeaseTable:
        return ObjectLeases(LocalStore(tmp_path, World()))


class TestObjectLeasesInS3(LeaseTableConformance):
    @pytest.fixture
    def table(self, use_s3: Callable[[dict[str, str]], str], ministack_environment: dict[str, str]) -> LeaseTable:
        return ObjectLeases(open_store(use_s3(ministack_environment), World()))


@pytest.mark.s3
class TestObjectLeasesInVersitygw(LeaseTableConformance):
    @pytest.fixture
    def table(self, use_s3: Callable[[dict[str, str]], str], versitygw_environment: dict[str, str]) -> LeaseTable:
        return ObjectLeases(open_store(use_s3(versitygw_environment), World()))


class TestSqliteLeases(LeaseTableConformance):
    @pytest.fixture
    async def table(self, tmp_path: Path) -> AsyncIterator[LeaseTable]:
        table = SqliteLeases(tmp_path / "deep" / "leases.sqlite")
        yield table
        await table.close()

    async def test_a_dead_owner_is_abandoned_and_a_stopped_one_is_not(self, tmp_path: Path) -> None:
        path = tmp_path / "leases.sqlite"
        owner = subprocess.Popen([sys.executable, "-c", OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        table = SqliteLeases(path)
        try:
            assert owner.stdout is not None
            owner.stdout.readline()
            [lease] = (await table.list()).leases
            assert not await table.abandoned(lease)
            owner.send_signal(signal.SIGSTOP)
            assert not await table.abandoned(lease)
            owner.kill()
            owner.wait()
            assert await table.abandoned(lease)
            await table.take(lease, "second")
            assert [row.owner for row in (await table.list()).leases] == ["second"]
        finally:
            owner.kill()
            owner.wait()
            await table.close()
        assert [file.name for file in tmp_path.iterdir()] == ["leases.sqlite"]

    async def test_every_row_of_a_dead_worker_is_abandoned_and_its_presence_gone(self, tmp_path: Path) -> None:
        path = tmp_path / "leases.sqlite"
        code = OWNER.replace('print("taken"', 'asyncio.run(both())\nprint("taken"').replace("import asyncio, sys", MORE)
        with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            table = SqliteLeases(path)
            assert (await table.list()).workers == {"first": 1}
            owner.kill()
        listing = await table.list()
        assert listing.workers == {}
        for lease in listing.leases:
            assert await table.abandoned(lease)
            await table.take(lease, "second")
        assert {file.name for file in tmp_path.iterdir()} == {"leases.sqlite", "leases.sqlite.second"}
        await table.close()

    async def test_an_owner_of_another_machine_is_not_abandoned(self, tmp_path: Path) -> None:
        table = SqliteLeases(tmp_path / "leases.sqlite")
        assert not await table.abandoned(Lease("job", "elsewhere", 3))

    async def test_a_file_that_is_no_database_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "leases.sqlite").write_bytes(b"something else" * 100)
        with pytest.raises(Unavailable, match="lease table"):
            await SqliteLeases(tmp_path / "leases.sqlite").list()


def test_the_table_follows_the_checkpoint(tmp_path: Path) -> None:
    store = MemoryStore()

    def opened(checkpoint: str, *sources: str, **keys: Any) -> LeaseTable:
        return open_leases(LeaseOptions(**keys) if keys else None, "job", sources, checkpoint, store)

    assert isinstance(opened(str(tmp_path)), SqliteLeases)
    assert isinstance(opened("s3://b/c"), ObjectLeases)
    assert isinstance(opened(str(tmp_path), type="object"), ObjectLeases)
    assert repr(opened("s3://b/c", type="sqlite", path=f"{tmp_path}/x.db")) == f"SqliteLeases('{tmp_path}/x.db')"
    assert repr(opened("s3://b/c", "kinesis", type="dynamodb")) == "<DynamoLeases job>"
    assert repr(opened("s3://b/c", "kinesis", "kafka", type="dynamodb", table="app")) == "<DynamoLeases app, app-streamproc>"
    assert repr(opened("s3://b/c", "kafka", type="dynamodb", table="app")) == "<DynamoLeases app-streamproc>"
    with pytest.raises(InvalidJob, match="needs a path"):
        opened("s3://b/c", type="sqlite")
