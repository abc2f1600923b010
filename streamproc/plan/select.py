"""One SELECT as a pipeline of rules over a `Draft`: each rule looks at its clause, refuses or adds to the draft.

A new clause or operator is a new rule; the planner's environment (`Env`) gives the tables it may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
from sqlglot import exp

from streamproc.batch import EXTRA_COLUMNS
from streamproc.plan.aggregates import AGGREGATES
from streamproc.plan.arithmetic import field as struct_field
from streamproc.plan.casts import cast
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.generators import generated, is_generator, with_columns, with_rows
from streamproc.plan.names import output_name
from streamproc.plan.plan import OutputMode, Project, Step
from streamproc.plan.relation import ORIGIN, Column, Relation, RelationScope, Tail, Time, hidden_columns, hidden_name
from streamproc.plan.time_window import column_of, is_window, read_window, window_value
from streamproc.plan.types import BOOLEAN, NULL, Sql, holds_interval, quote
from streamproc.plan.zone import SESSION

if TYPE_CHECKING:
    from streamproc.plan.python_functions import FunctionInfo


class Env(Protocol):
    """What a query sees around it. `origin`: rows at operators carry where they came from (for `late`)."""

    mode: OutputMode | None
    origin: bool

    @property
    def functions(self) -> Mapping[str, FunctionInfo]:
        """Python functions of the job."""
        ...

    def relation(self, node: exp.Expr) -> Relation:
        """A table, view, CTE or subquery of FROM."""
        ...

    def definition(self, node: exp.Expr) -> exp.Query | None:
        """The query that a view or WITH query of FROM stands for."""
        ...

    def delay_us(self, sources: Sequence[str]) -> int:
        """The largest delay of the sources' watermarks."""
        ...

    def read_origin(self, sources: Sequence[str], columns: Sequence[str]) -> None:
        """Note that these extra columns of the sources are read."""
        ...


@dataclass(frozen=True)
class Output:
    """A column of the result."""

    name: str
    value: Sql
    time: Time | None = None


@dataclass
class Draft:
    """A SELECT while it is planned. `source` is FROM; `result` is there in the end."""

    node: exp.Select
    env: Env
    source: Relation | None = None
    where: Sql | None = None
    result: Relation | None = None
    scopes: list[RelationScope] = field(default_factory=list)

    @property
    def rows(self) -> Relation:
        assert self.source is not None
        return self.source

    @property
    def scope(self) -> RelationScope:
        """Of the FROM relation as it is now."""
        if not self.scopes or self.scopes[-1].relation is not self.rows:
            self.scopes.append(RelationScope(self.rows))
        return self.scopes[-1]

    @property
    def condition(self) -> str:
        return f" WHERE {self.where.text}" if self.where else ""


LIMIT_MAX = 2**31 - 1
"""LIMIT is an INT in Spark."""


def has_aggregate(node: exp.Expr) -> bool:
    """Whether there is an aggregate that is not the function of a window."""
    own = node.walk(prune=lambda n: isinstance(n, exp.Query))
    return any(isinstance(n, exp.Anonymous) and n.name.lower() in AGGREGATES and not is_windowed(n) for n in own)


def is_windowed(node: exp.Expr) -> bool:
    parent = node.parent
    while isinstance(parent, exp.Filter | exp.IgnoreNulls | exp.RespectNulls | exp.WithinGroup) and parent.this is node:
        node, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and parent.this is node


def has_over(select: exp.Select) -> bool:
    """Whether the SELECT itself has window functions."""
    own = (n for e in select.expressions for n in e.walk(prune=lambda n: isinstance(n, exp.Query)))
    return select.args.get("qualify") is not None or any(isinstance(n, exp.Window) for n in own)


