"""The lease contract and its tables: who should run a task."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from streamproc.errors import Fault, InvalidJob
from streamproc.lease.lease import Lease, LeaseTable
from streamproc.lease.options import LeaseOptions
from streamproc.store import Store
from streamproc.world import World

__all__ = ["Lease", "LeaseOptions", "LeaseTable", "open_leases"]

_SHARED_WITH_KCL = "kinesis"


def open_leases(
    options: LeaseOptions | None, job: str, source_types: Collection[str], checkpoint: str, store: Store, world: World | None = None
) -> LeaseTable:
    """The table of a job. Without options: sqlite beside a local checkpoint, an object in a remote one.

    `job` is its name, `source_types` are those of its sources, `checkpoint` is the checkpoint's URL and `store` it.
    """
    scheme, separator, rest = checkpoint.partition("://")
    local = not separator or scheme == "file"
    kind = options.type if options else "sqlite" if local else "object"
    if options is not None and kind == "dynamodb":
        from streamproc.lease.dynamodb import DynamoLeases

        return DynamoLeases(
            options.table or job, world or World(), shards=_SHARED_WITH_KCL in source_types, tasks=set(source_types) != {_SHARED_WITH_KCL},
            region=options.region, endpoint_url=options.endpoint_url,
        )  # fmt: skip
    if kind == "object":
        from streamproc.lease.objects import ObjectLeases

        return ObjectLeases(store)
    path = options.path if options else None
    if path is None and not local:
        raise InvalidJob([Fault("leases", 0, "type sqlite needs a path when the checkpoint is remote; or use type: object")])
    from streamproc.lease.sqlite import SqliteLeases

    folder = rest if separator else checkpoint
    return SqliteLeases(path or Path(folder) / "leases.sqlite")
