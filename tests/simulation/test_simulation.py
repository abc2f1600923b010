"""Seeds of the simulation: every promise is kept, and a seed is one run, whatever else happens around it."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from streamproc.testing import simulate

SEEDS = 50
SOAK_SEEDS = 2000


def trace(seed: int) -> str:
    return sha256("\n".join(map(str, simulate(seed).events)).encode()).hexdigest()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise_is_kept(seed):
    outcome = simulate(seed)
    assert outcome.violation is None, outcome.report()
    assert outcome.rows
    assert outcome.epochs


@pytest.mark.parametrize("seed", [1, 7, 30])
def test_the_same_seed_is_the_same_run(seed):
    assert [str(event) for event in simulate(seed).events] == [str(event) for event in simulate(seed).events]


def test_the_same_seed_is_the_same_run_in_another_process():
    """Where sets of texts have another order."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from test_simulation import trace; print(trace(11))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert there.stdout.strip() == trace(11)


def test_seeds_differ():
    assert trace(1) != trace(2)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + SOAK_SEEDS, 100))
def test_every_promise_is_kept_for_longer(first):
    broken = [outcome.report() for outcome in map(simulate, range(first, first + 100)) if outcome.violation is not None]
    assert not broken, "\n\n".join(broken)
