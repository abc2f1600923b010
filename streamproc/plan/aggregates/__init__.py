"""Spark's aggregates by name → exportable states and the expression over their finalized values.

The allow-list: every aggregate here is exact when partial states are combined in any cut, and has a test of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from streamproc.plan.aggregates import shares, statistics, sums, values
from streamproc.plan.aggregates.call import AggregateCall, AggregateRule, Aggregator, States
from streamproc.plan.faults import LocatedError
from streamproc.plan.types import Sql

if TYPE_CHECKING:
    from streamproc.plan.expressions import Compiler

__all__ = ["AGGREGATES", "REFUSED", "States", "is_aggregate_call", "read_aggregate"]


def _distinct(build: Aggregator) -> AggregateRule:
    return AggregateRule(build, distinct="yes")


def _idempotent(build: Aggregator) -> AggregateRule:
    """The same with and without DISTINCT."""
    return AggregateRule(build, distinct="same")


_REGRESSIONS = ("regr_r2", "regr_avgx", "regr_avgy", "regr_sxx", "regr_sxy", "regr_syy")
_STATISTICS = {
    "stddev": "stddev_samp", "std": "stddev_samp", "stddev_samp": "stddev_samp", "stddev_pop": "stddev_pop",
    "variance": "var_samp", "var_samp": "var_samp", "var_pop": "var_pop",
}  # fmt: skip
_PAIRS = ("covar_samp", "covar_pop", *_REGRESSIONS)

AGGREGATES: Mapping[str, AggregateRule] = {
    "count": _distinct(sums.count), "count_if": _distinct(sums.count_if),
    "sum": _distinct(sums.total("CAST")), "try_sum": _distinct(sums.total("TRY_CAST")),
    "avg": _distinct(sums.mean), "mean": _distinct(sums.mean), "try_avg": _distinct(sums.try_mean),
    "min": _idempotent(values.extreme("min")), "max": _idempotent(values.extreme("max")),
    **{name: _distinct(statistics.doubles(function)) for name, function in _STATISTICS.items()},
    **{name: _distinct(statistics.doubles(name, 2)) for name in _PAIRS},
    **{name: _distinct(statistics.regression(name)) for name in ("regr_slope", "regr_intercept")},
    "corr": _distinct(statistics.corr), "regr_count": _distinct(statistics.regr_count),
    "skewness": _distinct(statistics.skewness), "kurtosis": _distinct(statistics.kurtosis),
    "bool_and": _idempotent(values.booleans("bool_and")), "every": _idempotent(values.booleans("bool_and")),
    "bool_or": _idempotent(values.booleans("bool_or")), "some": _idempotent(values.booleans("bool_or")),
    "any": _idempotent(values.booleans("bool_or")),
    "bit_and": _idempotent(values.bits("bit_and")), "bit_or": _idempotent(values.bits("bit_or")),
    "bit_xor": _distinct(values.bits("bit_xor")),
    "max_by": AggregateRule(values.by("arg_max_null")), "min_by": AggregateRule(values.by("arg_min_null")),
    **{name: AggregateRule(values.first("arg_min_null"), nulls=True) for name in ("first", "first_value", "any_value")},
    **{name: AggregateRule(values.first("arg_max_null"), nulls=True) for name in ("last", "last_value")},
    **{name: AggregateRule(values.collect_list, "yes", nulls=True) for name in ("collect_list", "array_agg")},
    "collect_set": AggregateRule(values.collect_set, "same", nulls=True),
    "listagg": AggregateRule(values.listagg, "yes", within=True), "string_agg": AggregateRule(values.listagg, "yes", within=True),
    "percentile": _distinct(shares.percentile), "median": _distinct(shares.median),
    "percentile_cont": AggregateRule(shares.percentile_cont, "yes", within=True),
    "percentile_disc": AggregateRule(shares.percentile_disc, "yes", within=True),
    "approx_percentile": _distinct(shares.approx_percentile), "percentile_approx": _distinct(shares.approx_percentile),
    "mode": AggregateRule(shares.mode, within=True),
    "approx_count_distinct": _idempotent(values.approx_count_distinct),
}  # fmt: skip

_SKETCH = "a sketch's bytes would differ from Spark's; count(DISTINCT x) is exact, approx_count_distinct(x) keeps a fixed size"
REFUSED: Mapping[str, str] = {
    "histogram_numeric": "Spark's bins depend on the order of rows; group by width_bucket(x, low, high, n) and count",
    "count_min_sketch": _SKETCH,
    **dict.fromkeys(("approx_top_k", "approx_top_k_accumulate", "approx_top_k_combine"),
                    "its counts are estimates that depend on the order of rows; count(*) by value, and take the top rows of that"),
    **dict.fromkeys(("hll_sketch_agg", "hll_union_agg", "theta_sketch_agg", "theta_union_agg", "theta_intersection_agg"), _SKETCH),
    **dict.fromkeys(("kll_sketch_agg_bigint", "kll_sketch_agg_double", "kll_sketch_agg_float"),
                    "a sketch's bytes would differ from Spark's; percentile(x, 0.5) is exact"),
    **dict.fromkeys(("bitmap_construct_agg", "bitmap_or_agg", "bitmap_and_agg"), _SKETCH),
    **dict.fromkeys(("schema_of_json_agg", "schema_of_variant_agg"), "the schema of a sink is fixed; write it in from_json(…)"),
}  # fmt: skip
"""Aggregates of Spark that a query cannot use, and why."""


def is_aggregate_call(node: exp.Expr) -> bool:
    if isinstance(node, exp.Filter | exp.IgnoreNulls | exp.RespectNulls | exp.WithinGroup):
        return is_aggregate_call(node.this)
    return isinstance(node, exp.Anonymous) and node.name.lower() in AGGREGATES


def read_aggregate(node: exp.Expr, rows: Compiler, states: States) -> Sql:
    """The result of `name([DISTINCT] …) [WITHIN GROUP …] [IGNORE NULLS] [FILTER …]` over finalized states; `rows` compiles what
    is computed for every input row. LocatedError if it cannot be.
    """
    where, ignore_nulls, within = None, None, None
    while not isinstance(node, exp.Anonymous):
        if isinstance(node, exp.Filter):
            where = rows.boolean(node.expression.this).text
        elif isinstance(node, exp.WithinGroup):
            within = node.expression.expressions
        else:
            ignore_nulls = isinstance(node, exp.IgnoreNulls)
        node = node.this
    distinct = len(node.expressions) == 1 and isinstance(node.expressions[0], exp.Distinct)
    nodes = node.expressions[0].expressions if distinct else node.expressions
    call = AggregateCall(
        rows, node.name.lower(), nodes, states=states, where=where, ignore_nulls=ignore_nulls, distinct=distinct, within=within
    )
    if any(is_aggregate_call(n) for item in (*nodes, *(within or ())) for n in item.walk()):
        raise LocatedError("an aggregate inside an aggregate is not possible")
    return AGGREGATES[call.name](call)
