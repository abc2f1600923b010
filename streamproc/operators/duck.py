"""DuckDB as a function: SQL and Arrow tables in, an Arrow table out, the same for the same input every time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType
from typing import TypeVar

import duckdb
import pyarrow as pa

from streamproc.errors import BadRecord, Bug
from streamproc.formats.slot import TableSlot
from streamproc.operators.python_calls import Functions, Memo, Statement
from streamproc.state.hash_range import bounds
from streamproc.state.watermark import Floor

T = TypeVar("T")
ALL_ROWS = "SELECT * FROM input"
EMPTY: Mapping[str, pa.Table] = MappingProxyType({})
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,  # more make sums of doubles, `first` and `list` differ from run to run
    "preserve_insertion_order": True,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "temp_directory": "",  # spilled state would be a surprise in the working directory
    "python_enable_replacements": False,  # SQL sees what is bound, no Python variable
}
_DATA_ERRORS = (duckdb.DataError, duckdb.InvalidInputException)  # bad casts, overflow; division by zero, error('…')


class Duck:
    """One DuckDB instance of one thread. For one caller at a time, and for a fixed set of statements (a plan's)."""

    def __init__(self, time_zone: str = "UTC", functions: Functions | None = None) -> None:
        self._time_zone = time_zone
        self.functions = functions or Functions()
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        self._connection.execute(f"SET TimeZone = {quoted(time_zone)}")
        self._connection.execute("SET lock_configuration = true")
        self._at: tuple[int, int | None, tuple[Floor, ...]] | None = None
        self._slots: dict[str, TableSlot] = {}
        self.at(0)  # so that statements bind with the variable's type
        # a relation is bound and run anew at each call, over what the slots hold then: half the cost of beginning from the text
        self._relations: dict[str, duckdb.DuckDBPyRelation] = {}

    def at(
        self, now_us: int, tables: Mapping[str, pa.Table] = EMPTY, watermark_us: int | None = None, floors: tuple[Floor, ...] = ()
    ) -> None:  # fmt: skip
        """Set the epoch's time, which SQL reads as `getvariable('epoch_now')`, the watermark at its start (BIGINT µs,
        `watermark_start`), its `floors` (a list of `low`, `high` and `us`), and the bounded tables, which it reads as `"table:<name>"`.
        """
        for name, table in tables.items():
            self._slot(f"table:{name}", table.schema).keep(table)
        if (now_us, watermark_us, floors) != self._at:
            self._connection.execute(f"SET VARIABLE epoch_now = make_timestamptz({now_us})")
            self._connection.execute(f"SET VARIABLE watermark_start = {'NULL' if watermark_us is None else watermark_us}::BIGINT")
            listed = ", ".join("{{'low': '{}', 'high': '{}', 'us': {}}}".format(*bounds(f.hash_range), f.watermark_us) for f in floors)
            self._connection.execute(f"SET VARIABLE floors = [{listed}]::STRUCT(low VARCHAR, high VARCHAR, us BIGINT)[]")
            self._at = (now_us, watermark_us, floors)

    def query(self, sql: Statement, **tables: pa.Table) -> pa.Table:
        """The statement's rows, in its order; it reads the tables by their keywords.

        BadRecord: a value failed in an expression or function. Bug: the statement itself is wrong, or the engine failed.
        """
        return self.query_all([sql], **tables)[0]

    def query_all(self, statements: Sequence[Statement], *, memo: Memo | None = None, **tables: pa.Table) -> list[pa.Table]:
        """Like `query`, for several statements over the same tables. Functions that they call are called once, as `memo` has it."""
        memo = memo or Memo()
        return [self._rows(statement, memo, tables) for statement in statements]

    def _rows(self, statement: Statement, memo: Memo, tables: Mapping[str, pa.Table]) -> pa.Table:
        if isinstance(statement, str):
            return self._run(statement, tables)
        called = statement.called
        if called not in memo.rows:
            memo.rows[called] = self.functions.evaluate(called, self._rows(called.input, memo, tables), memo)
        return self._run(statement.sql, {"input": memo.rows[called]})

    def _run(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        with ExitStack() as slots:
            for name, table in tables.items():
                slots.enter_context(self._slot(name, table.schema).holding(table))
            try:
                return self._relation(sql).to_arrow_table()
            except _DATA_ERRORS as error:
                raise BadRecord(_text(error)) from error
            except duckdb.Error as error:
                raise Bug(f"DuckDB refused a statement of the plan: {_text(error)}") from error

    def close(self) -> None:
        self._relations.clear()
        self._connection.close()

    def _slot(self, name: str, schema: pa.Schema) -> TableSlot:
        if name not in self._slots:
            self._slots[name] = TableSlot(self._connection, name, schema)
        return self._slots[name]

    def _relation(self, sql: str) -> duckdb.DuckDBPyRelation:
        if sql not in self._relations:
            self._relations[sql] = self._connection.sql(sql)
        return self._relations[sql]

    def __repr__(self) -> str:
        return f"<Duck {self._time_zone}>"


class DuckPool:
    """A pool of threads with a DuckDB instance each."""

    def __init__(self, threads: int, time_zone: str, functions: Functions | None = None) -> None:
        self._threads = threads
        self._functions = functions
        self._time_zone = time_zone
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="duck")
        self._own = threading.local()
        self._ducks: list[Duck] = []

    async def run(
        self, work: Callable[[Duck], T], now_us: int, tables: Mapping[str, pa.Table], watermark_us: int | None, floors: tuple[Floor, ...]
    ) -> T:  # fmt: skip
        """`work` in a thread of the pool, with that thread's instance set as by `Duck.at`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, work, now_us, tables, watermark_us, floors)

    def _work(
        self, work: Callable[[Duck], T], now_us: int, tables: Mapping[str, pa.Table], watermark_us: int | None, floors: tuple[Floor, ...]
    ) -> T:  # fmt: skip
        if not hasattr(self._own, "duck"):
            self._own.duck = Duck(self._time_zone, self._functions)
            self._ducks.append(self._own.duck)
        self._own.duck.at(now_us, tables, watermark_us, floors)
        return work(self._own.duck)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)
        for duck in self._ducks:
            duck.close()

    def __repr__(self) -> str:
        return f"<DuckPool {len(self._ducks)} of {self._threads} instances>"


def nested(*steps: str) -> str:
    """One statement of several `SELECT … FROM input`, each reading the one before it."""
    first, *others = [step for step in steps if step != ALL_ROWS] or [ALL_ROWS]
    sql = first
    for step in others:
        inner = step if step.lstrip()[:6].upper() == "SELECT" else f"SELECT * FROM ({step})"
        sql = f"WITH input AS NOT MATERIALIZED ({sql}) {inner}"
    return sql


def empty_input(schema: pa.Schema) -> pa.Table:
    """No rows of the schema; DuckDB wants at least one column."""
    return (schema if len(schema) else pa.schema([("_", pa.bool_())])).empty_table()


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _text(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
