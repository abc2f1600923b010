"""GROUPING SETS, ROLLUP and CUBE: sets of the grouped expressions; a row goes to one group of each set.

The number of the set is one more key, so that NULL in the data is another group than a key left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.faults import LocatedError
from streamproc.plan.types import BIGINT, Sql

SET = "_g"
"""The key that holds the number of a group's set."""
_SETS_MAX = 4096


def written_sets(clause: exp.Expr) -> list[list[exp.Expr]]:
    """The sets of a GROUP BY clause, each its expressions as written; none where the clause is plain.

    `a, ROLLUP (b)` is every combination of the items' sets; in `a, b WITH ROLLUP` and `a, b GROUPING SETS (…)` what comes
    before has no sets of its own. LocatedError: too many.
    """
    before = [_elements(node) for node in clause.expressions]
    if clause.args.get("rollup"):
        return _rollup(before)
    if clause.args.get("cube"):
        return _cube(before)
    if clause.args.get("grouping_sets"):
        return [one for node in clause.args["grouping_sets"] for one in _sets(node)]
    if not any(isinstance(node, exp.Rollup | exp.Cube | exp.GroupingSets | exp.Tuple) for node in clause.expressions):
        return []
    combined = [[node for part in parts for node in part] for parts in product(*map(_sets, clause.expressions))]
    if len(combined) > _SETS_MAX:
        raise LocatedError(f"GROUP BY has {len(combined)} grouping sets, more than {_SETS_MAX}; write fewer", clause)
    return combined


def _sets(node: exp.Expr) -> list[list[exp.Expr]]:
    if isinstance(node, exp.Rollup):
        return _rollup([_elements(e) for e in node.expressions])
    if isinstance(node, exp.Cube):
        return _cube([_elements(e) for e in node.expressions])
    if isinstance(node, exp.GroupingSets):
        return [one for e in node.expressions for one in _sets(e)]
    return [_elements(node)]


def _elements(node: exp.Expr) -> list[exp.Expr]:
    """What is kept or left out together: `(a, b)` is one."""
    return list(node.expressions) if isinstance(node, exp.Tuple) else [node.this if isinstance(node, exp.Paren) else node]


def _rollup(items: Sequence[list[exp.Expr]]) -> list[list[exp.Expr]]:
    return [_joined(items[:size]) for size in range(len(items), -1, -1)]


def _cube(items: Sequence[list[exp.Expr]]) -> list[list[exp.Expr]]:
    if 2 ** len(items) > _SETS_MAX:
        raise LocatedError(f"CUBE of {len(items)} has more than {_SETS_MAX} grouping sets; write fewer")
    return [_joined(chosen) for size in range(len(items), -1, -1) for chosen in combinations(items, size)]


def _joined(items: Sequence[list[exp.Expr]]) -> list[exp.Expr]:
    return [node for item in items for node in item]


def is_grouping(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in ("grouping", "grouping_id")


def grouping_value(node: exp.Expr, asked: Sequence[str], items: Sequence[str], sets: Sequence[frozenset[str]]) -> Sql:
    """`grouping(a)` and `grouping_id([all grouped expressions])`: a bit for each, 1 where it is left out, the last the lowest.

    `asked`: names of the arguments; `items`: of everything grouped, in order. LocatedError: Spark does not take it.
    """
    name = node.name.lower()
    if not sets:
        raise LocatedError(f"{name}() needs GROUPING SETS, ROLLUP or CUBE in GROUP BY")
    if name == "grouping" and len(asked) != 1:
        raise LocatedError(f"grouping() takes 1 argument, not {len(asked)}")
    if name == "grouping_id" and asked and list(asked) != list(items):
        raise LocatedError("grouping_id() takes nothing, or all grouped expressions in their order")
    bits = asked or items
    numbers = [sum((item not in kept) << i for i, item in enumerate(reversed(bits))) for kept in sets]
    kind, sql = (pa.int8(), "TINYINT") if name == "grouping" else (BIGINT, "BIGINT")
    return Sql(f"CAST([{', '.join(map(str, numbers))}][{SET} + 1] AS {sql})", kind)
