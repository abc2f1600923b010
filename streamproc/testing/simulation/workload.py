"""What a run computes: job texts, and what the sink must hold in the end by a plain model over all input rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from streamproc.job import Job, load_job
from streamproc.testing.simulation.stream import InputRow

WINDOW_S = 5
SOURCE, SINK = "events", "out"
LEASE_TTL_S = 3.0
Row = Mapping[str, Any]
Check = Callable[[Sequence[InputRow], Sequence[Row], bool], list[str]]

_TEXT = """
name: sim
sources:
  events:
    type: generator
    schema: id BIGINT, key STRING, amount BIGINT, ts TIMESTAMP
    timestamps: {{ts: epoch_us}}
    watermark: {{column: ts, delay: 2 seconds, idle: {idle} seconds}}
    max_rows_per_epoch: {limit}
{promise}
sinks:
  out:
    type: console
    mode: {mode}
    query: {query}
trigger: {trigger}
leases: {{type: object, lease_ttl: {ttl} seconds}}
checkpoint: s3://simulated/checkpoint
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """`query` has a place for a filter that lets every row through: an edit changes its text and no result.

    `compare` holds the sink's rows against the input; it returns lines saying what differs. `ordered`: rows of a key keep their order.
    """

    name: str
    query: str
    compare: Check
    mode: Literal["append", "update"] = "append"
    keyed: bool = False
    tasks: Literal["all", "shards"] = "all"

    def job(self, idle_s: int, edit: int, trigger: str) -> Job:
        """The job's text after so many edits."""
        query = self.query.format(filter=f"amount > {-1 - edit}")
        text = _TEXT.format(
            idle=idle_s, limit=30 + edit, mode=self.mode, query=query, ttl=int(LEASE_TTL_S), trigger=trigger,
            promise="    partitioned_by: key" if self.keyed else "",
        )  # fmt: skip
        return _loaded(text)


@cache
def _loaded(text: str) -> Job:
    return load_job("simulated.yaml", text=text)


def _rows_once(rows: Sequence[InputRow], written: Sequence[Row], ordered: bool) -> list[str]:
    wrong = _differences({(r.at, r.key, r.amount): 1 for r in rows}, Counter((w["id"], w["key"], w["amount"]) for w in written))
    last: dict[str, int] = {}
    for row in written:
        if ordered and row["id"] < last.get(row["key"], -1):
            wrong.append(f"key {row['key']}: row {row['id']} was written after row {last[row['key']]}, which was put later")
        last[row["key"]] = row["id"]
    return wrong


def _windows(group: Callable[[InputRow], object], column: str) -> Check:
    def compare(rows: Sequence[InputRow], written: Sequence[Row], ordered: bool) -> list[str]:
        counts: Counter[Any] = Counter()
        totals: Counter[Any] = Counter()
        for row in rows:
            at = (row.ts_us // (WINDOW_S * 1_000_000) * WINDOW_S, group(row))
            counts[at] += 1
            totals[at] += row.amount
        want = {(*at, n, totals[at]): 1 for at, n in counts.items()}
        return _differences(want, Counter((int(w["w"].timestamp()), w[column], w["n"], w["total"]) for w in written))

    return compare


def _newest(rows: Sequence[InputRow], written: Sequence[Row], ordered: bool) -> list[str]:
    counts, totals = Counter(row.key for row in rows), Counter[str]()
    for row in rows:
        totals[row.key] += row.amount
    newest: dict[str, Row] = {}
    wrong = []
    for now in written:
        if now["n"] <= newest.get(now["key"], {"n": 0})["n"]:
            wrong.append(f"key {now['key']}: its count went from {newest[now['key']]['n']} to {now['n']}")
        newest[now["key"]] = now
    return wrong + _differences(
        {(k, n, totals[k]): 1 for k, n in counts.items()}, Counter((r["key"], r["n"], r["total"]) for r in newest.values())
    )


def _differences(want: Mapping[Any, int], got: Mapping[Any, int]) -> list[str]:
    missing = [f"missing {item}" for item, n in want.items() if got.get(item, 0) < n]
    return missing + [f"too many ({n - want.get(item, 0)}) {item}" for item, n in got.items() if n > want.get(item, 0)]


_GROUPED = (
    "SELECT window.start AS w, {by} AS g, count(*) AS n, sum(amount) AS total "
    "FROM events WHERE {{filter}} GROUP BY window(ts, '5 seconds'), {by}"
)

WORKLOADS = (
    Workload("rows", "SELECT id, key, amount FROM events WHERE {filter}", _rows_once, keyed=True, tasks="shards"),
    Workload("keyed windows", _GROUPED.format(by="key"), _windows(lambda row: row.key, "g"), keyed=True, tasks="shards"),
    Workload("windows", _GROUPED.format(by="amount % 3"), _windows(lambda row: row.amount % 3, "g")),
    Workload(
        "updates", "SELECT key, count(*) AS n, sum(amount) AS total FROM events WHERE {filter} GROUP BY key", _newest,
        mode="update", keyed=True, tasks="shards",
    ),
)  # fmt: skip


def draw(chance: random.Random, names: Iterable[str] = ()) -> Workload:
    wanted = [workload for workload in WORKLOADS if not names or workload.name in names]
    return chance.choice(wanted)
