"""Functions that take functions: transform(a, x -> x + 1), aggregate, map_filter, …

A parameter is a name of ours in DuckDB's lambda, numbered by its depth, so that it hides nothing and nothing hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.functions.collections import array_type
from streamproc.plan.functions.maps import from_entries, map_type
from streamproc.plan.types import BOOLEAN, INT, NULL, Sql, bound, fail, spark_type


def _parameters(call: Call, index: int) -> list[str]:
    node = call.nodes[index]
    if not isinstance(node, exp.Lambda):
        raise LocatedError(f"{call.name}() takes a function: {call.name}(x, y -> …)")
    return [p.name.lower() for p in node.expressions]


def _body(call: Call, index: int, values: Sequence[Sql]) -> Sql:
    """The body of a function with its parameters standing for `values`."""
    names = _parameters(call, index)
    if len(names) != len(values):
        raise LocatedError(f"{call.name}(): the function has {len(names)} parameters, {len(values)} are given to it")
    variables = call.compiler.variables
    before = dict(variables)
    variables.update(zip(names, values, strict=True))
    try:
        return call.compiler.compile(call.nodes[index].this)
    finally:
        variables.clear()
        variables.update(before)


def _name(call: Call, letter: str) -> str:
    return f"_{letter}{len(call.compiler.variables)}"


def _elements(call: Call, index: int = 1) -> tuple[str, Sql]:
    """DuckDB's parameters and the body of a function of an element and perhaps its place, from 0."""
    item, at = _name(call, "l"), _name(call, "i")
    values = [Sql(item, array_type(call).value_type), Sql(f"CAST({at} - 1 AS INTEGER)", INT)][: max(len(_parameters(call, index)), 1)]
    body = _body(call, index, values)
    return (f"{item}, {at}" if len(values) > 1 else item), body


def _transform(call: Call) -> Sql:
    call.expect(2)
    names, body = _elements(call)
    if body.type == NULL:
        raise LocatedError("transform(): the function makes NULL, which has no type; CAST it")
    return Sql(f"list_transform({call[0].text}, lambda {names}: {body.text})", pa.list_(body.type))


def _filter(call: Call) -> Sql:
    call.expect(2)
    names, body = _elements(call)
    return Sql(f"list_filter({call[0].text}, lambda {names}: {convert(body, BOOLEAN).text})", call[0].type)


def _every(*, found: bool) -> Builder:
    """Exists and forall by three-valued logic: NULL where only a NULL could decide."""

    def build(call: Call) -> Sql:
        call.expect(2)
        if len(_parameters(call, 1)) != 1:
            raise LocatedError(f"{call.name}() takes a function of one parameter")
        names, body = _elements(call)
        tests = f"list_transform({call[0].text}, lambda {names}: {convert(body, BOOLEAN).text})"
        decisive, other = ("true", "false") if found else ("false", "true")
        null = "len(list_filter(@t, lambda _t: _t IS NULL)) > 0"
        decided = f"WHEN list_contains(@t, {decisive}) THEN {decisive} WHEN {null} THEN NULL ELSE {other}"
        return Sql(bound({"t": tests}, f"CASE WHEN @t IS NULL THEN NULL {decided} END"), BOOLEAN)

    return build


def _aggregate(call: Call) -> Sql:
    """aggregate(array, start, (acc, x) -> …[, acc -> …]): what the function makes has the type of the start."""
    call.expect(3, 4)
    acc, item, start = _name(call, "a"), _name(call, "l"), call[1]
    body = _body(call, 2, [Sql(acc, start.type), Sql(item, array_type(call).value_type)])
    if body.type != start.type:
        made, begun = spark_type(body.type), spark_type(start.type)
        raise LocatedError(f"{call.name}(): the function makes {made} of a start of {begun}; CAST the start to {made}")
    result = Sql(f"list_reduce({call[0].text}, lambda {acc}, {item}: {body.text}, {start.text})", start.type)
    if len(call) == 3:
        return result
    final = _body(call, 3, [Sql(acc, start.type)])
    finished = f"list_transform([{result.text}], lambda {acc}: {final.text})[1]"
    return Sql(f"(CASE WHEN {call[0].text} IS NOT NULL THEN {finished} END)", final.type)


def _zip_with(call: Call) -> Sql:
    call.expect(3)
    both, at = _name(call, "z"), _name(call, "i")
    values = [Sql(f"{both}.{side}[{at}]", array_type(call, i).value_type) for i, side in enumerate("xy")]
    body = _body(call, 2, values)
    made = f"list_transform(range(1, greatest(len({both}.x), len({both}.y)) + 1), lambda {at}: {body.text})"
    made = f"CASE WHEN {both}.x IS NOT NULL AND {both}.y IS NOT NULL THEN {made} END"
    return Sql(f"list_transform([{{'x': {call[0].text}, 'y': {call[1].text}}}], lambda {both}: {made})[1]", pa.list_(body.type))


def _entries(call: Call) -> tuple[str, Sql, Sql, Sql]:
    """DuckDB's parameter for an entry of a map, the function of key and value, and the two."""
    call.expect(2)
    kind, name = map_type(call), _name(call, "l")
    key, value = Sql(f"{name}.key", kind.key_type), Sql(f"{name}.value", kind.item_type)
    return name, _body(call, 1, [key, value]), key, value


def _map_filter(call: Call) -> Sql:
    name, body, _, _ = _entries(call)
    kept = f"list_filter(map_entries({call[0].text}), lambda {name}: {convert(body, BOOLEAN).text})"
    return Sql(f"map_from_entries({kept})", call[0].type)


