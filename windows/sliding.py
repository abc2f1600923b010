"""`window(ts, size, slide)`: overlapping windows; every time lies in about size ÷ slide of them."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.window import Window, aligned


@dataclass(frozen=True)
class Sliding(Window):
    """Windows [offset + n·slide, offset + n·slide + size) for every whole n, as in Spark. All in µs; slide ≤ size."""

    size_us: int
    slide_us: int
    offset_us: int = 0

    def __post_init__(self) -> None:
        if self.size_us <= 0:
            raise ValueError(f"window size must be above 0, not {self.size_us} µs")
        if not 0 < self.slide_us <= self.size_us:
            raise ValueError(f"the window's slide ({self.slide_us} µs) must be above 0 and not above its size ({self.size_us} µs)")
        if abs(self.offset_us) >= self.slide_us:
            raise ValueError(f"the window's start offset ({self.offset_us} µs) must be smaller than its slide ({self.slide_us} µs)")

    @property
    def length_us(self) -> int:
        return self.size_us

    @property
    def step_us(self) -> int:
        return self.slide_us

    @property
    def single(self) -> bool:
        return self.size_us == self.slide_us

    def assign(self, time: str) -> str:
        first = self._floor(f"({time}) - {self.size_us}")  # the last start whose window ends at or before the time
        return f"range({first} + {self.slide_us}, {self.assign_one(time)} + 1, {self.slide_us})"

    def assign_one(self, time: str) -> str:
        return self._floor(time)

    def pane(self, time: str) -> str | None:
        return self._floor(time) if self.size_us % self.slide_us == 0 else None

    def _floor(self, time: str) -> str:
        return aligned(time, self.slide_us, self.offset_us)
