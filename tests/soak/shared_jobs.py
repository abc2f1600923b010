"""Three jobs on one stream, which workers share, and what must come out of them: a batch query in DuckDB says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

JOBS = ("rows", "users", "totals")
"""Stateless (a task for every shard), windows by partition key (the same), windows over all shards (one task)."""
WINDOW_S = 2
_JOB = """\
sources:
  purchases:
    {source}
    format: json
    schema: id BIGINT, user STRING, amount DECIMAL(10,2), ts TIMESTAMP
    watermark: {{column: ts, delay: 200 milliseconds, idle: never}}{partitioned}
sinks:
  out:
    type: files
    path: {folder}/out/{name}
    format: parquet
    {late}query: {query}
trigger: 300 milliseconds
checkpoint: {folder}/checkpoint/{name}
leases: {leases}
"""
_QUERIES = {
    "rows": "SELECT id, user, amount, ts FROM purchases",
    "users": "SELECT window.start AS window, user, count(*) AS n, sum(amount) AS total FROM purchases "
    f"GROUP BY window(ts, '{WINDOW_S} seconds'), user",
    "totals": "SELECT window.start AS window, count(*) AS n, sum(amount) AS total FROM purchases "
    f"GROUP BY window(ts, '{WINDOW_S} seconds')",
}
_KEYS = {"rows": "id", "users": '"window", "user"', "totals": '"window"'}
_WINDOW = f"make_timestamp(epoch_us(ts) // {WINDOW_S}000000 * {WINDOW_S}000000)"
_EXPECTED = {
    "rows": 'SELECT id, "user", amount, ts FROM sent',
    "users": f'SELECT {_WINDOW} AS "window", "user", count(*) AS n, sum(amount) AS total FROM sent GROUP BY ALL',
    "totals": f'SELECT {_WINDOW} AS "window", count(*) AS n, sum(amount) AS total FROM sent GROUP BY ALL',
}


def write_jobs(folder: Path, source: str, leases: str) -> Path:
    """The folder of job files; `leases` has `{name}` where the job's name belongs."""
    jobs = folder / "jobs"
    jobs.mkdir()
    for name in JOBS:
        partitioned = "\n    partitioned_by: user" if name == "users" else ""
        late = "" if name == "rows" else f"late: {{type: files, path: {folder}/late/{name}}}\n    "
        text = _JOB.format(
            source=source, name=name, folder=folder, query=_QUERIES[name], partitioned=partitioned, late=late,
            leases=leases.replace("{name}", name),
        )  # fmt: skip
        (jobs / f"{name}.yaml").write_text(text)
    return jobs


@dataclass
class Outcome:
    """Rows that the three jobs wrote, and how many of them differ in which way; a few of those in words."""

    rows: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    late: int = 0
    examples: list[str] = field(default_factory=list, repr=False)

    @property
    def equal(self) -> bool:
        return self.lost == self.twice == self.wrong == self.late == 0


def compare(folder: Path, acknowledged: pa.Table) -> Outcome:
    """What is below `folder` against all that was acknowledged. A late row is a fault: there is none in the input."""
    outcome = Outcome()
    with duckdb.connect(":memory:") as database:
        database.execute("SET TimeZone = 'UTC'")
        database.register("acknowledged", acknowledged)
        database.execute(
            'CREATE TABLE sent AS SELECT id, "user", amount::DECIMAL(10,2) AS amount, ts::TIMESTAMPTZ::TIMESTAMP AS ts FROM acknowledged'
        )
        for name in JOBS:
            _compare(database, folder, name, outcome)
    return outcome


def _compare(database: duckdb.DuckDBPyConnection, folder: Path, name: str, outcome: Outcome) -> None:
    database.execute(f"CREATE OR REPLACE TABLE expected AS {_EXPECTED[name]}")
    names = [column[0] for column in database.sql("FROM expected LIMIT 0").description]
    _load(database, "written", _files(folder / "out" / name), names)
    key = _KEYS[name]
    differing = " OR ".join(f'w."{column}" IS DISTINCT FROM e."{column}"' for column in names)
    outcome.rows[name] = _count(database, "FROM written", name, [])
    outcome.lost += _count(database, f"FROM expected ANTI JOIN written USING ({key})", f"lost of {name}", outcome.examples)
    twice = f"SELECT {key}, count(*) - 1 FROM written GROUP BY ALL HAVING count(*) > 1"
    outcome.twice += _count(database, twice, f"twice of {name}", outcome.examples)
    wrong = f"SELECT w.*, e.* FROM written w LEFT JOIN expected e USING ({key}) WHERE {differing}"
    outcome.wrong += _count(database, wrong, f"wrong of {name} (written, expected)", outcome.examples)
    late = _files(folder / "late" / name)
    if late:
        outcome.late += _count(database, f"FROM read_json({late!r})", f"late of {name}", outcome.examples)


def _files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("**/part-*"))]


def _load(database: duckdb.DuckDBPyConnection, table: str, files: list[str], names: list[str]) -> None:
    database.execute(f"CREATE OR REPLACE TABLE {table} AS FROM expected LIMIT 0")
    columns = ", ".join(f'"{name}"' for name in names)
    if files:
        database.execute(f"INSERT INTO {table} SELECT {columns} FROM read_parquet($files)", {"files": files})


def _count(database: duckdb.DuckDBPyConnection, query: str, what: str, examples: list[str]) -> int:
    found = database.sql(query)
    examples += [f"{what}: {', '.join(map(str, row))}" for row in found.limit(5).fetchall()]
    return len(found)
