"""Job files made to break the reader: each is refused with `file:line: …`, quickly, and nothing of it is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamproc.errors import InvalidJob
from streamproc.job import load_job

VALID = """name: x
sources:
  t: {type: kafka, topic: t, bootstrap_servers: 'x:1', schema: 'k STRING, v INT, ts TIMESTAMP', watermark: {column: ts}}
sinks:
  o: {type: console, query: 'SELECT k FROM t'}
"""


def replaced(old: str, new: str) -> bytes:
    assert old in VALID
    return VALID.replace(old, new).encode("utf-8", "surrogatepass")


def query(text: str) -> bytes:
    return replaced("'SELECT k FROM t'", text)


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)
)
STEPS = (
    "tests: [{name: x, steps: [hello, 5, null, {}, {add: 5}, {add: {t: 5}}, {add: {nope: []}}, {tick: hello}, {tick: -5 seconds},"
    " {crash: nope}, {late: {o: x}}, {watermark: {t: x}}, {add: {}, tick: 1 second},"
    " {reshard: {t: {split: a, into: [b]}}}, {fails: x}, {dead: 1}]}]\n"
)
HOSTILE = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "NUL": b"name: a\x00b\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "UTF-16": VALID.encode("utf-16"),
    "tabs": b"name: x\n\tsources: y\n",
    "a list": b"- a\n- b\n",
    "a number": b"42\n",
    "two documents": (VALID + "---\n" + VALID).encode(),
    "duplicate key": (VALID + "name: y\n").encode(),
    "aliases that explode": BOMB,
    "an alias of itself": b"a: &a [*a]\n",
    "a mapping of itself": b"&a sources: *a\n",
    "deep lists": b"a: " + b"[" * 5000 + b"]" * 5000,
    "deep mappings": b"a: " + b"{a: " * 5000 + b"}" * 5000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1000)).encode(),
    "a Python object": b'name: !!python/object/apply:os.system ["exit 1"]\n',
    "a binary name": b"name: !!binary /wA=\n",
    "a key that is a mapping": b"? {a: b}\n: c\n",
    "keys of other types": b"1: 2\nnull: 3\n[a]: 4\ntrue: 5\n",
    "a huge number": replaced("{column: ts}", "{column: ts}, max_rows_per_epoch: " + "9" * 5000),
    "tables that are none": (VALID + "tables: [1, {a: b}]\n").encode(),
    "a table of nothing": (VALID + "tables: {a: null, b: {}, c: {type: []}, d: {type: files, path: [], schema: 5}}\n").encode(),
    "a table with a schema like a query": (VALID + "tables: {a: {type: files, path: x, schema: 'a INT); DROP TABLE t; --'}}\n").encode(),
    "versions that are a list": (VALID + "tables: {a: {type: files, path: x, schema: a INT, versioned: [a, b]}}\n").encode(),
    "functions that are none": (VALID + "functions: [f, g]\n").encode(),
    "functions of everything": (VALID + "functions: {f: {function: 'os:system; x', returns: INT}, g: {returns: {}}}\n").encode(),
    "a function that is a path": (VALID + "functions: {f: {function: '../../etc/passwd:x', returns: INT}}\n").encode(),
    "a function in a module without end": (VALID + f"functions: {{f: {{function: '{'a.' * 3000}a:x', returns: INT}}}}\n").encode(),
    "infinity": replaced("{column: ts}", "{column: ts}, max_rows_per_epoch: .inf"),
    "strings for mappings": b"name: x\nsources: hello\nsinks: [1]\n",
    "nothing for mappings": b"name: x\nsources: {t: null}\nsinks: {o: }\n",
    "steps of all wrong types": (VALID + STEPS).encode(),
    "tests of all wrong types": (VALID + "tests: [hello, 5, null, {}, {name: x}, {steps: []}, {name: x, steps: hello}]\n").encode(),
    "an empty query": query("''"),
    "a query that is a list": query("[SELECT]"),
    "NUL in a query": query('"SELECT \\0 FROM t"'),
    "a lone surrogate in a query": query('"SELECT \\ud800 FROM t"'),
    "a deep query": query(f"'SELECT {'(' * 3000}k{')' * 3000} FROM t'"),
    "a long query": query(f"'SELECT {'+'.join(['v'] * 3000)} AS x FROM t'"),
    "an open string": query('"SELECT k FROM t WHERE k = \'x"'),
    "an open comment": query("'SELECT k FROM t /* x'"),
    "no columns": query("'SELECT FROM t'"),
    "a column without a name": query("'SELECT k AS `` FROM t'"),
    "a huge limit": query("'SELECT k FROM t LIMIT 99999999999999999999'"),
    "two statements": query("'SELECT k FROM t; DROP TABLE t'"),
    **{
        f"SQL: {text}": query(f'"{text}"')
        for text in (
            "SELECT read_csv('/etc/passwd') AS x FROM t", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM `/etc/passwd`", "SELECT * FROM csv.`/etc/passwd`", "SELECT getenv('HOME') AS x FROM t",
            "SELECT * FROM glob('/etc/*')", "SELECT * FROM duckdb_settings()", "SELECT * FROM input", "PRAGMA version", "INSTALL httpfs",
            "ATTACH '/tmp/x.db'", "COPY t TO '/tmp/x'", "LOAD httpfs", "SET a = 1", "INSERT INTO t SELECT * FROM t",
            "EXPLAIN SELECT * FROM t",
            "SELECT java_method('java.lang.System', 'exit', 1) AS x FROM t", "SELECT TRANSFORM(k) USING 'cat' AS (x) FROM t",
        )
    },
    "a deep type": replaced("v INT", "v " + "ARRAY<" * 2000 + "INT" + ">" * 2000),
    "an endless delay": replaced("column: ts", "column: ts, delay: 99999999999999999999 years"),
    "a time zone that is a path": (VALID + "timezone: ../../etc/passwd\n").encode(),
    "a type that is a module": replaced("type: kafka", "type: 'os:system'"),
    "a name that is a path": replaced("name: x", "name: ../../x"),
    "a sink that is a path": replaced("  o: ", '  "../../x": '),
    "views in a circle": (VALID + "views: {a: SELECT * FROM b, b: SELECT * FROM a}\n").encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_job_file_is_refused_at_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidJob) as refused:
        load_job(path)
    lines = str(refused.value).splitlines()
    assert lines
    assert all(re.match(rf"{re.escape(str(path))}:\d+: .", line) for line in lines)
    assert not [line for line in lines if "<class" in line or "Traceback" in line or "<Token" in line]
