"""What tests of jobs and of connectors need: a clock to move, fakes that pass the same suites as the real things, crash
points, and a conformance suite for each contract. Public: write your connector's test with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamproc.testing.crash import BOUNDARIES, Crash, Died
    from streamproc.testing.job_runner import JobRun, TestResult, run_job_tests, run_test
    from streamproc.testing.lease_suite import LeaseTableConformance
    from streamproc.testing.manual_clock import ManualClock
    from streamproc.testing.memory_leases import MemoryLeases
    from streamproc.testing.memory_sink import MemorySink
    from streamproc.testing.memory_source import MemorySource
    from streamproc.testing.memory_store import MemoryStore
    from streamproc.testing.simulation import simulate
    from streamproc.testing.sink_suite import SinkConformance
    from streamproc.testing.source_suite import SourceConformance
    from streamproc.testing.store_suite import StoreConformance
    from streamproc.testing.window_suite import WindowConformance

_MODULES = {
    "crash": ("BOUNDARIES", "Crash", "Died"),
    "job_runner": ("JobRun", "TestResult", "run_job_tests", "run_test"),
    "lease_suite": ("LeaseTableConformance",),
    "manual_clock": ("ManualClock",),
    "memory_leases": ("MemoryLeases",),
    "memory_sink": ("MemorySink",),
    "memory_source": ("MemorySource",),
    "memory_store": ("MemoryStore",),
    "simulation": ("simulate",),
    "sink_suite": ("SinkConformance",),
    "source_suite": ("SourceConformance",),
    "store_suite": ("StoreConformance",),
    "window_suite": ("WindowConformance",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BOUNDARIES", "Crash", "Died", "JobRun", "LeaseTableConformance", "ManualClock", "MemoryLeases", "MemorySink", "MemorySource",
    "MemoryStore", "SinkConformance", "SourceConformance", "StoreConformance", "TestResult", "WindowConformance",
    "run_job_tests", "run_test", "simulate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Each name is imported when it is used: a store's test does not load the engine."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
