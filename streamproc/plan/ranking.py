"""Window functions, `f(x) OVER (PARTITION BY … ORDER BY …)`, and QUALIFY: a SELECT that has them becomes one statement over all
rows of its partitions. An operator keeps the rows; this module says which, by what, and what is asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.aggregates import States, is_aggregate_call, read_aggregate
from streamproc.plan.casts import convert
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.one_pass import one_pass_sql
from streamproc.plan.relation import Column, Relation, RelationScope, Time, hidden_columns
from streamproc.plan.row_values import RowCompiler, in_two
from streamproc.plan.select import Draft, Output, has_aggregate, has_over, kept_key, ordered, row_outputs
from streamproc.plan.types import BIGINT, DOUBLE, INT, NULL, Sql, duck_type, is_integral, is_orderable

RANKS = ("row_number", "rank", "dense_rank")
_MIRRORED: Mapping[type[exp.Expr], type[exp.Expr]] = {exp.LT: exp.GT, exp.LTE: exp.GTE, exp.GT: exp.LT, exp.GTE: exp.LTE, exp.EQ: exp.EQ}


@dataclass(frozen=True)
class Top:
    """Only rows of rank 1 to `n` are asked for. `function`: row_number, rank or dense_rank; `order`: SQL over `Over.columns`."""

    function: str
    order: str
    n: int


@dataclass(frozen=True)
class Over:
    """A SELECT with window functions.

    `columns` is what is kept of a row, under the names c0, c1, …: `keep` is `SELECT … FROM` the rows (with hidden columns, as a
    relation's body). All windows are partitioned by `partition` (SQL over `columns`; empty: one partition), of which some may say
    event time. `sql` is the SELECT over a table `input` that has `columns`, of whole partitions, and `post` what is left of it,
    row by row; the result does not depend on the order of rows. `top` and `prune` are there where ranks alone are computed and
    only the first ones are asked for: `prune` is `SELECT … FROM input` of the rows that can be in the result as long as rows are
    only added.
    """

    columns: pa.Schema
    keep: Callable[[Sequence[str]], str]
    partition: tuple[Sql, ...]
    partition_times: tuple[Time | None, ...]
    times: Mapping[str, Time]
    """What kept columns say of event time."""
    orders: tuple[tuple[tuple[str, str, Time | None], ...], ...]
    """ORDER BY of each window: SQL over `columns`, its way, and what it says of event time."""
    sql: str
    post: str
    outputs: tuple[Output, ...]
    key: tuple[str, ...] | None = None
    """Columns of the result that no two rows have in common; None if that is not known."""
    top: Top | None = None
    prune: str | None = None
    levels: tuple[Level, ...] = ()
    rows: str = ""
    """`input` with the windows' results beside it."""
    conditions: tuple[str, ...] = ()
    """QUALIFY."""


def read_over(draft: Draft) -> Over:
    """A SELECT with window functions, over the rows of FROM and WHERE; LocatedError or RefusedError if it cannot be."""
    if draft.node.args.get("group") or any(has_aggregate(e) for e in draft.node.expressions):
        raise RefusedError("window functions over groups need two steps: GROUP BY in a subquery or view, OVER in the query around it")
    given, condition = draft.rows, draft.condition
    kept: dict[str, Column] = {}
    names = {c: f"c{i}" for i, c in enumerate(given.everything)}

    def mark(ref: str) -> None:
        column = next(c for c, name in names.items() if name == ref)
        given.mark(column.ref or column.name)
        kept[ref] = column

    draft.source = _renamed(given, names, mark)
    compiler = OverCompiler(draft)
    outputs = tuple(replace(o, value=compiler.rows.known(o.value)) for o in _outputs(compiler, draft))
    qualify = _qualified(compiler, draft.node.args.get("qualify"))
    if not kept:
        mark(next(iter(names.values())))  # a row has at least one column
    kept = {ref: kept[ref] for ref in sorted(kept, key=lambda ref: int(ref[1:]))}
    computed = compiler.rows.computed
    columns = pa.schema([*((ref, c.type) for ref, c in kept.items()), *((value.text, value.type) for value in computed.values())])
    rows = compiler.rendered("input", [f.name for f in columns if is_orderable(f.type)])
    sql, post = in_two(rows, outputs, [q.text for q in qualify])
    listed = ", ".join(f"{c.sql} AS {ref}" for ref, c in kept.items())
    more = ", ".join(["*", *(f"{text} AS {value.text}" for text, value in computed.items())])

    def keep(hidden: Sequence[str]) -> str:
        plain = f"(SELECT {listed}{hidden_columns(hidden)} FROM {given.body(hidden)}{condition})"
        return f"(SELECT {more} FROM {plain})" if computed else plain

    top = compiler.top()
    return Over(
        columns=columns,
        keep=keep,
        partition=tuple(value for value, _ in compiler.partition.values()),
        partition_times=tuple(time for _, time in compiler.partition.values()),
        times={ref: c.time for ref, c in kept.items() if c.time},
        orders=tuple(level.order for level in compiler.levels),
        sql=sql,
        post=post,
        outputs=outputs,
        key=_key(compiler, outputs, draft.rows, top),
        top=top,
        levels=tuple(compiler.levels),
        rows=rows,
        conditions=tuple(q.text for q in qualify),
        prune=None if top is None else f"SELECT {', '.join(columns.names)} FROM {rows} WHERE w0 <= {top.n}",
    )


def _key(compiler: OverCompiler, outputs: Sequence[Output], rows: Relation, top: Top | None) -> tuple[str, ...] | None:
    """By the place in the partition, else by what tells the rows below apart."""
    own = {c.name: c.sql for c in rows.columns}
    ways = [] if rows.key is None else [[own[name] for name in rows.key]]
    for text, (function, level) in compiler.ranks.items():
        if function == "row_number":
            alone = top is not None and top.n == 1
            ways.insert(0, [*level.partition, *([] if alone else [text])])
    return next((key for way in ways if (key := kept_key(outputs, way)) is not None), None)


def _renamed(given: Relation, names: Mapping[Column, str], mark: Callable[[str], None]) -> Relation:
    """The relation with every column found under its own name and read as c0, c1, …"""
    columns = tuple(replace(c, ref=names[c]) for c in given.columns)
    return replace(given, columns=columns, extras=tuple(replace(c, ref=names[c]) for c in given.extras), mark=mark)


def _outputs(compiler: OverCompiler, draft: Draft) -> tuple[Output, ...]:
    outputs = row_outputs(draft, compiler)
    if any(o.value.text.startswith("unnest(") for o in outputs):
        raise LocatedError("explode() cannot stand beside a window function; explode in a subquery", draft.node)
    compiler.aliases = {o.name.lower(): o.value for o in outputs}
    return tuple(outputs)


def _qualified(compiler: OverCompiler, clause: exp.Expr | None) -> list[Sql]:
    """QUALIFY's conditions; each bound of a rank is noted."""
    found = []
    for node in conjuncts(clause.this) if clause else ():
        compiler.bound(node)
        found.append(compiler.boolean(node))
    return found


def conjuncts(node: exp.Expr) -> Iterator[exp.Expr]:
    """What AND joins."""
    inner = node.unnest()
    if isinstance(inner, exp.And):
        yield from conjuncts(inner.this)
        yield from conjuncts(inner.expression)
    else:
        yield inner


def upper_bound(node: exp.Expr) -> tuple[exp.Expr, int] | None:
    """What a condition bounds from above by a whole number, and that: `rn <= 3`, `rn = 1`, `4 > rn`."""
    if not isinstance(node, exp.Binary):
        return None
    value, bound = node.this, node.expression
    kind: type[exp.Expr] = type(node)
    if isinstance(value, exp.Literal):
        value, bound, kind = bound, value, _MIRRORED.get(kind, kind)
    if kind not in (exp.LT, exp.LTE, exp.EQ) or not isinstance(bound, exp.Literal) or not bound.name.isdigit():
        return None
    return value, int(bound.name) - (1 if kind is exp.LT else 0)


def bound_ranks(draft: Draft) -> None:
    """`SELECT … FROM (SELECT …, ROW_NUMBER() OVER … AS rn …) WHERE rn <= 3`: the bound is QUALIFY of the subquery too. The same
    for a view or a WITH query that stands alone in FROM.
    """
    clause, where = draft.node.args.get("from_"), draft.node.args.get("where")
    if clause is None or where is None or draft.node.args.get("joins"):
        return
    table = clause.this
    inner = table.this if isinstance(table, exp.Subquery) else draft.env.definition(table)
    if not isinstance(inner, exp.Select) or not has_over(inner):
        return
    if bounds := list(_bounds(inner, where.this)):
        limited = inner.copy()
        own = limited.args.get("qualify")
        limited.set("qualify", exp.Qualify(this=exp.and_(*bounds, *([own.this] if own else []), copy=False)))
        draft.node = draft.node.copy()
        alias = exp.TableAlias(this=exp.to_identifier(table.alias_or_name))
        draft.node.args["from_"].set("this", exp.Subquery(this=limited, alias=alias))


def _bounds(inner: exp.Select, where: exp.Expr) -> Iterator[exp.Expr]:
    ranks = {
        e.alias.lower() for e in inner.expressions if isinstance(e.unalias(), exp.Window) and _bare(e.unalias().this).name.lower() in RANKS
    }
    for node in conjuncts(where):
        found = upper_bound(node)
        if found and isinstance(found[0], exp.Column) and found[0].name.lower() in ranks:
            yield exp.LTE(this=exp.column(found[0].name), expression=exp.Literal.number(found[1]))


@dataclass
class Level:
    """Windows of one partition, order and frame: what is computed over them, from prepared columns."""

    partition: tuple[str, ...]
    order: tuple[tuple[str, str, Time | None], ...]
    frame: str
    total: bool
    """Ties are broken by whole rows: the function would depend on the order in which rows come."""
    states: States = field(default_factory=lambda: States(arrival=Sql("n0", BIGINT)))
    functions: dict[str, str] = field(default_factory=dict)
    """Of the row's place: SQL before OVER → its name."""
    results: dict[str, str] = field(default_factory=dict)
    """SQL over functions and states → its name (w0, w1, … over all levels)."""

    back: int = 0
    """How many rows before its own a function looks at."""
    whole: bool = False
    """A function looks at rows after its own, or at their number."""
    unbounded: bool = True
    """The frame begins with the partition."""

    @property
    def running(self) -> bool:
        """Something depends on all rows before."""
        ranks = any(text.split("(")[0] in RANKS for text in self.functions)
        return ranks or (self.unbounded and bool(self.states.kept))

    @property
    def computed_names(self) -> list[str]:
        """Columns that are there only until the results are made of them."""
        gone = [*self.states.columns.values(), *self.functions.values(), *(s.name for s in self.states.state_columns)]
        return [*gone, "n0"] if self.states.in_order else gone

    def sql(self, rows: str, ties: Sequence[str]) -> str:
        """`SELECT *, results FROM rows`."""
        results = ", ".join(f"{text} AS {name}" for text, name in self.results.items())
        return f"(SELECT * EXCLUDE ({', '.join(self.computed_names)}), {results} FROM {self.computed(rows, ties)})"

    def computed(self, rows: str, ties: Sequence[str], *more: str) -> str:
        """The rows with what the results are made of."""
        order = self.ordered(ties if self.total else ())
        by = f"PARTITION BY {', '.join(self.partition)}" if self.partition else ""
        window = f"({by}{f' ORDER BY {order}' if order else ''}{self.frame})"
        if self.states.in_order:
            whole = self.ordered(ties)
            rows = f"(SELECT *, row_number() OVER ({by}{f' ORDER BY {whole}' if whole else ''}) AS n0 FROM {rows})"
        prepared = [f"{text} AS {name}" for text, name in self.states.columns.items()]
        columns = [f"{text} OVER {window} AS {name}" for text, name in self.functions.items()]
        columns += [f"{one_pass_sql(state)} OVER {window} AS {state.name}" for state in self.states.state_columns]
        rows = f"(SELECT {', '.join(['*', *prepared])} FROM {rows})" if prepared else rows
        return f"(SELECT *, {', '.join([*columns, *more])} FROM {rows})"

    def ordered(self, ties: Sequence[str]) -> str:
        return ", ".join([*(f"{text} {way}" for text, way, _ in self.order), *(f"{name} ASC NULLS LAST" for name in ties)])


class OverCompiler(Compiler):
    """Compiles SELECT and QUALIFY of rows with window functions."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft.scope)
        self.scope: RelationScope = draft.scope
        self.rows = RowCompiler(draft.scope)
        self.named = {w.this.name.lower(): w for w in draft.node.args.get("windows") or ()}
        self.aliases: dict[str, Sql] = {}
        self.levels: list[Level] = []
        self.ranks: dict[str, tuple[str, Level]] = {}
        """SQL of a rank's value → its function and window."""
        self.bounds: list[tuple[str, Level, int]] = []
        self.partition: dict[str, tuple[Sql, Time | None]] = {}
        self._inside = False

    def special(self, node: exp.Expr) -> Sql | None:
        if isinstance(node, exp.Window):
            return self._over(node)
        if isinstance(node, exp.Column) and len(node.parts) == 1 and not self.scope.has(node.name):
            return self.aliases.get(node.name.lower())
        return None

    def rendered(self, rows: str, ties: Sequence[str]) -> str:
        """The rows with the windows' results beside them."""
        for level in self.levels:
            rows = level.sql(rows, ties)
        return rows

    def bound(self, node: exp.Expr) -> None:
        """Notes a condition that bounds a rank."""
        found = upper_bound(node)
        if found is None:
            return
        rank = self.ranks.get(self.compile(found[0]).text)
        if rank is not None:
            self.bounds.append((*rank, found[1]))

    def top(self) -> Top | None:
        """Where nothing is computed but one rank, and that is bounded."""
        alone = len(self.levels) == 1 and len(self.levels[0].results) == 1
        if not alone or not self.bounds:
            return None
        function, level, _ = self.bounds[0]
        return Top(function, level.ordered(()), min(n for *_, n in self.bounds))

    # -- one call

    def _over(self, node: exp.Expr) -> Sql:
        if self._inside:
            raise LocatedError("a window function inside a window function is not possible; compute one in a subquery")
        self._inside = True
        try:
            return self._call(node.this, *self._window(node))
        finally:
            self._inside = False

    def _window(self, node: exp.Expr) -> tuple[exp.Expr, exp.Expr]:
        """The node that has PARTITION BY and ORDER BY, and the one that has the frame."""
        alias = node.args.get("alias")
        if alias is None:
            return node, node
        if alias.name.lower() not in self.named:
            raise LocatedError(f"there is no WINDOW {alias.name!r}")
        named = self.named[alias.name.lower()]
        return named, node if node.args.get("spec") else named

    def _call(self, call: exp.Expr, window: exp.Expr, framed: exp.Expr) -> Sql:
        name = _bare(call).name.lower()
        build = PLACES.get(name)
        spec = framed.args.get("spec")
        level = self._level(window, spec, build is not None and name not in ("rank", "dense_rank", "percent_rank", "cume_dist"))
        if build is not None:
            if not level.order:
                raise LocatedError(f"{name}() needs OVER (… ORDER BY …)")
            return self._result(level, build(self.rows, _bare(call), level, isinstance(call, exp.IgnoreNulls)), name)
        if not is_aggregate_call(call):
            raise LocatedError(f"{name}() is no window function")
        if any(isinstance(n, exp.Distinct) for n in call.walk()):
            raise LocatedError(f"{name}(DISTINCT …) OVER is not possible, as in Spark; size(collect_set(x) OVER …) counts")
        return self._result(level, read_aggregate(call, self.rows, level.states), name)

    def _result(self, level: Level, value: Sql, name: str) -> Sql:
        if value.text not in level.results:
            level.results[value.text] = f"w{sum(len(one.results) for one in self.levels)}"
        result = Sql(level.results[value.text], value.type)
        if name in RANKS:
            self.ranks[result.text] = (name, level)
        return result

    def _level(self, window: exp.Expr, spec: exp.Expr | None, total: bool) -> Level:
        partition = self._partition(window)
        order = tuple(self._order(window))
        frame = _frame(self.rows, spec)
        made = Level(partition, order, frame, total or " ROWS " in frame)
        same = [
            one for one in self.levels
            if (one.partition, one.order, one.frame, one.total) == (made.partition, made.order, made.frame, made.total)
        ]  # fmt: skip
        if not same:
            self.levels.append(made)
            made.unbounded, made.back, made.whole = _reach(spec, bool(order))
        return (same or [made])[0]

    def _partition(self, window: exp.Expr) -> tuple[str, ...]:
        """PARTITION BY; what every window is partitioned by is what rows are kept by."""
        nodes = window.args.get("partition_by") or []
        values = {value.text: (value, self.scope.time_of(node)) for node in nodes if (value := self.rows.compile(node))}
        shared = self.partition if self.levels else values
        self.partition = {text: both for text, both in shared.items() if text in values}
        return tuple(values)

    def _order(self, window: exp.Expr) -> Iterator[tuple[str, str, Time | None]]:
        clause = window.args.get("order")
        for item in clause.expressions if clause else ():
            value = self.rows.compile(item.this)
            if not is_orderable(value.type):
                raise LocatedError("ORDER BY needs values that can be ordered", item)
            yield value.text, ordered([item], [""]).strip(), self.scope.time_of(item.this)


def _bare(call: exp.Expr) -> exp.Expr:
    """The call without FILTER, IGNORE NULLS and the like."""
    while isinstance(call, exp.Filter | exp.IgnoreNulls | exp.RespectNulls | exp.WithinGroup):
        call = call.this
    return call


def _frame(rows: Compiler, spec: exp.Expr | None) -> str:
    """ROWS or RANGE BETWEEN …; Spark's default is DuckDB's."""
    if spec is None:
        return ""
    sides = [_side(rows, spec.args.get(name), spec.args.get(f"{name}_side")) for name in ("start", "end")]
    return f" {spec.args['kind']} BETWEEN {sides[0]} AND {sides[1] or 'CURRENT ROW'}"


def _reach(spec: exp.Expr | None, ordered: bool) -> tuple[bool, int, bool]:
    """Of a frame: whether it begins with the partition, else how many rows it reaches back, and whether it looks ahead."""
    if spec is None:
        return True, 0, not ordered
    start, start_side, end, end_side = (spec.args.get(name) for name in ("start", "start_side", "end", "end_side"))
    ahead = end == "UNBOUNDED" or end_side == "FOLLOWING" or start_side == "FOLLOWING"
    if start == "UNBOUNDED":
        return True, 0, ahead or end_side is not None
    if start == "CURRENT ROW":
        return False, 0, ahead or spec.args["kind"] != "ROWS"
    rows = int(start.name) if spec.args["kind"] == "ROWS" and isinstance(start, exp.Literal) and start.name.isdigit() else None
    return False, rows or 0, ahead or rows is None


def _side(rows: Compiler, value: object, side: object) -> str:
    if value is None or isinstance(value, str):
        return f"{value or ''} {side or ''}".strip()
    assert isinstance(value, exp.Expr)
    return f"{rows.compile(value).text} {side}"


# -- functions of a row's place: node and window → value over what the level computes

Place = Callable[[Compiler, exp.Expr, Level, bool], Sql]


def _computed(level: Level, text: str) -> str:
    return level.functions.setdefault(text, f"f{len(level.functions)}_")


def _rank(function: str, kind: pa.DataType) -> Place:
    def build(rows: Compiler, node: exp.Expr, level: Level, ignore_nulls: bool) -> Sql:
        del rows, ignore_nulls
        if node.expressions:
            raise LocatedError(f"{function}() takes no argument", node)
        level.whole |= function not in RANKS
        return Sql(f"CAST({_computed(level, f'{function}()')} AS {duck_type(kind)})", kind)

    return build


def _ntile(rows: Compiler, node: exp.Expr, level: Level, ignore_nulls: bool) -> Sql:
    del ignore_nulls
    count = rows.compile(node.expressions[0]) if len(node.expressions) == 1 else Sql("", NULL)
    if count.literal is None or not is_integral(count.type) or count.literal < 1:
        raise LocatedError("ntile() takes a whole number", node)
    level.whole = True
    return Sql(f"CAST({_computed(level, f'ntile({count.literal})')} AS INTEGER)", INT)


def _shifted(function: str) -> Place:
    def build(rows: Compiler, node: exp.Expr, level: Level, ignore_nulls: bool) -> Sql:
        if not 1 <= len(node.expressions) <= 3:
            raise LocatedError(f"{function}() takes a value, then optionally an offset and a default", node)
        value, *more = (rows.compile(n) for n in node.expressions)
        offset = more[0].literal if more else 1
        if not isinstance(offset, int):
            raise LocatedError(f"the offset of {function}() is a whole number", node)
        before = offset if function == "lag" else -offset
        level.back, level.whole = max(level.back, before), level.whole or before < 0 or ignore_nulls
        default = f", {convert(more[1], value.type).text}" if len(more) == 2 else ""
        nulls = " IGNORE NULLS" if ignore_nulls else ""
        return Sql(_computed(level, f"{function}({value.text}, {offset}{default}{nulls})"), value.type)

    return build


def _nth_value(rows: Compiler, node: exp.Expr, level: Level, ignore_nulls: bool) -> Sql:
    if len(node.expressions) != 2:
        raise LocatedError("nth_value() takes a value and a place", node)
    value, place = (rows.compile(n) for n in node.expressions)
    if not isinstance(place.literal, int) or place.literal < 1:
        raise LocatedError("the place of nth_value() is a whole number from 1", node)
    level.whole = True
    nulls = " IGNORE NULLS" if ignore_nulls else ""
    return Sql(_computed(level, f"nth_value({value.text}, {place.literal}{nulls})"), value.type)


PLACES: Mapping[str, Place] = {
    **{name: _rank(name, INT) for name in RANKS},
    "percent_rank": _rank("percent_rank", DOUBLE), "cume_dist": _rank("cume_dist", DOUBLE),
    "ntile": _ntile, "lag": _shifted("lag"), "lead": _shifted("lead"), "nth_value": _nth_value,
}  # fmt: skip
