"""What the conditions of a join say of the event times of both sides, and so when a buffered row can leave.

A condition such as `r.ts BETWEEN l.ts - INTERVAL 5 MINUTES AND l.ts + INTERVAL 1 HOUR` is a bound on `r.ts - l.ts`. Where the
right side has a watermark on r.ts, no row that comes once it has passed l.ts + 1 hour can match the left row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlglot import exp

from streamproc.batch import TIMESTAMP
from streamproc.plan import zone
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError
from streamproc.plan.relation import RelationScope, Time

DAY_US = 86_400_000_000
CHANGE_MAX_US = 2 * 3_600_000_000
"""By how much a day may differ from 24 hours: no zone's clocks are set by more."""
Side = Literal["left", "right"]
_FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {exp.LT: exp.GT, exp.LTE: exp.GTE, exp.GT: exp.LT, exp.GTE: exp.LTE, exp.EQ: exp.EQ}


@dataclass(frozen=True)
class Instant:
    """A time of one side: SQL of a TIMESTAMP, or of a window, and what it says of event time."""

    text: str
    time: Time | None

    @property
    def is_plain(self) -> bool:
        return self.time is None or self.time.kind != "window"

    @property
    def lag_us(self) -> int:
        return self.time.lag_us if self.time else 0

    @property
    def final(self) -> str:
        """SQL of the watermark (before lag) at which no more rows can have this value."""
        return (self.time and self.time.final_us(self.text)) or f"epoch_us({self.text})"

    @property
    def after_us(self) -> int:
        """From the value itself to `final`."""
        return (self.time.length_us or 0) if self.time and self.time.kind == "start" else 0


@dataclass(frozen=True)
class Bound:
    """lower ≤ final of right - final of left ≤ upper, in µs."""

    left: Instant
    right: Instant
    lower_us: int | None = None
    upper_us: int | None = None

    def both(self, other: Bound) -> Bound:
        """Of the same two times."""
        lower = [b for b in (self.lower_us, other.lower_us) if b is not None]
        upper = [b for b in (self.upper_us, other.upper_us) if b is not None]
        return replace(self, lower_us=max(lower, default=None), upper_us=min(upper, default=None))

    @property
    def mirrored(self) -> Bound:
        """With the sides exchanged."""
        lower = None if self.upper_us is None else -self.upper_us
        return Bound(self.right, self.left, lower, None if self.lower_us is None else -self.lower_us)


@dataclass(frozen=True)
class SideTimes:
    """Of one side: SQL of the watermark at which a row is late and of the one at which none can come any more that matches it,
    `NULL` where there is none, and by how much longer than it may come a row may be written.
    """

    late: str = "NULL::BIGINT"
    end: str = "NULL::BIGINT"
    held_us: int = 0

    @property
    def bounded(self) -> bool:
        return not self.end.startswith("NULL")


@dataclass(frozen=True)
class _Sum:
    """Instants that are added (1) or subtracted (-1), and a number of µs; `days`: some were given as days."""

    terms: tuple[tuple[int, exp.Expr], ...]
    micros: int = 0
    days: bool = False

    def plus(self, other: _Sum, sign: int) -> _Sum:
        terms = (*self.terms, *((sign * each, node) for each, node in other.terms))
        return _Sum(terms, self.micros + sign * other.micros, self.days or other.days)


