"""Functions that make rows: explode, posexplode, inline and stack, in SELECT or in LATERAL VIEW.

A generator is SQL of an array, unnested in a SELECT of its own; its columns are the elements, or the fields of their structs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.arithmetic import unify
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Call
from streamproc.plan.functions.maps import entry_type
from streamproc.plan.relation import Column, Relation
from streamproc.plan.types import INT, NULL, Sql, quote, text_literal


@dataclass(frozen=True)
class Generated:
    """`array` is unnested; `columns` are names and types. `plain`: the one column is the element itself."""

    array: str
    columns: tuple[tuple[str, pa.DataType], ...]
    plain: bool = False

    def named(self, names: Sequence[str], node: exp.Expr) -> Generated:
        """Its columns under the names that the query gives them."""
        if names and len(names) != len(self.columns):
            made = ", ".join(name for name, _ in self.columns)
            raise LocatedError(f"{len(names)} names are given to {len(self.columns)} columns: {made}", node)
        return replace(self, columns=tuple((n, kind) for n, (_, kind) in zip(names, self.columns, strict=True))) if names else self

    def values(self, row: str) -> list[Sql]:
        """The columns of the element in column `row`."""
        if self.plain:
            return [Sql(row, self.columns[0][1])]
        return [Sql(f"struct_extract_at({row}, {i + 1})", kind) for i, (_, kind) in enumerate(self.columns)]


def is_generator(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower().removesuffix("_outer") in _GENERATORS


def generated(compiler: Compiler, node: exp.Expr, *, outer: bool = False) -> Generated:
    """The rows of a generator; where `outer`, or by its name, a row of NULLs for no row."""
    if not is_generator(node):
        raise LocatedError(f"only {', '.join(_GENERATORS)} (and …_outer) make rows", node)
    name = node.name.lower()
    made = _GENERATORS[name.removesuffix("_outer")](Call(compiler, name, node.expressions))
    if outer or name.endswith("_outer"):
        return replace(made, array=f"CASE WHEN len({made.array}) > 0 THEN {made.array} ELSE [NULL] END")
    return made


def with_rows(relation: Relation, made: Generated, row: str, condition: str = "") -> Relation:
    """The relation's rows for which `condition` holds, each once for every element, which is in column `row`."""

    def body(hidden: Sequence[str]) -> str:
        return f"(SELECT *, unnest({made.array}) AS {quote(row)} FROM {relation.body(hidden)}{condition})"

    return replace(relation, body=body, key=None)


def with_columns(relation: Relation, made: Generated, table: str, row: str) -> Relation:
    """LATERAL VIEW: the relation with the generator's columns, found under `table` too."""
    for name, _ in made.columns:
        if any(name.lower() == c.name.lower() for c in relation.everything):
            raise LocatedError(f"there is a column {name!r} already; give the LATERAL VIEW's another name after AS")
    columns = (*relation.columns, *(Column(name, kind, table=table) for name, kind in made.columns))
    if made.plain:
        return replace(with_rows(relation, made, made.columns[0][0]), columns=columns)
    values = zip(made.columns, made.values(quote(row)), strict=True)
    listed = "".join(f", {value.text} AS {quote(name)}" for (name, _), value in values)
    rows = with_rows(relation, made, row)
    return replace(rows, columns=columns, body=lambda hidden: f"(SELECT *{listed} FROM {rows.body(hidden)})")


def _explode(call: Call) -> Generated:
    call.expect(1)
    kind, text = call[0].type, call[0].text
    if pa.types.is_map(kind):
        return Generated(f"map_entries({text})", tuple((f.name, f.type) for f in entry_type(kind)))
    if not pa.types.is_list(kind) or kind.value_type == NULL:
        raise call.misfit()
    return Generated(text, (("col", kind.value_type),), plain=True)


def _posexplode(call: Call) -> Generated:
    """With the place, from 0."""
    inner = _explode(call)
    parts = inner.values("_e")
    fields = "".join(f", {text_literal(name)}: {value.text}" for (name, _), value in zip(inner.columns, parts, strict=True))
    array = f"list_transform({inner.array}, lambda _e, _i: {{'pos': CAST(_i - 1 AS INTEGER){fields}}})"
    return Generated(array, (("pos", INT), *inner.columns))


def _inline(call: Call) -> Generated:
    """Structs of an array, a column for each field."""
    call.expect(1)
    kind = call[0].type
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        raise call.misfit()
    return Generated(call[0].text, tuple((f.name, f.type) for f in kind.value_type))


def _stack(call: Call) -> Generated:
    """stack(n, values…): n rows of them, one after the other."""
    call.expect(2, 10_000)
    rows = call.integer(0, "the number of rows")
    if rows < 1:
        raise LocatedError("stack() makes at least one row")
    width = -(-(len(call) - 1) // rows)
    values = call.values[1:] + [Sql("NULL", NULL)] * (rows * width - len(call) + 1)
    columns = [unify(values[i::width]) for i in range(width)]
    structs = (", ".join(f"'col{i}': {column[row].text}" for i, column in enumerate(columns)) for row in range(rows))
    array = ", ".join(f"{{{struct}}}" for struct in structs)
    return Generated(f"[{array}]", tuple((f"col{i}", column[0].type) for i, column in enumerate(columns)))


_GENERATORS: Mapping[str, Callable[[Call], Generated]] = {
    "explode": _explode, "posexplode": _posexplode, "inline": _inline, "stack": _stack,
}  # fmt: skip
