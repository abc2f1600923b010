"""GROUP BY: one SELECT with aggregates → an `Aggregate` step (prepare, states, post)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from sqlglot import exp

from streamproc import registry
from streamproc.batch import TIMESTAMP
from streamproc.plan.aggregates import States, is_aggregate_call, read_aggregate
from streamproc.plan.arithmetic import field as struct_field
from streamproc.plan.expressions import Compiler
from streamproc.plan.faults import LocatedError, RefusedError
from streamproc.plan.grouping_sets import SET, grouping_value, is_grouping, written_sets
from streamproc.plan.maintain import by_mode
from streamproc.plan.names import output_name
from streamproc.plan.plan import Aggregate, SessionAggregate, Step
from streamproc.plan.relation import WEIGHED, Column, Relation, Tail, Time, arrival, hidden_columns, hidden_name
from streamproc.plan.select import Draft, Output, has_aggregate, is_aggregate, kept_key, limit_rows, ordered, projected, with_origin
from streamproc.plan.time_window import TimeWindow, column_of, is_window, read_window
from streamproc.plan.types import WINDOW_TYPE, Sql, quote
from streamproc.plan.zone import SESSION

WINDOW = Sql("{'start': make_timestamptz(_ws), 'end': make_timestamptz(_we)}", WINDOW_TYPE)


@dataclass
class Groups:
    """What the rows are grouped by: SQL of each plain key → its name, and at most one window."""

    keys: dict[str, tuple[str, pa.DataType]] = field(default_factory=dict)
    window: TimeWindow | None = None
    window_name: str = "window"
    times: dict[str, tuple[str, Time]] = field(default_factory=dict)
    """Keys that make a group final: SQL of the watermark at which they do, and their time."""
    labels: dict[str, str] = field(default_factory=dict)
    """Everything grouped, in order: `_ws` or the key's name → as it is written."""
    sets: tuple[frozenset[str], ...] = ()
    """Of GROUPING SETS: which of them each has."""

    def add(self, value: Sql, time: Time | None, label: str) -> str:
        """The key's name."""
        if pa.types.is_map(value.type):
            raise LocatedError("a MAP cannot be grouped by; use its sorted keys or a JSON text")
        name, _ = self.keys.setdefault(value.text, (f"k{len(self.keys)}", value.type))
        self.labels.setdefault(name, label)
        final = time and time.final_us(name)
        if time and final:
            self.times.setdefault(name, (final, time))
        return name

    @property
    def time_key(self) -> tuple[str, Time] | None:
        return next(iter(self.times.values()), None)

    @property
    def time(self) -> Time | None:
        """The event time that makes groups final; None if nothing does."""
        return self.window.time if self.window else self.time_key[1] if self.time_key else None

    def key(self, value: Sql) -> Sql | None:
        hit = self.keys.get(value.text)
        return Sql(*hit) if hit else None


def group_rows(draft: Draft) -> None:
    """A SELECT with GROUP BY or aggregates."""
    if not is_aggregate(draft.node):
        return
    groups = read_groups(draft)
    draft.result = by_mode(draft, _aggregate(draft, groups))


def read_groups(draft: Draft) -> Groups:
    groups, clause = Groups(), draft.node.args.get("group")
    if clause is None:
        return groups
    sets = written_sets(clause)
    for node in _group_items(draft, clause, sets):
        _add_group(draft, groups, node)
    if sets:
        _add_sets(draft, groups, [[_resolve(draft, node) for node in one] for one in sets])
    return groups


def _group_items(draft: Draft, clause: exp.Expr, sets: list[list[exp.Expr]]) -> list[exp.Expr]:
    if clause.args.get("totals"):
        raise RefusedError("WITH TOTALS is not Spark SQL; write WITH ROLLUP")
    if clause.args.get("all"):
        return [e.unalias() for e in draft.node.expressions if not has_aggregate(e)]
    listed = clause.expressions if not sets or clause.args.get("grouping_sets") else [node for one in sets for node in one]
    return [_resolve(draft, node) for node in listed]


