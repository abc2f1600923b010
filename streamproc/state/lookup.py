"""Rows of runs by the hashes of their keys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.state.runs import Run

Hashes = npt.NDArray[np.uint64]


def hashes_of(table: pa.Table) -> Hashes:
    """The hashes in a table's `_h`, each once, ascending."""
    return np.unique(table.column("_h").to_numpy())


def rows_of(run: Run, hashes: Hashes, first_us: int | None = None, last_us: int | None = None) -> pa.Table:
    """Rows whose `_h` is among `hashes` (ascending) and whose final time lies in [first, last] (None: any), in run order. Of the
    other rows no more is read than these 8 bytes, and where nothing in the run has a final time, only some of them.
    """
    table = run.between(first_us, last_us)
    found = table.column("_h").to_numpy()
    if run.window_max is None:
        starts, stops = np.searchsorted(found, hashes, "left"), np.searchsorted(found, hashes, "right")
        if len(hashes) and stops[-1] - starts[0] == np.sum(stops - starts):
            return table.slice(starts[0], stops[-1] - starts[0])  # the rows of one large key, say: nothing is copied
        places = _ranges(starts, stops)
    else:
        at = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
        places = np.flatnonzero(hashes[at] == found) if len(hashes) else np.empty(0, np.int64)
    return table.slice(0, 0) if not len(places) else table.take(pa.array(places))


def _ranges(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All numbers from each start to before its stop."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    places: npt.NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return places
