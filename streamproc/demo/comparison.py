"""Compares what a job wrote with a batch query over the events that were acknowledged. DuckDB reads both; no code of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

_ROWS = "ts TIMESTAMP, page VARCHAR, amount DECIMAL(10,2)"
_SETUP = f"""
SET TimeZone = 'UTC';
CREATE TABLE sent ({_ROWS}, kind VARCHAR);
INSERT INTO sent SELECT j->>'ts', j->>'page', (j->>'amount')::DECIMAL(10,2), kind
  FROM (SELECT decode(payload)::JSON AS j, kind FROM events WHERE kind <> 'bad');
CREATE TABLE refused ({_ROWS});
CREATE TABLE bad AS SELECT payload FROM events WHERE kind = 'bad';
CREATE TABLE dead (payload BLOB);
CREATE TABLE written ("window" TIMESTAMP, page VARCHAR, views BIGINT, revenue DECIMAL(38,2));
"""
_EXPECTED = """
CREATE TABLE expected AS
  SELECT make_timestamp(epoch_us(ts) // $window_us * $window_us) AS "window", page, count(*) AS views, sum(amount) AS revenue
  FROM (SELECT ts, page, amount FROM sent EXCEPT ALL FROM refused) GROUP BY ALL;
"""
_LOST = {
    "window": """SELECT "window", page FROM expected ANTI JOIN written USING ("window", page)""",
    "dead letter": "FROM bad EXCEPT ALL FROM dead",
}
_TWICE = {
    "window": """SELECT "window", page, count(*) FROM written GROUP BY ALL HAVING count(*) > 1""",
    "dead letter": "FROM (FROM dead EXCEPT ALL FROM bad) SEMI JOIN bad USING (payload)",
    "late row": """FROM (FROM refused EXCEPT ALL SELECT ts, page, amount FROM sent WHERE kind = 'late')
        SEMI JOIN (FROM sent WHERE kind = 'late') USING (ts, page, amount)""",
}
_WRONG = {
    "window": """SELECT w."window", w.page, w.views, w.revenue, e.views, e.revenue
        FROM written w LEFT JOIN expected e USING ("window", page)
        WHERE w.views IS DISTINCT FROM e.views OR w.revenue IS DISTINCT FROM e.revenue""",
    "dead letter": "FROM dead ANTI JOIN bad USING (payload)",
    "late row": "FROM refused ANTI JOIN (FROM sent WHERE kind = 'late') USING (ts, page, amount)",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many rows differ in which way, with the first few of them in words. A window is a row: a span of time and a page."""

    windows: int
    late: int
    dead: int
    lost: int
    twice: int
    wrong: int
    examples: list[str] = field(default_factory=list, repr=False)

    @property
    def equal(self) -> bool:
        return self.lost == self.twice == self.wrong == 0

    def __str__(self) -> str:
        return f"{self.windows} windows written, {self.lost} lost, {self.twice} twice, {self.wrong} wrong"


def compare(events: pa.Table, lake: Path, window_us: int) -> Comparison:
    """The files below `lake` (views/ as Parquet, late/ and dead/ as JSON) against the acknowledged `events`.

    An event counts in its window unless it is among the late rows, and only events that were sent late may be there.
    """
    with duckdb.connect(":memory:") as database:
        database.register("events", events)
        database.execute(_SETUP)
        _read(database, lake / "views", """INSERT INTO written SELECT "window", page, views, revenue FROM read_parquet($files)""")
        types = "{ts: 'TIMESTAMP', page: 'VARCHAR', amount: 'DECIMAL(10,2)'}"
        _read(database, lake / "late", f"INSERT INTO refused SELECT ts, page, amount FROM read_json($files, columns = {types})")
        _read(database, lake / "dead", "INSERT INTO dead SELECT from_base64(raw) FROM read_json($files, columns = {raw: 'VARCHAR'})")
        database.execute(_EXPECTED, {"window_us": window_us})
        examples: list[str] = []
        lost, twice, wrong = (
            _count(database, name, queries, examples) for name, queries in (("lost", _LOST), ("twice", _TWICE), ("wrong", _WRONG))
        )
        windows, late, dead = (database.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in ("written", "refused", "dead"))
    return Comparison(windows, late, dead, lost, twice, wrong, examples)


def _read(database: duckdb.DuckDBPyConnection, folder: Path, statement: str) -> None:
    files = [str(path) for path in sorted(folder.glob("**/part-*"))]
    if files:
        database.execute(statement, {"files": files})


def _count(database: duckdb.DuckDBPyConnection, name: str, queries: dict[str, str], examples: list[str]) -> int:
    count = 0
    for what, query in queries.items():
        rows = database.sql(query).fetchall()
        count += len(rows)
        examples += [f"{what} {name}: {', '.join(map(str, row))}" for row in rows[:5]]
    return count
