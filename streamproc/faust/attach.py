"""A job as a service of a Faust worker: its start and stop, its web server, its logging."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from mode import Service

from streamproc.job import Job, load_job
from streamproc.status import Status
from streamproc.world import World

EPOCH_S = 30.0
"""How long a stop waits for the running epoch; one that takes longer is finished by the next start."""

_attached: WeakKeyDictionary[Any, list[JobService]] = WeakKeyDictionary()


def attach(app: Any, job_file: str | Path, *, overrides: Sequence[str] = ()) -> None:
    """Run a job in every worker of a Faust app. Call it once for each job, in the module of the app.

    Workers of the app share the job by its leases: one runs a task, the others stand by. The job begins once the app's own agents
    are there, and a stop finishes its epoch. A job that fails, or a file with faults (InvalidJob), crashes the worker
    as any service of the app does: what supervises the worker starts both again, and the job goes on from its checkpoint.
    `GET /streamproc/` of the app's web server shows the jobs as JSON, `/streamproc/metrics` their metrics for Prometheus.
    `overrides` are `a.b=c`, as `--set` takes them.
    """
    services = _attached.get(app)
    if services is None:
        services = _attached[app] = []
        _add_pages(app, services)
    attached = {"job_file": Path(job_file), "overrides": tuple(overrides), "services": services}
    app.service(type("AttachedJob", (JobService,), attached))


class JobService(Service):
    """One attached job. Made by Faust when the worker starts."""

    job_file: ClassVar[Path]
    overrides: ClassVar[tuple[str, ...]]
    services: ClassVar[list[JobService]]

    def __post_init__(self) -> None:
        self.world = World()
        self.status: Status | None = None
        self.job: Job | None = None
        self._stop: asyncio.Event | None = None
        self._running: asyncio.Future[Any] | None = None

    async def on_start(self) -> None:
        from streamproc import logs

        await asyncio.to_thread(importlib.import_module, "streamproc.engine.worker")  # a second in which agents go on
        self.job = load_job(self.job_file, overrides=self.overrides)
        logs.pass_on(logs.secrets_in(self.job))
        self._stop = asyncio.Event()
        self.services.append(self)
        self._running = self.add_future(self._run(self.job, self._stop))

    async def on_stop(self) -> None:
        if self in self.services:
            self.services.remove(self)
        if self._stop is None or self._running is None:
            return
        self._stop.set()
        await asyncio.wait({self._running}, timeout=EPOCH_S)

    async def _run(self, job: Job, stop: asyncio.Event) -> None:
        from streamproc.engine.worker import run_job

        await run_job(job, world=self.world, stop=stop, on_status=self._take)

    def _take(self, status: Status) -> None:
        self.status = status

    @property
    def label(self) -> str:
        return f"{type(self).__name__}: {self.job.name if self.job else self.job_file}"


def _add_pages(app: Any, services: list[JobService]) -> None:
    @app.page("/streamproc/", name="streamproc")  # type: ignore[untyped-decorator]  # Faust's
    async def jobs(view: Any, request: Any) -> Any:
        del request
        return view.json({s.job.name: asdict(s.status) if s.status else None for s in services if s.job})

    @app.page("/streamproc/metrics", name="streamproc-metrics")  # type: ignore[untyped-decorator]
    async def metrics(view: Any, request: Any) -> Any:
        from streamproc.http.exposition import exposition_of_jobs

        del request
        return view.bytes(exposition_of_jobs({s.job.name: s.world.metrics for s in services if s.job}), content_type="text/plain")
