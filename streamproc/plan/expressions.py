"""Expressions: a sqlglot node of our dialect → typed DuckDB SQL with Spark's meaning.

`Compiler.compile` looks the node's class up in `OPERATORS`; functions are looked up by name in `functions.FUNCTIONS`.
What is in neither is refused, so nothing that DuckDB can do and Spark cannot (files, settings, network) is reachable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from streamproc.batch import TIMESTAMP
from streamproc.plan import arithmetic, intervals
from streamproc.plan.casts import cast, convert, try_cast
from streamproc.plan.faults import LocatedError, RefusedError, line_of
from streamproc.plan.functions import call
from streamproc.plan.functions.times import NOW
from streamproc.plan.types import (
    BIGINT,
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    NULL,
    STRING,
    Sql,
    is_orderable,
    spark_type,
    text_literal,
)
from streamproc.schema import arrow_type


class Scope(Protocol):
    """Where names come from."""

    def column(self, parts: Sequence[str]) -> tuple[Sql, Sequence[str]]:
        """The column that the first of `parts` name, and the parts left over (struct fields); LocatedError if none."""
        ...


class Compiler:
    """Compiles expressions in one scope. Subclasses take nodes over in `special` (aggregates, keys)."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.variables: dict[str, Sql] = {}

    def compile(self, node: exp.Expr) -> Sql:
        """Typed SQL of `node`; LocatedError or RefusedError with the line otherwise."""
        try:
            return self.special(node) or self._compile(node)
        except LocatedError as error:
            if error.line is None:
                error.line = line_of(node)
            raise

    def special(self, node: exp.Expr) -> Sql | None:
        return None

    def _compile(self, node: exp.Expr) -> Sql:
        operator = OPERATORS.get(type(node))
        if operator is None:
            raise LocatedError(f"{node.key.upper()} is not supported: {node.sql('spark')[:80]}")
        return operator(self, node)

    def boolean(self, node: exp.Expr) -> Sql:
        return convert(self.compile(node), BOOLEAN)

    def condition(self, node: exp.Expr) -> Sql:
        """A test of WHERE, CASE or if(), where Spark takes no text for a BOOLEAN."""
        value = self.compile(node)
        if value.type not in (BOOLEAN, NULL):
            raise LocatedError(f"a condition is a BOOLEAN, not {spark_type(value.type)}; compare it, or CAST it to BOOLEAN", node)
        return convert(value, BOOLEAN)

    def together(self, nodes: Sequence[exp.Expr]) -> list[Sql]:
        """All of `nodes`, brought to their common type."""
        return arithmetic.unify([self.compile(n) for n in nodes])


def _literal(_: Compiler, node: exp.Expr) -> Sql:
    if node.is_string:
        return Sql(text_literal(node.name), STRING, node.name)
    return number(node.name)


def number(text: str) -> Sql:
    """A numeric literal: INT, BIGINT, DECIMAL by its digits, or DOUBLE with an exponent."""
    if "e" in text.lower():
        if math.isinf(float(text)):
            raise LocatedError(f"{text} is beyond DOUBLE")
        return Sql(f"CAST('{text}' AS DOUBLE)", DOUBLE, float(text))
    whole, _, fraction = text.partition(".")
    if "." not in text and -(2**63) <= int(text) < 2**63:
        small = -(2**31) <= int(text) < 2**31
        return Sql(f"CAST({text} AS {'INTEGER' if small else 'BIGINT'})", INT if small else BIGINT, int(text))
    digits = len(whole.lstrip("-0")) + len(fraction)
    if digits > 38:
        raise LocatedError(f"{text} has more than 38 digits")
    kind = pa.decimal128(max(digits, len(fraction), 1), len(fraction))
    return Sql(f"CAST('{text}' AS DECIMAL({kind.precision},{kind.scale}))", kind, text)