_REFUSED_CLAUSES = {
    "pivots": "PIVOT is not supported; use one aggregate with FILTER (WHERE …) per column",
    "sample": "TABLESAMPLE is not supported: rows must be the same when an epoch runs again; filter on a hash of a column",
    "sort": "SORT BY is not supported; rows of a stream keep the order of their shards",
    "cluster": "CLUSTER BY is not supported; a sink's partition_by places rows",
    "distribute": "DISTRIBUTE BY is not supported; a sink's partition_by places rows",
    "offset": "OFFSET is not supported on a stream",
    "into": "SELECT INTO is not possible; a sink says where rows go",
    "match": "MATCH_RECOGNIZE is not supported",
    "prewhere": "PREWHERE is not Spark SQL; write WHERE",
    "version": "a source has no versions: VERSION AS OF and TIMESTAMP AS OF stand at a versioned table that is joined",
    "connect": "CONNECT BY is not Spark SQL",
    "locks": "FOR UPDATE is not Spark SQL; leave it out",
}
_KNOWN_CLAUSES = frozenset(
    {"with_", "kind", "hint", "distinct", "expressions", "from_", "joins", "laterals", "where", "group", "having", "qualify", "windows",
     "order", "limit", "this", "alias", "db", "catalog"}
)  # fmt: skip
"""Of a SELECT and of a table; hints of Spark say how, not what, and mean nothing here."""


def refuse_clauses(draft: Draft) -> None:
    """Clauses that need an operator we do not have."""
    table = draft.node.args.get("from_")
    _refuse_clauses(draft.node)
    _refuse_clauses(table.this if table else None)
    for join in draft.node.args.get("joins") or ():
        _refuse_clauses(join.this, "version")


def _refuse_clauses(owner: exp.Expr | None, *known: str) -> None:
    for key in owner.args if owner is not None else ():
        if owner is not None and owner.args[key] and key not in _KNOWN_CLAUSES and key not in known:
            raise RefusedError(_REFUSED_CLAUSES.get(key, f"{key.upper().strip('_')} is not supported here; leave it out"))


def read_from(draft: Draft) -> None:
    clause = draft.node.args.get("from_")
    if clause is None:
        raise RefusedError("the query reads no table; write FROM with a source or a view")
    if not draft.node.expressions:
        raise LocatedError("nothing stands between SELECT and FROM; name columns, or write SELECT *", draft.node)
    draft.source = draft.env.relation(clause.this)


def explode_laterals(draft: Draft) -> None:
    """`LATERAL VIEW [OUTER] explode(array) t AS x` adds a column and a row for every element."""
    for number, lateral in enumerate(draft.node.args.get("laterals") or ()):
        alias = lateral.args.get("alias")
        names = [c.name for c in alias.args.get("columns") or ()] if alias else []
        made = generated(Compiler(draft.scope), lateral.this, outer=bool(lateral.args.get("outer"))).named(names, lateral)
        draft.source = with_columns(draft.rows, made, alias.name if alias else "", f"#rows{number}")


def with_origin(env: Env, rows: Relation, columns: Sequence[Column], condition: str = "") -> Project:
    """The rows with `columns`, and where they came from: what reaches an operator whose late rows are shown."""
    env.read_origin(rows.sources, ORIGIN)
    own = [c for c in columns if c.name not in ORIGIN]
    for column in own:
        rows.mark(column.ref or column.name)
    listed = [c.sql for c in own] + [f"{hidden_name(name)} AS {quote(name)}" for name in ORIGIN]
    schema = pa.schema([pa.field(c.ref or c.name, c.type) for c in own] + [pa.field(name, pa.string()) for name in ORIGIN])
    return Project(rows.step, f"SELECT {', '.join(listed)} FROM {rows.body(ORIGIN)}{condition}", schema)


def filter_rows(draft: Draft) -> None:
    clause = draft.node.args.get("where")
    if clause is not None:
        draft.where = Compiler(draft.scope).condition(clause.this)


def project_rows(draft: Draft) -> None:
    """A SELECT without aggregates: row by row."""
    if is_aggregate(draft.node) or has_over(draft.node):
        return
    if draft.node.args.get("having"):
        raise LocatedError("HAVING needs GROUP BY or an aggregate; write WHERE", draft.node.args["having"])
    outputs = row_outputs(draft)
    draft.result = projected(draft.rows, outputs, draft.condition, draft.rows.step)


def is_aggregate(select: exp.Select) -> bool:
    having = select.args.get("having")
    return bool(select.args.get("group")) or any(has_aggregate(e) for e in [*select.expressions, *([having] if having else [])])


