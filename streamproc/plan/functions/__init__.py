"""Spark's scalar functions by name: the allow-list. What is not here is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from streamproc.plan.faults import LocatedError, RefusedError, nearest
from streamproc.plan.functions import (
    collections,
    conditional,
    higher_order,
    json,
    maps,
    moments,
    numbers,
    sequences,
    strings,
    times,
    windows,
)
from streamproc.plan.functions.call import Builder, Call
from streamproc.plan.types import Sql

if TYPE_CHECKING:
    from streamproc.plan.expressions import Compiler

FUNCTIONS: Mapping[str, Builder] = {
    **conditional.FUNCTIONS,
    **strings.FUNCTIONS,
    **numbers.FUNCTIONS,
    **json.FUNCTIONS,
    **times.FUNCTIONS,
    **moments.FUNCTIONS,
    **windows.FUNCTIONS,
    **collections.FUNCTIONS,
    **maps.FUNCTIONS,
    **higher_order.FUNCTIONS,
    **sequences.FUNCTIONS,
}

_NOT_REPEATABLE = "its value would differ when an epoch runs again"
_REFUSED = {
    **dict.fromkeys(("rand", "random", "randn", "uniform", "randstr", "shuffle"), f"{_NOT_REPEATABLE}; hash a column instead: md5(key)"),
    "uuid": f"{_NOT_REPEATABLE}; build an id from columns: concat(_shard, '-', _offset)",
    **dict.fromkeys(
        ("monotonically_increasing_id", "spark_partition_id", "input_file_name"),
        f"{_NOT_REPEATABLE}; use the columns _shard and _offset",
    ),
    **dict.fromkeys(("current_user", "session_user", "user", "version", "current_catalog", "current_database", "current_schema"),
                    "a job has no session; write the value as a literal"),
    **dict.fromkeys(("hash", "xxhash64", "crc32"), "it cannot be computed here as Spark does; use md5(x) or sha2(x, 256)"),
    **dict.fromkeys(("json_tuple", "parse_json", "try_parse_json", "variant_get", "schema_of_json", "schema_of_csv", "from_csv",
                     "from_xml"),
                    "use get_json_object(x, '$.a'), or from_json(x, 'a INT') with the schema written out"),
    **dict.fromkeys(("aes_encrypt", "aes_decrypt", "java_method", "reflect", "current_setting"), "it is no function of the row alone"),
    **dict.fromkeys(("to_number", "try_to_number", "to_char", "to_varchar"),
                    "number formats are not supported; CAST, or format_number(x, 2)"),
    **dict.fromkeys(("format_string", "printf"), "Java's formats differ; join the parts with concat(), lpad() and format_number()"),
    **dict.fromkeys(("window", "session_window", "cumulate_window"),
                    "a window stands alone, in GROUP BY or in SELECT; write it there and name its column"),
    **dict.fromkeys(("grouping", "grouping_id"), "it belongs to a query with GROUPING SETS, ROLLUP or CUBE"),
    **dict.fromkeys(("explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack"),
                    "a function that makes rows stands alone in SELECT of a query without GROUP BY, or in LATERAL VIEW explode(…)"),
}  # fmt: skip


def call(compiler: Compiler, name: str, nodes: Sequence[exp.Expr]) -> Sql:
    """SQL of `name(nodes)`; LocatedError or RefusedError if it cannot be."""
    key = name.lower()
    builder = FUNCTIONS.get(key)
    if builder is None:
        raise _unknown(key)
    if any(isinstance(n, exp.Star) for n in nodes):
        raise LocatedError(f"{key}(*) is not possible; name the columns")
    return builder(Call(compiler, key, nodes))


def _unknown(name: str) -> LocatedError:
    from streamproc.plan.aggregates import AGGREGATES, REFUSED  # aggregates build on this package

    refused = {**_REFUSED, **REFUSED}
    if name in refused:
        reason = f"{name}() is refused: {refused[name]}"
        return RefusedError(reason) if name.endswith(("window", "window_time")) else LocatedError(reason)
    if name in AGGREGATES:
        return LocatedError(f"{name}() is an aggregate and cannot stand here; compute it in SELECT or HAVING of a query with GROUP BY")
    return LocatedError(f"function {name}() is not supported{nearest(name, [*FUNCTIONS, *AGGREGATES])}")
