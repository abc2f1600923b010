"""The plan's own test: every statement is bound by DuckDB over empty tables and must yield the types we promised."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.plan.faults import RefusedError
from streamproc.plan.one_pass import one_pass_sql
from streamproc.plan.plan import Aggregate, Join, Project, Query, SessionAggregate, Several, unweighted
from streamproc.plan.types import text_literal


class Checker:
    """One DuckDB connection for a job's statements."""

    def __init__(self, time_zone: str, tables: Mapping[str, pa.Schema]) -> None:
        """`tables`: the bounded tables that statements may read."""
        import duckdb  # a job whose SQL is wrong is told so without loading it

        self._duckdb = duckdb
        self._connection = duckdb.connect(config={"threads": 1, "enable_external_access": False})
        self._connection.execute(f"SET TimeZone = {text_literal(time_zone)}")
        self._connection.execute("SET VARIABLE epoch_now = make_timestamptz(0)")
        for name, schema in tables.items():
            self._connection.register(f"table:{name}", schema.empty_table())

    def check(self, query: Query) -> None:
        """RefusedError if the query fails whatever the rows are; Bug if it does not bind or yields other types."""
        for step in query.root.walk():
            if isinstance(step, Project):
                self._expect(self._run(step.sql, step.input.schema), step.schema, step.sql)
            elif isinstance(step, Aggregate):
                self._expect(self._run(_in_one_pass(step), step.input.schema), unweighted(step.schema), step.post)
            elif isinstance(step, Several):
                self._check_several(step)
            elif isinstance(step, Join):
                self._check_join(step)

    def _check_join(self, step: Join) -> None:
        for name, side, below in zip(("left", "right"), step.sides, step.inputs, strict=True):
            self._connection.register(name, self._rows(side.prepare, below.schema))
        sql = step.in_one_pass('SELECT * FROM "left"', 'SELECT * FROM "right"')
        self._expect(self._run(sql, step.left.schema), step.schema, sql)

    def _check_several(self, step: Several) -> None:
        kept = [unweighted(self._run(keep, below.schema)) for keep, below in zip(step.keep, step.inputs, strict=True)]
        self._expect(self._run(step.post, self._run(step.sql, *kept)), unweighted(step.schema), f"{step.sql}\n{step.post}")

    def close(self) -> None:
        self._connection.close()

    def _run(self, sql: str, *schemas: pa.Schema) -> pa.Schema:
        return self._rows(sql, *schemas).schema

    def _rows(self, sql: str, *schemas: pa.Schema) -> pa.Table:
        for port, schema in enumerate(schemas):
            self._connection.register(f"input{port or ''}", schema.empty_table())
        try:
            return self._connection.sql(sql).to_arrow_table()
        except (self._duckdb.DataError, self._duckdb.InvalidInputException) as error:
            raise RefusedError(f"the query fails for every row: {str(error).splitlines()[0]}") from None
        except self._duckdb.Error as error:
            raise Bug(f"a planned statement does not run: {error}\n{sql}") from error

    def _expect(self, got: pa.Schema, promised: pa.Schema, sql: str) -> None:
        for mine, theirs in zip(promised, got, strict=True):
            if not _same(mine.type, theirs.type):
                raise Bug(f"column {mine.name!r} is {theirs.type}, promised was {mine.type}\n{sql}")


def _in_one_pass(step: Aggregate) -> str:
    """The aggregate without windows and partial states: the same functions, so the same types."""
    window = ["0::BIGINT AS _ws", "0::BIGINT AS _we"] if step.window or isinstance(step, SessionAggregate) else []
    columns = [*step.keys, *window, *(f"{one_pass_sql(state)} AS {state.name}" for state in step.states)]
    by = f" GROUP BY {', '.join(step.keys)}" if step.keys else ""
    grouped = f"SELECT {', '.join(columns) or 'true AS _row'} FROM ({step.prepare}){by}"
    return f"WITH input AS NOT MATERIALIZED ({grouped}) {step.post}"


def _same(promised: pa.DataType, got: pa.DataType) -> bool:
    """Arrow names an instant by the session's zone; the instant is the same."""
    if pa.types.is_timestamp(promised) and pa.types.is_timestamp(got):
        return (promised.tz is None) == (got.tz is None)
    if pa.types.is_nested(promised):
        return bool(promised.num_fields == got.num_fields) and all(
            _same(promised.field(i).type, got.field(i).type) for i in range(promised.num_fields)
        )
    return bool(promised == got)
