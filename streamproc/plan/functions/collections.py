"""Arrays, maps, structs and functions over their elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.names import output_name
from streamproc.plan.types import BIGINT, BOOLEAN, INT, STRING, Sql, is_orderable, quote, widest_type


def _array_type(call: Call, index: int = 0) -> pa.DataType:
    if not pa.types.is_list(call[index].type):
        raise call.misfit(index)
    return call[index].type


def _array(call: Call) -> Sql:
    call.expect(1, 1000)
    values = unify(call.values)
    return Sql(f"[{', '.join(v.text for v in values)}]", pa.list_(values[0].type))


def _map(call: Call) -> Sql:
    call.expect(2, 1000)
    if len(call) % 2:
        raise LocatedError("map() takes pairs: map('a', 1, 'b', 2)")
    keys, values = unify(call.values[::2]), unify(call.values[1::2])
    pairs = ", ".join(f"{k.text}: {v.text}" for k, v in zip(keys, values, strict=True))
    return Sql(f"MAP {{{pairs}}}", pa.map_(keys[0].type, values[0].type))


def _struct(call: Call) -> Sql:
    call.expect(1, 1000)
    names = [_field_name(node, i) for i, node in enumerate(call.nodes)]
    values = [call.compiler.compile(node.unalias()) for node in call.nodes]
    return _packed(names, values)


def _field_name(node: exp.Expr, index: int) -> str:
    return output_name(node) if isinstance(node, exp.Alias | exp.Column) else f"col{index + 1}"


def _named_struct(call: Call) -> Sql:
    call.expect(2, 1000)
    if len(call) % 2:
        raise LocatedError("named_struct() takes pairs: named_struct('a', 1, 'b', 2)")
    names = [call.string(i, "a field's name") for i in range(0, len(call), 2)]
    return _packed(names, call.values[1::2])


def _packed(names: list[str], values: list[Sql]) -> Sql:
    fields = ", ".join(f"{quote(n)}: {v.text}" for n, v in zip(names, values, strict=True))
    return Sql(f"{{{fields}}}", pa.struct([pa.field(n, v.type) for n, v in zip(names, values, strict=True)]))


def _size(call: Call) -> Sql:
    """NULL of NULL, as with ANSI on."""
    call.expect(1)
    if pa.types.is_map(call[0].type):
        return Sql(f"CAST(cardinality({call[0].text}) AS INTEGER)", INT)
    _array_type(call)
    return Sql(f"CAST(len({call[0].text}) AS INTEGER)", INT)


def _on_array(template: str, result: Callable[[pa.DataType], pa.DataType]) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        kind = _array_type(call)
        if not is_orderable(kind.value_type):
            raise call.misfit()
        return Sql(template.format(call[0].text), result(kind))

    return build


def _with_element(call: Call) -> tuple[str, str]:
    """An array and a value of its elements' type."""
    call.expect(2)
    kind = _array_type(call)
    target = widest_type(Sql("", kind.value_type), call[1])
    if target is None or not is_orderable(target):
        raise call.misfit(1)
    return convert(call[0], pa.list_(target)).text, convert(call[1], target).text


def _array_contains(call: Call) -> Sql:
    """NULL where it is not found but the array holds a NULL."""
    array, value = _with_element(call)
    found = f"list_contains({array}, {value})"
    return Sql(
        f"(CASE WHEN {found} THEN true WHEN len(list_filter({array}, lambda _e: _e IS NULL)) > 0 THEN NULL ELSE {found} END)", BOOLEAN
    )


def _array_position(call: Call) -> Sql:
    array, value = _with_element(call)
    return Sql(
        f"(CASE WHEN {array} IS NULL OR {value} IS NULL THEN NULL ELSE COALESCE(CAST(list_position({array}, {value}) AS BIGINT), 0) END)",
        BIGINT,
    )


def _array_join(call: Call) -> Sql:
    """NULL elements are left out, or written as the third argument."""
    call.expect(2, 3)
    items = convert(call[0], pa.list_(STRING)).text
    items = (
        f"list_filter({items}, lambda _e: _e IS NOT NULL)"
        if len(call) == 2
        else f"list_transform({items}, lambda _e: COALESCE(_e, {call.text(2, STRING)}))"
    )
    return Sql(f"array_to_string({items}, {call.text(1, STRING)})", STRING)


def _get(call: Call) -> Sql:
    """From 0; NULL outside."""
    call.expect(2)
    kind, at = _array_type(call), call.text(1, INT)
    return Sql(f"(CASE WHEN {at} >= 0 THEN ({call[0].text})[{at} + 1] END)", kind.value_type)


def _element_at(call: Call) -> Sql:
    """Of an array from 1, or from the end if negative, an error outside; of a map NULL if absent."""
    call.expect(2)
    if pa.types.is_map(call[0].type):
        return Sql(f"({call[0].text})[{convert(call[1], call[0].type.key_type).text}]", call[0].type.item_type)
    kind, at, array = _array_type(call), call.text(1, INT), call[0].text
    outside = f"{at} = 0 OR abs({at}) > len({array})"
    wrong = f"error('array position ' || {at} || ' is outside; use try_element_at or get for NULL instead')"
    return Sql(f"(CASE WHEN {outside} THEN {wrong} ELSE ({array})[{at}] END)", kind.value_type)


