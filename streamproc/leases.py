"""`streamproc leases`: who runs what of a job, as its lease table says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from streamproc.checkpoint.root import read_root
from streamproc.engine.worker import lease_table
from streamproc.errors import Fault, InvalidJob
from streamproc.job import Job
from streamproc.lease.lease import Lease, LeaseTable, Listing
from streamproc.stores import open_store
from streamproc.world import World

COLUMNS = ("lease", "owner", "counter", "handed over by", "position")


async def listing_of(job: Job, world: World | None = None) -> Listing:
    """The rows and the workers, by one look. InvalidJob where the job has not run yet and the table is nobody else's either."""
    store = open_store(job.checkpoint, world or World())
    try:
        table = lease_table(job, store)
        if not table.keeps_marks and await read_root(store) is None:
            raise InvalidJob([Fault(job.file, 1, f"there is no checkpoint at {job.checkpoint}: the job has not run yet")])
        return await _looked(table)
    finally:
        await store.close()


async def _looked(table: LeaseTable) -> Listing:
    try:
        return await table.list()
    finally:
        await table.close()


def as_json(listing: Listing) -> dict[str, Any]:
    """The listing as JSON values; `position` is null where the table keeps none."""
    return {"leases": [_row(lease) for lease in listing.leases], "workers": dict(listing.workers)}


def _row(lease: Lease) -> dict[str, Any]:
    return {
        "lease": lease.key,
        "owner": lease.owner,
        "counter": lease.counter,
        "checkpoint_owner": lease.checkpoint_owner,
        "position": lease.mark.position if lease.mark else None,
        "throughput_kbps": lease.throughput_kbps,
        "foreign": lease.foreign,
    }


def lines(listing: Listing) -> Iterator[str]:
    """As a table for people: leases, then workers that hold none."""
    rows = [COLUMNS, *(_cells(lease) for lease in listing.leases)]
    shown = [column for column in range(len(COLUMNS)) if column < 3 or any(row[column] for row in rows[1:])]
    yield from _aligned([[row[column] or "-" for column in shown] for row in rows]) if listing.leases else ["no leases"]
    owners = {lease.owner for lease in listing.leases}
    yield from (f"standing by: {worker}" for worker in sorted(listing.workers) if worker not in owners)


def _cells(lease: Lease) -> tuple[str, ...]:
    position = lease.mark.position if lease.mark else None
    return lease.key, lease.owner or "", str(lease.counter), lease.checkpoint_owner or "", position or ""


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
