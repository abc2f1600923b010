"""Rows of KCL's lease table as leases, and back.

The layout is that of DynamoDBLeaseSerializer, DynamoDBMultiStreamLeaseSerializer and WorkerMetricStats of
amazon-kinesis-client 2.x and 3.x (github.com/awslabs/amazon-kinesis-client). A table of 3.5 holds other entities too: worker
metrics, the leader's lock, states of migrations. Attributes of our own: `streamprocCounter`, the `leaseCounter` that we wrote
last and nobody has changed before, and `streamprocBeat`, the number of a worker's beats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamproc.lease.lease import Lease, Mark

Item = Mapping[str, Any]
"""A row as DynamoDB's protocol has it: attribute to {type: value}."""
KEY = "leaseKey"
LEASE, WORKER = "LEASE", "WORKER_METRIC_STATS"
INDEX = "LeaseOwnerToLeaseKeyIndex"
READ = (
    KEY, "entityType", "leaseOwner", "leaseCounter", "checkpointOwner", "checkpoint", "checkpointSubSequenceNumber", "parentShardId",
    "childShardIds", "startingHashKey", "endingHashKey", "throughputKBps", "streamprocCounter", "lut", "streamprocBeat",
)  # fmt: skip
"""All attributes that are read."""
_PENDING = ("pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState")
_STREAM = re.compile(r"(\d+:[^:]+:\d+):([^:]+)")
_SUPPORT = 1
"""KCL's SUPPORT_CODE of 3.5: a worker that can do with one table for everything."""


def is_task_row(key: str) -> bool:
    """Whether a row is none of KCL's: it stands for a task of a job, `<job>/<task>`."""
    return "/" in key


def text(value: str) -> dict[str, str]:
    return {"S": value}


def number(value: float) -> dict[str, str]:
    return {"N": f"{value:.9g}" if isinstance(value, float) else str(value)}


def lease_of(item: Item) -> Lease | None:
    """None for a row of another entity."""
    if _text(item, "entityType") not in (None, LEASE):
        return None
    key, counter = item[KEY]["S"], int(item.get("leaseCounter", {}).get("N", 0))
    kbps = item.get("throughputKBps", {}).get("N")
    mark = None if is_task_row(key) else _mark(item, counter)
    return Lease(key, _text(item, "leaseOwner"), counter, _text(item, "checkpointOwner"), mark, float(kbps) if kbps else None)


def beat_of(item: Item) -> tuple[str, int] | None:
    """A worker's id and a number that its every sign of life raises; None for a row of another entity."""
    if _text(item, "entityType") != WORKER:
        return None
    return item[KEY]["S"], int((item.get("streamprocBeat") or item.get("lut") or {}).get("N", 0))


def _mark(item: Item, counter: int) -> Mark:
    low, high = _text(item, "startingHashKey"), _text(item, "endingHashKey")
    return Mark(
        position_of(_text(item, "checkpoint"), int(item.get("checkpointSubSequenceNumber", {}).get("N", 0))),
        tuple(sorted(item.get("parentShardId", {}).get("SS", ()))),
        tuple(sorted(item.get("childShardIds", {}).get("SS", ()))),
        (int(low), int(high)) if low and high else None,
        ours=item.get("streamprocCounter", {}).get("N") == str(counter),
    )


def position_of(checkpoint: str | None, sub: int) -> str | None:
    """`<sequence number>:<sub-sequence number>` of the last user record read (0 of a record that is no aggregate), or KCL's word."""
    return f"{checkpoint}:{sub}" if checkpoint and checkpoint.isdigit() else checkpoint


def checkpoint_of(position: str) -> tuple[str, int]:
    """What KCL keeps of a position: sequence and sub-sequence number, or a word (AT_TIMESTAMP: the instant is in its configuration)."""
    checkpoint, _, sub = position.partition(":")
    return checkpoint, int(sub) if sub and checkpoint.isdigit() else 0


def new_row(key: str, owner: str | None, counter: int, mark: Mark | None) -> dict[str, Any]:
    """A row that was not there."""
    item = {KEY: text(key), "leaseCounter": number(counter), "entityType": text(LEASE)}
    if owner is not None:
        item["leaseOwner"] = text(owner)
    if is_task_row(key):
        return item
    item |= {"ownerSwitchesSinceCheckpoint": number(0), "streamprocCounter": number(counter)}
    if stream := _STREAM.fullmatch(key):
        item |= {"streamName": text(stream[1]), "shardId": text(stream[2])}
    return item | dict(_shown(mark or Mark("TRIM_HORIZON")))


