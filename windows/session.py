"""`session_window(ts, gap)`: rows of a key that follow each other within a gap. The gap may differ from row to row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.window import MergingWindow


@dataclass(frozen=True)
class Session(MergingWindow):
    """Every row is [time, time + gap); intervals that overlap or touch (next start ≤ end) are one session, as in Spark."""

    def numbered(self, rows: str, keys: Sequence[str]) -> str:
        by = f"PARTITION BY {', '.join(keys)} " if keys else ""
        reached = f"max(_we) OVER ({by}ORDER BY _ws ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        begun = f"SELECT *, CASE WHEN _ws <= {reached} THEN 0 ELSE 1 END AS _begins FROM ({rows})"
        number = f"sum(_begins) OVER ({by}ORDER BY _ws ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        return f"SELECT * EXCLUDE (_begins), {number} AS _s FROM ({begun})"
