"""Every allowed aggregate: k runs combined = one pass; states that an earlier DuckDB exported still give their results.

`python tests/unit/test_operators_states.py` writes the golden states anew; do that only for a DuckDB that reads the old ones.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from random import Random

import duckdb
import pyarrow as pa
import pytest

from streamproc.operators.duck import Duck
from streamproc.operators.states import AGGREGATES, check_state, combine_sql, finalize_sql, partial_sql
from streamproc.plan.one_pass import one_pass_sql
from streamproc.plan.plan import StateColumn

GOLDEN = Path(__file__).parents[1] / "golden" / "states"
ONE, TWO = ("d",), ("d", "e")
BY_TIME = (("t", "ASC NULLS LAST"), ("i", "ASC NULLS LAST"))


def case(function, args=(), types=(), **more):
    return StateColumn("s", function, args, types, **more)


DOUBLES = ("stddev_samp", "stddev_pop", "var_samp", "var_pop", "central_moments", "product", "median")
PAIRS = (
    "corr", "covar_samp", "covar_pop", "regr_slope", "regr_intercept", "regr_r2", "regr_count", "regr_avgx", "regr_avgy",
    "regr_sxx", "regr_syy", "regr_sxy",
)  # fmt: skip
CASES = {
    "count_star": case("count_star"),
    "count": case("count", ("v",), ("BIGINT",)),
    "count_if": case("count_if", ("b",), ("BOOLEAN",)),
    "sum": case("sum", ("v",), ("BIGINT",)),
    "sum_double": case("sum", ONE, ("DOUBLE",)),
    "sum_decimal": case("sum", ("m",), ("DECIMAL(10,2)",)),
    "sum_filter": case("sum", ("v",), ("BIGINT",), filter="b"),
    "central_moments_filter": case("central_moments", ONE, ("DOUBLE",), filter="b"),
    "avg": case("avg", ("v",), ("BIGINT",)),
    "avg_double": case("avg", ONE, ("DOUBLE",)),
    "min": case("min", ("c",), ("VARCHAR",)),
    "max": case("max", ("m",), ("DECIMAL(10,2)",)),
    "max_struct": case("max", ("r",), ("STRUCT(t TIMESTAMP WITH TIME ZONE, i BIGINT)",)),
    "arg_min": case("arg_min", ("c", "r"), ("VARCHAR", "STRUCT(t TIMESTAMP WITH TIME ZONE, i BIGINT)")),
    "arg_max": case("arg_max", ("v", "r"), ("BIGINT", "STRUCT(t TIMESTAMP WITH TIME ZONE, i BIGINT)")),
    "arg_min_null": case("arg_min_null", ("c", "i"), ("VARCHAR", "BIGINT")),
    "arg_max_null": case("arg_max_null", ("v", "i"), ("BIGINT", "BIGINT")),
    "bool_and": case("bool_and", ("b",), ("BOOLEAN",)),
    "bool_or": case("bool_or", ("b",), ("BOOLEAN",)),
    "bit_and": case("bit_and", ("v",), ("BIGINT",)),
    "bit_or": case("bit_or", ("v",), ("BIGINT",)),
    "bit_xor": case("bit_xor", ("v",), ("BIGINT",)),
    "approx_count_distinct": case("approx_count_distinct", ("c",), ("VARCHAR",)),
    "quantile_cont": case("quantile_cont", ONE, ("DOUBLE", "DOUBLE"), constants=("NULL", "0.3")),
    "quantile_disc": case("quantile_disc", ("v",), ("BIGINT", "DOUBLE"), constants=("NULL", "0.75")),
    "list": case("list", ("c",), ("VARCHAR",), order=(("v", "DESC NULLS LAST"), ("i", "ASC NULLS LAST"))),
    "list_of_its_order": case("list", ("i",), ("BIGINT",), order=(("i", "DESC NULLS LAST"),)),
    "list_of_its_order_and_more": case("list", ("c",), ("VARCHAR",), order=(("c", "DESC NULLS LAST"), ("i", "ASC NULLS LAST"))),
    "string_agg_of_its_order": case(
        "string_agg", ("c",), ("VARCHAR", "VARCHAR"), constants=("NULL", "';'"), order=(("c", "ASC NULLS LAST"),)
    ),
    "list_filter": case("list", ("c",), ("VARCHAR",), filter="c IS NOT NULL", order=BY_TIME),
    "string_agg": case("string_agg", ("c",), ("VARCHAR", "VARCHAR"), constants=("NULL", "';'"), order=BY_TIME),
    "first": case("first", ("c",), ("VARCHAR",), order=BY_TIME),
    "last": case("last", ("v",), ("BIGINT",), order=BY_TIME),
    **{name: case(name, ONE, ("DOUBLE",)) for name in DOUBLES},
    **{name: case(name, TWO, ("DOUBLE", "DOUBLE")) for name in PAIRS},
}


def random_rows(seed):
    """Few rows with many NULLs and ties, and where they are cut into runs: empty runs and groups in one run only occur."""
    random = Random(seed)
    maybe = lambda value: None if random.random() < 0.2 else value  # noqa: E731
    rows = [
        (
            random.randrange(3), maybe(random.randrange(-(2**40), 2**40)), maybe(random.randrange(-1000, 1000)),
            maybe(random.choice(["", "a", "b;", "ü"])), maybe(random.random() < 0.5), random.randrange(6),
        )
        for _ in range(random.choice([1, 3, 9, 40]))
    ]  # fmt: skip
    return rows, sorted(random.randrange(len(rows) + 1) for _ in range(3))


def table(rows):
    """Prepared rows: key, BIGINT, two DOUBLE, DECIMAL, VARCHAR, BOOLEAN, time with ties, arrival, (time, arrival)."""
    columns = list(zip(*rows, strict=True))
    times = pa.array(columns[5], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    order = pa.array(range(len(rows)), pa.int64())
    doubles = [None if x is None else x / 8 for x in columns[2]]
    return pa.table({
        "k": columns[0], "v": pa.array(columns[1], pa.int64()), "d": pa.array(doubles, pa.float64()),
        "e": pa.array([None if x is None else x * x % 77 / 4 for x in columns[2]], pa.float64()),
        "m": pa.array(columns[2], pa.int64()).cast(pa.decimal128(19, 0)).cast(pa.decimal128(10, 2)),
        "c": pa.array(columns[3], pa.string()), "b": pa.array(columns[4], pa.bool_()), "t": times, "i": order,
        "r": pa.StructArray.from_arrays([times, order], ["t", "i"]),
    })  # fmt: skip


@pytest.fixture(scope="module")
def duck():
    duck = Duck()
    yield duck
    duck.close()


def runs_of(duck, state, rows, cuts):
    """Partial states of the rows, cut in pieces; two neighbours of them combined and exported again."""
    edges = [0, *sorted(cuts), rows.num_rows]
    partial = f"SELECT k, {partial_sql(state)} FROM input GROUP BY k ORDER BY k"
    runs = [duck.query(partial, input=rows.slice(a, b - a)) for a, b in pairwise(edges)]
    merged = duck.query(f"SELECT k, {combine_sql(state)} FROM input GROUP BY k ORDER BY k", input=pa.concat_tables(runs[:2]))
    return pa.concat_tables([merged, *runs[2:]])


def result(duck, state, runs):
    rows = duck.query(f"SELECT k, {finalize_sql(state)} FROM input GROUP BY k ORDER BY k", input=runs).to_pylist()
    return {row["k"]: row["s"] for row in rows}


def one_pass(duck, state, rows):
    sql = f"SELECT k, {one_pass_sql(state)} AS s FROM input GROUP BY k ORDER BY k"
    return {row["k"]: row["s"] for row in duck.query(sql, input=rows).to_pylist()}


def same(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6)
    return a == b


@pytest.mark.parametrize("name", CASES)
def test_runs_combined_are_one_pass(duck, name):
    for seed in range(8):
        check_one_pass(duck, CASES[name], *random_rows(seed))


def check_one_pass(duck, state, rows, cuts):
    rows = table(rows)
    combined = result(duck, state, runs_of(duck, state, rows, cuts))
    expected = one_pass(duck, state, rows)
    assert combined.keys() == expected.keys()
    assert all(same(combined[k], expected[k]) for k in expected), (combined, expected)


def test_every_allowed_aggregate_has_a_case():
    assert {state.function for state in CASES.values()} == set(AGGREGATES)


def test_what_is_not_on_the_list_is_refused():
    with pytest.raises(ValueError, match="mode is not supported"):
        check_state(case("mode", ("v",), ("BIGINT",)))
    with pytest.raises(ValueError, match="needs an order"):
        check_state(case("first", ("v",), ("BIGINT",)))


def test_distinct_is_refused_by_the_engine_too():
    with pytest.raises(duckdb.Error):
        duckdb.connect().sql("SELECT count(DISTINCT x) EXPORT_STATE FROM (VALUES (1)) t(x)")


def golden_rows():
    return table([(i % 3, (i * 7919) % 1000 - 500, (i * 31) % 200 - 100, "abcdef"[i % 6] * (i % 4), i % 5 > 1, i % 4) for i in range(48)])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.states.arrow")), ids=lambda path: path.name.removesuffix(".states.arrow"))
def test_states_of_earlier_versions_are_read(duck, path):
    states = pa.ipc.open_file(path).read_all()
    expected = pa.ipc.open_file(path.with_name(path.name.replace(".states.", ".results."))).read_all().to_pylist()
    assert set(states.column_names) == {"k", *CASES}
    for name, state in CASES.items():
        runs = pa.table({"k": states["k"], "s": states[name]})
        results = result(duck, state, runs)
        assert all(same(results[row["k"]], row[name]) for row in expected), name


def test_this_version_has_golden_states():
    assert (GOLDEN / f"duckdb-{duckdb.__version__}.states.arrow").exists(), "run this file as a script, if the older states are read"


def write_golden():
    duck, rows = Duck(), golden_rows()
    runs = {name: runs_of(duck, state, rows, [10, 20, 40]) for name, state in CASES.items()}
    keys = runs["count"]["k"]
    states = pa.table({"k": keys, **{name: table["s"] for name, table in runs.items()}})
    results = {name: result(duck, state, runs[name]) for name, state in CASES.items()}
    typed = {name: duck.query(f"SELECT {finalize_sql(state)} FROM input", input=runs[name]) for name, state in CASES.items()}
    kinds = {name: table.schema.field("s").type for name, table in typed.items()}
    columns = {name: pa.array([results[name][k] for k in range(3)], kinds[name]) for name in CASES}
    for kind, written in (("states", states), ("results", pa.table({"k": list(range(3)), **columns}))):
        path = GOLDEN / f"duckdb-{duckdb.__version__}.{kind}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(path), written.schema, options=options) as writer:
            writer.write_table(written.combine_chunks())


if __name__ == "__main__":
    write_golden()
