"""Runs: cut by final time, merged in bounded steps, saved and loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pyarrow as pa
import pytest

from streamproc.errors import Bug
from streamproc.state import files
from streamproc.state.merge import chains, merge
from streamproc.state.runs import Run, RunRef, next_chain, split_final
from streamproc.testing import MemoryStore

KEYS = [("_we", "ascending"), ("_h", "ascending")]


def table(rows):
    """(end, hash, count), …, sorted as a run is: rows without an end come last."""
    rows = sorted(rows, key=lambda row: (row[0] is None, row[0] or 0, row[1]))
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table(
        {"_we": pa.array(columns[0], pa.int64()), "_h": pa.array(columns[1], pa.uint64()), "n": pa.array(columns[2], pa.int64())}
    )


def combine(rows):
    """Sums of n, as an aggregate's combined states would be."""
    assert rows.num_rows
    return rows.group_by(["_we", "_h"], use_threads=False).aggregate([("n", "sum")]).rename_columns(["_we", "_h", "n"]).sort_by(KEYS)


def total(runs):
    counts = Counter()
    for run in runs:
        for row in run.table.to_pylist():
            counts[(row["_we"], row["_h"])] += row["n"]
    return counts


# -- cutting


def test_a_run_knows_its_final_rows_and_what_comes_after():
    run = Run.of(table([(10, 2**64 - 1, 1), (10, 0, 1), (20, 5, 1), (None, 3, 1)]), 0)
    assert (run.window_min, run.window_max, run.length) == (10, 20, 4)
    assert [run.final(watermark) for watermark in (None, 9, 10, 19, 20, 2**62)] == [0, 0, 2, 2, 3, 3]
    rest = replace(run, name="object").after(2)
    assert (rest.window_min, rest.window_max, rest.offset, rest.length, rest.name) == (20, 20, 2, 2, "object")
    assert rest.after(1).window_min is rest.after(1).window_max is None
    assert rest.after(2) is None
    assert run.after(0) is run
    assert run.after(1).offset == 0  # not saved yet: the object will hold only these rows
    assert run.between(11, 30).num_rows == 1


def test_expiry_drops_whole_runs_and_keeps_the_others_as_they_are():
    runs = [Run.of(table([(end, 1, 1), (end + 10, 1, 1)]), i) for i, end in enumerate((10, 20, 30))]
    closed, alive = split_final(runs, 20)
    assert [rows.num_rows for rows in closed] == [2, 1]
    assert [run.length for run in alive] == [1, 2]
    assert alive[1] is runs[2]


# -- merging


