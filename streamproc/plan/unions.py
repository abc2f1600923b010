"""UNION ALL of stateless branches over one source."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.relation import Column, Relation, hidden_columns
from streamproc.plan.types import Sql, quote, widest_type


def union_all(node: exp.Expr, left: Relation, right: Relation) -> Relation:
    """Rows of both, columns by position under the left names; RefusedError for what needs state or two sources."""
    if not isinstance(node, exp.Union):
        raise RefusedError(f"{node.key.upper()} is not supported; filter with WHERE, or compare where the tables are read")
    if node.args.get("distinct"):
        raise RefusedError("UNION without ALL removes duplicates, which is not supported yet; write UNION ALL")
    if left.tail or right.tail or node.args.get("order") or node.args.get("limit"):
        raise RefusedError("ORDER BY and LIMIT cannot stand in a UNION ALL")
    if left.aggregated or right.aggregated:
        raise RefusedError("UNION ALL of aggregates is not supported yet; write a sink for each")
    if left.sources != right.sources:
        raise RefusedError("UNION ALL of different sources is not supported yet; write a sink for each")
    if len(left.columns) != len(right.columns):
        raise LocatedError(f"UNION ALL: {len(left.columns)} columns against {len(right.columns)}", node)
    columns = tuple(_widest(a, b, node) for a, b in zip(left.columns, right.columns, strict=True))

    def body(hidden: Sequence[str]) -> str:
        return f"({_branch(left, columns, hidden)} UNION ALL {_branch(right, columns, hidden)})"

    return Relation(columns, left.step, body, sources=left.sources, has_watermark=left.has_watermark)


def _widest(left: Column, right: Column, node: exp.Expr) -> Column:
    kind = widest_type(Sql("", left.type), Sql("", right.type))
    if kind is None:
        raise LocatedError(f"UNION ALL: column {left.name!r} has two types; CAST one", node)
    return Column(left.name, kind, left.event and right.event)


def _branch(relation: Relation, columns: Sequence[Column], hidden: Sequence[str]) -> str:
    pairs = zip(relation.columns, columns, strict=True)
    listed = ", ".join(f"{convert(Sql(quote(own.name), own.type), c.type).text} AS {quote(c.name)}" for own, c in pairs)
    return f"SELECT {listed}{hidden_columns(hidden)} FROM {relation.body(hidden)}"
