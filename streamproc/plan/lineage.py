"""Which columns of a step hold a column of a source, row by row and unchanged.

A plan's SQL is read anew (it is DuckDB's, of few forms). What is not understood counts as changed, so an answer may say too
little, never too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import sqlglot
from sqlglot import exp

from streamproc.plan.plan import Aggregate, Apply, Dedup, Evaluate, Limit, Maintain, Operation, Project, Release, Scan, Step, Union

Origin = tuple[str, str]
"""A source and its column."""
Columns = Sequence[tuple[str, Origin | None]]
"""A step's columns in order, with what each holds unchanged (None: nothing that is known)."""
_Scope = list[tuple[str, Columns]]
"""What FROM reads: aliases and columns."""
_PLAIN: Mapping[type[exp.Expr], frozenset[str]] = {
    exp.Select: frozenset({"expressions", "from_", "joins", "where", "group", "having", "qualify", "order", "limit", "distinct", "kind"}),
    exp.Subquery: frozenset({"this", "alias"}),
    exp.Table: frozenset({"this", "alias"}),
    exp.Union: frozenset({"this", "expression", "distinct"}),
    exp.Join: frozenset({"this", "on", "side", "kind", "method"}),
}
"""Clauses that are understood."""


class _UnclearError(Exception):
    """SQL of another form."""


class Lineage:
    """Lineage in one plan. `tables`: its bounded tables."""

    def __init__(self, tables: Mapping[str, pa.Schema]) -> None:
        self._tables = {f"table:{name}": unknown(schema) for name, schema in tables.items()}
        self._known: dict[int, Columns] = {}

    def of(self, step: Step) -> Columns:
        """What the step yields."""
        if id(step) not in self._known:
            self._known[id(step)] = self._of(step)
        return self._known[id(step)]

    def keys(self, step: Operation) -> Mapping[str, Origin]:
        """The columns of an operator's state that are keys, in every row, and hold a source's column."""
        if isinstance(step, Maintain):
            return self._maintained_keys(step)
        if not isinstance(step, Aggregate | Dedup | Release | Apply):
            return {}
        everywhere = [name for name in step.keys if all(name in one for one in getattr(step, "sets", ()))]
        held = dict(self._prepared(step))
        return {name: origin for name in everywhere if (origin := held.get(name))}

    def _maintained_keys(self, step: Maintain) -> Mapping[str, Origin]:
        if len(step.inputs) > 1:
            return {}
        kept = self._prepared(step)
        nodes = [sqlglot.parse_one(text, dialect="duckdb").unnest() for text in step.keys[0]]
        found = {node.name: _origin(node, [("input", kept)]) for node in nodes if isinstance(node, exp.Column)}
        return {name: origin for name, origin in found.items() if origin}

    def _of(self, step: Step) -> Columns:
        match step:
            case Scan():
                return [(name, (step.source, name)) for name in step.schema.names]
            case Project():
                return self._through(step.sql, self.of(step.input))
            case Evaluate():
                held = dict(self.of(step.input)) | {call.result: None for call in step.calls}
                return [(name, held.get(name)) for name in step.schema.names]
            case Union():
                return _together([self.of(branch) for branch in step.branches], step.schema)
            case Limit():
                return self.of(step.input)
            case Aggregate() | Dedup() | Release() | Maintain():
                return self._result(step)
        return unknown(step.schema)

    def _result(self, step: Aggregate | Dedup | Release | Maintain) -> Columns:
        prepared = self._prepared(step)
        if isinstance(step, Dedup):
            held = dict(prepared)
            return [(name, held.get(name)) for name in step.schema.names]
        if isinstance(step, Aggregate):
            kept: Columns = [*self.keys(step).items(), *((name, None) for name in ("_ws", "_we", *(s.name for s in step.states)))]
            return self._through(step.post, kept)
        several = isinstance(step, Maintain) and len(step.inputs) > 1
        return unknown(step.schema) if several else self._through(step.post, self._through(step.sql, prepared))

    def _prepared(self, step: Aggregate | Dedup | Release | Apply | Maintain) -> Columns:
        """What an operator makes of its first input's rows, one by one."""
        sql = step.keep[0] if isinstance(step, Maintain) else step.keep if isinstance(step, Release) else step.prepare
        return self._through(sql, self.of(step.inputs[0]))

    def _through(self, sql: str, rows: Columns) -> Columns:
        """What a statement over `input` yields."""
        try:
            return _rows(sqlglot.parse_one(sql, dialect="duckdb"), {**self._tables, "input": rows})
        except (_UnclearError, sqlglot.ParseError):
            return ()

    def __repr__(self) -> str:
        return f"<Lineage of {len(self._known)} steps>"


