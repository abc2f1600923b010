"""The store contract over every implementation, and what only one of them can show."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from streamproc.clock import SystemClock
from streamproc.errors import InvalidJob, Unavailable
from streamproc.store import Exists, Object, Store
from streamproc.stores import check_conditional, open_store
from streamproc.stores import remote as remote_module
from streamproc.stores.local import LocalStore
from streamproc.stores.remote import RemoteStore
from streamproc.testing.memory_store import MemoryStore
from streamproc.testing.store_suite import StoreConformance, names
from streamproc.world import World

UseS3 = Callable[[dict[str, str]], str]
MEGABYTE = 2**20


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    async def test_a_put_can_fail_before_or_after_it_happened(self) -> None:
        store = MemoryStore()
        store.fail_next_put("before")
        with pytest.raises(Unavailable):
            await store.put("a", b"")
        assert store.names == []
        store.fail_next_put("after", prefix="b")
        await store.put("a", b"")
        with pytest.raises(Unavailable):
            await store.put("b", b"")
        assert store.names == ["a", "b"]

    async def test_a_store_that_is_down_raises_unavailable(self) -> None:
        store = MemoryStore()
        store.down = True
        with pytest.raises(Unavailable):
            await store.get("a")
        with pytest.raises(Unavailable):
            await store.put("a", b"")


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(str(tmp_path / "deep" / "root"), World())

    async def test_a_killed_writer_leaves_nothing_that_a_reader_sees(self, tmp_path: Path) -> None:
        program = f"""
import asyncio, os, signal
from streamproc.stores.local import LocalStore
from streamproc.world import World
def fill(file):
    file.write(b"half"); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(LocalStore({str(tmp_path)!r}, World()).create("a/x", fill))
"""
        subprocess.run([sys.executable, "-c", program], check=False)
        store = LocalStore(tmp_path, World())
        assert len(list((tmp_path / "a").iterdir())) == 1
        assert await names(store) == []
        await store.put("a/x", b"whole")

    async def test_sweep_removes_old_strays_only(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path, World())
        await store.put("a/x", b"1")
        for name, age_s in (("a/.tmp-old", 7200), ("a/.tmp-new", 60), ("a/x", 7200), ("a/.hidden", 7200)):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (time.time() - age_s,) * 2)
        await store.sweep()
        assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [".hidden", ".tmp-new", "x"]

    async def test_processes_race_for_one_name(self, tmp_path: Path) -> None:
        program = f"""
import asyncio, sys
from streamproc.store import Exists
from streamproc.stores.local import LocalStore
from streamproc.world import World
async def main():
    store, won = LocalStore({str(tmp_path)!r}, World()), 0
    for i in range(50):
        try:
            await store.put(f"r/{{i}}", sys.argv[1].encode()); won += 1
        except Exists:
            pass
    print(won)
asyncio.run(main())
"""
        racers = [subprocess.Popen([sys.executable, "-c", program, str(i)], stdout=subprocess.PIPE, text=True) for i in range(3)]
        wins = [int(racer.communicate()[0]) for racer in racers]
        assert sum(wins) == 50

    async def test_a_stopped_holder_of_the_lock_is_unavailable_not_a_hang(self, tmp_path: Path) -> None:
        class FastClock(SystemClock):
            def monotonic_s(self) -> float:
                return super().monotonic_s() * 100

        holder = subprocess.Popen(
            [sys.executable, "-c", f"import fcntl,os;f=os.open({str(tmp_path)!r},0);fcntl.flock(f,2);print(1,flush=True);input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(Unavailable, match="lock"):
                await LocalStore(tmp_path, World(clock=FastClock())).put("x", b"", overwrite=True)
        finally:
            holder.kill()
            holder.wait()
        assert list(tmp_path.iterdir()) == []

    async def test_a_full_or_unwritable_disk_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(Unavailable, match="check that the folder can be written"):
            await LocalStore(tmp_path / "file", World()).put("x", b"")


class RemoteConformance(StoreConformance):
    async def test_a_large_object_is_created_in_parts_and_only_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote_module, "LARGE_BYTES", MEGABYTE)
        body = os.urandom(MEGABYTE) * 13

        def fill(file: BinaryIO) -> None:
            file.write(body)

        await store.create("large", fill)
        assert (await store.get("large")).data == body
        with pytest.raises(Exists):
            await store.create("large", fill)
        etag = await store.put("put", body)
        assert await store.get("put") == Object(body, etag)
        with pytest.raises(Exists):
            await store.put("put", body)
        assert await names(store) == ["large", "put"]
        assert isinstance(store, RemoteStore)
        await store.sweep()

    async def test_conditional_puts_are_found(self, store: Store) -> None:
        await check_conditional(store)
        assert await names(store) == []


class TestMinistackStore(RemoteConformance):
    @pytest.fixture
    def store(self, use_s3: UseS3, ministack_environment: dict[str, str]) -> Store:
        return open_store(use_s3(ministack_environment), World())


@pytest.mark.s3
class TestVersitygwStore(RemoteConformance):
    @pytest.fixture
    def store(self, use_s3: UseS3, versitygw_environment: dict[str, str]) -> Store:
        return open_store(use_s3(versitygw_environment), World())

    async def test_a_wrong_key_is_a_fault_not_an_outage(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrongwrongwrong")
        with pytest.raises(InvalidJob, match="access denied") as caught:
            await open_store("s3://contract/x", World()).put("a", b"")
        assert "wrongwrong" not in str(caught.value)


async def test_a_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush"}.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket/x", World())
    for call in (store.get("a"), store.put("a", b""), store.delete("a"), names(store)):
        with pytest.raises(Unavailable, match="s3://bucket/x") as caught:
            await asyncio.wait_for(call, 30)
        assert "hush" not in str(caught.value)


async def test_a_server_that_never_answers_is_unavailable(use_s3: UseS3, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setitem(remote_module._CLIENT, "read_timeout", "300ms")
    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = use_s3({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
        with pytest.raises(Unavailable, match="s3://contract"):
            await asyncio.wait_for(open_store(url, World()).put("a", b""), 20)


async def test_a_bucket_that_does_not_exist_is_a_fault(use_s3: UseS3, ministack_environment: dict[str, str]) -> None:
    use_s3(ministack_environment)
    with pytest.raises(InvalidJob, match="bucket does not exist"):
        await open_store("s3://no-such-bucket/x", World()).put("a", b"")


async def test_a_wrong_region_is_a_fault(use_s3: UseS3, ministack_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = use_s3(ministack_environment)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(InvalidJob, match="AWS_REGION"):
        await open_store(url, World()).put("a", b"")


async def test_a_server_without_conditional_puts_is_refused() -> None:
    class Overwriting(MemoryStore):
        async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
            return await super().put(name, data, overwrite=True)

    store = Overwriting()
    with pytest.raises(InvalidJob, match="If-None-Match"):
        await check_conditional(store)
    assert store.names == []


async def test_keys_come_from_a_profile(
    use_s3: UseS3, ministack_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = use_s3(ministack_environment)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    credentials.write_text("[other]\naws_access_key_id = a\naws_secret_access_key = b\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "other")
    store = open_store(url, World())
    await store.put("a", b"1")
    assert await names(store) == ["a"]


def test_stores_are_opened_by_url(tmp_path: Path) -> None:
    assert repr(open_store(str(tmp_path), World())) == f"LocalStore({str(tmp_path)!r})"
    assert repr(open_store(f"file://{tmp_path}", World())) == f"LocalStore({str(tmp_path)!r})"
