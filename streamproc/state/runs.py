"""State as runs: immutable Arrow tables, shared by every operator that remembers something."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Run:
    """An immutable part of an operator's state.

    `name` is None until the checkpoint has saved it; then the object's name. `rows` of the object from `offset` on,
    `length` of them, are alive (a merge in steps eats a run from its front). `window_min`/`window_max`: smallest and
    largest final time (window end) in µs, None where the operator has no time. `level` orders geometric merges.
    """

    table: pa.Table = field(repr=False)
    level: int = 0
    window_min: int | None = None
    window_max: int | None = None
    name: str | None = None
    offset: int = 0

    @property
    def length(self) -> int:
        return int(self.table.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self.table.nbytes)
