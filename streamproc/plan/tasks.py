"""Which tasks a plan can run as: one over all shards, or one a shard.

A task over one shard sees only that shard's rows, so whatever brings rows together must bring only rows of one shard together:
those that are equal in the column that the source is `partitioned_by`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from streamproc.plan.lineage import Lineage, Origin
from streamproc.plan.plan import Aggregate, Apply, Dedup, Join, Limit, Operation, Plan, Query, Release, Scan, Step, TaskSplit
from streamproc.schema import ddl_type


def task_split(plan: Plan, partitioned_by: Mapping[str, str]) -> TaskSplit:
    """How the plan's tasks may be cut. `partitioned_by`: by source, the column that its producer's partition key is."""
    splitter = _Splitter(plan, {(source, column) for source, column in partitioned_by.items()})
    reasons = tuple(dict.fromkeys(reason for query in plan.queries.values() for reason in splitter.obstacles(query)))
    return TaskSplit("all" if reasons else "shards", reasons, splitter.key)


def with_tasks(plan: Plan, partitioned_by: Mapping[str, str]) -> Plan:
    """The plan with what its tasks are, which its queries know too."""
    split = task_split(plan, partitioned_by)
    keys: dict[str, dict[str, str]] = {name: {} for name in plan.queries}
    for operator, column in split.key.items():
        sink, _, name = operator.rpartition("/")
        keys[sink][name] = column
    queries = {name: replace(query, partition_keys=keys[name]) for name, query in plan.queries.items()}
    return replace(plan, queries=queries, tasks=split)


class _Splitter:
    def __init__(self, plan: Plan, promised: set[Origin]) -> None:
        self._lineage = Lineage(plan.tables)
        self._scans, self._promised = plan.scans, promised
        self.key: dict[str, str] = {}

    def obstacles(self, query: Query) -> Iterator[str]:
        """Why the query needs all shards; where it does not, `key` has its operators."""
        if query.mode == "complete":
            yield f"sink {query.sink}: mode complete writes one result over all rows"
            return
        for step in query.root.walk():
            if isinstance(step, Operation) and (reason := self._obstacle(query, step)):
                yield f"sink {query.sink}: {reason}"

    def _obstacle(self, query: Query, step: Operation) -> str | None:
        if isinstance(step, Limit):
            return "LIMIT counts the rows of all shards"
        if isinstance(step, Join):
            return "rows of two streams that match may be in different shards"
        keys = self._lineage.keys(step) if self._promised else {}
        name = next((name for name, origin in keys.items() if origin in self._promised), None)
        if name is None:
            return f"{_written(step)} {self._not_keyed(step)}"
        source, column = keys[name]
        kind = self._scans[source].schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            return f"{source} is partitioned_by {column}, a {ddl_type(kind)}: only text and whole numbers have one way to be written"
        self.key[f"{query.sink}/{step.id}"] = name
        return None

    def _not_keyed(self, step: Step) -> str:
        sources = list(dict.fromkeys(below.source for below in step.walk() if isinstance(below, Scan)))
        promised = dict(self._promised)
        if len(sources) > 1:
            return f"takes rows of {' and '.join(sources)} together: equal keys may be in shards of each"
        if sources[0] not in promised:
            return f"takes rows of all shards together: {sources[0]} does not say partitioned_by"
        column = promised[sources[0]]
        return f"takes rows of all shards together: {column}, by which {sources[0]} is partitioned, is not one of its keys, unchanged"


def _written(step: Operation) -> str:
    """The step in a user's words."""
    if isinstance(step, Aggregate):
        labels = [label for name, label in step.labels.items() if name in step.keys]
        return f"GROUP BY {', '.join(labels)}" if labels else "an aggregate without a key"
    if isinstance(step, Apply):
        return f"function {step.function}, by {', '.join(step.keys)},"
    if isinstance(step, Release):
        return "OVER"
    return "DISTINCT" if isinstance(step, Dedup) else "a result over rows that change"
