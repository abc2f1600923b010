"""Stateful functions of the golden jobs."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.stateful import Call, Result, StatefulFunction


class Counter(StatefulFunction):
    """Counts a user's rows; ten seconds after a user's last one it says how many there were, and forgets them."""

    state = {"n": "BIGINT", "pages": "ARRAY<STRING>", "last": "MAP<STRING, BIGINT>"}  # noqa: RUF012

    def process(self, call: Call) -> Result:
        if call.rows.num_rows and "boom" in call.rows.column("page").to_pylist():
            raise ValueError("boom")
        keys = call.rows.column("user").to_pylist()
        assert keys == sorted(keys), "rows come sorted by key"
        state = {row["user"]: row for row in call.state.to_pylist()}
        ended = {row["user"] for row in call.expired.to_pylist()} - set(keys)
        out = [{"user": user, "n": state[user]["n"], "pages": ",".join(state[user]["pages"])} for user in sorted(ended)]
        timers = []
        for row in call.rows.to_pylist():
            mine = state.setdefault(row["user"], {"user": row["user"], "n": 0, "pages": [], "last": []})
            mine["n"] += 1
            mine["pages"] = [*mine["pages"], row["page"]]
            mine["last"] = [*[pair for pair in mine["last"] if pair[0] != row["page"]], (row["page"], mine["n"])]
            timers.append({"user": row["user"], "at": row["ts"] + timedelta(seconds=10)})
        left = [row for user, row in state.items() if user not in ended]
        made = pa.Table.from_pylist(out, schema=pa.schema([("user", pa.string()), ("n", pa.int64()), ("pages", pa.string())]))
        return Result(made, pa.Table.from_pylist(left, schema=call.state.schema), pa.Table.from_pylist(timers, schema=call.expired.schema))


class Totals(StatefulFunction):
    """The sum of a user's numbers so far, without a loop over rows."""

    state = {"total": "BIGINT"}  # noqa: RUF012

    def process(self, call: Call) -> Result:
        rows = call.rows.select(["user", "n"])
        before = call.state.rename_columns(["user", "n"]).cast(pa.schema([("user", pa.string()), ("n", pa.int64())]))
        sums = pa.concat_tables([rows.cast(before.schema), before]).group_by("user").aggregate([("n", "sum")])
        totals = pa.table({"user": sums.column("user"), "total": pc.fill_null(sums.column("n_sum"), 0)})
        return Result(rows=totals, state=totals)
