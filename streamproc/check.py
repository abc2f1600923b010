"""`streamproc check`: every fault of every job file at once, offline, and what is right but should be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamproc import registry
from streamproc.errors import Fault
from streamproc.job.load import read_job
from streamproc.job.model import Job, SinkSpec
from streamproc.job.planning import unexpected


@dataclass(frozen=True)
class Checked:
    """What `check` found in one file. `job` is None if there are faults; `notes` stop nothing."""

    file: str
    job: Job | None
    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...] = ()


def check(paths: Sequence[str | Path], overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> list[Fault]:
    """Every fault of the job files (of a folder: its *.yaml and *.yml), by file and line. Reads nothing but them."""
    return [fault for checked in examine(paths, overrides, environment) for fault in checked.faults]


def examine(
    paths: Sequence[str | Path], overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[Checked, ...]:
    """As `check`, with the jobs and the notes, one `Checked` a file."""
    checked = [_examine_file(file, overrides, environment) for path in paths for file in job_files(path)]
    return tuple(_distinct(checked))


def job_files(path: str | Path) -> list[Path]:
    """The job files a path names: itself, or a folder's *.yaml and *.yml in name order."""
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    return sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())


def _examine_file(file: Path, overrides: Sequence[str], environment: Mapping[str, str] | None) -> Checked:
    loaded = read_job(file, overrides=overrides, environment=environment)
    if loaded.job is None:
        return Checked(str(file), None, _sorted(loaded.faults))
    faults = _sorted(unexpected(loaded.job, loaded.document))
    return Checked(str(file), None if faults else loaded.job, faults, _sorted(notes(loaded.job)))


def _sorted(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: (fault.line, fault.message)))


def notes(job: Job) -> list[Fault]:
    """What is no fault and should be known: weak guarantees, unbounded state and whatever else the plan says."""
    sinks = [*job.sinks.values(), *(sink.late for sink in job.sinks.values()), job.dead_letter]
    weak = [note for sink in sinks if sink is not None if (note := _weak_guarantee(job, sink)) is not None]
    return [*weak, *(Fault(job.file, 1, f"note: {note}") for note in job.planned.notes)]


def _weak_guarantee(job: Job, sink: SinkSpec) -> Fault | None:
    guarantee = registry.sink_class(sink.type).guarantee
    if guarantee.startswith("exactly once"):
        return None
    return Fault(job.file, sink.line, f"note: sink {sink.name!r} ({sink.type}): {guarantee}; a crash can show its rows again")


def _distinct(checked: Sequence[Checked]) -> list[Checked]:
    """Two jobs must not share a checkpoint: each would take the other's epochs for its own."""
    seen: dict[str, str] = {}
    judged = []
    for one in checked:
        place = one.job.checkpoint.rstrip("/") if one.job else ""
        if one.job is not None and place in seen:
            fault = Fault(one.file, 1, f"checkpoint {place} is also that of {seen[place]}; write another checkpoint: or name:")
            one = Checked(one.file, None, (*one.faults, fault), one.notes)
        elif one.job is not None:
            seen[place] = one.file
        judged.append(one)
    return judged
