"""`streamproc explain`: a job in full, from its plan to what running it asks of the servers."""

from __future__ import annotations

from collections.abc import Iterator

from streamproc import registry
from streamproc.job import Asap, AvailableNow, Interval, Job, SinkSpec, is_remote, plan
from streamproc.plan.explain import explain as explain_plan
from streamproc.plan.plan import Operation

LOG_WRITES = 2
"""Objects that every epoch writes to its checkpoint: begin and commit."""


def explain_job(job: Job) -> str:
    """Job, plan, sinks with their guarantees, and the writes of an epoch."""
    return "\n".join([*_job(job), "", explain_plan(plan(job)).rstrip(), "", *_guarantees(job), "", *_writes(job)])


def _job(job: Job) -> Iterator[str]:
    yield f"job {job.name}"
    yield f"  checkpoint {job.checkpoint}"
    yield f"  trigger {_trigger(job)}"


def _trigger(job: Job) -> str:
    match job.trigger:
        case Interval(us):
            return f"every {us / 1e6:g} s"
        case AvailableNow():
            return "once over what is there at the start"
        case Asap():
            return "as soon as there are rows"


def _places(job: Job) -> Iterator[tuple[str, SinkSpec]]:
    for name, sink in job.sinks.items():
        yield name, sink
        if sink.late is not None:
            yield f"{name}.late", sink.late
    if job.dead_letter is not None:
        yield "dead_letter", job.dead_letter


def _guarantees(job: Job) -> Iterator[str]:
    yield "guarantees"
    for name, sink in _places(job):
        yield f"  {name} ({sink.type}): {registry.sink_class(sink.type).guarantee}"


def _writes(job: Job) -> Iterator[str]:
    """What costs money: requests that write to an object store. Merges of state runs come on top, now and then."""
    stateful = sum(isinstance(step, Operation) for query in plan(job).queries.values() for step in query.root.walk())
    puts = (LOG_WRITES + stateful) * is_remote(job.checkpoint)
    puts += sum(is_remote(str(getattr(sink.options, "path", ""))) for _, sink in _places(job))
    yield f"an epoch writes {LOG_WRITES} log records and up to {stateful} state runs"
    if puts:
        pace = f", {puts * 60e6 / job.trigger.us:.3g} a minute" if isinstance(job.trigger, Interval) else ""
        yield f"  to object stores: at least {puts} puts an epoch{pace}; more where rows are partitioned"