def _try_element_at(call: Call) -> Sql:
    call.expect(2)
    if pa.types.is_map(call[0].type):
        return _element_at(call)
    return Sql(f"({call[0].text})[{call.text(1, INT)}]", _array_type(call).value_type)


def _slice(call: Call) -> Sql:
    call.expect(3)
    kind, start, length = _array_type(call), call.integer(1, "the start"), call.integer(2, "the length")
    if start < 1 or length < 0:
        raise LocatedError("slice() starts at 1 or later and has no negative length")
    return Sql(f"list_slice({call[0].text}, {start}, {start + length - 1})", kind)


def _sort_array(call: Call) -> Sql:
    """NULLs first ascending, last descending."""
    call.expect(1, 2)
    kind = _array_type(call)
    up = len(call) == 1 or bool(call.constant(1, bool, "the direction"))
    return Sql(f"list_sort({call[0].text}, '{'ASC' if up else 'DESC'}', 'NULLS {'FIRST' if up else 'LAST'}')", kind)


def _flatten(call: Call) -> Sql:
    call.expect(1)
    kind = _array_type(call)
    if not pa.types.is_list(kind.value_type):
        raise call.misfit()
    return Sql(f"(CASE WHEN len(list_filter({call[0].text}, lambda _e: _e IS NULL)) = 0 THEN flatten({call[0].text}) END)", kind.value_type)


def _reverse(call: Call) -> Sql:
    call.expect(1)
    if pa.types.is_list(call[0].type):
        return Sql(f"list_reverse({call[0].text})", call[0].type)
    return Sql(f"reverse({call.text(0, STRING)})", STRING)


def _entries(template: str, of: Callable[[pa.DataType], pa.DataType]) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(1)
        if not pa.types.is_map(call[0].type):
            raise call.misfit()
        return Sql(template.format(call[0].text), pa.list_(of(call[0].type)))

    return build


def _map_contains_key(call: Call) -> Sql:
    call.expect(2)
    if not pa.types.is_map(call[0].type):
        raise call.misfit()
    return Sql(f"map_contains({call[0].text}, {convert(call[1], call[0].type.key_type).text})", BOOLEAN)


def _lambda(call: Call, kind: pa.DataType) -> tuple[str, Sql]:
    """The name of a lambda's one parameter and its body."""
    node = call.nodes[1]
    if not isinstance(node, exp.Lambda) or len(node.expressions) != 1:
        raise LocatedError(f"{call.name}() takes a function of one parameter: {call.name}(array, x -> …)")
    variables, name = call.compiler.variables, node.expressions[0].name.lower()
    before, inner = dict(variables), f"_{name}_{len(variables)}"
    variables[name] = Sql(inner, kind.value_type)
    try:
        return inner, call.compiler.compile(node.this)
    finally:
        variables.clear()
        variables.update(before)


def _transform(call: Call) -> Sql:
    call.expect(2)
    name, body = _lambda(call, _array_type(call))
    return Sql(f"list_transform({call[0].text}, lambda {name}: {body.text})", pa.list_(body.type))


def _filter(call: Call) -> Sql:
    call.expect(2)
    kind = _array_type(call)
    name, body = _lambda(call, kind)
    return Sql(f"list_filter({call[0].text}, lambda {name}: {convert(body, BOOLEAN).text})", kind)


def _every(*, found: bool) -> Builder:
    """Exists and forall by three-valued logic: NULL where only a NULL could decide."""

    def build(call: Call) -> Sql:
        call.expect(2)
        variable, body = _lambda(call, _array_type(call))
        tests = f"list_transform({call[0].text}, lambda {variable}: {convert(body, BOOLEAN).text})"
        decisive = "true" if found else "false"
        other = "false" if found else "true"
        has_null = f"len(list_filter({tests}, lambda _t: _t IS NULL)) > 0"
        return Sql(
            f"(CASE WHEN {call[0].text} IS NULL THEN NULL WHEN list_contains({tests}, {decisive}) THEN {decisive} "
            f"WHEN {has_null} THEN NULL ELSE {other} END)",
            BOOLEAN,
        )

    return build


def _item(kind: pa.DataType) -> pa.DataType:
    return kind.value_type


FUNCTIONS: Mapping[str, Builder] = {
    "array": _array, "map": _map, "struct": _struct, "named_struct": _named_struct,
    "size": _size, "cardinality": _size, "array_size": _size, "array_contains": _array_contains, "array_position": _array_position,
    "array_join": _array_join, "array_max": _on_array("list_max({0})", _item), "array_min": _on_array("list_min({0})", _item),
    "get": _get, "element_at": _element_at, "try_element_at": _try_element_at, "slice": _slice, "sort_array": _sort_array,
    "array_sort": _on_array("list_sort({0}, 'ASC', 'NULLS LAST')", lambda kind: kind), "flatten": _flatten, "reverse": _reverse,
    "map_keys": _entries("map_keys({0})", lambda kind: kind.key_type),
    "map_values": _entries("map_values({0})", lambda kind: kind.item_type),
    "map_contains_key": _map_contains_key, "transform": _transform, "filter": _filter,
    "exists": _every(found=True), "forall": _every(found=False),
    "array_compact": _on_array("list_filter({0}, lambda _e: _e IS NOT NULL)", lambda kind: kind),
}  # fmt: skip
