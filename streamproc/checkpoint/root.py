"""The checkpoint's root object, the job texts beside it, and where a task's log begins."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.checkpoint.records import JobText, Root, TaskSet, decode, encode
from streamproc.store import Exists, Missing, Store
from streamproc.world import World

ROOT = "root"


@dataclass(frozen=True, slots=True)
class OpenRoot:
    """The root as read, with the etag that changing it takes."""

    root: Root
    etag: str


async def read_root(store: Store) -> OpenRoot | None:
    """The root; None where no checkpoint has begun."""
    try:
        found = await store.get(ROOT)
    except Missing:
        return None
    return OpenRoot(decode(found.data, Root, ROOT), found.etag)


async def open_root(store: Store, world: World, tasks: TaskSet = "all") -> OpenRoot:
    """The root, begun if there is none: of many workers that begin at once, one draws the checkpoint's id. `tasks` of a new one."""
    found = await read_root(store)
    if found is not None:
        return found
    fresh = Root(checkpoint=world.new_id(), created_us=world.clock.now_us(), tasks=tasks)
    try:
        return OpenRoot(fresh, await store.put(ROOT, encode(fresh)))
    except Exists:
        return await open_root(store, world, tasks)


async def write_root(store: Store, root: Root, etag: str) -> OpenRoot:
    """Replace the root as read; `Changed` if somebody else did."""
    return OpenRoot(root, await store.put(ROOT, encode(root), if_match=etag))


async def keep_text(store: Store, job_hash: str, text: JobText) -> None:
    """Keep the job file under its hash, so that an epoch can be finished with the text it began with."""
    try:
        await store.put(f"jobs/{job_hash}", encode(text))
    except Exists:
        return


async def read_text(store: Store, job_hash: str) -> JobText:
    return decode((await store.get(f"jobs/{job_hash}")).data, JobText, f"jobs/{job_hash}")