def epoch_rows(random, groups, touched, ends=(10,)):
    return [(random.choice(ends), random.randrange(groups) * (2**64 // groups), 1) for _ in range(touched)]


def test_merging_keeps_the_bag_and_its_bounds_over_hundreds_of_epochs():
    random, runs, truth = Random(5), [], Counter()
    groups, budget = 20_000, 60_000
    combined, per_epoch, lengths = [], [], []

    def counted(rows):
        combined.append(rows.nbytes)
        return combine(rows)

    for epoch in range(600):
        fresh = combine(table(epoch_rows(random, groups, 200)))
        truth.update(total([Run.of(fresh, 0)]))
        before = [*runs, Run.of(fresh, next_chain(runs))]
        combined.clear()
        runs = merge(before, counted, budget)
        per_epoch.append(sum(combined))
        lengths.append(len(chains(runs)))
        if epoch % 100 == 99:
            assert total(runs) == truth
            assert [r.table for r in merge(before, combine, budget)] == [r.table for r in runs], "a merge depends on the runs alone"
    rows = sum(run.length for run in runs)
    assert max(per_epoch) < 1.2 * budget
    assert max(lengths) <= 24, "runs grow with the logarithm of the epochs"
    assert rows < 4 * len(truth), "state follows groups, not rows"
    assert all(_ascending(chain) for chain in chains(runs))


def _ascending(chain):
    keys = [run.key(i) for run in chain for i in (0, run.length - 1)]
    return keys == sorted(keys)


def test_a_large_merge_goes_on_where_it_was_and_leaves_suffixes_of_saved_objects():
    runs = [replace(Run.of(combine(table(epoch_rows(Random(i), 5000, 5000))), i), name=f"o{i}") for i in range(4)]
    truth, steps = total(runs), 0
    while len(chains(runs)) > 1 or any(run.merging for run in runs):
        runs, steps = merge(runs, combine, 40_000), steps + 1
        runs = [run if run.name else replace(run, name=f"p{steps}") for run in runs]
        assert total(runs) == truth
        assert all(run.offset > 0 for run in runs if run.merging == "in" and steps > 0)
    assert steps > 5
    assert sum(run.length for run in runs) == len(truth)
    assert {run.merging for run in runs} == {""}


def test_merging_and_expiry_together():
    random, runs, truth = Random(7), [], Counter()
    for epoch in range(300):
        fresh = combine(table(epoch_rows(random, 400, 100, ends=range(epoch, epoch + 40))))
        runs = [*runs, Run.of(fresh, next_chain(runs))]
        truth.update(total(runs[-1:]))
        closed, runs = split_final(runs, epoch)
        gone = total([Run.of(rows, 0) for rows in closed])
        assert gone == Counter({key: n for key, n in truth.items() if key[0] <= epoch})
        truth = Counter({key: n for key, n in truth.items() if key[0] > epoch})
        runs = merge(runs, combine, 8_000)
        assert total(runs) == truth


def test_runs_without_a_final_time_merge_too():
    runs = [Run.of(table([(None, h, 1) for h in range(2000)]), i) for i in range(8)]
    for _ in range(40):
        runs = merge(runs, combine, 30_000)
    assert total(runs) == Counter({(None, h): 8 for h in range(2000)})
    assert sum(run.length for run in runs) < 8000


def test_two_or_three_runs_are_left_alone():
    runs = [Run.of(table([(10, 1, 1)]), i) for i in range(3)]
    assert all(a is b for a, b in zip(merge(runs, combine, 1000), runs, strict=True))


# -- saving and loading


def names():
    count = iter(range(1000))
    return lambda: f"state/7-{next(count)}"


async def test_only_new_runs_are_written_and_a_restore_gives_them_back():
    store, name = MemoryStore(), names()
    first = Run.of(table([(10, 1, 1), (20, 2, 1), (None, 2, 1)]), 3)
    saved = await files.save({"a/aggregate": [first], "b/aggregate": []}, store, name)
    cut = saved["a/aggregate"][0].after(1)
    second = Run.of(table([(30, 1, 1)]), 4, "out")
    again = await files.save({"a/aggregate": [cut, second]}, store, name)
    assert again["a/aggregate"][0] is cut
    assert store.names == ["state/7-0", "state/7-1"]
    references = {"a/aggregate": [RunRef.of(run) for run in again["a/aggregate"]]}
    loaded = await files.load(references, store, {"a/aggregate": first.table.schema})
    assert loaded == again
    assert [run.table.to_pylist() for run in loaded["a/aggregate"]] == [run.table.to_pylist() for run in again["a/aggregate"]]


async def test_an_unsaved_rest_of_a_run_is_saved_alone():
    store = MemoryStore()
    rest = Run.of(table([(10, h, 1) for h in range(10_000)]), 0).after(9_999)
    saved = (await files.save({"a": [rest]}, store, names()))["a"]
    assert len((await store.get("state/7-0")).data) < 2000
    assert (await files.load({"a": [RunRef.of(saved[0])]}, store))["a"] == saved


async def test_what_is_gone_damaged_or_of_another_query_is_named():
    store = MemoryStore()
    run = (await files.save({"a": [Run.of(table([(10, 1, 1)]), 0)]}, store, names()))["a"][0]
    references = {"a": [RunRef.of(run)]}
    with pytest.raises(Bug, match=r"state/7-0 has columns \[_we int64, _h uint64, n int64\], the query needs \[x string\]"):
        await files.load(references, store, {"a": pa.schema([("x", pa.string())])})
    with pytest.raises(Bug, match="state/7-0 has 1 rows, the commit says 5"):
        await files.load({"a": [RunRef("state/7-0", length=5, nbytes=1)]}, store)
    await store.put("state/7-0", (await store.get("state/7-0")).data[:40], overwrite=True)
    with pytest.raises(Bug, match=r"state/7-0 \(40 bytes\) is damaged"):
        await files.load(references, store)
    await store.delete("state/7-0")
    with pytest.raises(Bug, match="state/7-0 is gone"):
        await files.load(references, store)
