"""Aggregates with Spark's types; the same result however the rows are cut into epochs and slices."""

import datetime as dt
import math
import random
from decimal import Decimal

import pyarrow as pa
import pytest

from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck
from streamproc.operators.executor import Executor
from streamproc.operators.operator import EpochTime
from streamproc.plan.aggregates import AGGREGATES
from streamproc.plan.one_pass import one_pass_sql
from streamproc.plan.plan import Aggregate, Watermark
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.schema import ddl_type, parse_ddl

DDL = "k STRING, i INT, l BIGINT, x DOUBLE, y DOUBLE, dec DECIMAL(10,2), s STRING, b BOOLEAN, ts TIMESTAMP"
TABLES = {"t": TableInfo(parse_ddl(DDL), watermark=Watermark("ts"))}
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def rows(count=400):
    rng = random.Random(7)
    pick = lambda value: None if rng.random() < 0.15 else value  # noqa: E731
    return [
        {
            "k": rng.choice(["a", "b", None]), "i": pick(rng.randrange(-50, 50)), "l": pick(rng.randrange(10**12)), "x": pick(rng.random()),
            "y": pick(rng.random()), "dec": pick(Decimal(rng.randrange(-10000, 10000)) / 100), "s": pick(rng.choice("abcdefg")),
            "b": pick(rng.random() < 0.5), "ts": START + dt.timedelta(seconds=rng.randrange(60)), "_shard": str(n % 3), "_offset": str(n),
        }
        for n in range(count)
    ]  # fmt: skip


async def run(sql, data, cuts, slice_rows=64, mode="complete", zone="UTC"):
    """Rows of the last epoch, after the input came in `cuts` epochs."""
    plan = plan_job(TABLES, {}, {"out": SinkQuery(sql, mode)}, time_zone=zone)
    executor, state = Executor(plan, threads=1, slice_rows=slice_rows), {}
    schema, size = plan.scans["t"].schema, math.ceil(len(data) / cuts) or 1
    try:
        for at in range(cuts):
            part = sorted(data[at * size : (at + 1) * size], key=lambda r: (r["_shard"], int(r["_offset"])))
            table = pa.Table.from_pylist([{name: r[name] for name in schema.names} for r in part], schema=schema)
            output = await executor.run({"t": table}, EpochTime(at + 1, None, None), state, limits={})
            state = output.state
            assert not output.poison
            if failures := output.sinks["out"].failures:
                raise BadRecord(failures[0].error)
        return output.sinks["out"].rows
    finally:
        await executor.close()