def _shown(mark: Mark) -> Iterator[tuple[str, dict[str, Any]]]:
    if mark.position is not None:
        checkpoint, sub = checkpoint_of(mark.position)
        yield "checkpoint", text(checkpoint)
        yield "checkpointSubSequenceNumber", number(sub)
    if mark.parents:
        yield "parentShardId", {"SS": list(mark.parents)}
    if mark.children:
        yield "childShardIds", {"SS": list(mark.children)}
    if mark.hash_range is not None:
        yield "startingHashKey", text(str(mark.hash_range[0]))
        yield "endingHashKey", text(str(mark.hash_range[1]))


@dataclass
class Change:
    """One UpdateItem of an existing row, growing clause by clause. What it does not name stays as it is, whoever wrote it."""

    key: str
    _set: list[str] = field(default_factory=list)
    _add: list[str] = field(default_factory=list)
    _remove: list[str] = field(default_factory=list)
    _conditions: list[str] = field(default_factory=list)
    _values: dict[str, Any] = field(default_factory=dict)

    def set(self, attribute: str, value: Mapping[str, Any]) -> Change:
        self._set.append(f"{attribute} = {self._value(value)}")
        return self

    def remove(self, *attributes: str) -> Change:
        self._remove += attributes
        return self

    def add(self, attribute: str, value: int) -> Change:
        self._add.append(f"{attribute} {self._value(number(value))}")
        return self

    def when(self, attribute: str, value: Mapping[str, Any] | None) -> Change:
        """Only if the attribute has this value; None: if it is not there."""
        self._conditions.append(f"attribute_not_exists({attribute})" if value is None else f"{attribute} = {self._value(value)}")
        return self

    def as_seen(self, lease: Lease) -> Change:
        """Only if the row is as it was seen."""
        self.when("leaseCounter", number(lease.counter))
        self.when("leaseOwner", text(lease.owner) if lease.owner is not None else None)
        return self.when("checkpointOwner", text(lease.checkpoint_owner) if lease.checkpoint_owner is not None else None)

    def raise_counter(self, lease: Lease, mark: Mark | None) -> Change:
        """With the mark. The counter becomes ours if the mark is, or if the one before was and nobody else has changed the row since."""
        self.set("leaseCounter", number(lease.counter + 1))
        if not is_task_row(lease.key) and (mark is not None or lease.mark is None or lease.mark.ours):
            self.set("streamprocCounter", number(lease.counter + 1))
        return self.show(mark)

    def raise_any_counter(self, mark: Mark | None) -> Change:
        """The same whatever the counter is."""
        one, shared = self._value(number(1)), mark is not None and not is_task_row(self.key)
        self._set += [f"{name} = leaseCounter + {one}" for name in ("leaseCounter", *(["streamprocCounter"] if shared else []))]
        return self.show(mark)

    def show(self, mark: Mark | None) -> Change:
        """A checkpoint as KCL writes it: no switches of owners since, nothing pending."""
        if mark is None or is_task_row(self.key):
            return self
        for attribute, value in _shown(mark):
            self.set(attribute, value)
        return self.set("ownerSwitchesSinceCheckpoint", number(0)).remove(*_PENDING)

    def arguments(self) -> dict[str, Any]:
        """Of update_item, without the table."""
        clauses = (("SET", self._set), ("ADD", self._add), ("REMOVE", self._remove))
        made: dict[str, Any] = {
            "Key": {KEY: text(self.key)},
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts),
            "ExpressionAttributeValues": self._values,
        }
        return made | ({"ConditionExpression": " AND ".join(self._conditions)} if self._conditions else {})

    def delete_arguments(self) -> dict[str, Any]:
        """Of delete_item with the same conditions."""
        return {
            "Key": {KEY: text(self.key)},
            "ConditionExpression": " AND ".join(self._conditions),
            "ExpressionAttributeValues": self._values,
        }

    def _value(self, value: Mapping[str, Any]) -> str:
        name = f":v{len(self._values)}"
        self._values[name] = value
        return name


def beat(worker: str, now_s: int) -> Change:
    """A worker's row, as KCL 3.5 writes it where no load is measured, so that its leader deals leases to the worker too."""
    change = Change(worker).set("entityType", text(WORKER)).set("lut", number(now_s)).set("slu", number(now_s)).set("sup", number(_SUPPORT))
    return change.set("opr", {"M": {}}).set("sts", {"M": {}}).add("streamprocBeat", 1)


def _text(item: Item, attribute: str) -> str | None:
    value = item.get(attribute, {}).get("S")
    return str(value) if value is not None else None
