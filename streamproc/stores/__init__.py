"""Stores by URL: a folder of this machine, or an object store (imported only when named)."""

from __future__ import annotations

from streamproc.errors import Fault, InvalidJob
from streamproc.store import Exists, Store
from streamproc.world import World

_PROBE = "conditional-put-probe"
_REFUSED = (
    "the checkpoint's server ignores If-None-Match, so two workers could both write one epoch; "
    "use a store with conditional puts (AWS S3, MinIO, Ceph, …) or a local folder"
)


def open_store(url: str, world: World, *, kms_key: str | None = None) -> Store:
    """The store of `path`, `file:///path`, `s3://bucket/prefix`, `gs://…` or `az://…`. No connection is made yet.

    `kms_key`: objects are written with SSE-KMS under this key; ValueError where the URL is not of S3.
    """
    scheme, separator, rest = url.partition("://")
    if kms_key and scheme != "s3":
        raise ValueError(f"kms_key is S3's; {url} has none")
    if not separator or scheme == "file":
        from streamproc.stores.local import LocalStore

        return LocalStore(rest if separator else url, world)
    from streamproc.stores.remote import RemoteStore

    return RemoteStore(url, world, kms_key)


async def check_conditional(store: Store) -> None:
    """Refuse a store whose create-if-absent overwrites: two workers could both win an epoch there. InvalidJob then."""
    probe = f"{_PROBE}-{World().new_id()}"  # a name of its own: another worker may be probing too
    try:
        for attempt in (b"first", b"second"):
            await store.put(probe, attempt)
    except Exists:
        return
    finally:
        await store.delete(probe)
    raise InvalidJob([Fault("checkpoint", 0, _REFUSED)])
