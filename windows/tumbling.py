"""`window(ts, size)`: fixed windows side by side; every time lies in exactly one."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.window import Window, aligned


@dataclass(frozen=True)
class Tumbling(Window):
    """Windows [offset + n·size, offset + (n+1)·size) for every whole n, as in Spark (also before 1970). All in µs."""

    size_us: int
    offset_us: int = 0

    def __post_init__(self) -> None:
        if self.size_us <= 0:
            raise ValueError(f"window size must be above 0, not {self.size_us} µs")
        if abs(self.offset_us) >= self.size_us:
            raise ValueError(f"the window's start offset ({self.offset_us} µs) must be smaller than its size ({self.size_us} µs)")

    @property
    def length_us(self) -> int:
        return self.size_us

    @property
    def single(self) -> bool:
        return True

    def assign(self, time: str) -> str:
        return f"[{self.assign_one(time)}]"

    def assign_one(self, time: str) -> str:
        return aligned(time, self.size_us, self.offset_us)