CALLS = {
    "count(*)": "BIGINT", "count(i)": "BIGINT", "count(i, s)": "BIGINT", "count(1)": "BIGINT", "count_if(b)": "BIGINT", "sum(i)": "BIGINT",
    "sum(l)": "BIGINT", "sum(x)": "DOUBLE", "sum(dec)": "DECIMAL(20,2)", "avg(i)": "DOUBLE", "mean(x)": "DOUBLE",
    "avg(dec)": "DECIMAL(14,6)",
    "min(s)": "STRING", "max(dec)": "DECIMAL(10,2)", "min(b)": "BOOLEAN", "max(ts)": "TIMESTAMP", "stddev(i)": "DOUBLE", "std(x)": "DOUBLE",
    "stddev_samp(x)": "DOUBLE", "stddev_pop(x)": "DOUBLE", "variance(x)": "DOUBLE", "var_samp(x)": "DOUBLE", "var_pop(x)": "DOUBLE",
    "corr(x, y)": "DOUBLE", "covar_samp(x, y)": "DOUBLE", "covar_pop(x, i)": "DOUBLE", "regr_slope(x, y)": "DOUBLE",
    "regr_intercept(x, y)": "DOUBLE", "regr_r2(x, y)": "DOUBLE", "regr_avgx(x, y)": "DOUBLE", "regr_avgy(x, y)": "DOUBLE",
    "regr_sxx(x, y)": "DOUBLE", "regr_sxy(x, y)": "DOUBLE", "regr_syy(x, y)": "DOUBLE", "regr_count(x, y)": "BIGINT",
    "bool_and(b)": "BOOLEAN", "every(b)": "BOOLEAN", "bool_or(b)": "BOOLEAN", "some(b)": "BOOLEAN", "any(b)": "BOOLEAN",
    "bit_and(i)": "INT", "bit_or(l)": "BIGINT", "bit_xor(i)": "INT", "max_by(s, l)": "STRING", "min_by(i, l)": "INT", "first(i)": "INT",
    "first(i, true)": "INT", "first_value(s) IGNORE NULLS": "STRING", "any_value(s)": "STRING", "last(i)": "INT", "last_value(x)": "DOUBLE",
    "collect_list(i)": "ARRAY<INT>", "array_agg(s)": "ARRAY<STRING>", "collect_set(s)": "ARRAY<STRING>", "listagg(s, ';')": "STRING",
    "string_agg(s)": "STRING", "percentile(i, 0.3)": "DOUBLE", "median(x)": "DOUBLE", "approx_count_distinct(s)": "BIGINT",
    "sum(i) FILTER (WHERE b)": "BIGINT", "count(*) FILTER (WHERE s > 'c')": "BIGINT", "sum(i) / count(i)": "DOUBLE",
    "sum(i + 1) * 2": "BIGINT", "try_sum(l)": "BIGINT", "try_avg(dec)": "DECIMAL(14,6)", "skewness(x)": "DOUBLE", "kurtosis(x)": "DOUBLE",
    "kurtosis(i) FILTER (WHERE b)": "DOUBLE", "mode(s)": "STRING", "mode() WITHIN GROUP (ORDER BY i DESC)": "INT",
    "mode(dec, true)": "DECIMAL(10,2)",
    "percentile(i, array(0.1, 0.9))": "ARRAY<DOUBLE>", "percentile(i, 0.3, abs(i))": "DOUBLE",
    "percentile_cont(0.9) WITHIN GROUP (ORDER BY i DESC)": "DOUBLE", "percentile_disc(0.25) WITHIN GROUP (ORDER BY dec)": "DOUBLE",
    "percentile_disc(array(0.25)) WITHIN GROUP (ORDER BY i DESC)": "ARRAY<DOUBLE>",
    "approx_percentile(dec, 0.5)": "DECIMAL(10,2)", "percentile_approx(ts, array(0.5, 1), 100)": "ARRAY<TIMESTAMP>",
    "listagg(s, ',') WITHIN GROUP (ORDER BY i DESC, s)": "STRING", "sum(CAST(dec AS DECIMAL(38,2)))": "DECIMAL(38,2)",
    "avg(CAST(dec AS DECIMAL(30,2)))": "DECIMAL(34,6)", "max(array(i, NULL))": "ARRAY<INT>",
    "max_by(s, named_struct('b', b, 'i', i))": "STRING",
}  # fmt: skip
DISTINCT = {
    "count(DISTINCT i)": "BIGINT", "count(DISTINCT i, s)": "BIGINT", "count(DISTINCT s) FILTER (WHERE b)": "BIGINT",
    "count(DISTINCT s) FILTER (WHERE NOT b)": "BIGINT", "count(DISTINCT s) FILTER (WHERE false)": "BIGINT",
    "count(DISTINCT x, named_struct('a', dec))": "BIGINT", "sum(DISTINCT i)": "BIGINT", "sum(DISTINCT dec)": "DECIMAL(20,2)",
    "avg(DISTINCT dec) FILTER (WHERE i > 0)": "DECIMAL(14,6)", "collect_list(DISTINCT s)": "ARRAY<STRING>",
    "count_if(DISTINCT b)": "BIGINT",
    "listagg(DISTINCT s, ',') WITHIN GROUP (ORDER BY s DESC)": "STRING", "covar_pop(DISTINCT i, l)": "DOUBLE", "any(DISTINCT b)": "BOOLEAN",
    "skewness(DISTINCT i)": "DOUBLE", "percentile(DISTINCT i, 0.3)": "DOUBLE", "median(DISTINCT x)": "DOUBLE",
    "min(DISTINCT ts)": "TIMESTAMP",
    "bit_xor(DISTINCT i)": "INT", "collect_set(i)": "ARRAY<INT>", "max(i)": "INT",
}  # fmt: skip
WINDOWS = ("ts", "window(ts, '20 seconds')", "window(ts, '20 seconds', '10 seconds')", "window(ts, '21 seconds', '10 seconds')")


