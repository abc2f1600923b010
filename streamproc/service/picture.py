"""A job of a service as JSON values, for `/jobs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from streamproc.engine.inspect import iso
from streamproc.service.supervised import SupervisedJob
from streamproc.status import ShardStatus, Status, TaskStatus

_SAID_OTHERWISE = ("job", "now_us", "watermark_us", "lease_held", "lease_owner", "tasks", "shards", "sinks")


def picture(supervised: SupervisedJob, hide: Callable[[str], str]) -> dict[str, Any]:
    """The job, its state, its last failure and its newest status, if it has told one yet. `hide` takes secrets out of a text.

    Times are ISO 8601; `as_of` is when the status was taken.
    """
    failure = supervised.failure
    return {
        "job": supervised.job.name,
        "file": supervised.job.file,
        "state": supervised.state,
        "since": iso(supervised.since_us),
        "failures": supervised.failures,
        "last_error": failure and {"kind": failure.kind, "error": hide(failure.error), "at": iso(failure.at_us)},
        "next_try": iso(supervised.next_try_us),
        "refused_edit": [hide(reason) for reason in supervised.refused],
        **(_told(supervised.status) if supervised.status else {}),
    }


def _told(status: Status) -> dict[str, Any]:
    figures = {key: value for key, value in asdict(status).items() if key not in _SAID_OTHERWISE}
    return {
        "as_of": iso(status.now_us),
        "worker": status.lease_owner,
        "lease_held": status.lease_held,
        "watermark": iso(status.watermark_us),
        **figures,
        "tasks": [_task(task, status.lease_owner) for task in status.tasks],
        "shards": [_shard(shard) for shard in status.shards],
        "sinks": [asdict(sink) for sink in status.sinks],
    }


def _task(task: TaskStatus, worker: str | None) -> dict[str, Any]:
    return {
        "task": task.task,
        "epoch": task.epoch,
        "watermark": iso(task.watermark_us),
        "lease_held": task.lease_held,
        "owner": worker if task.lease_held else None,
        "epoch_running_s": round(task.epoch_running_s, 3),
    }


def _shard(shard: ShardStatus) -> dict[str, Any]:
    return {
        "source": shard.source,
        "shard": shard.shard,
        "position": shard.position,
        "lag": shard.lag,
        "lag_unit": shard.lag_unit,
        "watermark": iso(shard.watermark_us),
        "idle": shard.idle,
    }
