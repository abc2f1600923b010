"""The job file: YAML and Spark SQL in, a frozen `Job` out, or every fault with its line."""

from streamproc.job.editor_schema import json_schema
from streamproc.job.keys import MetricsOptions
from streamproc.job.load import is_remote, load_job
from streamproc.job.model import (
    Added,
    Asap,
    AvailableNow,
    FunctionSpec,
    Interval,
    Job,
    Reshard,
    Rows,
    SinkSpec,
    SourceSpec,
    StepKind,
    TableSpec,
    TestCase,
    TestStep,
    Trigger,
)
from streamproc.job.planning import plan
from streamproc.lease.options import LeaseOptions

__all__ = [
    "Added",
    "Asap",
    "AvailableNow",
    "FunctionSpec",
    "Interval",
    "Job",
    "LeaseOptions",
    "MetricsOptions",
    "Reshard",
    "Rows",
    "SinkSpec",
    "SourceSpec",
    "StepKind",
    "TableSpec",
    "TestCase",
    "TestStep",
    "Trigger",
    "is_remote",
    "json_schema",
    "load_job",
    "plan",
]
