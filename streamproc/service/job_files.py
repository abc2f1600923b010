"""The job files of a service: read all at once, and what a second reading means for the jobs that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.check import examine, job_files
from streamproc.errors import Fault
from streamproc.job import Job
from streamproc.job.changes import changes


@dataclass(frozen=True)
class JobFiles:
    """What the paths hold: right jobs by name, and every fault of the others."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def read_jobs(paths: Sequence[str], overrides: Sequence[str] = ()) -> JobFiles:
    """Read files, and of folders their *.yaml and *.yml (not those of folders below). Nothing but the files is read."""
    empty = [Fault(path, 1, "holds no job file: no *.yaml and no *.yml") for path in paths if not job_files(path)]
    jobs: dict[str, Job] = {}
    faults = list(empty)
    for checked in examine(paths, overrides):
        one, found = checked.job, list(checked.faults)
        if one is not None and (same := jobs.get(one.name)) is not None:
            found.append(Fault(checked.file, 1, f"name {one.name!r} is also that of {same.file}; write another name:"))
        elif one is not None:
            jobs[one.name] = one
        faults += found
    return JobFiles(jobs, tuple(faults))


@dataclass(frozen=True)
class Reload:
    """What to do after a second reading. `replaced` maps the name of a job that runs to what it is now (its name may be new),
    `kept` one whose file cannot be followed to the reasons, `unchanged` one with the same text (the file may be called otherwise).
    """

    started: tuple[Job, ...] = ()
    stopped: tuple[str, ...] = ()
    replaced: Mapping[str, Job] = field(default_factory=dict)
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unchanged: Mapping[str, Job] = field(default_factory=dict)


def compare(running: Mapping[str, Job], down: Set[str], found: JobFiles) -> Reload:
    """A job is found again by its name, else by its checkpoint. An edit that does not fit the checkpoint is not followed while
    the old job runs; of one that is `down` nothing is lost, and the checkpoint itself will judge.
    """
    pairs, fresh = _matched(running, found.jobs)
    unchanged = {name: new for name, new in pairs.items() if _same(running[name], new)}
    edited = {name: new for name, new in pairs.items() if name not in unchanged}
    kept = {name: why for name, new in edited.items() if name not in down and (why := _misfits(running[name], new))}
    replaced = {name: new for name, new in edited.items() if name not in kept}
    for name in running.keys() - pairs.keys():
        if why := tuple(str(fault) for fault in found.faults if _is_of(fault, running[name])):
            kept[name] = why
    stopped = tuple(sorted(running.keys() - pairs.keys() - kept.keys()))
    return Reload(tuple(fresh), stopped, replaced, kept, unchanged)


def _matched(running: Mapping[str, Job], found: Mapping[str, Job]) -> tuple[dict[str, Job], list[Job]]:
    """Those that run, with what they are now; and those that are new."""
    pairs = {name: job for name, job in found.items() if name in running}
    places = {job.checkpoint.rstrip("/"): name for name, job in running.items() if name not in pairs}
    fresh = []
    for name, job in found.items():
        if name in pairs:
            continue
        before = places.pop(job.checkpoint.rstrip("/"), None)
        if before is None:
            fresh.append(job)
        else:
            pairs[before] = job
    return pairs, fresh


def _same(old: Job, new: Job) -> bool:
    return (old.hash, old.name, old.folder.resolve()) == (new.hash, new.name, new.folder.resolve())


def _misfits(old: Job, new: Job) -> tuple[str, ...]:
    """Why the edit cannot go on from the old job's checkpoint; with another checkpoint it begins anew."""
    if old.checkpoint != new.checkpoint:
        return ()
    found = changes(old, new, old.planned, new.planned)
    return tuple(str(Fault(new.file, 1, str(change))) for change in found if not change.compatible)


def _is_of(fault: Fault, job: Job) -> bool:
    """Whether the fault is of the job's file, or of the folder that the file is in (gone, or not readable)."""
    return Path(fault.file) in (Path(job.file), Path(job.file).parent)
