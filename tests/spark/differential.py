"""The same expression on Spark and on us: cases as SQL files, Spark's answers as JSON, the verdict.

A case file is `-- table: NAME` and `-- zone: ZONE` (default UTC), then sections `-- equal`, `-- approx` (equal to 1e-14, or the
neighbouring double) and `-- refused` (`check` refuses it, Spark does not); a line is a case, `--` begins a comment.

    python tests/spark/differential.py record [FILE…]     # ask real Spark, write answers/
    python tests/spark/differential.py show FILE…         # each case's verdict now
"""

from __future__ import annotations

import datetime as dt
import json
import math
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from streamproc.errors import BadRecord
from streamproc.operators.duck import Duck
from streamproc.plan.faults import PlanFaults
from streamproc.plan.planner import SinkQuery, TableInfo, plan_job
from streamproc.plan.types import spark_type
from streamproc.schema import parse_ddl

HERE = Path(__file__).parent
SECTIONS = ("equal", "approx", "refused")
ERROR = {"error": ""}


@dataclass(frozen=True)
class Case:
    table: str
    zone: str
    sql: str
    section: str


@dataclass(frozen=True)
class Verdict:
    """`kind` is equal, refused or different; `why` says what was refused or what differs."""

    kind: str
    why: str = ""


def spark_session() -> Any:
    """A SparkSession of tests/servers/spark that is not started."""
    return _spark()["SparkSession"]()


@cache
def _spark() -> dict[str, Any]:
    return runpy.run_path(str(HERE.parent / "servers" / "spark" / "session.py"))


def unobtainable() -> type[Exception]:
    kind: type[Exception] = _spark()["Unobtainable"]
    return kind


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "cases").glob("*.sql"))


@cache
def cases(name: str) -> tuple[Case, ...]:
    return tuple(_cases((HERE / "cases" / f"{name}.sql").read_text()))


def _cases(text: str) -> Iterator[Case]:
    place, section = {"zone": "UTC"}, "equal"
    for line in filter(None, map(str.strip, text.splitlines())):
        key, colon, value = line.removeprefix("--").strip().partition(":")
        if not line.startswith("--"):
            yield Case(place["table"], place["zone"], line, section)
        elif key in SECTIONS:
            section = key
        elif colon and key in ("table", "zone"):
            place[key] = value.strip()


def answers(name: str) -> dict[str, Any]:
    """Spark's recorded answers by `table zone sql`."""
    path = HERE / "answers" / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def key(case: Case) -> str:
    return f"{case.table} {case.zone} {case.sql}"


@cache
def tables() -> dict[str, pa.Table]:
    made = yaml.load((HERE / "tables.yaml").read_text(), yaml.BaseLoader)  # every cell a text, as 0.1 is no double
    return {name: table(parse_ddl(t["ddl"]), t["rows"]) for name, t in made.items()}


def table(schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array([_cell(c, f.type) for c in column], f.type) for f, column in zip(schema, columns, strict=True)], schema=schema
    )


def _cell(value: Any, kind: pa.DataType) -> Any:
    if value == "~":
        return None
    if pa.types.is_struct(kind):
        return {f.name: _cell(v, f.type) for f, v in zip(kind, value, strict=True)}
    if pa.types.is_map(kind):
        return [(_cell(k, kind.key_type), _cell(v, kind.item_type)) for k, v in value]
    if pa.types.is_list(kind):
        return [_cell(v, kind.value_type) for v in value]
    return _scalar(value, kind)


