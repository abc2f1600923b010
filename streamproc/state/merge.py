"""Geometric merging of runs in bounded steps. A pure function of the list of runs.

Sorted runs ("chains") of about the same size are merged four at a time, next to each other only, so partials of a
key stay in the order in which they came. A merge that is too large for one epoch goes on piece by piece: the lowest
range of keys of its inputs (`in`) becomes one more piece of its output (`out`), which stands before them; what is
left of the inputs are suffixes. So the list is a right state after every step, and it alone says what is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from streamproc.state.runs import Key, Run, next_chain

FANOUT = 4
SMALLEST_ROWS = 1024  # runs below this are of one size
Chain = list[Run]
Combine = Callable[[pa.Table], pa.Table]
"""Rows of several runs, in run order, to one sorted run's rows."""


def merge(runs: Sequence[Run], combine: Combine, bytes_max: int) -> list[Run]:
    """One epoch's share of merging: at most half of `bytes_max` for merges that fit at once, the rest for a large one."""
    merged, spent = _merge_small(list(runs), combine, bytes_max // 2)
    while spent <= bytes_max * 3 // 4:
        merged, more = _step(merged, combine, bytes_max - spent)
        if not more:
            break
        spent += more
    return merged


def chains(runs: Sequence[Run]) -> list[Chain]:
    """Runs grouped into sorted runs."""
    return [list(group) for _, group in groupby(runs, key=lambda run: run.chain)]


def _merge_small(runs: list[Run], combine: Combine, budget: int) -> tuple[list[Run], int]:
    """Merges that fit into the budget as a whole, and the bytes they took."""
    spent = 0
    while True:
        fitting = [group for group in _candidates(runs) if _nbytes(group) <= budget - spent]
        if not fitting:
            return runs, spent
        group = fitting[-1]  # the newest are the smallest
        spent += _nbytes(group)
        merged = Run.of(combine(pa.concat_tables([run.table for run in group])), next_chain(runs))
        runs = _replaced(runs, group, [merged])


def _step(runs: list[Run], combine: Combine, budget: int) -> tuple[list[Run], int]:
    """One more piece of the merge that is under way, or of a new one, and the bytes it took (0: nothing to do)."""
    inputs = [run for run in runs if run.merging == "in"]
    if not inputs:
        runs = _finished(runs)
        groups = _candidates(runs)
        if not groups:
            return runs, 0
        inputs = [replace(run, merging="in") for run in groups[-1]]
        runs = _replaced(runs, groups[-1], inputs)
    outputs = [run for run in runs if run.merging == "out"]
    taken, rest = _lowest(chains(inputs), budget)
    chain = outputs[0].chain if outputs else next_chain(runs)
    piece = Run.of(combine(pa.concat_tables(taken)), chain, "out")
    runs = _replaced(runs, inputs, [piece, *rest])
    return runs if rest else _finished(runs), max(_nbytes(inputs) - _nbytes(rest), 1)


def _finished(runs: list[Run]) -> list[Run]:
    return [replace(run, merging="") if run.merging else run for run in runs]


def _replaced(runs: list[Run], group: list[Run], by: list[Run]) -> list[Run]:
    start = next(i for i, run in enumerate(runs) if run is group[0])
    return [*runs[:start], *by, *runs[start + len(group) :]]


def _lowest(inputs: list[Chain], budget: int) -> tuple[list[pa.Table], list[Run]]:
    """The lowest rows of all inputs, about `budget` bytes and at least one row, and the runs without them."""
    total = sum(map(_nbytes, inputs))
    bounds = [bound for chain in inputs if (bound := _bound(chain, budget * _nbytes(chain) // max(total, 1))) is not None]
    taken, rest = [], []
    for run in (run for chain in inputs for run in chain):
        rows = run.rank(min(bounds)) if bounds else run.length
        taken.append(run.table.slice(0, rows))
        left = run.after(rows)
        if left is not None:
            rest.append(left)
    return taken, rest


def _bound(chain: Chain, budget: int) -> Key | None:
    """The key up to which the chain's rows are about `budget` bytes; None if all of them are."""
    for run in chain:
        if run.nbytes > budget:
            return run.key(max(budget, 0) * run.length // (run.nbytes + 1))
        budget -= run.nbytes
    return None


def _candidates(runs: list[Run]) -> list[list[Run]]:
    """Groups of neighbours to merge, oldest first; a merge under way parts the list."""
    found: list[list[Run]] = []
    for busy, part in groupby(chains(runs), key=lambda chain: bool(chain[0].merging)):
        if not busy:
            found += _windows(list(part))
    return found


def _windows(part: list[Chain]) -> list[list[Run]]:
    found: list[list[Run]] = []
    start = 0
    levels = [_level(chain) for chain in part]
    while start < len(part):
        top = max(levels[start:])
        stop = max(i for i in range(start, len(part)) if levels[i] == top) + 1
        groups = (part[at : at + FANOUT] for at in range(start, stop - FANOUT + 1, FANOUT))
        found += [[run for chain in group for run in chain] for group in groups]
        start = stop
    return found


def _level(chain: Chain) -> int:
    rows = max(sum(run.length for run in chain), SMALLEST_ROWS)
    return rows.bit_length() // 2  # one level for every factor of FANOUT


def _nbytes(group: Sequence[Run]) -> int:
    return sum(run.nbytes for run in group)
