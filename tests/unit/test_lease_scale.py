"""The comparison of lease algorithms in virtual time, small."""

import os
import subprocess
import sys

import pytest

from streamproc.testing.lease_fleet import TTL_S, Fleet, Worker
from streamproc.testing.lease_scale import KINDS, Figures, OurWorker, compare, idle, joining, loss, rolling, table

SHARDS, WORKERS, SEED = 30, 5, 3


def number(figures: Figures, start: str) -> float:
    return next(float(figure.split()[0]) for name, figure in figures if name.startswith(start))


def test_the_same_seed_gives_the_same_table() -> None:
    def printed(hash_seed: str) -> str:
        command = [sys.executable, "-m", "streamproc.testing.lease_scale", "--shards", "12", "--workers", "3"]
        return subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True).stdout

    assert printed("1") == printed("2") != ""


def test_the_table_has_a_column_for_each_algorithm() -> None:
    told = compare(12, 3, SEED)
    assert table(told, "12 shards, 3 workers").startswith("| 12 shards, 3 workers | streamproc | KCL 2 | KCL 3 |\n| --- | ---: ")
    assert not any(figure.startswith("not in") for figures in told.values() for _, figure in figures)


def test_a_killed_worker_of_a_small_fleet_is_replaced_within_the_ttl_and_a_second() -> None:
    assert number(loss(OurWorker, SHARDS, WORKERS, SEED), "longest") < TTL_S + 1


def test_new_workers_get_their_share_with_as_few_moves_as_can_be_and_nobody_reads_twice() -> None:
    figures = joining(OurWorker, SHARDS, WORKERS, SEED)
    assert number(figures, "moves") == SHARDS // (WORKERS + 1)
    assert number(figures, "shard-seconds read by two") == 0
    assert number(figures, "shard-seconds read by nobody") <= 0.1 * SHARDS // (WORKERS + 1)


def test_a_rolling_deploy_leaves_shards_alone_for_a_look() -> None:
    figures = rolling(OurWorker, SHARDS, WORKERS, SEED)
    assert number(figures, "shard-seconds read by nobody") < SHARDS * 1.5
    assert number(figures, "shard-seconds read by two") == 0


def test_an_idle_worker_asks_less_than_kcl() -> None:
    ours, *others = (number(idle(kind, SEED), "one idle worker") for kind in KINDS)
    assert ours < min(others)


@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm_reads_every_shard_once_in_the_end(kind: type[Worker]) -> None:
    fleet = Fleet(kind, SHARDS, SEED)
    for _ in range(WORKERS):
        fleet.join(delay_s=fleet.random.random())
    assert fleet.run(1200.0, lambda: len(fleet.workers) == WORKERS and fleet.settled)
    owners = {key: lease.owner for key, lease in fleet.rows.items()}
    assert {key: {owner} for key, owner in owners.items()} == fleet.readers