def _column(compiler: Compiler, node: exp.Expr) -> Sql:
    parts: Sequence[str] = [p.name for p in node.parts] if isinstance(node, exp.Column) else [node.name]
    if parts[0].lower() in compiler.variables:
        value, fields = compiler.variables[parts[0].lower()], parts[1:]
    else:
        value, fields = compiler.scope.column(parts)
    for name in fields:
        value = arithmetic.field(value, name)
    return value


def _dot(compiler: Compiler, node: exp.Expr) -> Sql:
    return arithmetic.field(compiler.compile(node.this), node.expression.name)


def _bracket(compiler: Compiler, node: exp.Expr) -> Sql:
    if len(node.expressions) != 1:
        raise LocatedError("an index is one value: a[0] or m['key']")
    return arithmetic.element(compiler.compile(node.this), compiler.compile(node.expressions[0]))


def _paren(compiler: Compiler, node: exp.Expr) -> Sql:
    value = compiler.compile(node.this)
    return Sql(f"({value.text})", value.type, value.literal)


def _negate(compiler: Compiler, node: exp.Expr) -> Sql:
    if isinstance(node.this, exp.Literal) and not node.this.is_string:
        return number("-" + node.this.name)
    return arithmetic.negate(compiler.compile(node.this))


def _arithmetic(symbol: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        return arithmetic.calculate(symbol, compiler.compile(node.this), compiler.compile(node.expression))

    return build


def _shift(symbol: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        return arithmetic.shift_bits(symbol, compiler.compile(node.this), compiler.compile(node.expression))

    return build


def _comparison(symbol: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        left, right = compiler.together([node.this, node.expression])
        return arithmetic.compare(symbol, left, right)

    return build


def _connector(symbol: str) -> Callable[[Compiler, exp.Expr], Sql]:
    """`x <> 0 AND 1 / x > 2`: DuckDB computes both sides for every row outside WHERE, Spark the second where it matters."""
    decisive = "false" if symbol == "AND" else "true"

    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        left, right = compiler.boolean(node.this).text, compiler.boolean(node.expression).text
        both = f"({left} {symbol} {right})"
        return Sql(f"(CASE WHEN {left} IS {decisive} THEN {decisive} ELSE {both} END)" if _may_fail(right) else both, BOOLEAN)

    return build


_SAFE_CASTS = re.compile(r"""CAST\((?:-?[\d.]+|'[^']*') AS [A-Z]+(?:\(\d+,\d+\))?\)|CAST\("[^"]+" AS (?:BIGINT|DOUBLE|VARCHAR)\)""")
_FAILING = re.compile(r"error\(|//| % |CAST\(|strptime\(")


def _may_fail(text: str) -> bool:
    return _FAILING.search(_SAFE_CASTS.sub("", text)) is not None


def _not(compiler: Compiler, node: exp.Expr) -> Sql:
    return Sql(f"(NOT {compiler.boolean(node.this).text})", BOOLEAN)


def _is(compiler: Compiler, node: exp.Expr) -> Sql:
    value, test = compiler.compile(node.this), node.expression
    if isinstance(test, exp.Null):
        return Sql(f"({value.text} IS NULL)", BOOLEAN)
    if isinstance(test, exp.Boolean):
        return Sql(f"({convert(value, BOOLEAN).text} IS {'TRUE' if test.this else 'FALSE'})", BOOLEAN)
    raise LocatedError("IS takes NULL, TRUE, FALSE or DISTINCT FROM")


def _in(compiler: Compiler, node: exp.Expr) -> Sql:
    if node.args.get("query") or node.args.get("unnest") or node.args.get("field"):
        raise RefusedError("a subquery in an expression is not supported yet; write the values out: x IN ('a', 'b')")
    value, *options = compiler.together([node.this, *node.expressions])
    if not is_orderable(value.type):
        raise LocatedError(f"{spark_type(value.type)} cannot be compared")
    return Sql(f"({value.text} IN ({', '.join(o.text for o in options)}))", BOOLEAN)


def _between(compiler: Compiler, node: exp.Expr) -> Sql:
    value = compiler.compile(node.this)
    bounds = [arithmetic.unify([value, compiler.compile(node.args[side])]) for side in ("low", "high")]
    low, high = (arithmetic.compare(op, *pair).text for op, pair in zip((">=", "<="), bounds, strict=True))
    return Sql(f"({low} AND {high})", BOOLEAN)


def _case(compiler: Compiler, node: exp.Expr) -> Sql:
    branches, default = node.args["ifs"], node.args.get("default") or exp.Null()
    subject = node.this
    tests = [_when(compiler, subject, b.this) for b in branches]
    *values, otherwise = compiler.together([*(b.args["true"] for b in branches), default])
    return arithmetic.choice(tests, values, otherwise)


def _when(compiler: Compiler, subject: exp.Expr | None, test: exp.Expr) -> Sql:
    return compiler.condition(test) if subject is None else arithmetic.compare("=", *compiler.together([subject, test]))


def _if(compiler: Compiler, node: exp.Expr) -> Sql:
    yes, no = compiler.together([node.args["true"], node.args.get("false") or exp.Null()])
    return arithmetic.choice([compiler.condition(node.this)], [yes], no)


def _cast(compiler: Compiler, node: exp.Expr) -> Sql:
    value = compiler.compile(node.this)
    if node.args["to"].is_type("interval"):
        raise LocatedError("CAST to INTERVAL is not supported; use make_dt_interval(days, hours, minutes, seconds) or make_ym_interval")
    try:
        kind = arrow_type(node.args["to"])
    except ValueError as error:
        raise LocatedError(str(error)) from None
    return try_cast(value, kind) if node.args.get("safe") else cast(value, kind)


def _like(symbol: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        return like(compiler, node, symbol, "\\")

    return build


def like(compiler: Compiler, node: exp.Expr, symbol: str, escape: str) -> Sql:
    """`x [NOT] LIKE pattern`, or of ANY or ALL of several: NOT is asked of each."""
    patterns, together = node.expression, " OR "
    if isinstance(patterns, exp.All):
        patterns, together = patterns.this, " AND "
    several = isinstance(patterns, exp.Tuple)
    value = convert(compiler.compile(node.this), STRING).text
    test = "NOT " * bool(node.args.get("negate")) + symbol
    options = [convert(compiler.compile(n), STRING) for n in (patterns.expressions if several else [patterns])]
    tests = [f"{value} {test} {_like_pattern(option, escape)} ESCAPE {text_literal(escape)}" for option in options]
    return Sql(f"({together.join(tests)})", BOOLEAN)


def _like_pattern(pattern: Sql, escape: str) -> str:
    """Spark escapes only `_`, `%` and the escape itself; DuckDB everything."""
    wrong = re.escape(escape) + "([^_%" + re.escape(escape) + "]|$)"
    if isinstance(pattern.literal, str):
        if re.search(wrong, pattern.literal.replace(escape * 2, "")):
            raise LocatedError(f"LIKE {pattern.literal!r}: {escape} stands before _, % or {escape} only")
        return pattern.text
    bare = f"replace({pattern.text}, {text_literal(escape * 2)}, '')"
    fault = f"CAST(error('LIKE: {escape.replace(chr(39), chr(39) * 2)} stands before _ or % only') AS VARCHAR)"
    return f"CASE WHEN regexp_matches({bare}, {text_literal(wrong)}) THEN {fault} ELSE {pattern.text} END"


def _escape(compiler: Compiler, node: exp.Expr) -> Sql:
    return like(compiler, node.this, "ILIKE" if isinstance(node.this, exp.ILike) else "LIKE", node.expression.name)


def _rlike(compiler: Compiler, node: exp.Expr) -> Sql:
    return call(compiler, "regexp_like", [node.this, node.expression])


def _function(compiler: Compiler, node: exp.Expr) -> Sql:
    if node.name.lower() in ("like", "ilike") and len(node.expressions) in (2, 3):
        value, pattern, *escape = node.expressions
        return like(compiler, exp.Like(this=value, expression=pattern), node.name.upper(), escape[0].name if escape else "\\")
    return call(compiler, node.name, node.expressions)


def _named(name: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(compiler: Compiler, node: exp.Expr) -> Sql:
        return call(compiler, name, node.expressions or [n for n in (node.this, node.args.get("expression")) if n])

    return build


def _trim(compiler: Compiler, node: exp.Expr) -> Sql:
    value = convert(compiler.compile(node.this), STRING).text
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or "").upper(), "trim")
    characters = convert(compiler.compile(node.expression), STRING).text if node.expression else "' '"
    return Sql(f"{name}({value}, {characters})", STRING)


def _extract(compiler: Compiler, node: exp.Expr) -> Sql:
    return call(compiler, "date_part", [exp.Literal.string(node.name), node.expression])


def _refused(message: str) -> Callable[[Compiler, exp.Expr], Sql]:
    def build(_: Compiler, node: exp.Expr) -> Sql:
        raise RefusedError(message)

    return build


_OVER = "a window function can stand only in SELECT and QUALIFY; compute it in a subquery or view and use its column"
_SUBQUERY = "a subquery in an expression is not supported yet; write the values out, or make it a sink of its own"

OPERATORS: dict[type[exp.Expr], Callable[[Compiler, exp.Expr], Sql]] = {
    exp.Literal: _literal,
    exp.RawString: lambda _, node: Sql(text_literal(node.name), STRING, node.name),
    exp.Null: lambda _, __: Sql('CAST(NULL AS "NULL")', NULL),
    exp.Boolean: lambda _, node: Sql("true" if node.this else "false", BOOLEAN, bool(node.this)),
    exp.HexString: lambda _, node: Sql(f"unhex({text_literal(node.name)})", BINARY),
    exp.Column: _column, exp.Identifier: _column, exp.Dot: _dot, exp.Bracket: _bracket, exp.Paren: _paren,
    exp.Neg: _negate, exp.Add: _arithmetic("+"), exp.Sub: _arithmetic("-"), exp.Mul: _arithmetic("*"), exp.Div: _arithmetic("/"),
    exp.IntDiv: _arithmetic("div"), exp.Mod: _arithmetic("%"), exp.BitwiseAnd: _arithmetic("&"), exp.BitwiseOr: _arithmetic("|"),
    exp.BitwiseXor: _arithmetic("^"), exp.BitwiseLeftShift: _shift("<<"), exp.BitwiseRightShift: _shift(">>"),
    exp.BitwiseNot: lambda compiler, node: arithmetic.invert(compiler.compile(node.this)),
    exp.EQ: _comparison("="), exp.NEQ: _comparison("<>"), exp.LT: _comparison("<"), exp.LTE: _comparison("<="),
    exp.GT: _comparison(">"), exp.GTE: _comparison(">="),
    exp.NullSafeEQ: _comparison("IS NOT DISTINCT FROM"), exp.NullSafeNEQ: _comparison("IS DISTINCT FROM"),
    exp.And: _connector("AND"), exp.Or: _connector("OR"), exp.Not: _not, exp.Is: _is, exp.In: _in, exp.Between: _between,
    exp.Case: _case, exp.If: _if, exp.Cast: _cast, exp.TryCast: _cast,
    exp.Like: _like("LIKE"), exp.ILike: _like("ILIKE"), exp.Escape: _escape, exp.RegexpLike: _rlike,
    exp.Anonymous: _function, exp.DPipe: _named("concat"), exp.Concat: _named("concat"),
    exp.CurrentTimestamp: lambda _, __: Sql(NOW, TIMESTAMP), exp.CurrentDate: lambda _, __: Sql(f"CAST({NOW} AS DATE)", DATE),
    exp.Trim: _trim, exp.Extract: _extract, exp.Interval: lambda _, node: intervals.literal(node),
    exp.Window: _refused(_OVER), exp.Subquery: _refused(_SUBQUERY), exp.Exists: _refused(_SUBQUERY), exp.Select: _refused(_SUBQUERY),
    exp.Distinct: _refused("DISTINCT inside an aggregate is not supported yet; use approx_count_distinct(x), or write the distinct values "
                           "to a sink and count them there"),
}  # fmt: skip
