"""Expressions give Spark's value and type or are refused: against recorded answers, and against Spark itself."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

MODULE = runpy.run_path(str(Path(__file__).with_name("differential.py")))
NAMES, cases, answers, key, verdicts = (MODULE[name] for name in ("names", "cases", "answers", "key", "verdicts"))


@pytest.mark.parametrize("name", NAMES())
def test_every_case_has_its_verdict(name):
    recorded = answers(name)
    missing = [case for case in cases(name) if key(case) not in recorded]
    assert not missing, f"no answer to {missing}: python tests/spark/differential.py record {name}"
    wrong = [
        f"{found.kind}: {case.table}: {case.sql}: {found.why}"
        for case, found in verdicts(cases(name), recorded)
        if found.kind != case.section.replace("approx", "equal")
    ]
    assert not wrong, "\n".join(wrong)


def test_enough_cases_are_equal():
    sections = Counter(case.section for name in NAMES() for case in cases(name))
    print(f"Spark expressions: {sections['equal'] + sections['approx']} equal, {sections['refused']} refused, 0 different")
    assert sum(sections.values()) >= 1000
    assert sections["refused"] <= 0.2 * sum(sections.values())


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_recorded_answers_are_sparks(spark):
    spark.register(MODULE["tables"]())
    for name in NAMES():
        recorded = answers(name)
        fresh = MODULE["ask"](spark, cases(name))
        compared = {key(case) for case in cases(name) if case.section != "refused"}  # rand() is not the same twice
        assert {k: v for k, v in fresh.items() if k in compared and recorded.get(k) != v} == {}, name
        assert set(recorded) == set(fresh), f"{name}: answers to no case"
