"""The plan's own test: every statement is bound by DuckDB over empty tables and must yield the types we promised."""

from __future__ import annotations

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.plan.plan import Aggregate, Limit, Order, Plan, Project, Scan, Step


class Checker:
    """One DuckDB connection for a job's statements."""

    def __init__(self, time_zone: str) -> None:
        import duckdb  # only planning needs it here

        self._duckdb = duckdb
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute(f"SET TimeZone = '{time_zone}'")
        self._connection.execute("SET VARIABLE epoch_now = make_timestamptz(0)")

    def check(self, plan: Plan) -> None:
        """Bug if a statement does not bind or has another schema than its step."""
        for query in plan.queries.values():
            self._step(query.root)
        self._connection.close()

    def _step(self, step: Step) -> None:
        if isinstance(step, Scan):
            return
        self._step(step.input)
        if isinstance(step, Project | Order):
            self._expect(self._run(step.sql, step.input.schema), step.schema, step.sql)
        elif isinstance(step, Aggregate):
            self._run(step.prepare, step.input.schema)
        else:
            assert isinstance(step, Limit)

    def _run(self, sql: str, schema: pa.Schema) -> pa.Schema:
        self._connection.register("input", schema.empty_table())
        try:
            return self._connection.sql(sql).to_arrow_table().schema
        except self._duckdb.Error as error:
            raise Bug(f"a planned statement does not run: {error}\n{sql}") from error

    def _expect(self, got: pa.Schema, promised: pa.Schema, sql: str) -> None:
        for mine, theirs in zip(promised, got, strict=True):
            if not _same(mine.type, theirs.type):
                raise Bug(f"column {mine.name!r} is {theirs.type}, promised was {mine.type}\n{sql}")


def _same(promised: pa.DataType, got: pa.DataType) -> bool:
    """Arrow names an instant by the session's zone; the instant is the same."""
    if pa.types.is_timestamp(promised) and pa.types.is_timestamp(got):
        return (promised.tz is None) == (got.tz is None)
    if pa.types.is_nested(promised):
        return bool(promised.num_fields == got.num_fields) and all(
            _same(promised.field(i).type, got.field(i).type) for i in range(promised.num_fields)
        )
    return bool(promised == got)
