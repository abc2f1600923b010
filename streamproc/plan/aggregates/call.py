"""A call of an aggregate, and the states that the calls of one query keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.functions.call import Call
from streamproc.plan.plan import StateColumn
from streamproc.plan.types import BIGINT, Sql, duck_type

_SAFE = re.compile(r'"[^"]+"|CAST\("[^"]+" AS DOUBLE\)')
Order = tuple[str, str]
"""SQL of what rows are ordered by, and its way: `ASC NULLS FIRST`, …"""


@dataclass
class States:
    """What an aggregate operator must prepare and keep: arguments a0…, filters f0…, states s0…; equal ones are shared."""

    columns: dict[str, str] = field(default_factory=dict)
    """SQL of a prepared column → its name."""
    kept: dict[StateColumn, str] = field(default_factory=dict)
    arrival: Sql = field(default_factory=lambda: Sql("NULL", BIGINT))
    """What puts rows in order: a struct of event time, shard, offset."""
    in_order: bool = False
    distinct_as_lists: bool = False
    """DISTINCT over groups that may merge (sessions): a list of the values instead of a set beside the states."""

    def prepare(self, text: str, letter: str) -> str:
        if text not in self.columns:
            self.columns[text] = f"{letter}{sum(n[0] == letter for n in self.columns.values())}"
        return self.columns[text]

    def keep(
        self, function: str, arguments: Sequence[Sql], where: str | None = None, constants: tuple[str, ...] = (),
        order: Sequence[Order] = (), distinct: Sequence[Sql] = (),
    ) -> str:  # fmt: skip
        """Name of the finalized state of `function(arguments ORDER BY order) FILTER (WHERE where)`, over every combination
        of the values of `distinct` once.
        """
        state = StateColumn(
            name="",
            function=function,
            args=tuple(self.prepare(a.text, "a") for a in arguments),
            types=(*(duck_type(a.type) for a in arguments), *("DOUBLE" for _ in constants)),
            filter=None if where is None else self.prepare(where, "f"),
            constants=(*("NULL" for _ in arguments), *constants) if constants else (),
            order=tuple((self._order(text, arguments), way) for text, way in order),
            distinct=tuple(self.prepare(d.text, "a") for d in distinct),
        )
        return self.kept.setdefault(state, f"s{len(self.kept)}")

    def _order(self, text: str, arguments: Sequence[Sql]) -> str:
        return self.prepare(text, "a" if any(a.text == text for a in arguments) else "o")

    @property
    def state_columns(self) -> tuple[StateColumn, ...]:
        return tuple(replace(state, name=name) for state, name in self.kept.items())


@dataclass
class AggregateCall(Call):
    """A call of an aggregate: its arguments are compiled over the input rows, its result over the states."""

    states: States = field(default_factory=States)
    where: str | None = None
    ignore_nulls: bool | None = None
    """What IGNORE NULLS or RESPECT NULLS says."""
    distinct: bool = False
    within: Sequence[exp.Expr] | None = None
    """ORDER BY of WITHIN GROUP."""

    def keep(
        self, function: str, *arguments: Sql, where: str | None = None, constants: tuple[str, ...] = (), order: Sequence[Order] = ()
    ) -> str:
        """The finalized state of a function over the call's rows; with DISTINCT over each combination of `arguments` once,
        where none of them is NULL.
        """
        arguments = tuple(Sql(self._guarded(a.text), a.type) for a in arguments)
        order = [(self._guarded(text), way) for text, way in order]
        present = [f"{a.text} IS NOT NULL" for a in arguments] if self.distinct else []
        both = " AND ".join(f"({w})" for w in (self.where, where, *present) if w) or None
        if not self.distinct:
            return self.states.keep(function, arguments, both, constants, order)
        if self.states.distinct_as_lists:
            return self._keep_list(function, arguments, both)
        counts = function == "count"  # of combinations without a NULL
        return self.states.keep(function if not counts else "count_star", () if counts else arguments, both, constants, order, arguments)

    def _guarded(self, text: str) -> str:
        """FILTER comes first: what it leaves out is not computed, so it cannot fail."""
        return f"(CASE WHEN {self.where} THEN {text} END)" if self.where and not _SAFE.fullmatch(text) else text

    def _keep_list(self, function: str, arguments: Sequence[Sql], where: str | None) -> str:
        if len(arguments) > 1 and function != "count":
            raise RefusedError(f"{self.name}(DISTINCT …) of several columns is not possible with session windows; leave DISTINCT out")
        value = arguments[0].text if len(arguments) == 1 else f"{{{', '.join(f'x{i}: {a.text}' for i, a in enumerate(arguments))}}}"
        name = self.states.prepare(value, "a")
        kind = duck_type(arguments[0].type) if len(arguments) == 1 else _struct_type(arguments)
        state = StateColumn("", "list", (name,), (kind,), where and self.states.prepare(where, "f"), order=((name, "ASC NULLS LAST"),))
        values = f"list_sort(list_distinct({self.states.kept.setdefault(state, f's{len(self.states.kept)}')}))"
        return values if function == "list" else f"list_aggregate({values}, '{function}')"

    def arrival(self) -> Sql:
        """What puts the rows in order."""
        self.states.in_order = True
        return self.states.arrival

    def within_group(self) -> list[tuple[Sql, str]]:
        """Keys of WITHIN GROUP's ORDER BY and their ways."""
        ways = [
            f"{'DESC' if item.args.get('desc') else 'ASC'} NULLS {'FIRST' if item.args.get('nulls_first') else 'LAST'}"
            for item in self.within or ()
        ]
        return [(self.compiler.compile(item.this), way) for item, way in zip(self.within or (), ways, strict=True)]

    def refuse_modifiers(self, *, distinct: bool = False, within: bool = False, nulls: bool = False) -> None:
        """LocatedError for what stands around the call and the aggregate does not take; the flags say what it takes."""
        if self.within is not None and not within:
            raise LocatedError(f"{self.name}() takes no WITHIN GROUP; leave it out")
        if self.ignore_nulls is not None and not nulls:
            raise LocatedError(f"{self.name}() takes no IGNORE NULLS or RESPECT NULLS; filter with FILTER (WHERE x IS NOT NULL)")
        if self.distinct and not distinct:
            raise RefusedError(f"{self.name}(DISTINCT …) would depend on the order of equal rows; leave DISTINCT out")


def _struct_type(arguments: Sequence[Sql]) -> str:
    return f"STRUCT({', '.join(f'x{i} {duck_type(a.type)}' for i, a in enumerate(arguments))})"


Aggregator = Callable[[AggregateCall], Sql]


@dataclass(frozen=True)
class AggregateRule:
    """How an aggregate is built and what may stand around its call. `distinct`: `yes`; `same`: it makes no difference; `no`."""

    build: Aggregator
    distinct: str = "no"
    within: bool = False
    nulls: bool = False

    def __call__(self, call: AggregateCall) -> Sql:
        """The call's result over finalized states; LocatedError if it cannot be."""
        if any(isinstance(n, exp.Star) for n in call.nodes) and call.name != "count":
            raise LocatedError(f"{call.name}(*) is not possible; name a column")
        call.refuse_modifiers(distinct=self.distinct != "no", within=self.within, nulls=self.nulls)
        call.distinct = call.distinct and self.distinct == "yes"
        return self.build(call)