def _add_sets(draft: Draft, groups: Groups, sets: list[list[exp.Expr]]) -> None:
    kept = tuple(frozenset(_add_group(draft, groups, node) for node in one) for one in sets)
    if groups.window is not None and (groups.window.window is None or any("_ws" not in one for one in kept)):
        what = "a session_window cannot stand beside grouping sets" if groups.window.window is None else "the window must be in every set"
        raise RefusedError(f"{what}: GROUP BY window(ts, '1 minute'), ROLLUP (a, b); for the rest write a sink of its own")
    finals = {name: time for name, time in groups.times.items() if all(name in one for one in kept)}
    groups.sets, groups.times = kept, finals


def _resolve(draft: Draft, node: exp.Expr) -> exp.Expr:
    """An ordinal or an alias of SELECT stands for that expression; FROM's columns come first."""
    if isinstance(node, exp.Literal) and not node.is_string:
        return _ordinal(draft, node)
    if isinstance(node, exp.Column) and len(node.parts) == 1 and not draft.scope.has(node.name):
        named = {e.alias.lower(): e.unalias() for e in draft.node.expressions if isinstance(e, exp.Alias)}
        return named.get(node.name.lower(), node)
    inner: exp.Expr = node.unnest()
    return inner


def _ordinal(draft: Draft, node: exp.Expr) -> exp.Expr:
    at, items = int(node.name), draft.node.expressions
    if not 1 <= at <= len(items):
        raise LocatedError(f"GROUP BY {at}: SELECT has {len(items)} columns", node)
    chosen: exp.Expr = items[at - 1].unalias()
    return chosen


def _add_group(draft: Draft, groups: Groups, node: exp.Expr) -> str:
    """`_ws` of a window, else the key's name."""
    if is_window(node):
        window = read_window(draft.scope, node, SESSION.get())
        if groups.window is not None and groups.window != window:
            raise RefusedError("only one window can be grouped by; write a sink for each")
        groups.window, groups.window_name = window, column_of(node)
        groups.labels.setdefault("_ws", f"{groups.window_name}.start")
        return "_ws"
    if has_aggregate(node):
        raise LocatedError("an aggregate cannot be grouped by", node)
    _refuse_window_column(draft, node)
    value = Compiler(draft.scope).compile(node)
    return groups.add(value, draft.scope.time_of(node), output_name(node))


def _refuse_window_column(draft: Draft, node: exp.Expr) -> None:
    inside = any(is_window(n) for n in node.walk())
    name = node.parts[0].name.lower() if isinstance(node, exp.Column) else ""
    if inside or (name in ("window", "session_window") and not draft.scope.has(name)):
        raise LocatedError("group by the window itself, GROUP BY window(ts, '1 minute'), and select window.start", node)


