"""`cumulate_window(ts, step, size)`: windows of one start whose ends are a step apart, up to the size. As in Flink SQL."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.window import Window, aligned


@dataclass(frozen=True)
class Cumulate(Window):
    """Windows [n·size, n·size + m·step) for every whole n and every m with m·step ≤ size. A key is an end."""

    every_us: int
    size_us: int

    def __post_init__(self) -> None:
        if self.every_us <= 0:
            raise ValueError(f"the step of cumulate_window must be above 0, not {self.every_us} µs")
        if self.size_us <= 0 or self.size_us % self.every_us:
            raise ValueError(f"the size of cumulate_window ({self.size_us} µs) must be a multiple of its step ({self.every_us} µs)")

    @property
    def length_us(self) -> int:
        return self.size_us

    @property
    def step_us(self) -> int:
        return self.every_us

    @property
    def single(self) -> bool:
        return False

    def assign(self, time: str) -> str:
        return f"range({self._step(time)} + {self.every_us}, {self.assign_one(time)} + 1, {self.every_us})"

    def assign_one(self, time: str) -> str:
        return f"({self._size(time)} + {self.size_us})"

    def begin(self, key: str) -> str:
        return self._size(f"({key}) - 1")

    def end(self, key: str) -> str:
        return key

    def start(self, end: str) -> str:
        return self.begin(end)

    def pane(self, time: str) -> str | None:
        return self._step(time)

    def _step(self, time: str) -> str:
        return aligned(time, self.every_us)

    def _size(self, time: str) -> str:
        return aligned(time, self.size_us)
