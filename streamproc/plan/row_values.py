"""What of a SELECT with window functions is computed row by row, where a row can fail alone: before the windows, and after them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.expressions import Compiler
from streamproc.plan.plan import Scan
from streamproc.plan.relation import Relation, RelationScope
from streamproc.plan.select import Output, projected
from streamproc.plan.types import NULL, Sql, holds_interval

_NAME, _COLUMN, _PLAIN = re.compile(r"\w+"), re.compile(r"\bc\d+\b"), re.compile(r"c\d+|struct_extract\(c\d+, '\w+'\)")


class RowCompiler(Compiler):
    """Compiles what windows are computed of. What is more than a column is computed when the row comes, and fails there."""

    def __init__(self, scope: RelationScope) -> None:
        super().__init__(scope)
        self.computed: dict[str, Sql] = {}
        """SQL over a row's columns → its own column."""
        self._inside = False

    def compile(self, node: exp.Expr) -> Sql:
        if self._inside:
            return super().compile(node)
        self._inside = True
        try:
            value = super().compile(node)
        finally:
            self._inside = False
        if _COLUMN.search(value.text) is None or _PLAIN.fullmatch(value.text) or holds_interval(value.type) or value.type == NULL:
            return value
        return self.computed.setdefault(value.text, Sql(f"e{len(self.computed)}", value.type))

    def known(self, value: Sql) -> Sql:
        """The same value, as a column where it is one."""
        return self.computed.get(value.text, value)


def in_two(rows: str, outputs: Sequence[Output], conditions: Sequence[str]) -> tuple[str, str]:
    """SELECT over `rows` with the windows' results: what needs them all, then what is computed of a row and may fail for it alone."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    nothing = Scan("", pa.schema([]))
    if all(_NAME.fullmatch(o.value.text) for o in outputs):
        return projected(Relation((), nothing, lambda _: rows), outputs, where, nothing).body(())[1:-1], "SELECT * FROM input"
    return f"SELECT * FROM {rows}{where}", projected(Relation((), nothing, lambda _: "input"), outputs, "", nothing).body(())[1:-1]