def _transform_values(call: Call) -> Sql:
    name, body, key, _ = _entries(call)
    entries = f"list_transform(map_entries({call[0].text}), lambda {name}: {{'key': {key.text}, 'value': {body.text}}})"
    return Sql(f"map_from_entries({entries})", pa.map_(key.type, body.type))


def _transform_keys(call: Call) -> Sql:
    name, body, _, value = _entries(call)
    entries = f"list_transform(map_entries({call[0].text}), lambda {name}: {{'key': {body.text}, 'value': {value.text}}})"
    return Sql(from_entries(entries), pa.map_(body.type, value.type))


def _map_zip_with(call: Call) -> Sql:
    """Every key of either map, those of the first before."""
    call.expect(3)
    first, second, name, both = map_type(call, 0), map_type(call, 1), _name(call, "l"), _name(call, "z")
    if first.key_type != second.key_type:
        raise LocatedError("map_zip_with() takes maps with keys of one type")
    values = [Sql(name, first.key_type), *(Sql(f"{both}.{s}[{name}]", k.item_type) for s, k in (("x", first), ("y", second)))]
    body = _body(call, 2, values)
    more = f"list_filter(map_keys({both}.y), lambda _k: NOT map_contains({both}.x, _k))"
    entries = f"list_transform(map_keys({both}.x) || {more}, lambda {name}: {{'key': {name}, 'value': {body.text}}})"
    made = f"CASE WHEN {both}.x IS NOT NULL AND {both}.y IS NOT NULL THEN map_from_entries({entries}) END"
    text = f"list_transform([{{'x': {call[0].text}, 'y': {call[1].text}}}], lambda {both}: {made})[1]"
    return Sql(text, pa.map_(first.key_type, body.type))


def _array_sort(call: Call) -> Sql:
    """NULLs last. Of a comparator the form `CASE WHEN f(l) < f(r) THEN -1 WHEN f(l) > f(r) THEN 1 ELSE 0 END` is understood."""
    call.expect(1, 2)
    kind = array_type(call)
    if pa.types.is_nested(kind.value_type) and len(call) == 1:
        raise LocatedError("array_sort() of arrays and structs needs a function that compares a field or element of them")
    if len(call) == 1:
        return Sql(f"list_sort({call[0].text}, 'ASC', 'NULLS LAST')", kind)
    left, right = _parameters(call, 1)
    key, up = _sort_key(call.nodes[1].this, left, right)
    item = _name(call, "l")
    body = _key(call, key, left, item)
    if pa.types.is_nested(body.type):
        raise LocatedError("array_sort(): compare values that are no arrays or structs")
    keyed = f"list_transform({call[0].text}, lambda {item}, _i: {{'k': {body.text}, 'i': {'' if up else '-'}_i, 'v': {item}}})"
    wrong = fail("array_sort(): the function compares NULL; filter the array before")
    checked = f"CASE WHEN len(list_filter(@s, lambda _e: _e.k IS NULL)) > 0 THEN {wrong} ELSE @s END"
    order = "ASC" if up else "DESC"
    return Sql(f"list_transform(list_sort({bound({'s': keyed}, checked)}, '{order}'), lambda _e: _e.v)", kind)


def _key(call: Call, key: exp.Expr, name: str, item: str) -> Sql:
    variables, kind = call.compiler.variables, array_type(call).value_type
    before = dict(variables)
    variables[name] = Sql(item, kind)
    try:
        return call.compiler.compile(key)
    finally:
        variables.clear()
        variables.update(before)


_COMPARATOR = "array_sort(): write the function as CASE WHEN f(l) < f(r) THEN -1 WHEN f(l) > f(r) THEN 1 ELSE 0 END"


def _sort_key(body: exp.Expr, left: str, right: str) -> tuple[exp.Expr, bool]:
    """What a comparator compares of its left side, and whether upwards."""
    tests = body.args.get("ifs") if isinstance(body, exp.Case) and body.this is None else None
    if not tests or len(tests) != 2 or body.args["default"].sql() != "0":
        raise LocatedError(_COMPARATOR)
    signs = [_sign(test, left, right) for test in tests]
    keys = {key.sql() for key, _ in signs}
    if len(keys) > 1 or signs[0][1] is not signs[1][1] or {t.this.key for t in tests} != {"lt", "gt"}:
        raise LocatedError(_COMPARATOR)
    return signs[0]


def _sign(test: exp.Expr, left: str, right: str) -> tuple[exp.Expr, bool]:
    condition, value = test.this, test.args["true"].sql()
    if not isinstance(condition, exp.LT | exp.GT) or value not in ("1", "-1"):
        raise LocatedError(_COMPARATOR)
    mirrored = condition.expression.copy()
    for node in mirrored.walk():
        if isinstance(node, exp.Identifier) and node.name.lower() == right:
            node.set("this", left)
    if mirrored.sql() != condition.this.sql() or not any(isinstance(n, exp.Identifier) and n.name.lower() == left for n in mirrored.walk()):
        raise LocatedError(_COMPARATOR)
    return condition.this, isinstance(condition, exp.LT) == (value == "-1")


FUNCTIONS: Mapping[str, Callable[[Call], Sql]] = {
    "transform": _transform, "filter": _filter, "exists": _every(found=True), "forall": _every(found=False),
    "aggregate": _aggregate, "reduce": _aggregate,
    "zip_with": _zip_with, "map_filter": _map_filter, "transform_values": _transform_values, "transform_keys": _transform_keys,
    "map_zip_with": _map_zip_with, "array_sort": _array_sort,
}  # fmt: skip
