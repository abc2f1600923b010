"""Rows of a bag that can have one of its first ranks, without an order of the whole bag.

A bag's rows lie in several runs, and one run may take back what another has, so the first n rows that came are not the first n
that are there. Of each partition the rows up to the place of the k-th that came are put together; if fewer than n are left, k grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from streamproc.operators.duck import Duck
from streamproc.plan.plan import WEIGHT, Ranked
from streamproc.plan.types import quote

_W = quote(WEIGHT)
_SMALL_ROWS = 4096  # putting these together costs less than choosing
_GROWTH, _PLACES_MAX = 8, 100_000


class Candidates:
    """`partition`: SQL over a bag's rows."""

    def __init__(self, ranked: Ranked, partition: Sequence[str]) -> None:
        self._ranked = ranked
        self._names = [f"_p{i}" for i in range(len(partition))]
        parts = [f"{text} AS {name}" for text, name in zip(partition, self._names, strict=True)]
        self._rows = f"(SELECT {', '.join(['*', *parts, f'{ranked.place} AS _k'])} FROM input)"
        self._same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM b.{name}" for name in self._names) or "true"
        self._by = f" GROUP BY {', '.join(self._names)}" if self._names else ""
        gone = ", ".join(["_k", *self._names])
        chosen = f"SELECT r.* EXCLUDE ({gone}) FROM {self._rows} AS r JOIN bounds AS b ON {self._same}"
        self._chosen_sql = f"{chosen} WHERE b._last IS NULL OR r._k <= b._last"
        found = f"(SELECT {', '.join([*self._names, self._found()])} FROM {self._rows}{self._by})"
        short = f"b._last IS NOT NULL AND coalesce(r._n, 0) < {ranked.n}"
        self._short_sql = f"SELECT count(*) AS n FROM bounds AS b LEFT JOIN {found} AS r ON {self._same} WHERE {short}"

    def bag(self, duck: Duck, rows: pa.Table, put_together: Callable[[pa.Table], pa.Table]) -> pa.Table:
        """What `put_together` makes of the rows that matter: all that can be among the first n are there, with their weights."""
        places = 2 * self._ranked.n + 16
        while rows.num_rows > max(_SMALL_ROWS, 2 * places) and places <= _PLACES_MAX:
            bounds = duck.query(self._bounds(places), input=rows)
            bag = put_together(duck.query(self._chosen_sql, input=rows, bounds=bounds))
            if not duck.query(self._short_sql, input=bag, bounds=bounds).column("n")[0].as_py():
                return bag
            places *= _GROWTH
        return put_together(rows)

    def _found(self) -> str:
        return "count(DISTINCT _k) AS _n" if self._ranked.dense else f"sum({_W}) AS _n"

    def _bounds(self, places: int) -> str:
        """The last place of each partition that counts; NULL where all do."""
        columns = ", ".join([*self._names, "_k"])
        came = f"SELECT {'DISTINCT ' * self._ranked.dense}{columns} FROM {self._rows} WHERE {_W} > 0"
        firsts = f"SELECT {', '.join([*self._names, f'min(_k, {places}) AS _f'])} FROM ({came}){self._by}"
        return f"SELECT {', '.join([*self._names, f'_f[{places}] AS _last'])} FROM ({firsts})"

    def __repr__(self) -> str:
        return f"<Candidates of the first {self._ranked.n}>"
