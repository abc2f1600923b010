"""All jobs of a service: started, re-read, shown and drained together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from streamproc import logs
from streamproc.http.exposition import exposition_of_jobs
from streamproc.http.health import Health
from streamproc.job import Job
from streamproc.options import Secret
from streamproc.service.job_files import JobFiles, Reload, compare, read_jobs
from streamproc.service.picture import picture
from streamproc.service.supervised import Run, SupervisedJob
from streamproc.world import World

log = structlog.get_logger()


class Fleet:
    """The jobs of the files at `paths`. No job's failure touches another; a stop takes `drain_s` at most."""

    def __init__(
        self, paths: Sequence[str], overrides: Sequence[str], world: World, run: Run, *, drain_s: float, token: Secret | None = None
    ) -> None:
        self.jobs: dict[str, SupervisedJob] = {}
        self.found = JobFiles()
        self._paths, self._overrides, self._world = tuple(paths), tuple(overrides), world
        self._run, self._drain_s, self._token = run, drain_s, token
        self._reloading = asyncio.Lock()
        self._draining = self._left_behind = False
        self._redaction = logs.Redaction(())

    def start(self, found: JobFiles) -> None:
        """Start the jobs; `found` is the first reading of the files."""
        self._know(found)
        for job in found.jobs.values():
            self._start(job)

    def _start(self, job: Job) -> None:
        supervised = SupervisedJob(job, self._world, self._run, self._drain_s)
        self.jobs[job.name] = supervised
        supervised.start()

    def _know(self, found: JobFiles) -> None:
        """Keep what was found, and the secrets of old and new jobs out of the logs."""
        self.found = found
        secrets = [*(running.job for running in self.jobs.values()), *found.jobs.values(), self._token]
        self._redaction = logs.Redaction(logs.secrets_in(secrets))
        logs.configure(self._world.clock, logs.secrets_in(secrets))

    async def settled(self) -> None:
        """Until every job has reported, ended or failed."""
        await asyncio.gather(*(job.settled() for job in self.jobs.values()))

    async def reload(self) -> Mapping[str, Any]:
        """Read the files again and follow what changed; what was done. One after the other; nothing once it drains."""
        async with self._reloading:
            running = {name: job.wanted for name, job in self.jobs.items()}
            down = {name for name, job in self.jobs.items() if job.state in ("failed", "finished")}
            found = await asyncio.to_thread(read_jobs, self._paths, self._overrides)
            asked = await asyncio.to_thread(compare, running, down, found)
            if self._draining:
                return {}
            self._know(found)
            said = _said(asked, found)
            log.info("the job files were read again", **said)
            await self._follow(asked)
            return said

    async def _follow(self, asked: Reload) -> None:
        for name, job in asked.unchanged.items():
            self.jobs[name].job, self.jobs[name].refused = job, ()
            self.jobs[name].try_now()
        for name, reasons in asked.kept.items():
            self.jobs[name].refused = reasons
            log.error("the job's file cannot be followed; what ran goes on", job=name, reasons=reasons)
        for name, job in asked.replaced.items():
            self.jobs[job.name] = replaced = self.jobs.pop(name)
            replaced.restart(job)
        for job in asked.started:
            self._start(job)
        leaving = {name: self.jobs[name] for name in asked.stopped}
        await asyncio.gather(*(job.close() for job in leaving.values()))
        for name, gone in leaving.items():
            self._left_behind |= gone.left_behind
            del self.jobs[name]

    async def drain(self) -> list[str]:
        """Stop all jobs cleanly; the names of those that had to be cut off."""
        self._draining = True
        await asyncio.gather(*(job.close() for job in self.jobs.values()))
        return [name for name, job in self.jobs.items() if job.cut_off]

    @property
    def left_behind(self) -> bool:
        """Whether some run was ever cut off: what it left in threads may never end."""
        return self._left_behind or any(job.left_behind for job in self.jobs.values())

    def restart(self, name: str) -> bool:
        if name not in self.jobs or self._draining:
            return False
        self.jobs[name].restart()
        return True

    def exposition(self) -> bytes:
        return exposition_of_jobs({name: job.world.metrics for name, job in self.jobs.items()})

    def health(self) -> Health:
        """What the jobs say, each under its name. Files that cannot be followed make nothing unready: what ran goes on."""
        judged = {name: job.health() for name, job in self.jobs.items()}
        return Health(
            tuple(f"job {name}: {reason}" for name, health in judged.items() for reason in health.stuck),
            tuple(f"job {name}: {reason}" for name, health in judged.items() for reason in health.waiting),
        )

    def pictures(self) -> Mapping[str, Any]:
        faults = [self._redaction.hide(str(fault)) for fault in self.found.faults]
        return {"jobs": [picture(job, self._redaction.hide) for job in self.jobs.values()], "faults": faults}

    def picture(self, name: str) -> Mapping[str, Any] | None:
        return picture(self.jobs[name], self._redaction.hide) if name in self.jobs else None

    def summary(self) -> str:
        """One line: how many jobs are in which state, and who fails."""
        states = Counter(job.state for job in self.jobs.values())
        failing = [name for name, job in self.jobs.items() if job.state == "failed"]
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{len(self.jobs)} jobs: {counts or 'none'}" + (f" ({', '.join(failing)})" if failing else "")

    def __repr__(self) -> str:
        return f"<Fleet of {self.summary()}>"


def _said(asked: Reload, found: JobFiles) -> dict[str, Any]:
    return {
        "started": [job.name for job in asked.started],
        "stopped": list(asked.stopped),
        "restarted": [job.name for job in asked.replaced.values()],
        "kept": {name: list(reasons) for name, reasons in asked.kept.items()},
        "faults": [str(fault) for fault in found.faults],
    }
