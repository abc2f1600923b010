"""The state of tasks over single shards goes over to other tasks: to the shards that a shard was split into or merged to, or to one
task over all.

A run's rows belong to the shard whose hash range takes the hash of their partition key. What is made here is not saved yet: the
new task writes runs of its own, so that no two logs share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.hash_ranges import HashRange
from streamproc.state.hash_range import inside
from streamproc.state.merge import chains
from streamproc.state.runs import Run

State = Mapping[str, Sequence[Run]]
"""Runs by operator."""


def split(state: State, key: Mapping[str, str], hash_range: HashRange) -> dict[str, list[Run]]:
    """What of the state lies in the hash range. `key`: by operator, the column that holds the partition key.

    Bug: an operator has no such column, or a row has NULL there: its partition key cannot have been that.
    """
    return {operator: _numbered([_divided(operator, runs, key, hash_range)]) for operator, runs in state.items()}


def joined(states: Sequence[State]) -> dict[str, list[Run]]:
    """The state of several tasks, which have no key in common, as one."""
    operators = dict.fromkeys(operator for state in states for operator in state)
    return {operator: _numbered([state.get(operator, ()) for state in states]) for operator in operators}


def _divided(operator: str, runs: Sequence[Run], key: Mapping[str, str], hash_range: HashRange) -> list[Run]:
    if runs and operator not in key:
        raise Bug(f"the state of {operator} is not kept by partition key and cannot be divided between shards")
    return [replace(run, table=_inside(operator, run.table, key[operator], hash_range)) for run in runs]


def _inside(operator: str, rows: pa.Table, key: str, hash_range: HashRange) -> pa.Table:
    keys = rows.column(key)
    if keys.null_count:
        raise Bug(f"the state of {operator} has rows without a partition key ({key} is NULL)")
    return rows.filter(inside(keys, hash_range))


def _numbered(states: Sequence[Sequence[Run]]) -> list[Run]:
    """New runs of the same rows, each sorted run with a chain of its own. What a merge was at is forgotten: its pieces and what is
    left of its inputs are a right state, and it begins again.
    """
    sorted_runs = [chain for runs in states for chain in chains([run for run in runs if run.length])]
    return [Run.of(run.table, number) for number, chain in enumerate(sorted_runs) for run in chain]
