"""An alias of SELECT in the items after it: `SELECT a + 1 AS b, b * 2 AS c`. FROM's columns come first, as in Spark."""

from __future__ import annotations

from sqlglot import exp

from streamproc.plan.faults import LocatedError, line_of
from streamproc.plan.select import Draft


def resolve_aliases(draft: Draft) -> None:
    """Every name that is an alias of an earlier item, and no column of FROM, is replaced by what it stands for."""
    aliases: dict[str, exp.Expr] = {}
    if not any(isinstance(e, exp.Alias) for e in draft.node.expressions):
        return
    items = [e.copy() for e in draft.node.expressions]
    for i, item in enumerate(items):
        if isinstance(item, exp.Alias) or not isinstance(item, exp.Column):
            items[i] = item = _replaced(draft, item, aliases)
        elif _meant(draft, item, aliases) is not None:
            items[i] = item = exp.alias_(_replaced(draft, item, aliases), item.name, quoted=True)
        if isinstance(item, exp.Alias):
            aliases[item.alias.lower()] = item.this
    draft.node = draft.node.copy()
    draft.node.set("expressions", items)


def _replaced(draft: Draft, item: exp.Expr, aliases: dict[str, exp.Expr]) -> exp.Expr:
    own = list(item.walk(prune=lambda n: isinstance(n, exp.Query)))
    for node in own:
        value = _meant(draft, node, aliases)
        if value is None:
            continue
        made = _fielded(value.copy(), [part.name for part in node.parts[1:]] if isinstance(node, exp.Column) else [])
        for part in made.walk():
            part.meta["line"] = line_of(node) + 1  # a fault is where the alias is used
        if node is item:
            return made
        node.replace(made)
    return item


def _meant(draft: Draft, node: exp.Expr, aliases: dict[str, exp.Expr]) -> exp.Expr | None:
    if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star):
        return None
    found = aliases.get(node.parts[0].name.lower())
    return None if found is None or _is_known(draft, [part.name for part in node.parts]) else found


def _is_known(draft: Draft, parts: list[str]) -> bool:
    if draft.scope.has(parts[0]):
        return True
    try:
        draft.scope.find(parts)
    except LocatedError:
        return False
    return True


def _fielded(value: exp.Expr, fields: list[str]) -> exp.Expr:
    made: exp.Expr = value if isinstance(value, exp.Column | exp.Anonymous | exp.Literal) else exp.Paren(this=value)
    for name in fields:
        made = exp.Dot(this=made, expression=exp.to_identifier(name))
    return made