class ResultCompiler(Compiler):
    """Compiles SELECT, HAVING and ORDER BY of a grouped query: over keys, the window and finalized states. As in Spark, a
    name in HAVING is a grouped column before it is an alias, in ORDER BY the other way round.
    """

    def __init__(self, draft: Draft, groups: Groups, states: States) -> None:
        super().__init__(self)
        self.draft, self.groups, self.states = draft, groups, states
        self.rows = Compiler(draft.scope)
        self.aliases: dict[str, Sql] = {}
        self.aliases_first = False

    def special(self, node: exp.Expr) -> Sql | None:
        if self.aliases_first and isinstance(node, exp.Column) and len(node.parts) == 1 and node.name.lower() in self.aliases:
            return self.aliases[node.name.lower()]
        if is_window(node):
            return self._window(node)
        if isinstance(node, exp.Dot) and is_window(node.this):
            return self._side(node)
        if is_aggregate_call(node):
            return read_aggregate(node, self.rows, self.states)
        if is_grouping(node):
            return grouping_value(node, [self._name(n) for n in node.expressions], list(self.groups.labels), self.groups.sets)
        if isinstance(node, exp.Literal | exp.Null | exp.Boolean | exp.Interval) or has_aggregate(node):
            return None
        return self._key(node)

    def _name(self, node: exp.Expr) -> str:
        """Of a grouped expression, as in `Groups.labels`."""
        if is_window(node) or (isinstance(node, exp.Column) and self._is_window_column([p.name for p in node.parts])):
            return "_ws"
        key = self._key(node)
        if key is None:
            raise LocatedError(f"{output_name(node)!r} is not in GROUP BY", node)
        return key.text

    def _key(self, node: exp.Expr) -> Sql | None:
        if any(is_window(n) or (isinstance(n, exp.Column) and not self.draft.scope.has(n.parts[0].name)) for n in node.walk()):
            return None
        try:
            return self.groups.key(self.rows.compile(node))
        except LocatedError:
            return None

    def _window(self, node: exp.Expr) -> Sql:
        if self.groups.window is None or read_window(self.draft.scope, node, SESSION.get()) != self.groups.window:
            raise LocatedError("this window is not in GROUP BY; group by the same window(…)")
        return WINDOW

    def _side(self, node: exp.Expr) -> Sql:
        self._window(node.this)
        value, rest = window_column([node.expression.name])
        return struct_field(value, rest[0]) if rest else value

    def time_of(self, node: exp.Expr) -> Time | None:
        """What a column of the result says of event time."""
        if isinstance(node, exp.Anonymous) and node.name.lower() == "window_time" and len(node.expressions) == 1:
            time = self.time_of(node.expressions[0])
            return replace(time, kind="event") if time and time.kind == "window" else None
        if is_window(node) or (isinstance(node, exp.Dot) and is_window(node.this)):
            side = node.expression.name if isinstance(node, exp.Dot) else ""
            return self._window_time(side)
        if not isinstance(node, exp.Column):
            return None
        names = [p.name for p in node.parts]
        if self._is_window_column(names):
            return self._window_time(".".join(names[1:]))
        return self.draft.scope.time_of(node) if self._key(node) else None

    def _is_window_column(self, parts: Sequence[str]) -> bool:
        """The group's window by the name of its column, which hides one that is not grouped by."""
        if self.groups.window is None or parts[0].lower() != self.groups.window_name:
            return False
        return not self.draft.scope.has(parts[0]) or self.groups.key(self.draft.scope.column(parts[:1])[0]) is None

    def _window_time(self, side: str) -> Time | None:
        """Of the group's window, or of a side of it."""
        window = self.groups.window
        if window is None or window.time is None:
            return None
        time = Time("window", window.time.lag_us, window.length_us)
        return time.side(side) if side else time

    def column(self, parts: Sequence[str]) -> tuple[Sql, Sequence[str]]:
        alias = self.aliases.get(parts[0].lower())
        if alias is not None and (self.aliases_first or not self.draft.scope.has(parts[0])):
            return alias, parts[1:]
        if self._is_window_column(parts):
            return window_column(parts[1:])
        value, rest = self.draft.scope.column(parts)
        key = self.groups.key(value)
        if key is None and alias is not None:
            return alias, parts[1:]
        if key is None:
            name = ".".join(parts)
            raise LocatedError(f"column {name!r} is neither grouped nor in an aggregate; add it to GROUP BY or take any_value({name})")
        return key, rest


def window_column(fields: Sequence[str]) -> tuple[Sql, Sequence[str]]:
    """The group's window, or the side of it that `fields` name."""
    side = {"start": "_ws", "end": "_we"}.get(fields[0].lower()) if fields else None
    return (WINDOW, fields) if side is None else (Sql(f"make_timestamptz({side})", TIMESTAMP), fields[1:])


def _aggregate(draft: Draft, groups: Groups) -> Relation:
    merging = groups.window is not None and groups.window.window is None
    states, time, rows = States(arrival=arrival(draft.rows), distinct_as_lists=merging), groups.time, draft.rows
    compiler = ResultCompiler(draft, groups, states)
    outputs = [_output(compiler, node) for node in draft.node.expressions]
    compiler.aliases = {o.name.lower(): o.value for o in outputs}
    having = draft.node.args.get("having")
    condition = f" WHERE {compiler.boolean(having.this).text}" if having else ""
    compiler.aliases_first = True
    tail, sorting = _tail(draft, compiler)
    reader, read = _input(draft, states)
    result = projected(Relation((), reader, lambda _: "input"), [*outputs, *sorting], condition, reader)
    common = {
        "input": reader,
        "prepare": _prepare(groups, states, read, WEIGHED if reader.changes else ()),
        "keys": (*(name for name, _ in groups.keys.values()), *([SET] if groups.sets else [])),
        "labels": groups.labels,
        "states": states.state_columns,
        "post": result.body(())[1:-1],
        "schema": result.schema,
        "global_group": draft.node.args.get("group") is None,
        "uses_watermark": time is not None,
        "lag_us": time.lag_us if time else 0,
    }
    step = _step(draft, groups, common)
    return Relation(
        result.columns[: len(outputs)], step, lambda _: "input",
        sources=rows.sources, has_watermark=rows.has_watermark, computed=True, origin=False, tail=tail, key=_key(groups, outputs),
    )  # fmt: skip


