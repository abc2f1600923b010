"""Seeds from the command line: the history of those that fail, and how many were run in what time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import click

from streamproc.clock import SystemClock
from streamproc.testing.simulation import Outcome, simulate
from streamproc.testing.simulation.workload import WORKLOADS


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--processes", default=1, show_default=True)
@click.option(
    "--workload", "workloads", multiple=True, type=click.Choice([workload.name for workload in WORKLOADS]), help="Draw from these only."
)
@click.option("--history", "all_histories", is_flag=True, help="Print every history, not only of seeds that fail.")
def main(seeds: int, first: int, processes: int, workloads: tuple[str, ...], all_histories: bool) -> None:
    """Run seeds of the simulation. Exit code 1 if one of them broke a promise."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    broken: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    for outcome in _outcomes(range(first, first + seeds), workloads, processes):
        if outcome.violation is not None or all_histories:
            click.echo(outcome.report())
        if outcome.violation is not None:
            broken[outcome.violation.invariant] += 1
        slowest = {what: max(seconds, slowest.get(what, 0)) for what, seconds in {**slowest, **outcome.seconds}.items()}
    took_s = clock.monotonic_s() - began_s
    click.echo(f"{seeds} seeds in {took_s:.0f} s ({seeds / took_s:.1f} a second), {broken.total()} failed {dict(broken) or ''}")
    click.echo("longest, in virtual seconds: " + ", ".join(f"{what} {seconds:.1f}" for what, seconds in slowest.items()))
    sys.exit(1 if broken else 0)


def _outcomes(seeds: Iterable[int], workloads: tuple[str, ...], processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from (simulate(seed, workloads=workloads) for seed in seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_outcome, seeds, [workloads] * len(list(seeds)), chunksize=4)


def _outcome(seed: int, workloads: tuple[str, ...]) -> Outcome:
    return simulate(seed, workloads=workloads)