def test_every_aggregate_is_here():
    assert {call.split("(")[0] for call in CALLS} == set(AGGREGATES)


def close(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == b


@pytest.mark.parametrize("calls", [CALLS, DISTINCT], ids=["all", "distinct"])
async def test_any_cut_gives_the_same(calls):
    sql = f"SELECT k, {', '.join(f'{call} AS c{n}' for n, call in enumerate(calls))} FROM t GROUP BY k ORDER BY k"
    data = rows()
    whole = await run(sql, data, 1, slice_rows=1000)
    assert [ddl_type(f.type) for f in whole.schema][1:] == list(calls.values())
    for cuts in (2, 7):
        cut = await run(sql, data, cuts)
        for left, right in zip(whole.to_pylist(), cut.to_pylist(), strict=True):
            differing = [name for name in left if not close(left[name], right[name])]
            assert [list(calls)[int(name[1:])] for name in differing] == []


@pytest.mark.parametrize("key", ["k", *WINDOWS])
@pytest.mark.parametrize("cuts", [1, 5])
async def test_distinct_is_the_batch_s(key, cuts):
    """Against the engine's own DISTINCT over all rows of a group."""
    calls = [call for call in DISTINCT if "DISTINCT" in call]
    sql = f"SELECT {', '.join(f'{call} AS c{n}' for n, call in enumerate(calls))}, collect_list(_offset) AS offsets FROM t GROUP BY {key}"
    data = rows(150)
    for group in (await run(sql, data, cuts, slice_rows=40)).to_pylist():
        inside = [data[int(offset)] for offset in group["offsets"]]
        (expected,) = in_one_pass(calls, inside)
        assert [call for n, call in enumerate(calls) if not close(group[f"c{n}"], expected[f"c{n}"])] == []


def in_one_pass(calls, data):
    sql = f"SELECT {', '.join(f'{call} AS c{n}' for n, call in enumerate(calls))} FROM t"
    plan = plan_job(TABLES, {}, {"out": SinkQuery(sql, "complete")})
    (step,) = [s for s in plan.queries["out"].root.walk() if isinstance(s, Aggregate)]
    schema = plan.scans["t"].schema
    duck = Duck()
    table = pa.Table.from_pylist([{name: r[name] for name in schema.names} for r in data], schema=schema)
    states = ", ".join(f"{one_pass_sql(state)} AS {state.name}" for state in step.states)
    try:
        return duck.query(
            f"WITH input AS ({step.prepare}), states AS (SELECT {states} FROM input) {step.post.replace('FROM input', 'FROM states')}",
            input=table,
        ).to_pylist()
    finally:
        duck.close()


async def one(select, data=None, mode="complete", zone="UTC"):
    data = rows() if data is None else data
    return (await run(f"SELECT {select} AS v FROM t", data, 2, mode=mode, zone=zone)).to_pylist()[0]["v"]


async def test_values_against_plain_python():
    data = rows()
    whole = [r["i"] for r in data if r["i"] is not None]
    decimals = [r["dec"] for r in data if r["dec"] is not None]
    order = sorted(data, key=lambda r: (r["ts"], r["_shard"], int(r["_offset"])))
    assert await one("sum(i)", data) == sum(whole)
    assert await one("avg(dec)", data) == (sum(decimals) / len(decimals)).quantize(Decimal("1e-6"), "ROUND_HALF_UP")
    assert await one("first(s)", data) == order[0]["s"]
    assert await one("last(i, true)", data) == [r["i"] for r in order if r["i"] is not None][-1]
    assert await one("collect_list(s)", data) == [r["s"] for r in order if r["s"] is not None]
    assert await one("listagg(s, '-')", data) == "-".join(r["s"] for r in order if r["s"] is not None)
    assert await one("max_by(s, l)", data) == max((r for r in data if r["l"] is not None), key=lambda r: r["l"])["s"]
    assert await one("count(i, s)", data) == sum(r["i"] is not None and r["s"] is not None for r in data)


@pytest.mark.parametrize("cents", [[9999999999, 1], [-9999999999, -9999999998, 0], [1, 0, 0], [-1, 0, 0, 0, 0, 0], [33333333, 33333334]])
async def test_average_of_decimals_is_exact(cents):
    values = [Decimal(c) / 100 for c in cents]
    data = [{**rows(1)[0], "dec": value, "_offset": str(n)} for n, value in enumerate(values)]
    assert await one("avg(dec)", data) == (sum(values) / len(values)).quantize(Decimal("1e-6"), "ROUND_HALF_UP")


@pytest.mark.parametrize(
    ("select", "expected"),
    [("count(*)", 0), ("sum(i)", None), ("avg(dec)", None), ("collect_list(s)", []), ("max(x)", None), ("count_if(b)", 0)],
)
async def test_no_rows_at_all(select, expected):
    assert await one(select, []) == expected


async def test_wide_decimals_overflow_only_as_a_result():
    nines, minus = (f"CAST('{sign}99999999999999999999999999999999999999' AS DECIMAL(38,0))" for sign in ("", "-"))
    data = [{**r, "b": n % 2 == 0} for n, r in enumerate(rows(6))]
    assert await one(f"try_sum(CASE WHEN b THEN {nines} ELSE {minus} END)", data) == 0
    nine = "CAST(900000000000000000000000000000 AS DECIMAL(38,4))"
    assert await one(f"avg({nine})", data) == 9 * 10**29
    assert await one(f"try_sum({nines})", data) is None
    with pytest.raises(BadRecord):
        await one(f"sum({nines})", data)


async def test_moments_far_from_zero():
    data = [{**rows(1)[0], "x": 1e9 + x, "_offset": str(n)} for n, x in enumerate((1.0, 2.0, 2.0, 9.0))]
    assert math.isclose(await one("skewness(x)", data), 144 / 4 / (41 / 4) ** 1.5)
    assert await one("kurtosis(CAST(1 AS DOUBLE))", data) is None


async def test_sum_overflow_is_an_error():
    data = [{**r, "l": 2**63 - 1} for r in rows(2)]
    with pytest.raises(BadRecord, match="18446744073709551614"):
        await one("sum(l)", data)


async def test_group_keys_as_spark():
    base = rows(1)[0]
    keys = [(-0.0, None), (0.0, None), (math.nan, "a"), (-math.nan, "a"), (None, "")]
    data = [{**base, "x": x, "k": k, "_offset": str(n)} for n, (x, k) in enumerate(keys)]
    found = (await run("SELECT x, k, count(*) AS c FROM t GROUP BY x, k", data, 2)).to_pylist()
    assert sorted((str(r["x"]), r["k"] or repr(r["k"]), r["c"]) for r in found) == [("0.0", "None", 2), ("None", "''", 1), ("nan", "a", 2)]


async def test_the_time_zone_is_the_session_s():
    data = [{**rows(1)[0], "ts": dt.datetime(2026, 3, 28, 23, 30, tzinfo=dt.UTC)}]
    assert await one("max(hour(ts))", data, zone="Europe/Berlin") == 0
    assert await one("max(date(ts))", data, zone="Europe/Berlin") == dt.date(2026, 3, 29)
    moved = await one("max(ts + INTERVAL 1 DAY)", data, zone="Europe/Berlin")
    assert moved == dt.datetime(2026, 3, 29, 22, 30, tzinfo=dt.UTC)