def _key(groups: Groups, outputs: Sequence[Output]) -> tuple[str, ...] | None:
    """The outputs that tell the groups apart."""
    names = [name for name, _ in groups.keys.values()]
    if groups.sets:
        return None
    if groups.window is None:
        return kept_key(outputs, names)
    ways = (kept_key(outputs, [*names, window.text]) for window in (WINDOW, window_column(["start"])[0], window_column(["end"])[0]))
    return next((key for key in ways if key is not None), None)


def _step(draft: Draft, groups: Groups, common: dict[str, Any]) -> Aggregate:
    if groups.window is None:
        return Aggregate(time_key=groups.time_key[0] if groups.time_key else None, sets=groups.sets, **common)
    if groups.window.window is None:
        return SessionAggregate(merging=registry.session_window(), retracts=draft.env.mode == "update", **common)
    return Aggregate(window=groups.window.window, sets=groups.sets, **common)


def _output(compiler: ResultCompiler, node: exp.Expr) -> Output:
    if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
        raise LocatedError("* cannot stand beside GROUP BY; name the grouped columns and the aggregates", node)
    value = compiler.compile(node.unalias())
    return Output(output_name(node), value, compiler.time_of(node.unalias()))


def _tail(draft: Draft, compiler: ResultCompiler) -> tuple[Tail | None, list[Output]]:
    """ORDER BY's expressions become hidden columns of the result."""
    order, limit = draft.node.args.get("order"), draft.node.args.get("limit")
    if not order and not limit:
        return None, []
    items = order.expressions if order else []
    sorting = [Output(f"#o{i}", compiler.compile(_sort_key(draft, item.this))) for i, item in enumerate(items)]
    text = ordered(items, [quote(o.name) for o in sorting])
    return Tail(text, limit_rows(limit), tuple(Column(o.name, o.value.type) for o in sorting)), sorting


def _sort_key(draft: Draft, node: exp.Expr) -> exp.Expr:
    return _ordinal(draft, node) if isinstance(node, exp.Literal) and not node.is_string else node


def _input(draft: Draft, states: States) -> tuple[Step, str]:
    """The step whose rows reach the operator, and what its `prepare` stands on."""
    order = ("_shard", "_offset") if states.in_order and draft.rows.origin else ()
    origin = draft.env.origin and draft.rows.origin
    draft.env.read_origin(draft.rows.sources, order)
    if not origin:
        weight = WEIGHED if draft.rows.step.changes else ()
        return draft.rows.step, f"{draft.rows.body((*order, *weight))}{draft.condition}"
    rows = with_origin(draft.env, draft.rows, (*draft.rows.columns, *_extras(draft)), draft.condition)
    hidden = ", ".join(f"{quote(name)} AS {hidden_name(name)}" for name in order)
    return rows, f"(SELECT *, {hidden} FROM input)" if hidden else "input"


def _extras(draft: Draft) -> list[Column]:
    return list({name: c for scope in draft.scopes for name, c in scope.used.items()}.values())


def _prepare(groups: Groups, states: States, rows: str, weight: Sequence[str]) -> str:
    columns = [f"{text} AS {name}" for text, (name, _) in groups.keys.items()]
    columns += [f"{text} AS {name}" for text, name in states.columns.items()]
    columns += [f"CAST(0 AS INTEGER) AS {SET}"] if groups.sets else []
    if groups.window is not None:
        time = f"epoch_us({groups.window.text})"
        columns += [f"{time} AS _t"] if groups.window.window else [f"{time} AS _ws", f"epoch_us({groups.window.end}) AS _we"]
    return f"SELECT {', '.join(columns) or 'true AS _row'}{hidden_columns(weight)} FROM {rows}"