def row_outputs(draft: Draft, compiler: Compiler | None = None) -> list[Output]:
    """SELECT's columns, row by row."""
    compiler, outputs = compiler or Compiler(draft.scope), list[Output]()
    for node in draft.node.expressions:
        outputs += _stars(draft, node) or _exploded(compiler, draft, node) or [_row_output(compiler, draft, node)]
    if sum(is_generator(node.unalias()) for node in draft.node.expressions) > 1:
        raise LocatedError("only one explode() can stand in SELECT", draft.node)
    return outputs


def _exploded(compiler: Compiler, draft: Draft, node: exp.Expr) -> list[Output]:
    """Columns of a generator; none if it is another expression."""
    call = node.this if isinstance(node, exp.Aliases) else node.unalias()
    if not is_generator(call):
        return []
    names = [e.name for e in node.expressions] if isinstance(node, exp.Aliases) else [node.alias] if node.alias else []
    made = generated(compiler, call).named(names, node)
    if made.plain:
        return [Output(made.columns[0][0], Sql(f"unnest({made.array})", made.columns[0][1]))]
    if has_over(draft.node):
        raise LocatedError("explode() cannot stand beside a window function; explode in a subquery", node)
    draft.source, draft.where = with_rows(draft.rows, made, "#rows", draft.condition), None
    return [Output(name, value) for (name, _), value in zip(made.columns, made.values(quote("#rows")), strict=True)]


def _row_output(compiler: Compiler, draft: Draft, node: exp.Expr) -> Output:
    value = node.unalias()
    if is_window(value):
        return _window_output(draft, node, value)
    return Output(output_name(node), compiler.compile(value), draft.scope.time_of(value))


def _window_output(draft: Draft, node: exp.Expr, call: exp.Expr) -> Output:
    """A row's own windows as a column, as in Spark: rows without a time are in none."""
    window = read_window(draft.scope, call, SESSION.get())
    timed = f"{window.text} IS NOT NULL"
    draft.where = Sql(f"({draft.where.text}) AND {timed}" if draft.where else timed, BOOLEAN)
    time = window.time and Time("window", window.time.lag_us, window.length_us)
    return Output(node.alias or column_of(call), window_value(window), time)


def _stars(draft: Draft, node: exp.Expr) -> list[Output]:
    """Columns of `*` or `t.*`, in order; `* EXCEPT (a)` leaves some out."""
    star = node if isinstance(node, exp.Star) else node.this if isinstance(node, exp.Column) and isinstance(node.this, exp.Star) else None
    if star is None:
        return []
    meant = draft.rows.columns
    if isinstance(node, exp.Column):
        tables = {c: (c.table or draft.rows.alias) for c in meant}
        merged = tuple(c for c in draft.rows.extras if c.table.lower() == node.table.lower() and c.name not in EXTRA_COLUMNS.names)
        meant = (*(c for c, table in tables.items() if table.lower() == node.table.lower()), *merged)
        if not meant:
            return _fields(draft, node, star, tables.values())
    left_out = {e.name.lower() for e in star.args.get("except_") or ()}
    unknown = left_out - {c.name.lower() for c in meant}
    if unknown or star.args.get("replace") or star.args.get("rename"):
        wrong = f"* EXCEPT ({', '.join(sorted(unknown))}): no such column" if unknown else "only * EXCEPT (…) is supported"
        raise LocatedError(wrong, node)
    kept = [c for c in meant if c.name.lower() not in left_out]
    for column in kept:
        draft.rows.mark(column.ref or column.name)
    return [Output(c.name, Sql(c.sql, c.type), c.time) for c in kept]


def _fields(draft: Draft, node: exp.Column, star: exp.Expr, tables: Iterable[str]) -> list[Output]:
    """`s.*` of a struct column: its fields, those of a window with their times."""
    parts = [part.name for part in node.parts[:-1]]
    if not draft.scope.has(parts[0]) and (len(parts) == 1 or not draft.scope.has(parts[1])):
        raise LocatedError(f"there is no table {parts[0]!r} in FROM; there is {', '.join(dict.fromkeys(tables))}", node)
    struct = exp.Column(this=exp.to_identifier(parts[-1]))
    for place, part in zip(("table", "db", "catalog"), reversed(parts[:-1]), strict=False):
        struct.set(place, exp.to_identifier(part))
    value = Compiler(draft.scope).compile(struct)
    if not pa.types.is_struct(value.type) or any(star.args.values()):
        raise LocatedError(f"{'.'.join(parts)}.* needs a table or a STRUCT; name the columns", node)
    time = draft.scope.time_of(struct)
    return [Output(f.name, struct_field(value, f.name), time.side(f.name) if time else None) for f in value.type]


