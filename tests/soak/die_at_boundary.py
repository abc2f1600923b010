"""Run a job in this process until a boundary between two steps of an epoch is passed for the n-th time, and die there at once,
with exit code 9: no `finally`, no flush, as if the power had failed.

    python tests/soak/die_at_boundary.py JOB.yaml before_commit 2
"""

from __future__ import annotations

import asyncio
import os
import sys

from streamproc import logs
from streamproc.clock import SystemClock
from streamproc.engine.worker import run_job
from streamproc.job import load_job

CODE = 9


def dying(boundary: str, at: int):
    passed = 0

    async def die(here: str) -> None:
        nonlocal passed
        passed += here == boundary
        if passed == at:
            os._exit(CODE)

    return die


def main(file: str, boundary: str, at: str) -> None:
    logs.configure(SystemClock())
    asyncio.run(run_job(load_job(file), available_now=True, boundary=dying(boundary, int(at))))


if __name__ == "__main__":
    main(*sys.argv[1:])
