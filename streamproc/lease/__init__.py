"""The lease contract and its tables: who should run a task."""

from __future__ import annotations

from pathlib import Path

from streamproc.errors import Fault, InvalidJob
from streamproc.lease.lease import Lease, LeaseTable
from streamproc.store import Store

__all__ = ["Lease", "LeaseTable", "open_leases"]


def open_leases(kind: str | None, path: str | None, checkpoint: str, store: Store) -> LeaseTable:
    """The table of a job: `sqlite` or `object`; None: sqlite beside a local checkpoint, an object in a remote one.

    `path` is the sqlite file (default `<checkpoint>/leases.sqlite`), `checkpoint` the checkpoint's URL and `store` it.
    """
    scheme, separator, rest = checkpoint.partition("://")
    local = not separator or scheme == "file"
    if (kind or ("sqlite" if local else "object")) == "object":
        from streamproc.lease.objects import ObjectLeases

        return ObjectLeases(store)
    if path is None and not local:
        raise InvalidJob([Fault("leases", 0, "type sqlite needs a path when the checkpoint is remote; or use type: object")])
    from streamproc.lease.sqlite import SqliteLeases

    folder = rest if separator else checkpoint
    return SqliteLeases(path or Path(folder) / "leases.sqlite")