def projected(relation: Relation, outputs: Sequence[Output], condition: str, step: Step) -> Relation:
    """`SELECT outputs FROM relation condition` as a relation over `step`."""
    columns = tuple(Column(o.name, stored(o.value).type, o.time) for o in outputs)
    refuse_twice(columns)
    own = {c.name: c.sql for c in relation.columns}
    key = None if relation.key is None else kept_key(outputs, [own.get(name, "") for name in relation.key])
    listed = ", ".join(f"{stored(o.value).text} AS {quote(o.name)}" for o in outputs)

    def body(hidden: Sequence[str]) -> str:
        return f"(SELECT {listed}{hidden_columns(hidden)} FROM {relation.body(hidden)}{condition})"

    return Relation(
        columns, step, body,
        sources=relation.sources, has_watermark=relation.has_watermark, computed=relation.computed, origin=relation.origin, key=key,
    )  # fmt: skip


def kept_key(outputs: Sequence[Output], key: Sequence[str]) -> tuple[str, ...] | None:
    """The outputs that are the key's columns (given as SQL); None if one is missing, or where a row becomes several."""
    names = {o.value.text: o.name for o in reversed(outputs)}
    exploded = any(o.value.text.startswith("unnest(") for o in outputs)
    return None if exploded or any(k not in names for k in key) else tuple(names[k] for k in key)


def stored(value: Sql) -> Sql:
    """NULL alone has no type a sink could store; Spark's VOID is read as STRING."""
    if holds_interval(value.type):
        raise LocatedError("an interval cannot be a column; add it to a time, or CAST it to a number of seconds: CAST(x AS BIGINT)")
    return cast(value, pa.string()) if value.type == NULL else value


def refuse_twice(columns: Sequence[Column]) -> None:
    names = [c.name.lower() for c in columns]
    if "" in names:
        raise LocatedError("a column has no name; write a name after AS")
    twice = sorted({c.name for c in columns if names.count(c.name.lower()) > 1})
    if twice:
        raise LocatedError(f"two columns are called {twice[0]!r}; give one another name: … AS {twice[0]}_2")


def order_and_limit(draft: Draft) -> None:
    """ORDER BY and LIMIT are kept for the root of a query, where the output mode decides."""
    order, limit = draft.node.args.get("order"), draft.node.args.get("limit")
    assert draft.result is not None
    if draft.result.tail is None and (order or limit):
        compiler, items = Compiler(RelationScope(draft.result)), order.expressions if order else []
        keys = [compiler.compile(item.this).text for item in items]
        draft.result = replace(draft.result, tail=Tail(ordered(items, keys), limit_rows(limit)))


def ordered(items: Sequence[exp.Expr], keys: Sequence[str]) -> str:
    """ORDER BY's list over SQL of its keys; NULLs where Spark puts them: first ascending, last descending."""
    ways = [f"{'DESC' if item.args.get('desc') else 'ASC'} NULLS {'FIRST' if item.args.get('nulls_first') else 'LAST'}" for item in items]
    return ", ".join(f"{key} {way}" for key, way in zip(keys, ways, strict=True))


def limit_rows(limit: exp.Expr | None) -> int | None:
    if limit is None:
        return None
    if isinstance(limit, exp.Fetch) or limit.expressions:
        raise LocatedError("not Spark SQL: the first n rows are LIMIT n; of every key, row_number() OVER (PARTITION BY …) <= n", limit)
    count = limit.expression
    if not isinstance(count, exp.Literal) or count.is_string or not count.name.isdigit() or int(count.name) > LIMIT_MAX:
        raise LocatedError(f"LIMIT takes a whole number up to {LIMIT_MAX}", limit)
    return int(count.name)


Rule = Callable[[Draft], None]
