"""A call of a scalar function, and the ways most of them are written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import Sql, spark_type

if TYPE_CHECKING:
    from streamproc.plan.expressions import Compiler


@dataclass
class Call:
    """`name(nodes…)`; arguments are compiled when they are asked for."""

    compiler: Compiler
    name: str
    nodes: Sequence[exp.Expr]
    _values: dict[int, Sql] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int) -> Sql:
        if index not in self._values:
            self._values[index] = self.compiler.compile(self.nodes[index])
        return self._values[index]

    @property
    def values(self) -> list[Sql]:
        return [self[i] for i in range(len(self))]

    def text(self, index: int, kind: pa.DataType) -> str:
        """SQL of an argument as `kind`."""
        return convert(self[index], kind).text

    def constant(self, index: int, kind: type, what: str) -> object:
        """The value of an argument that must be written as a literal."""
        value = self[index].literal
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise LocatedError(f"{self.name}(): {what} must be written as a literal")
        return value

    def integer(self, index: int, what: str) -> int:
        value = self.constant(index, int, what)
        assert isinstance(value, int)
        return value

    def string(self, index: int, what: str) -> str:
        return str(self.constant(index, str, what))

    def unit(self, index: int) -> str:
        """A unit of time: a bare word (`HOUR`) or a string."""
        node = self.nodes[index]
        return (node.name if isinstance(node, exp.Column | exp.Var) else self.string(index, "the unit")).upper()

    def expect(self, least: int, most: int | None = None) -> None:
        most = least if most is None else most
        if not least <= len(self) <= most:
            count = str(least) if least == most else f"{least} to {most}"
            raise LocatedError(f"{self.name}() takes {count} argument{'s' * (count != '1')}, not {len(self)}")

    def misfit(self, index: int = 0) -> LocatedError:
        return LocatedError(f"{self.name}() cannot take {spark_type(self[index].type)}")


Builder = Callable[[Call], Sql]


def plain(template: str, result: pa.DataType, *params: pa.DataType) -> Builder:
    """A function whose arguments have one type each: `template` with `{0}`, `{1}`, … in it."""

    def build(call: Call) -> Sql:
        call.expect(len(params))
        return Sql(template.format(*(call.text(i, kind) for i, kind in enumerate(params))), result)

    return build


def either(*builders: Builder) -> Builder:
    """Builders by the number of arguments: the first for one, the second for two, …"""

    def build(call: Call) -> Sql:
        call.expect(1, len(builders))
        return builders[len(call) - 1](call)

    return build
