"""Windows of whole days in a time zone: they begin at its midnight."""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.window import Window


@dataclass(frozen=True)
class Zoned(Window):
    """`days` over the clock on the wall of `time_zone`, so that a day on which the clock changes has 23 or 25 hours."""

    days: Window
    time_zone: str

    @property
    def length_us(self) -> int:
        return self.days.length_us

    @property
    def step_us(self) -> int:
        return self.days.step_us

    @property
    def single(self) -> bool:
        return self.days.single

    def assign(self, time: str) -> str:
        return f"list_transform({self.days.assign(self._wall(time))}, lambda w: {self._instant('w')})"

    def assign_one(self, time: str) -> str:
        return self._instant(self.days.assign_one(self._wall(time)))

    def begin(self, key: str) -> str:
        return self._instant(self.days.begin(self._wall(key)))

    def end(self, key: str) -> str:
        return self._instant(self.days.end(self._wall(key)))

    def start(self, end: str) -> str:
        return self._instant(self.days.start(self._wall(end)))

    def _wall(self, time: str) -> str:
        return f"epoch_us(timezone('{self.time_zone}', make_timestamptz({time})))"

    def _instant(self, wall: str) -> str:
        return f"epoch_us(timezone('{self.time_zone}', make_timestamp({wall})))"
