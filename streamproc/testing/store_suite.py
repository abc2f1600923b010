"""Every promise of a store, as a test of its own. Subclass it and give a `store` fixture."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import pytest

from streamproc.store import Changed, Exists, Missing, Store


async def names(store: Store, prefix: str = "") -> list[str]:
    return [listed.name async for listed in store.list(prefix)]


class StoreConformance:
    """Subclass as `class TestMyStore(StoreConformance)` with a fixture `store`: an empty store for each test.
    `racers` is how many writers the races use.
    """

    racers = 12

    async def test_get_after_put_sees_it(self, store: Store) -> None:
        etag = await store.put("a/b.json", b"one")
        assert await store.get("a/b.json") == await store.get("a/b.json")
        assert (await store.get("a/b.json")).data == b"one"
        assert (await store.get("a/b.json")).etag == etag

    async def test_empty_and_large_objects(self, store: Store) -> None:
        large = bytes(range(256)) * 20_000
        await store.put("empty", b"")
        await store.put("large", large)
        assert (await store.get("empty")).data == b""
        assert (await store.get("large")).data == large

    async def test_get_of_a_missing_name_raises_missing(self, store: Store) -> None:
        await store.put("a/b", b"")
        for name in ("nothing", "a", "a/b/c", "a/bc"):
            with pytest.raises(Missing):
                await store.get(name)

    async def test_put_creates_only(self, store: Store) -> None:
        await store.put("x", b"one")
        with pytest.raises(Exists):
            await store.put("x", b"two")
        assert (await store.get("x")).data == b"one"

    async def test_of_many_creators_exactly_one_wins(self, store: Store) -> None:
        for turn in range(3):
            bodies = [f"{turn}-{i}".encode() * 100 for i in range(self.racers)]
            answers = await asyncio.gather(*(store.put(f"race/{turn}", body) for body in bodies), return_exceptions=True)
            won = [i for i, answer in enumerate(answers) if isinstance(answer, str)]
            assert len(won) == 1
            assert all(isinstance(answer, Exists) for i, answer in enumerate(answers) if i not in won)
            assert (await store.get(f"race/{turn}")).data == bodies[won[0]]

    async def test_if_match_replaces_exactly_that_version(self, store: Store) -> None:
        first = await store.put("x", b"one")
        second = await store.put("x", b"two", if_match=first)
        assert second != first
        with pytest.raises(Changed):
            await store.put("x", b"three", if_match=first)
        assert await store.get("x") == await store.get("x")
        assert (await store.get("x")).data == b"two"
        await store.put("x", b"three", if_match=(await store.get("x")).etag)

    async def test_if_match_of_a_missing_object_is_changed(self, store: Store) -> None:
        etag = await store.put("x", b"one")
        await store.delete("x")
        with pytest.raises(Changed):
            await store.put("x", b"two", if_match=etag)
        assert await names(store) == []

    async def test_compare_and_swap_loses_no_update(self, store: Store) -> None:
        await store.put("counter", b"0")

        async def add() -> None:
            while True:
                seen = await store.get("counter")
                try:
                    await store.put("counter", str(int(seen.data) + 1).encode(), if_match=seen.etag)
                except Changed:
                    continue
                return

        await asyncio.gather(*(add() for _ in range(self.racers)))
        assert (await store.get("counter")).data == str(self.racers).encode()

    async def test_overwrite_replaces_or_creates(self, store: Store) -> None:
        await store.put("x", b"one", overwrite=True)
        etag = await store.put("x", b"two", overwrite=True)
        assert (await store.get("x")).data == b"two"
        assert (await store.get("x")).etag == etag

    async def test_list_gives_every_object_with_the_prefix_in_name_order(self, store: Store) -> None:
        for name in ("b/2", "b/10", "a", "b/1", "ab", "bb/1"):
            await store.put(name, name.encode())
        assert await names(store) == ["a", "ab", "b/1", "b/10", "b/2", "bb/1"]
        assert await names(store, "b/") == ["b/1", "b/10", "b/2"]
        assert await names(store, "b/1") == ["b/1", "b/10"]
        assert await names(store, "b") == ["b/1", "b/10", "b/2", "bb/1"]
        assert await names(store, "c/") == []
        assert [listed.size async for listed in store.list("b/10")] == [4]

    async def test_list_tells_when_objects_were_modified(self, store: Store) -> None:
        await store.put("x", b"")
        await store.put("x", b"1", overwrite=True)
        [listed] = [listed async for listed in store.list()]
        assert listed.modified_us >= 0

    async def test_delete_of_a_missing_name_is_no_error(self, store: Store) -> None:
        await store.delete("nothing/at/all")
        await store.put("x", b"one")
        await store.delete("x")
        await store.delete("x")
        assert await names(store) == []
        await store.put("x", b"again")

    async def test_create_writes_what_fill_writes(self, store: Store) -> None:
        def fill(file: BinaryIO) -> None:
            for i in range(1000):
                file.write(f"{i}\n".encode())

        await store.create("p=1/file.csv", fill)
        assert (await store.get("p=1/file.csv")).data == b"".join(f"{i}\n".encode() for i in range(1000))
        with pytest.raises(Exists):
            await store.create("p=1/file.csv", fill)

    async def test_create_whose_fill_raises_leaves_nothing(self, store: Store) -> None:
        def fill(file: BinaryIO) -> None:
            file.write(b"half")
            raise RuntimeError("crash")

        with pytest.raises(RuntimeError):
            await store.create("x", fill)
        assert await names(store) == []
        with pytest.raises(Missing):
            await store.get("x")

    async def test_names_of_hive_partitions_and_odd_characters_are_kept(self, store: Store) -> None:
        name = "ts=2026-01-01 00%3A00%3A00/größe=a&b+c~2D/part-0.json"
        await store.put(name, b"1")
        assert await names(store, "ts=2026-01-01 00%3A") == [name]
        assert (await store.get(name)).data == b"1"

    async def test_names_that_leave_the_root_are_refused(self, store: Store) -> None:
        for name in ("", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\x00b", ".tmp-1"):
            with pytest.raises(ValueError):
                await store.put(name, b"")
        with pytest.raises(ValueError):
            await names(store, "../")