@dataclass(frozen=True)
class JoinTimes:
    """`scope` has the columns of both sides; `left` and `right` are the names of their columns in SQL."""

    scope: RelationScope
    left: frozenset[str]
    right: frozenset[str]

    def bounds(self, conditions: Sequence[exp.Expr]) -> list[Bound]:
        """All that the conditions bound, those of the same two times as one."""
        found: dict[tuple[str, str], Bound] = {}
        for bound in (bound for node in conditions for bound in self._of(node)):
            pair = (bound.left.text, bound.right.text)
            found[pair] = found[pair].both(bound) if pair in found else bound
        return sorted(found.values(), key=lambda bound: bound.lower_us is None or bound.upper_us is None)

    def _of(self, node: exp.Expr) -> Iterator[Bound]:
        if isinstance(node, exp.Paren):
            yield from self._of(node.this)
        elif isinstance(node, exp.Between):
            yield from self._of(exp.GTE(this=node.this.copy(), expression=node.args["low"].copy()))
            yield from self._of(exp.LTE(this=node.this.copy(), expression=node.args["high"].copy()))
        elif type(node) in _FLIPPED:
            bound = self._compared(type(node), node.this, node.expression)
            if bound is not None:
                yield bound

    def _compared(self, test: type[exp.Expr], above: exp.Expr, below: exp.Expr) -> Bound | None:
        first, second = self._sum(above), self._sum(below)
        if first is None or second is None:
            return None
        total = first.plus(second, -1)
        sides = {self._side(node): (sign, node) for sign, node in total.terms}
        if len(total.terms) != 2 or set(sides) != {"left", "right"} or sum(sign for sign, _ in total.terms) != 0:
            return None
        left, right = self._instant(sides["left"][1]), self._instant(sides["right"][1])
        if left is None or right is None or (test is not exp.EQ and not (left.is_plain and right.is_plain)):
            return None
        ahead = sides["right"][0] == 1
        limit = -total.micros if ahead else total.micros
        return _bound(left, right, test if ahead else _FLIPPED[test], limit, CHANGE_MAX_US if total.days and not zone.is_fixed() else 0)

    def _sum(self, node: exp.Expr) -> _Sum | None:
        if isinstance(node, exp.Paren):
            return self._sum(node.this)
        if isinstance(node, exp.Add | exp.Sub):
            left, right = self._sum(node.this), self._sum(node.expression)
            sign = 1 if isinstance(node, exp.Add) else -1
            return None if left is None or right is None else left.plus(right, sign)
        if isinstance(node, exp.Interval):
            literal = Compiler(self.scope).compile(node).literal
            return _Sum((), literal[1], abs(literal[1]) >= DAY_US) if literal and literal[0] == "micros" else None
        return _Sum(((1, node),)) if isinstance(node, exp.Column) else None

    def _instant(self, node: exp.Expr) -> Instant | None:
        value, time = Compiler(self.scope).compile(node), self.scope.time_of(node)
        if time and time.final_us("x") is None:
            time = None
        is_window = time is not None and time.kind == "window"
        return Instant(value.text, time) if value.type == TIMESTAMP or is_window else None

    def _side(self, node: exp.Expr) -> Side | None:
        sides = self.sides(node)
        return sides[0] if len(sides) == 1 else None

    def sides(self, node: exp.Expr) -> list[Side]:
        """Whose columns the expression reads. LocatedError: it names one that neither side has."""
        names = set[str]()
        for column in node.find_all(exp.Column):
            if not isinstance(column.this, exp.Star):
                names.add(self.scope.find([p.name for p in column.parts])[0].sql)
        sides: list[tuple[Side, frozenset[str]]] = [("left", self.left), ("right", self.right)]
        return [side for side, own in sides if names & own]

    def knows(self, node: exp.Expr) -> bool:
        """Whether the expression is over columns of these two sides only."""
        try:
            self.sides(node)
        except LocatedError:
            return False
        return True


def _bound(left: Instant, right: Instant, test: type[exp.Expr], limit: int, slack: int) -> Bound:
    """Of right - left `test` limit."""
    limit += right.after_us - left.after_us
    upper = limit - 1 if test is exp.LT else limit if test in (exp.LTE, exp.EQ) else None
    lower = limit + 1 if test is exp.GT else limit if test in (exp.GTE, exp.EQ) else None
    return Bound(left, right, None if lower is None else lower - slack, None if upper is None else upper + slack)


def side_times(bounds: Sequence[Bound]) -> tuple[SideTimes, SideTimes]:
    """When rows of the left and of the right side are late, and when they leave."""
    return _of_left(bounds), _of_left([bound.mirrored for bound in bounds])


def _of_left(bounds: Sequence[Bound]) -> SideTimes:
    ending = next((b for b in bounds if b.upper_us is not None and b.right.time), None)
    # what makes rows of the right side leave must be what judges those of the left side
    judging = next((b for b in bounds if b.lower_us is not None and b.left.time), ending)
    late = f"{judging.left.final} + {judging.left.lag_us}" if judging and judging.left.time else SideTimes.late
    if ending is None:
        return SideTimes(late)
    assert ending.upper_us is not None
    after = ending.upper_us + ending.right.lag_us
    return SideTimes(late, f"{ending.left.final} + {after}", max(0, after - ending.left.lag_us))
