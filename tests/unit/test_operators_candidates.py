"""The first ranks of the rows that candidates leave are the first ranks of all rows, also where most of what came was taken back."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from streamproc.operators import candidates
from streamproc.operators.candidates import Candidates
from streamproc.operators.duck import Duck
from streamproc.plan.plan import Ranked

FOLD = 'SELECT p, v, id, sum("#w")::BIGINT AS "#w" FROM input GROUP BY ALL HAVING sum("#w") <> 0 ORDER BY ALL'
PLACE = "create_sort_key(v, 'DESC NULLS LAST')"


def bag(seed: int, values: int, taken_back: float) -> pa.Table:
    """Rows that came, and most of the first ones again with weights below 0."""
    chance = random.Random(seed)
    rows = [(chance.choice(["x", "y", None]), chance.choice([None, *range(values)]), i % 400, chance.randint(1, 2)) for i in range(1500)]
    gone = [(p, v, i, -w) for p, v, i, w in rows if chance.random() < (taken_back if v is not None and v > values // 4 else 0.1)]
    columns = zip(*rows, *gone, strict=True)
    schema = pa.schema([("p", pa.string()), ("v", pa.int64()), ("id", pa.int64()), ("#w", pa.int64())])
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)


@pytest.mark.parametrize("taken_back", [0.2, 0.97, 1.0])
@pytest.mark.parametrize("partition", [(), ("p",)])
@pytest.mark.parametrize("function", ["row_number", "rank", "dense_rank"])
@pytest.mark.parametrize("values", [5, 1000])
def test_first_ranks_of_candidates(
    monkeypatch: pytest.MonkeyPatch, function: str, partition: tuple[str, ...], values: int, taken_back: float
) -> None:
    monkeypatch.setattr(candidates, "_SMALL_ROWS", 0)
    duck, n = Duck(), 3
    found = Candidates(Ranked(PLACE, n, function == "dense_rank"), partition)
    ties = ", id, p" if function == "row_number" else ""
    by = f"PARTITION BY {', '.join(partition)}" if partition else ""
    each = 'SELECT p, v, id, unnest(range("#w")) AS copy FROM input'
    ranks = f"SELECT p, v, id FROM ({each}) QUALIFY {function}() OVER ({by} ORDER BY v DESC NULLS LAST{ties}) <= {n} ORDER BY ALL"
    for seed in range(4):
        rows = bag(seed, values, taken_back)
        chosen = found.bag(duck, rows, lambda part: duck.query(FOLD, input=part))
        whole = duck.query(FOLD, input=rows)
        assert duck.query(ranks, input=chosen).equals(duck.query(ranks, input=whole))
        assert values == 5 or taken_back > 0.5 or chosen.num_rows < whole.num_rows / 2
    duck.close()