def _scalar(value: str, kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        moment = dt.datetime.fromisoformat(value)
        return moment if kind.tz is None else moment.replace(tzinfo=dt.UTC)
    if pa.types.is_date(kind):
        return dt.date.fromisoformat(value)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if pa.types.is_binary(kind):
        return bytes.fromhex(value)
    if pa.types.is_boolean(kind):
        return value == "true"
    return float(value) if pa.types.is_floating(kind) else int(value) if pa.types.is_integer(kind) else value


def encode(value: Any, kind: pa.DataType) -> Any:
    """A value of ours in the words of tests/servers/spark/worker.py."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if pa.types.is_map(kind):
        return sorted(([encode(k, kind.key_type), encode(v, kind.item_type)] for k, v in value), key=json.dumps)
    if pa.types.is_struct(kind):
        return [encode(value[f.name], f.type) for f in kind]
    if pa.types.is_list(kind):
        return [encode(v, kind.value_type) for v in value]
    if isinstance(value, dt.datetime) and value.tzinfo:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    if isinstance(value, dt.date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else repr(value) if isinstance(value, float) else format(value, "f")


@cache
def _duck(zone: str) -> Duck:
    return Duck(zone)


def ours(expressions: Sequence[str], rows: pa.Table, zone: str = "UTC") -> list[Any]:
    """Our answers in Spark's form: {"type", "rows"}, or {"refused": why}, each row for itself."""
    queries = {f"q{i}": SinkQuery(f"SELECT {sql} AS x FROM t", "append") for i, sql in enumerate(expressions)}
    refused: dict[str, str] = {}
    while True:
        try:
            plan = plan_job({"t": TableInfo(rows.schema)}, {}, {k: q for k, q in queries.items() if k not in refused}, time_zone=zone)
            break
        except PlanFaults as error:
            refused |= {fault.place.split(".")[1]: fault.message for fault in error.faults}
    return [{"refused": refused[k]} if k in refused else _answer(plan.queries[k].root, rows, zone) for k in queries]


def _answer(root: Any, rows: pa.Table, zone: str) -> Any:
    kind = root.schema.field("x").type
    try:
        got = _values(_duck(zone), root.sql, rows, kind)
    except BadRecord:
        got = [_one(_duck(zone), root.sql, rows.slice(i, 1), kind) for i in range(rows.num_rows)]
    return {"type": spark_type(kind), "rows": got}


def _one(duck: Duck, sql: str, row: pa.Table, kind: pa.DataType) -> Any:
    try:
        return _values(duck, sql, row, kind)[0]
    except BadRecord as error:
        return {"error": str(error)}


def _values(duck: Duck, sql: str, rows: pa.Table, kind: pa.DataType) -> list[Any]:
    return [_encoded(value, kind) for value in duck.query(sql, input=rows).column(0)]


def _encoded(value: pa.Scalar, kind: pa.DataType) -> Any:
    try:
        return encode(value.as_py(), kind)
    except (ValueError, OverflowError) as error:  # beyond the years of Python's datetime
        return {"beyond": str(error)}


def judge(spark: Any, mine: Any, *, approx: bool = False, lazy: bool = False) -> Verdict:
    """Equal, also if both refuse, or if `check` refuses what fails on Spark for every row; refused; different. With `lazy` an error
    is like NULL: beside a NULL operand Spark leaves the other uncomputed, or not, by its place.
    """
    if "refused" in mine:
        return Verdict("equal" if "refused" in spark or _hopeless(spark["rows"]) else "refused", mine["refused"])
    if "refused" in spark:
        return Verdict("different", f"Spark refuses it: {spark['refused']}; ours is {mine['type']}")
    if _spelled(mine["type"]) != _spelled(spark["type"]):
        return Verdict("different", f"type: Spark {spark['type']}, ours {mine['type']}")
    exact, pairs = spark["type"].startswith("decimal"), enumerate(zip(spark["rows"], mine["rows"], strict=True))
    unlike = [(i, a, b) for i, (a, b) in pairs if not (_same(a, b, approx, exact) or (lazy and _nothing(a) and _nothing(b)))]
    wrong = [f"row {i}: Spark {a!r}, ours {b!r}" for i, a, b in unlike]
    return Verdict("different" if wrong else "equal", "; ".join(wrong))


def _hopeless(rows: Sequence[Any]) -> bool:
    return any(map(_failed, rows)) and all(_failed(row) or row is None for row in rows)


def _failed(value: Any) -> bool:
    return isinstance(value, dict)


def _nothing(value: Any) -> bool:
    return value is None or _failed(value)


def _spelled(kind: str) -> str:
    return kind.lower().replace(" ", "").replace("void", "string")  # a column of NULLs is a STRING to a sink


def _same(spark: Any, mine: Any, approx: bool, exact: bool) -> bool:
    """`exact`: decimals, whose trailing zeros do not matter. What is beyond Python's years is not compared."""
    if _failed(spark) or _failed(mine):
        return "beyond" in (spark if _failed(spark) else mine) or (_failed(spark) and _failed(mine))
    if approx and isinstance(spark, str) and isinstance(mine, str):
        a, b = float(spark), float(mine)
        return spark == mine or math.isclose(a, b, rel_tol=1e-14) or math.nextafter(a, b) == b
    return bool(spark == mine) or (exact and spark is not None and mine is not None and Decimal(spark) == Decimal(mine))


def verdicts(asked: Sequence[Case], answers: Mapping[str, Any]) -> Iterator[tuple[Case, Verdict]]:
    """What becomes of each case, held against Spark's answers by `key`."""
    for (name, zone), group in groupby(asked, lambda case: (case.table, case.zone)):
        mine = list(group)
        for case, got in zip(mine, ours([case.sql for case in mine], tables()[name], zone), strict=True):
            yield case, judge(answers[key(case)], got, approx=case.section == "approx")


def ask(session: Any, asked: Sequence[Case]) -> dict[str, Any]:
    """Real Spark's answers to the cases."""
    found = {}
    for place in sorted({(case.table, case.zone) for case in asked}):
        mine = [case for case in asked if (case.table, case.zone) == place]
        found |= zip(map(key, mine), session.evaluate(place[0], [case.sql for case in mine], place[1]), strict=True)
    return found


def _record(chosen: Sequence[str]) -> None:
    with spark_session() as session:
        session.register(tables())
        for name in chosen or names():
            found = ask(session, cases(name))
            lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found.items()))
            (HERE / "answers" / f"{name}.json").write_text(f"{{\n{lines}\n}}\n")
            print(f"{name}: {len(found)} answers")


def _show(chosen: Sequence[str]) -> None:
    for name in chosen or names():
        for case, found in verdicts(cases(name), answers(name)):
            print(f"{found.kind:9} {'!' * (found.kind != case.section)} {case.table}: {case.sql}    -- {found.why}")


if __name__ == "__main__":
    {"record": _record, "show": _show}[sys.argv[1]](sys.argv[2:])
