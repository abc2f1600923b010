"""Calls of the job's own Python functions: taken out of a SELECT, run as a step of their own, and read back as columns.

As in Spark, a call sees every row that reaches it: conditions of WHERE without calls are applied before, but CASE, IF, AND and OR
around a call do not keep rows from it. Equal calls of one SELECT are one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.names import output_name
from streamproc.plan.plan import Evaluate, FunctionCall, Project
from streamproc.plan.relation import ORIGIN, Column, Relation, RelationScope, hidden_columns, hidden_name
from streamproc.plan.select import Draft, has_aggregate, stored
from streamproc.plan.types import STRING, Sql, quote


@dataclass(frozen=True)
class FunctionInfo:
    """A Python function of the job. Not `deterministic`: its results are kept with the epoch."""

    returns: pa.DataType
    deterministic: bool = False


NO_FUNCTIONS: Mapping[str, FunctionInfo] = {}


def evaluate_laterals(draft: Draft) -> None:
    """Calls in LATERAL VIEW, before it makes rows; those in ON of a join are refused."""
    if not _calls(draft, [draft.node]):
        return
    draft.node = draft.node.copy()
    for join in draft.node.args.get("joins") or ():
        for call in _calls(draft, [join]):
            raise LocatedError(f"{call.name}() cannot stand in a join's condition; select it in a view and join that", call)
    _evaluate(draft, lambda key: key == "laterals", "")


def evaluate_conditions(draft: Draft) -> None:
    """Calls in WHERE, over the rows that its other conditions let through."""
    where = draft.node.args.get("where")
    if where is None or not _calls(draft, [where]):
        return
    conditions = list(where.this.flatten()) if isinstance(where.this, exp.And) else [where.this]
    plain = [c for c in conditions if not _calls(draft, [c])]
    called = [c for c in conditions if _calls(draft, [c])]
    text = ""
    if plain:
        text = f" WHERE {Compiler(draft.scope).boolean(exp.and_(*plain, copy=False)).text}"
    where.set("this", exp.and_(*called, copy=False))
    _evaluate(draft, lambda key: key == "where", text)


def evaluate_results(draft: Draft) -> None:
    """The other calls, over the rows that WHERE lets through."""
    if _calls(draft, _clauses(draft.node, _is_result)):
        _evaluate(draft, _is_result, draft.condition)
        draft.where = None


def _is_result(clause: str) -> bool:
    return clause not in ("where", "from_", "joins", "laterals", "with_")


def _clauses(node: exp.Expr, chosen: Callable[[str], bool]) -> list[exp.Expr]:
    found = [value if isinstance(value, list) else [value] for key, value in node.args.items() if chosen(key)]
    return [part for parts in found for part in parts if isinstance(part, exp.Expr)]


def _calls(draft: Draft, parts: Sequence[exp.Expr]) -> list[exp.Anonymous]:
    """Calls of Python functions in these parts of the query, not those in subqueries."""
    known = {name.lower() for name in draft.env.functions}
    stop = (exp.Subquery, exp.With)
    nodes = (node for part in parts for node in part.walk(prune=lambda inner: isinstance(inner, stop)))
    return [node for node in nodes if isinstance(node, exp.Anonymous) and node.name.lower() in known]


def _evaluate(draft: Draft, chosen: Callable[[str], bool], condition: str) -> None:
    """Run the calls in the chosen clauses over the rows of FROM that meet the condition; calls within arguments of others first."""
    while every := _calls(draft, _clauses(draft.node, chosen)):
        calls = [call for call in every if not _calls(draft, call.expressions)]
        found: dict[str, tuple[FunctionCall, list[Sql]]] = {}
        scope = draft.scope
        for call in calls:
            name = _free_name(output_name(call), draft.rows)
            if name not in found:
                found[name] = _read(draft, Compiler(scope), call, name)
            call.replace(exp.column(name, quoted=True))
        draft.source = _evaluated(draft, list(found.values()), condition)
        condition = ""


def _free_name(name: str, relation: Relation) -> str:
    taken = {(c.ref or c.name).lower() for c in relation.everything} | {c.name.lower() for c in relation.everything}
    while name.lower() in taken:
        name += "'"
    return name


def _read(draft: Draft, compiler: Compiler, call: exp.Anonymous, name: str) -> tuple[FunctionCall, list[Sql]]:
    function, info = next((own, info) for own, info in draft.env.functions.items() if own.lower() == call.name.lower())
    if not call.expressions:
        raise LocatedError(f"{function}() needs an argument: it is called with one array for each", call)
    if any(has_aggregate(argument) for argument in call.expressions):
        raise LocatedError(f"{function}() is called on rows, not on aggregates: aggregate in a view, and call it over that", call)
    if call.find_ancestor(exp.Lambda):
        raise LocatedError(f"{function}() cannot stand in a lambda; explode() the array and call it on its elements", call)
    if draft.rows.computed and not info.deterministic:
        raise RefusedError(
            f"{function}() is not deterministic and cannot be called over rows that were aggregated or joined: call it in a view below,"
            " or write deterministic: true if equal arguments always give equal results"
        )
    values = [stored(compiler.compile(argument)) for argument in call.expressions]
    arguments = tuple(f"{name} #{i}" for i in range(len(values)))
    return FunctionCall(function, arguments, name, info.returns, info.deterministic), values


def _evaluated(draft: Draft, calls: Sequence[tuple[FunctionCall, list[Sql]]], condition: str) -> Relation:
    """FROM with the calls' results as extra columns, which `*` leaves out. Only columns that the query names go along."""
    rows, hidden = draft.rows, ORIGIN if draft.rows.origin else ()
    draft.env.read_origin(rows.sources, hidden)
    kept = _named(draft)
    for column in kept:
        rows.mark(column.ref or column.name)
    carried = [pa.field(c.ref or c.name, c.type) for c in kept] + [pa.field(f"#{name}", STRING) for name in hidden]
    given = [(name, value) for call, values in calls for name, value in zip(call.args, values, strict=True)]
    listed = [c.sql for c in kept] + [hidden_name(name) for name in hidden] + [f"{value.text} AS {quote(name)}" for name, value in given]
    sql = f"SELECT {', '.join(listed)} FROM {rows.body(hidden)}{condition}"
    arguments = Project(rows.step, sql, pa.schema([*carried, *(pa.field(name, value.type) for name, value in given)]))
    results = [pa.field(call.result, call.type) for call, _ in calls]
    step = Evaluate(arguments, tuple(call for call, _ in calls), pa.schema([*carried, *results]))
    columns = tuple(c for c in rows.columns if c in kept)
    extras = (*(c for c in rows.extras if c in kept), *(Column(field.name, field.type) for field in results))
    names = ", ".join(quote(field.name) for field in step.schema if field.name not in {f"#{name}" for name in hidden})
    return replace(
        rows, columns=columns, extras=extras, step=step, mark=lambda _: None,
        body=lambda asked: f"(SELECT {names}{hidden_columns(asked)} FROM input)",
    )  # fmt: skip


def _named(draft: Draft) -> list[Column]:
    """Columns of FROM that the query names anywhere, its event time, and all that `*` stands for."""
    stop = (exp.Subquery, exp.With)
    nodes = list(draft.node.walk(prune=lambda inner: isinstance(inner, stop)))
    found = {c for c in draft.rows.everything if c.time is not None}
    if any(isinstance(node, exp.Star) and not isinstance(node.parent, exp.Anonymous) for node in nodes):
        found.update(draft.rows.columns)
    for node in nodes:
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            found.update(_meant(draft.scope, node))
    return [c for c in draft.rows.everything if c in found]


def _meant(scope: RelationScope, node: exp.Column) -> list[Column]:
    """None for what is an alias, a variable, or an error that is told later."""
    try:
        return [scope.find([part.name for part in node.parts])[0]]
    except LocatedError:
        return []
