"""JOIN: FROM's relation with another one, one after the other."""

from __future__ import annotations

from sqlglot import exp

from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.joining import Joining
from streamproc.plan.plan import JoinKind, Table
from streamproc.plan.select import Draft
from streamproc.plan.stream_joins import join_streams
from streamproc.plan.table_joins import join_table

_KINDS: dict[tuple[str, str], JoinKind] = {
    ("", ""): "inner", ("", "INNER"): "inner", ("", "CROSS"): "inner", ("", "SEMI"): "semi", ("", "ANTI"): "anti",
    ("LEFT", ""): "left", ("LEFT", "OUTER"): "left", ("RIGHT", ""): "right", ("RIGHT", "OUTER"): "right",
    ("FULL", ""): "full", ("FULL", "OUTER"): "full", ("LEFT", "SEMI"): "semi", ("LEFT", "ANTI"): "anti",
}  # fmt: skip


def join_rows(draft: Draft) -> None:
    """Every JOIN of the SELECT, left to right."""
    for node in draft.node.args.get("joins") or ():
        if not isinstance(node.this, exp.Table | exp.Subquery):
            raise RefusedError("JOIN takes a source, a view, a table or a subquery; for elements of arrays write LATERAL VIEW explode(…)")
        if node.this.args.get("joins"):
            raise RefusedError("write one join after the other, each with its ON: a JOIN b ON … JOIN c ON …")
        joining = Joining(draft, draft.rows, draft.env.relation(node.this), _kind(node), node)
        tables = any(isinstance(side.step, Table) for side in joining.sides)
        if node.this.args.get("version") and not tables:
            raise RefusedError(
                "FOR SYSTEM_TIME AS OF needs a table with `versioned: {key: …, time: …}`; of a stream write a bound of times"
            )
        draft.source = join_table(joining) if tables else join_streams(joining)


def _kind(node: exp.Join) -> JoinKind:
    found = _KINDS.get((node.side.upper(), node.kind.upper()))
    if found is None or node.method.upper() not in ("", "NATURAL"):
        raise LocatedError(f"{' '.join(w for w in (node.method, node.side, node.kind) if w)} JOIN is not supported", node)
    return found
