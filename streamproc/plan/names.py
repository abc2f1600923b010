"""Names of result columns without an alias, as Spark prints expressions."""

from __future__ import annotations

from sqlglot import exp

_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.IntDiv: "div", exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<",
    exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.And: "AND", exp.Or: "OR",
}  # fmt: skip


def output_name(node: exp.Expr) -> str:
    """The alias, or what Spark would call the column."""
    if isinstance(node, exp.Alias):
        return str(node.alias)
    if isinstance(node, exp.Anonymous) and node.name.lower() in ("window", "session_window"):
        return node.name.lower()
    if isinstance(node, exp.Dot):
        return str(node.expression.name)
    return str(node.name) if isinstance(node, exp.Column) else printed(node)


def printed(node: exp.Expr) -> str:
    if isinstance(node, exp.Column):
        return ".".join(p.name for p in node.parts)
    if isinstance(node, exp.Star):
        return "1"  # count(*) is printed count(1)
    if isinstance(node, exp.Literal):
        return node.name
    if isinstance(node, exp.Paren):
        return printed(node.this)
    if isinstance(node, exp.Anonymous):
        return f"{node.name.lower()}({', '.join(map(printed, node.expressions))})"
    if type(node) in _SYMBOLS:
        return f"({printed(node.this)} {_SYMBOLS[type(node)]} {printed(node.expression)})"
    if isinstance(node, exp.Filter):
        return f"{printed(node.this)} FILTER (WHERE {printed(node.expression.this)})"
    return node.sql("spark")
