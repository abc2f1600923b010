"""Arrays and structs. NULL, NaN and -0.0 are one value each in them, NULLs sort as Spark says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
from sqlglot import exp

from streamproc.plan.arithmetic import unify
from streamproc.plan.casts import convert
from streamproc.plan.faults import LocatedError
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.names import output_name
from streamproc.plan.types import (
    BIGINT,
    BOOLEAN,
    INT,
    NULL,
    STRING,
    Sql,
    bound,
    duck_type,
    fail,
    is_fractional,
    is_orderable,
    quote,
    widest_type,
)


def array_type(call: Call, index: int = 0) -> pa.DataType:
    if not pa.types.is_list(call[index].type):
        raise call.misfit(index)
    return call[index].type


def _array(call: Call) -> Sql:
    call.expect(1, 1000)
    values = unify(call.values)
    return Sql(f"[{', '.join(v.text for v in values)}]", pa.list_(values[0].type))


def _struct(call: Call) -> Sql:
    call.expect(1, 1000)
    names = [_field_name(node, i) for i, node in enumerate(call.nodes)]
    values = [call.compiler.compile(node.unalias()) for node in call.nodes]
    return _packed(names, values)


def _field_name(node: exp.Expr, index: int) -> str:
    return output_name(node) if isinstance(node, exp.Alias | exp.Column | exp.Identifier | exp.Dot) else f"col{index + 1}"


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
    array_type(call)
    return Sql(f"CAST(len({call[0].text}) AS INTEGER)", INT)


def _array_size(call: Call) -> Sql:
    call.expect(1)
    array_type(call)
    return _size(call)


def _extreme(template: str) -> Builder:
    """Of an array whose elements have an order; DuckDB's of NULLs inside arrays and structs is not Spark's."""

    def build(call: Call) -> Sql:
        call.expect(1)
        item, text = _sortable(call), call[0].text
        if is_fractional(item):  # the first of 0.0 and -0.0
            return Sql(f"({text})[list_position({text}, {template.format(text)})]", item)
        return Sql(template.format(text), item)

    return build


def _sortable(call: Call) -> pa.DataType:
    item = array_type(call).value_type
    if pa.types.is_nested(item):
        raise LocatedError(
            f"{call.name}(): arrays and structs that hold NULL have another order here; compare one field or element of them"
        )
    if not is_orderable(item):
        raise call.misfit()
    return item


def _with_element(call: Call, index: int = 1) -> tuple[Sql, Sql]:
    """An array and a value, brought to one type."""
    target = widest_type(Sql("", array_type(call).value_type), call[index])
    if target is None:
        raise call.misfit(index)
    return convert(call[0], pa.list_(target)), convert(call[index], target)


def _comparable(call: Call) -> tuple[str, str]:
    call.expect(2)
    array, value = _with_element(call)
    if not is_orderable(value.type):
        raise call.misfit(1)
    return array.text, value.text


_HOLDS_NULL = "len(list_filter({0}, lambda _e: _e IS NULL)) > 0"


def _array_contains(call: Call) -> Sql:
    """NULL where it is not found but the array holds a NULL."""
    if call[1].type == NULL:
        raise call.misfit(1)
    array, value = _comparable(call)
    found = f"list_contains({array}, {value})"
    null = _HOLDS_NULL.format(array)
    return Sql(f"(CASE WHEN {value} IS NULL THEN NULL WHEN {found} THEN true WHEN {null} THEN NULL ELSE {found} END)", BOOLEAN)


def _array_position(call: Call) -> Sql:
    array, value = _comparable(call)
    found = f"COALESCE(CAST(list_position({array}, {value}) AS BIGINT), 0)"
    return Sql(f"(CASE WHEN {array} IS NULL OR {value} IS NULL THEN NULL ELSE {found} END)", BIGINT)


def _array_remove(call: Call) -> Sql:
    array, value = _comparable(call)
    kept = "list_filter(@a, lambda _e: _e IS DISTINCT FROM @v)"
    return Sql(bound({"a": array, "v": value}, f"CASE WHEN @v IS NOT NULL THEN {kept} END"), pa.list_(_with_element(call)[1].type))


def _array_append(template: str) -> Builder:
    def build(call: Call) -> Sql:
        call.expect(2)
        array, value = _with_element(call)
        return Sql(template.format(array.text, f"[{value.text}]"), array.type)

    return build


def _array_insert(call: Call) -> Sql:
    """From 1, or from the end if negative; NULLs fill what lies between."""
    call.expect(3)
    array, value = _with_element(call, 2)
    at = call.text(1, INT)
    front = "CASE WHEN @p > len(@a) + 1 THEN list_resize(@a, @p - 1) || [@v] ELSE @a[1:@p - 1] || [@v] || @a[@p:] END"
    place = "(len(@a) + @p + 2)"
    before = "[@v] || list_resize(@a[1:0], -@p - len(@a) - 1) || @a"
    back = f"CASE WHEN {place} < 1 THEN {before} ELSE @a[1:{place} - 1] || [@v] || @a[{place}:] END"
    wrong = f"CAST({fail('array_insert(): positions begin with 1 or -1')} AS {duck_type(array.type)})"
    values = {"a": array.text, "p": f"CAST({at} AS BIGINT)", "v": value.text}
    cases = f"WHEN @p = 0 THEN {wrong} WHEN @p > 0 THEN {front} ELSE {back}"
    return Sql(bound(values, f"CASE WHEN @a IS NULL OR @p IS NULL THEN NULL {cases} END"), array.type)


_FIRST = "list_filter(@a, lambda _e, _i: list_position(@a, _e) = _i)"
"""Each value once, in order."""


def _zeros(text: str, kind: pa.DataType) -> str:
    """-0.0 becomes 0.0, as in Spark where elements are told apart."""
    if not is_fractional(kind.value_type):
        return text
    return f"list_transform({text}, lambda _e: _e + CAST(0 AS {duck_type(kind.value_type)}))"


def _array_distinct(call: Call) -> Sql:
    call.expect(1)
    kind = array_type(call)
    if not is_orderable(kind.value_type):
        raise call.misfit()
    return Sql(bound({"a": _zeros(call[0].text, kind)}, _FIRST), kind)


def _two_arrays(call: Call) -> tuple[str, str, pa.DataType]:
    call.expect(2)
    array_type(call, 0), array_type(call, 1)
    left, right = unify(call.values)
    if not is_orderable(left.type):
        raise call.misfit()
    return left.text, right.text, left.type


def _set_operation(body: str) -> Builder:
    def build(call: Call) -> Sql:
        left, right, kind = _two_arrays(call)
        return Sql(bound({"x": _zeros(left, kind), "y": right}, body), kind)

    return build


def _both(condition: str) -> str:
    kept = f"list_filter(@x, lambda _e, _i: list_position(@x, _e) = _i AND list_position(@y, _e) {condition})"
    return f"CASE WHEN @x IS NOT NULL AND @y IS NOT NULL THEN {kept} END"


def _array_union(call: Call) -> Sql:
    left, right, kind = _two_arrays(call)
    return Sql(bound({"a": _zeros(f"({left} || {right})", kind)}, _FIRST), kind)


def _arrays_overlap(call: Call) -> Sql:
    """NULL where only a NULL could be common."""
    left, right, _ = _two_arrays(call)
    common = "len(list_filter(@x, lambda _e: list_contains(@y, _e))) > 0"
    doubt = f"len(@x) > 0 AND len(@y) > 0 AND ({_HOLDS_NULL.format('@x')} OR {_HOLDS_NULL.format('@y')})"
    text = f"CASE WHEN @x IS NULL OR @y IS NULL THEN NULL WHEN {common} THEN true WHEN {doubt} THEN NULL ELSE false END"
    return Sql(bound({"x": left, "y": right}, text), BOOLEAN)


def _arrays_zip(call: Call) -> Sql:
    """Structs of the elements side by side, named as the columns, else 0, 1, …"""
    call.expect(1, 100)
    kinds = [array_type(call, i).value_type for i in range(len(call))]
    names = [output_name(n) if isinstance(n, exp.Column | exp.Identifier | exp.Dot) else str(i) for i, n in enumerate(call.nodes)]
    count = f"greatest({', '.join(f'len(@p{i})' for i in range(len(call)))}, 0)"
    fields = ", ".join(f"{quote(name)}: @p{i}[_i]" for i, name in enumerate(names))
    null = " OR ".join(f"@p{i} IS NULL" for i in range(len(call)))
    text = f"CASE WHEN {null} THEN NULL ELSE list_transform(range(1, {count} + 1), lambda _i: {{{fields}}}) END"
    made = bound({f"p{i}": v.text for i, v in enumerate(call.values)}, text)
    return Sql(made, pa.list_(pa.struct([pa.field(n, k) for n, k in zip(names, kinds, strict=True)])))


def _array_join(call: Call) -> Sql:
    """NULL elements are left out, or written as the third argument."""
    call.expect(2, 3)
    array_type(call)
    values = {"a": convert(call[0], pa.list_(STRING)).text, "s": call.text(1, STRING)}
    present = "list_filter(@a, lambda _e: _e IS NOT NULL)"
    if len(call) == 3:
        values["n"] = call.text(2, STRING)
        present = "list_transform(@a, lambda _e: COALESCE(_e, @n))"
    known = " AND ".join(f"@{name} IS NOT NULL" for name in values)
    if call[1].literal is not None:  # DuckDB's separator is constant
        joined = f"array_to_string({present}, {call.text(1, STRING)})"
    else:
        joined = f"COALESCE(list_reduce({present}, lambda _x, _y: _x || @s || _y), '')"
        joined = f"CASE WHEN len({present}) = 0 THEN '' ELSE {joined} END"
    return Sql(bound(values, f"CASE WHEN {known} THEN {joined} END"), STRING)


def _array_repeat(call: Call) -> Sql:
    call.expect(2)
    if call[0].type == NULL:
        raise LocatedError("array_repeat() of NULL has no type; CAST it")
    text = "list_transform(range(CAST(greatest(@n, 0) AS BIGINT)), lambda _i: @v)"
    return Sql(bound({"v": call[0].text, "n": call.text(1, INT)}, f"CASE WHEN @n IS NOT NULL THEN {text} END"), pa.list_(call[0].type))


def _get(call: Call) -> Sql:
    """From 0; NULL outside."""
    call.expect(2)
    kind, at = array_type(call), call.text(1, INT)
    return Sql(f"(CASE WHEN {at} >= 0 THEN ({call[0].text})[{at} + 1] END)", kind.value_type)


def _element_at(call: Call) -> Sql:
    """Of an array from 1, or from the end if negative, an error outside; of a map NULL if absent."""
    call.expect(2)
    if pa.types.is_map(call[0].type):
        return Sql(f"({call[0].text})[{convert(call[1], call[0].type.key_type).text}]", call[0].type.item_type)
    kind, at, array = array_type(call), call.text(1, INT), call[0].text
    if call[1].literal == 0:
        raise LocatedError("element_at(): positions begin with 1 or -1")
    outside = f"({array} IS NOT NULL AND {at} = 0) OR abs({at}) > len({array})"
    wrong = f"error('array position ' || {at} || ' is outside; use try_element_at or get for NULL instead')"
    return Sql(f"(CASE WHEN {outside} THEN CAST({wrong} AS {duck_type(kind.value_type)}) ELSE ({array})[{at}] END)", kind.value_type)


def _try_element_at(call: Call) -> Sql:
    call.expect(2)
    if pa.types.is_map(call[0].type):
        return _element_at(call)
    if call[1].literal == 0:
        raise LocatedError("try_element_at(): positions begin with 1 or -1")
    kind, at = array_type(call).value_type, call.text(1, INT)
    wrong = f"CAST({fail('try_element_at(): positions begin with 1 or -1')} AS {duck_type(kind)})"
    found = f"({call[0].text})[{at}]"
    return Sql(found if call[1].literal else f"(CASE WHEN {at} = 0 THEN {wrong} ELSE {found} END)", kind)


def _slice(call: Call) -> Sql:
    """From 1, or from the end if negative."""
    call.expect(3)
    kind = array_type(call)
    values = {"a": call[0].text} | {n: f"CAST({call.text(i, INT)} AS BIGINT)" for n, i in (("s", 1), ("n", 2))}
    wrong = f"CAST({fail('slice() starts at 1 or -1 and has no negative length')} AS {duck_type(kind)})"
    found = (
        f"WHEN @s = 0 OR @n < 0 THEN {wrong} WHEN @s > 0 THEN list_slice(@a, @s, @s + @n - 1) "
        "WHEN -@s > len(@a) THEN list_slice(@a, 1, 0) ELSE list_slice(@a, len(@a) + @s + 1, len(@a) + @s + @n)"
    )
    return Sql(bound(values, f"CASE WHEN @a IS NULL OR @s IS NULL OR @n IS NULL THEN NULL {found} END"), kind)


def _sort_array(call: Call) -> Sql:
    """NULLs first ascending, last descending."""
    call.expect(1, 2)
    _sortable(call)
    up = len(call) == 1 or bool(call.constant(1, bool, "the direction"))
    return Sql(f"list_sort({call[0].text}, '{'ASC' if up else 'DESC'}', 'NULLS {'FIRST' if up else 'LAST'}')", call[0].type)


def _flatten(call: Call) -> Sql:
    call.expect(1)
    kind = array_type(call)
    if not pa.types.is_list(kind.value_type):
        raise call.misfit()
    return Sql(f"(CASE WHEN len(list_filter({call[0].text}, lambda _e: _e IS NULL)) = 0 THEN flatten({call[0].text}) END)", kind.value_type)


def _reverse(call: Call) -> Sql:
    call.expect(1)
    if pa.types.is_list(call[0].type):
        return Sql(f"list_reverse({call[0].text})", call[0].type)
    return Sql(f"array_to_string(list_reverse(regexp_extract_all({call.text(0, STRING)}, '(?s).')), '')", STRING)  # not by graphemes


def _array_compact(call: Call) -> Sql:
    call.expect(1)
    return Sql(f"list_filter({call[0].text}, lambda _e: _e IS NOT NULL)", array_type(call))


FUNCTIONS: Mapping[str, Callable[[Call], Sql]] = {
    "array": _array, "struct": _struct, "named_struct": _named_struct, "size": _size, "cardinality": _size, "array_size": _array_size,
    "array_contains": _array_contains, "array_position": _array_position, "array_remove": _array_remove, "array_join": _array_join,
    "array_max": _extreme("list_max({0})"), "array_min": _extreme("list_min({0})"),
    "array_append": _array_append("({0} || {1})"), "array_prepend": _array_append("({1} || {0})"), "array_insert": _array_insert,
    "array_distinct": _array_distinct, "array_union": _array_union, "array_except": _set_operation(_both("IS NULL")),
    "array_intersect": _set_operation(_both("IS NOT NULL")), "arrays_overlap": _arrays_overlap, "arrays_zip": _arrays_zip,
    "array_repeat": _array_repeat, "array_compact": _array_compact, "get": _get, "element_at": _element_at,
    "try_element_at": _try_element_at, "slice": _slice, "sort_array": _sort_array, "flatten": _flatten, "reverse": _reverse,
}  # fmt: skip
