"""A stateful function over the rows of an epoch, sorted by key. Its keys' state is kept as runs.

A run's columns: `_we` (BIGINT µs: the next timer or the end of the state's life, by watermark or by the logged time; NULL =
never), `_h` (hash of the key), the keys, the state columns, `_timers` (BIGINT[], ascending), `_expires` (BIGINT µs), `_v` (BIGINT:
the epoch's `now`; of a key only the newest row counts) and `_gone` (BOOLEAN: forgotten).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from streamproc import user_code
from streamproc.batch import TIMESTAMP
from streamproc.errors import BadRecord, StreamprocError
from streamproc.operators.duck import Duck
from streamproc.operators.keys import same_key
from streamproc.operators.late import LATE, Lateness, late_in, refused
from streamproc.operators.operator import Epoch, Failure, Fed, Finished, Input, Operator
from streamproc.operators.python_calls import fitting
from streamproc.plan.plan import Apply, Query
from streamproc.plan.types import quote
from streamproc.schema import parse_ddl
from streamproc.state.merge import merge
from streamproc.state.runs import Run, first_final_us, next_chain, split_final
from streamproc.state.watermark import lowered
from streamproc.stateful import Call, Result, StatefulFunction

_KEPT = ("rows", "state", "timers")


class ApplyOperator(Operator):
    """One `Apply` step of a query."""

    state_schema: pa.Schema

    def __init__(self, step: Apply, query: Query, duck: Duck) -> None:
        """BadRecord: the function's `state` names a type that does not exist."""
        self.id = f"{query.sink}/{step.id}"
        self._step, self._query = step, query
        self._function: StatefulFunction = duck.functions.stateful[step.function]
        self._columns = (
            parse_ddl(", ".join(f"{name} {kind}" for name, kind in self._function.state.items())) if self._function.state else pa.schema([])
        )
        self._keys = [quote(key) for key in step.keys]
        fields = [*(step.columns.field(key) for key in step.keys), *self._columns]
        bookkeeping = [("_timers", pa.list_(pa.int64())), ("_expires", pa.int64()), ("_v", pa.int64()), ("_gone", pa.bool_())]
        self.state_schema = pa.schema([("_we", pa.int64()), ("_h", pa.uint64()), *fields, *bookkeeping])
        self._lateness = Lateness(step.lag_us, query.partition_keys.get(step.id))
        late = self._lateness.is_late("_t") if step.event else "false"
        self._slice_sql = f"SELECT *, {late} AS {LATE} FROM ({step.prepare})"
        newest = f"_v = max(_v) OVER (PARTITION BY {', '.join(['_h', *self._keys])})"
        self._combine_sql = f"SELECT * FROM input QUALIFY {newest} ORDER BY _we NULLS LAST, _h"
        self._sorted = ", ".join(f"{key} NULLS FIRST" for key in self._keys)

    def slice_sql(self, port: int = 0) -> str:
        return self._slice_sql

    def finish(self, epoch: Epoch, inputs: Sequence[Input], state: Sequence[Run]) -> Finished:
        late, late_rows = self._refused(epoch, inputs[0])
        rows = pa.concat_tables([fed.part.filter(pc.invert(fed.part.column(LATE))) for fed in inputs[0]])
        due, alive = split_final(state, self._clock(epoch))
        before = self._before(epoch.duck, rows, due, alive)
        call = self._call(epoch, rows, before)
        made, failures, kept = self._results(epoch, call)
        fresh = self._after(epoch, call, before, made)
        runs = [*alive, *([Run.of(fresh, next_chain(state))] if fresh.num_rows else [])]
        merged = merge(runs, lambda table: epoch.duck.query(self._combine_sql, input=table), epoch.merge_bytes_max)
        return Finished(made.rows, merged, late, late_rows, failures=failures, answers=kept)

    def state_rows(self, duck: Duck, state: Sequence[Run], watermark_us: int | None) -> int:
        """Keys that have state."""
        tables = [run.table for run in state]
        return (
            int(pc.sum(pc.invert(duck.query(self._combine_sql, input=pa.concat_tables(tables)).column("_gone"))).as_py() or 0)
            if tables
            else 0
        )

    def timer_us(self, state: Sequence[Run]) -> int | None:
        first_us = self._first_us(state) if self._step.event else None
        return None if first_us is None else first_us + self._step.lag_us

    def wake_us(self, state: Sequence[Run]) -> int | None:
        return None if self._step.event else self._first_us(state)

    def _first_us(self, state: Sequence[Run]) -> int | None:
        return first_final_us(state)

    def _clock(self, epoch: Epoch) -> int | None:
        """What timers are held against."""
        if not self._step.event:
            return epoch.time.now_us
        return lowered(epoch.time.watermark_end_us, self._step.lag_us)

    # -- before the call

    def _before(self, duck: Duck, rows: pa.Table, due: Sequence[pa.Table], alive: Sequence[Run]) -> pa.Table:
        """The newest state of every key that has new rows or something due."""
        keys = ", ".join(self._keys)
        hashed = f"SELECT DISTINCT hash({keys}) AS _h, {keys} FROM input"
        touched = [duck.query(hashed, input=rows), *(table.select(["_h", *self._step.keys]) for table in due)]
        all_keys = pa.concat_tables([table.cast(touched[0].schema) for table in touched])
        tables = [*due, *(run.table for run in alive)]
        if not tables:
            return self.state_schema.empty_table()
        known = f"SELECT kept.* FROM kept SEMI JOIN input ON {same_key(self._keys, 'kept', 'input')}"
        found = duck.query(known, kept=pa.concat_tables(tables), input=all_keys)
        return duck.query(f"SELECT * FROM ({self._combine_sql}) WHERE NOT _gone ORDER BY {self._sorted}", input=found).cast(
            self.state_schema
        )

    def _call(self, epoch: Epoch, rows: pa.Table, before: pa.Table) -> Call:
        names = [*self._step.keys, *self._columns.names]
        order = f"SELECT * EXCLUDE (_order) FROM input ORDER BY {self._sorted}, _order"
        given = epoch.duck.query(order, input=rows).select(self._step.columns.names).cast(self._step.columns)
        keys = ", ".join(self._keys)
        at = f"SELECT {keys}, unnest(list_filter(_timers, lambda t: t <= past)) AS t FROM input CROSS JOIN clock"
        ordered = f'SELECT * EXCLUDE (t), make_timestamptz(t) AS "at" FROM ({at}) ORDER BY {self._sorted}, t'
        expired = epoch.duck.query(ordered, input=before, clock=self._clocks(epoch))
        clock_us = self._clock(epoch)
        alive = before if clock_us is None else before.filter(pc.fill_null(pc.greater(before.column("_expires"), clock_us), True))
        keyed = pa.schema([*(self._step.columns.field(key) for key in self._step.keys), ("at", TIMESTAMP)])
        return Call(given, alive.select(names), expired.cast(keyed), epoch.time.now_us, epoch.time.watermark_end_us)

    def _clocks(self, epoch: Epoch) -> pa.Table:
        """One row: `past` (timers up to it are due), `expires` (when state that is set now ends) and `now`."""
        clock_us, ttl_us = self._clock(epoch), self._step.ttl_us
        values = {
            "past": -(2**62) if clock_us is None else clock_us,
            "expires": None if clock_us is None or ttl_us is None else clock_us + ttl_us,
            "now": epoch.time.now_us,
        }
        return pa.table({name: pa.array([value], pa.int64()) for name, value in values.items()})

    # -- the call

    def _results(self, epoch: Epoch, call: Call) -> tuple[Result, list[Failure], Mapping[str, pa.Table]]:
        """What the function returns, and what of it is kept with the epoch. Keys that fail are found by halving."""
        known = {name: epoch.answers[f"{self.id}/{name}"] for name in _KEPT if f"{self.id}/{name}" in epoch.answers}
        if known:
            failed = [Failure(epoch.source, *row.values()) for row in epoch.answers[f"{self.id}/failed"].to_pylist()]
            return Result(**known), failed, {}
        if not (call.rows.num_rows or call.expired.num_rows):
            return Result(self._step.schema.empty_table()), [], {}
        results, failures = self._halved(epoch, call)
        made = Result(*(pa.concat_tables([getattr(result, name) for result in results]) for name in _KEPT))
        if self._step.deterministic:
            return made, failures, {}
        failed = pa.Table.from_pylist(
            [{"key": f.key, "error": f.error} for f in failures], schema=pa.schema([("key", pa.string()), ("error", pa.string())])
        )
        kept = {"rows": made.rows, "state": made.state, "timers": made.timers, "failed": failed}
        return made, failures, {f"{self.id}/{name}": table for name, table in kept.items()}

    def _halved(self, epoch: Epoch, call: Call) -> tuple[list[Result], list[Failure]]:
        keys = self._all_keys(epoch.duck, call)
        waiting, results, failures, again = [keys], list[Result](), list[Failure](), True
        while waiting:
            some = waiting.pop()
            part = call if some is keys else self._part(epoch.duck, call, some)
            try:
                results.append(self._checked(part, self._processed(part)))
            except BadRecord as error:
                half = some.num_rows // 2
                if some is keys and again:
                    again = False
                    waiting = [keys]
                elif half:
                    waiting += [some.slice(half), some.slice(0, half)]
                else:  # a key whose call fails keeps its state
                    failures.append(Failure(epoch.source, str(some.to_pylist()[0]), str(error)))
                    results.append(Result(self._step.schema.empty_table(), part.state, call.expired.slice(0, 0)))
        return results, failures

    def _processed(self, call: Call) -> object:
        try:
            return self._function.process(call)
        except StreamprocError:
            raise
        except Exception as error:  # whatever the author's function raises
            raise BadRecord(f"function {self._step.function}: {type(error).__name__}: {error} ({user_code.place(error)})") from error

    def _all_keys(self, duck: Duck, call: Call) -> pa.Table:
        keys = ", ".join(self._keys)
        both = f"SELECT {keys} FROM input UNION SELECT {keys} FROM expired ORDER BY {self._sorted}"
        return duck.query(both, input=call.rows, expired=call.expired)

    def _part(self, duck: Duck, call: Call, keys: pa.Table) -> Call:
        match = " AND ".join(f"input.{key} IS NOT DISTINCT FROM keys.{key}" for key in self._keys)
        inside = f"SELECT input.* FROM (SELECT *, row_number() OVER () AS _at FROM input) AS input SEMI JOIN keys ON {match} ORDER BY _at"
        tables = [
            duck.query(f"SELECT * EXCLUDE (_at) FROM ({inside})", input=table, keys=keys) for table in (call.rows, call.state, call.expired)
        ]
        rows, state, expired = (
            table.cast(whole.schema) for table, whole in zip(tables, (call.rows, call.state, call.expired), strict=True)
        )
        return Call(rows, state, expired, call.now_us, call.watermark_us)

    def _checked(self, call: Call, result: object) -> Result:
        """The result with the columns that were promised. BadRecord: it has others."""
        if not isinstance(result, Result):
            raise BadRecord(f"function {self._step.function} returned {type(result).__name__}, not a Result")
        return Result(
            self._fitting("rows", result.rows, self._step.schema),
            call.state if result.state is None else self._fitting("state", result.state, call.state.schema),
            self._fitting("timers", result.timers, call.expired.schema),
        )

    def _fitting(self, what: str, table: pa.Table | None, schema: pa.Schema) -> pa.Table:
        if table is None:
            return schema.empty_table()
        if missing := [name for name in schema.names if name not in table.column_names]:
            raise BadRecord(
                f"function {self._step.function}: its {what} lack column {missing[0]!r}; they have {', '.join(table.column_names)}"
            )
        who = f"function {self._step.function}: its {what}"
        columns = [fitting(f"{who}, column {f.name!r},", table.column(f.name), f.type, table.num_rows) for f in schema]
        return pa.table(columns, schema=schema)

    # -- after the call

    def _after(self, epoch: Epoch, call: Call, before: pa.Table, made: Result) -> pa.Table:
        """New rows of the state: of every key of the call, with its timers and the end of its life."""
        tables = {"input": call.rows, "before": before, "clock": self._clocks(epoch)}
        state = call.state if made.state is None else made.state  # nothing was called: what ran out is forgotten
        timers = call.expired.slice(0, 0) if made.timers is None else made.timers
        return epoch.duck.query(self._after_sql(), state=state, timers=timers, **tables).cast(self.state_schema)

    def _after_sql(self) -> str:
        keys = ", ".join(self._keys)
        columns = [quote(name) for name in self._columns.names]
        matched = " AND ".join(f"{{0}}.{key} IS NOT DISTINCT FROM {{1}}.{key}" for key in self._keys)
        left = "list_filter(coalesce(before._timers, []), lambda t: t > past)"
        whole = ", ".join(
            ["touched.*", "clock.*", *(f"state.{name}" for name in columns), "state._is IS NULL AS _gone",
             f"list_sort(list_distinct(list_concat({left}, coalesce(added._new, [])))) AS _timers"]
        )  # fmt: skip
        made = ", ".join(["CASE WHEN NOT _gone THEN least(_timers[1], expires) END AS _we", f"hash({keys}) AS _h", keys, *columns,
                          "CASE WHEN _gone THEN [] ELSE _timers END AS _timers", "expires AS _expires", "now AS _v", "_gone"])  # fmt: skip
        return f"""
            WITH touched AS (SELECT {keys} FROM input UNION SELECT {keys} FROM before),
            added AS (SELECT {keys}, list(epoch_us("at")) AS _new FROM timers GROUP BY ALL),
            whole AS (
                SELECT {whole} FROM touched CROSS JOIN clock
                LEFT JOIN (SELECT *, true AS _is FROM state) AS state ON {matched.format("touched", "state")}
                LEFT JOIN before ON {matched.format("touched", "before")}
                LEFT JOIN added ON {matched.format("touched", "added")})
            SELECT {made} FROM whole ORDER BY _we NULLS LAST, _h"""

    def _refused(self, epoch: Epoch, fed: Input) -> tuple[pa.Table | None, int]:
        carried = self._query.carries_origin and "_offset" in self._step.input.schema.names
        return late_in(fed, partial(self._late_rows, epoch) if carried else None)

    def _late_rows(self, epoch: Epoch, one: Fed) -> pa.Table:
        judged = epoch.duck.query(f"SELECT {LATE} AS late, {self._lateness.until} AS until FROM input", input=one.part)
        return refused(self._query.sink, one.part.drop_columns([LATE, "_t", "_order"]), judged, "late: event time")

    def __repr__(self) -> str:
        return f"<ApplyOperator {self.id} {self._step.function}>"
