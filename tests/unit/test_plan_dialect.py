"""`window` in every place where Spark allows it, and WINDOW clauses still understood."""

import pytest
from sqlglot import exp

from streamproc.plan.dialect import parse_query
from streamproc.plan.faults import LocatedError

CALL = "window(ts, '1 minute')"


def group(sql):
    return [type(e) for e in parse_query(sql).args["group"].expressions]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (f"SELECT count(*) FROM t GROUP BY {CALL}", [exp.Anonymous]),
        (f"SELECT count(*) FROM t GROUP BY {CALL}, page", [exp.Anonymous, exp.Column]),
        (f"SELECT count(*) FROM t GROUP BY page, {CALL}", [exp.Column, exp.Anonymous]),
        ("SELECT count(*) FROM t group by\n  WINDOW(ts, '1 minute') HAVING count(*) > 1", [exp.Anonymous]),
        ("SELECT count(*) FROM t GROUP BY window", [exp.Column]),
        ("SELECT count(*) FROM t GROUP BY window, page ORDER BY page", [exp.Column, exp.Column]),
        ("SELECT count(*) FROM t GROUP BY window.start", [exp.Column]),
        ("SELECT count(*) FROM t GROUP BY page, window", [exp.Column, exp.Column]),
    ],
)
def test_group_by_window(sql, expected):
    assert group(sql) == expected


def test_window_parts_keep_their_names():
    column = parse_query("SELECT 1 FROM t GROUP BY window.start").args["group"].expressions[0]
    assert [p.name for p in column.parts] == ["window", "start"]


@pytest.mark.parametrize("sql", [f"SELECT {CALL}.start AS s FROM t", f"SELECT {CALL} w FROM t", "SELECT window.end FROM t"])
def test_window_in_select(sql):
    assert len(parse_query(sql).expressions) == 1


def test_window_clause_is_still_one():
    query = parse_query("SELECT sum(x) OVER w FROM t GROUP BY page WINDOW w AS (PARTITION BY page)")
    assert len(query.args["windows"]) == 1
    assert len(query.args["group"].expressions) == 1


def test_nested_queries_have_windows_too():
    query = parse_query(f"SELECT * FROM (SELECT count(*) AS c FROM t GROUP BY {CALL}) WHERE c > 1")
    assert isinstance(query.find(exp.Group).expressions[0], exp.Anonymous)


def test_functions_keep_their_spark_names():
    query = parse_query("SELECT date_format(ts, 'yyyy'), nvl(a, b), any(c), transform(d, x -> x) FROM t")
    assert [e.name for e in query.expressions] == ["date_format", "nvl", "any", "transform"]


@pytest.mark.parametrize(
    ("sql", "line"), [("SELECT a\nFROM t\nWHERE (", 2), ("SELECT 'open FROM t", 0), ("SELECT a FROM t GROUP BY window(", 0)]
)
def test_syntax_faults_have_a_line(sql, line):
    with pytest.raises(LocatedError) as caught:
        parse_query(sql)
    assert caught.value.line == line
