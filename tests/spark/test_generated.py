"""Random expressions of a typed grammar over the edge values: Spark's value and type, or refused; never another value."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MODULE = runpy.run_path(str(Path(__file__).with_name("differential.py")))
pytestmark = [pytest.mark.spark, pytest.mark.timeout(14_400)]
SEEN = Counter()
LEAVES = {
    "int": [
        "b", "h", "i", "l", "z", "0", "1", "-7", "2147483647",
    ],
    "double": [
        "d", "f", "0.0D", "2.5D", "CAST('NaN' AS DOUBLE)",
    ],
    "decimal": [
        "1.50", "-0.005", "CAST(i AS DECIMAL(12,2))", "99999.99",
    ],
    "string": [
        "CAST(i AS STRING)", "CAST(d AS STRING)", "'Spark'", "''", "' 12 '", "'é😀'",
    ],
    "boolean": [
        "i > 1", "d = d", "true", "z IS NULL",
    ],
}  # fmt: skip
FORMS = {
    "int": [
        "({int} + {int})", "({int} - {int})", "({int} * {int})", "({int} % {int})", "({int} div {int})", "abs({int})",
        "pmod({int}, {int})", "({int} & {int})", "({int} | {int})", "({int} ^ {int})", "~{int}", "length({string})",
        "CAST({double} AS INT)", "CAST({decimal} AS INT)", "try_cast({string} AS INT)", "if({boolean}, {int}, {int})",
        "coalesce({int}, {int})", "nullif({int}, {int})", "greatest({int}, {int})", "round({int}, -1)", "instr({string}, {string})",
        "shiftleft({int}, {int})", "bit_count({int})", "try_add({int}, {int})", "floor({double})", "ceil({decimal})",
        "levenshtein({string}, {string})", "locate({string}, {string})", "ascii({string})", "CAST({boolean} AS INT)",
    ],
    "double": [
        "({double} + {double})", "({double} * {double})", "({double} - {int})", "({int} / {int})", "({double} / {double})",
        "({double} % {double})", "abs({double})", "round({double}, 1)", "CAST({int} AS DOUBLE)", "try_cast({string} AS DOUBLE)",
        "if({boolean}, {double}, {double})", "coalesce({double}, {double})", "greatest({double}, {double})",
        "least({double}, {double})", "nanvl({double}, {double})", "CAST({decimal} AS DOUBLE)", "({decimal} + {double})",
        "try_divide({int}, {int})", "sign({double})", "pmod({double}, {double})",
    ],
    "decimal": [
        "({decimal} + {decimal})", "({decimal} - {decimal})", "({decimal} * {decimal})", "({decimal} / {decimal})",
        "({decimal} % {decimal})", "round({decimal}, 1)", "bround({decimal}, 1)", "abs({decimal})", "CAST({int} AS DECIMAL(12,3))",
        "CAST({double} AS DECIMAL(10,2))", "if({boolean}, {decimal}, {decimal})", "coalesce({decimal}, {decimal})",
        "({decimal} + {int})", "greatest({decimal}, {decimal})", "try_cast({string} AS DECIMAL(8,2))", "floor({decimal}, 1)",
        "try_multiply({decimal}, {decimal})",
    ],
    "string": [
        "concat({string}, {string})", "upper({string})", "lower({string})", "trim({string})", "substring({string}, {int}, {int})",
        "left({string}, {int})", "right({string}, {int})", "lpad({string}, 5, '*')", "rpad({string}, 3, 'ab')",
        "replace({string}, {string}, 'x')", "reverse({string})", "CAST({double} AS STRING)", "CAST({decimal} AS STRING)",
        "CAST({int} AS STRING)", "CAST({boolean} AS STRING)", "hex({int})", "hex({string})", "if({boolean}, {string}, {string})",
        "coalesce({string}, {string})", "translate({string}, 'ak1', 'x')", "regexp_replace({string}, '[0-9]+', '#')",
        "substring_index({string}, '.', 1)", "concat_ws('-', {string}, {string})", "md5({string})", "initcap({string})",
        "to_json(named_struct('a', {int}))", "base64({string})", "split_part({string}, '.', 2)", "repeat({string}, 2)", "bin({int})",
        "overlay({string}, {string}, 2)", "soundex({string})",
    ],
    "boolean": [
        "({int} < {int})", "({double} >= {double})", "({decimal} = {decimal})", "({string} < {string})", "({boolean} AND {boolean})",
        "({boolean} OR {boolean})", "(NOT {boolean})", "({int} IS NULL)", "({int} <=> {int})", "({string} LIKE '%a%')",
        "({string} RLIKE '[a-z]')", "({int} IN ({int}, {int}))", "({double} BETWEEN {double} AND {double})", "isnan({double})",
        "startswith({string}, {string})", "({int} = {decimal})", "({decimal} < {double})", "({int} > {double})",
    ],
}  # fmt: skip


def expressions(kind: str, depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(LEAVES[kind])
    if depth == 0:
        return leaves
    return st.one_of(leaves, st.sampled_from(FORMS[kind]).flatmap(lambda form: filled(form, depth - 1)))


def filled(form: str, depth: int) -> st.SearchStrategy[str]:
    """The form with an expression in each of its places."""
    kinds = [part.split("}")[0] for part in form.split("{")[1:]]
    template = form
    for kind in LEAVES:
        template = template.replace(f"{{{kind}}}", "{}")
    return st.tuples(*(expressions(kind, depth) for kind in kinds)).map(lambda parts: template.format(*parts))


ANY = st.sampled_from(sorted(LEAVES)).flatmap(lambda kind: st.sampled_from(FORMS[kind])).flatmap(lambda form: filled(form, 2))


@pytest.fixture(scope="module")
def numbers(spark):
    spark.register({"numbers": MODULE["tables"]()["numbers"]})
    yield spark
    print(f"generated expressions: {dict(SEEN)}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sql=ANY)
def test_a_random_expression_is_equal_or_refused(numbers, sql):
    [theirs] = numbers.evaluate("numbers", [sql])
    [mine] = MODULE["ours"]([sql], MODULE["tables"]()["numbers"])
    found = MODULE["judge"](theirs, mine, lazy=True)
    SEEN[found.kind] += 1
    assert found.kind != "different", f"{sql}: {found.why}"
