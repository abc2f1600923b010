"""Window functions over groups, `rank() OVER (PARTITION BY window ORDER BY count(*) DESC)` beside GROUP BY: the groups become a
subquery, and the window functions read its rows.
"""

from __future__ import annotations

from sqlglot import exp

from streamproc.plan.aggregates import is_aggregate_call
from streamproc.plan.faults import LocatedError
from streamproc.plan.names import output_name
from streamproc.plan.select import Draft, has_over, is_aggregate, is_windowed
from streamproc.plan.time_window import is_window

_OF_GROUPS = ("from_", "joins", "laterals", "where", "group", "having")


def group_before_over(draft: Draft) -> None:
    """A SELECT with both is read as one over a subquery with GROUP BY."""
    if not has_over(draft.node) or not is_aggregate(draft.node):
        return
    outer = draft.node.copy()
    if any(isinstance(e.this if isinstance(e, exp.Column) else e, exp.Star) for e in outer.expressions):
        raise LocatedError("* cannot stand beside GROUP BY; name the grouped columns and the aggregates", draft.node)
    inner = exp.Select(**{key: outer.args.pop(key) for key in _OF_GROUPS if outer.args.get(key)})
    aliases = {e.alias.lower(): e.this for e in outer.expressions if isinstance(e, exp.Alias) and not draft.scope.has(e.alias)}
    keys = _keys(inner, outer, aliases)
    named = [e if isinstance(e, exp.Alias) else exp.alias_(e, output_name(e), quoted=True) for e in outer.expressions]
    outer.set("expressions", named)
    moved: dict[exp.Expr, str] = {}
    for clause in (*outer.expressions, *(outer.args.get("windows") or ()), outer.args.get("qualify")):
        if clause is not None:
            _move(clause, keys, frozenset() if isinstance(clause, exp.Alias) else frozenset(aliases), moved)
    inner.set("expressions", [exp.alias_(node.copy(), name) for node, name in moved.items()])
    outer.set("from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier("groups")))))
    draft.node, draft.scopes = outer, []
    draft.source = draft.env.relation(outer.args["from_"].this)


def _keys(inner: exp.Select, outer: exp.Select, aliases: dict[str, exp.Expr]) -> set[exp.Expr]:
    """What is grouped by. Ordinals and aliases stand for what SELECT has there."""
    group = inner.args.get("group")
    for node in group.expressions if group else ():
        if isinstance(node, exp.Literal) and not node.is_string and 1 <= int(node.name) <= len(outer.expressions):
            node.replace(outer.expressions[int(node.name) - 1].unalias().copy())
        elif isinstance(node, exp.Column) and len(node.parts) == 1 and node.name.lower() in aliases:
            node.replace(aliases[node.name.lower()].copy())
    if group and group.args.get("all"):
        group.set("all", None)
        group.set("expressions", [e.unalias().copy() for e in outer.expressions if not e.find(exp.Window) and not _has_call(e)])
    return set(group.expressions) if group else set()


def _has_call(node: exp.Expr) -> bool:
    return any(is_aggregate_call(n) for n in node.walk())


def _move(node: exp.Expr, keys: set[exp.Expr], aliases: frozenset[str], moved: dict[exp.Expr, str]) -> None:
    """The parts of `node` that are of groups become columns of the subquery; `aliases` are no columns."""
    of_groups = isinstance(node, exp.Column) or node in keys or is_window(node) or (is_aggregate_call(node) and not is_windowed(node))
    if of_groups and node.name.lower() not in aliases:
        node.replace(exp.column(moved.setdefault(node.copy(), f"g{len(moved)}")))
        return
    for child in list(node.iter_expressions()):
        _move(child, keys, aliases, moved)