def unknown(schema: pa.Schema) -> Columns:
    return [(name, None) for name in schema.names]


def _together(branches: Sequence[Columns], schema: pa.Schema) -> Columns:
    """Rows of all branches: a column holds what it holds in each."""
    held = [dict(branch) for branch in branches]
    return [(name, held[0].get(name) if len({one.get(name) for one in held}) == 1 else None) for name in schema.names]


def _rows(node: exp.Expr, tables: Mapping[str, Columns]) -> Columns:
    _check(node)
    if isinstance(node, exp.Subquery):
        return _rows(node.this, tables)
    if isinstance(node, exp.Table) and node.name in tables:
        return tables[node.name]
    if isinstance(node, exp.Union):
        pairs = zip(_rows(node.left, tables), _rows(node.right, tables), strict=True)
        return [(name, held if held == other else None) for (name, held), (_, other) in pairs]
    if isinstance(node, exp.Select):
        scope = _scope(node, tables)
        return [column for selected in node.expressions for column in _selected(selected, scope)]
    raise _UnclearError


def _check(node: exp.Expr) -> None:
    """_UnclearError: the node has a clause that is not understood."""
    if any(value and name not in _PLAIN.get(type(node), ()) for name, value in node.args.items()):
        raise _UnclearError


def _scope(node: exp.Select, tables: Mapping[str, Columns]) -> _Scope:
    first = node.args["from_"].this
    scope = [(first.alias_or_name, _rows(first, tables))]
    for join in node.args.get("joins") or ():
        _check(join)
        if join.kind in ("SEMI", "ANTI"):
            continue
        if join.side in ("RIGHT", "FULL"):  # rows without a match are NULL there
            scope = [(alias, _lost(columns)) for alias, columns in scope]
        columns = _rows(join.this, tables)
        scope.append((join.this.alias_or_name, _lost(columns) if join.side in ("LEFT", "FULL") else columns))
    return scope


def _lost(columns: Columns) -> Columns:
    return [(name, None) for name, _ in columns]


def _selected(node: exp.Expr, scope: _Scope) -> Columns:
    """The columns of one item of SELECT."""
    star = node if isinstance(node, exp.Star) else node.this if isinstance(node, exp.Column) else None
    if not isinstance(star, exp.Star):
        return [(node.alias_or_name, _origin(node.unalias().unnest(), scope))]
    if any(value and name not in ("except_", "replace") for name, value in star.args.items()):
        raise _UnclearError
    gone = {column.name.lower() for column in star.args.get("except_") or ()}
    anew = {one.alias.lower(): _origin(one.unalias().unnest(), scope) for one in star.args.get("replace") or ()}
    meant = [columns for alias, columns in scope if node is star or alias.lower() == node.text("table").lower()]
    kept = [(name, held) for columns in meant for name, held in columns if name.lower() not in gone]
    return [(name, anew.get(name.lower(), held)) for name, held in kept]


def _origin(node: exp.Expr, scope: _Scope) -> Origin | None:
    """What an expression holds: something only where it is a column alone."""
    if not isinstance(node, exp.Column) or len(node.parts) > 2:
        return None
    table, name = node.table.lower(), node.name.lower()
    inside = [columns for alias, columns in scope if not table or alias.lower() == table]
    hits = [held for columns in inside for own, held in columns if own.lower() == name]
    return hits[0] if len(hits) == 1 else None
