"""`streamproc check --connect`: whether the secrets, servers and folders that a job names can be had from here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from streamproc.engine.runtime import Registered
from streamproc.errors import Fault, InvalidJob, StreamprocError
from streamproc.job import Job, SinkSpec, SourceSpec, TableSpec
from streamproc.logs import secrets_in
from streamproc.stores import check_conditional, open_store
from streamproc.world import World

PATIENCE_S = 15.0


async def faults_of(job: Job) -> list[Fault]:
    """What cannot be had, one fault each. Reads and lists only, but for a probe that the checkpoint's store takes back."""
    world = World()
    unset = [Fault(job.file, 1, reason) for secret in secrets_in(job) if (reason := _unset(secret)) is not None]
    if unset:
        return unset
    tries = [(1, _checkpoint(job, world)), *((s.line, _source(s, world)) for s in job.sources.values())]
    tries += [(table.line, _table(table, job.time_zone, world)) for table in job.tables.values()]
    tries += [(sink.line, _sink(sink, world)) for sink in _sinks(job)]
    reasons = await asyncio.gather(*(_reason(attempt) for _, attempt in tries))
    return [Fault(job.file, line, reason) for (line, _), reason in zip(tries, reasons, strict=True) if reason is not None]


def _unset(secret: Any) -> str | None:
    try:
        secret.reveal()
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _sinks(job: Job) -> list[SinkSpec]:
    named = [*job.sinks.values(), *(sink.late for sink in job.sinks.values()), job.dead_letter]
    return [sink for sink in named if sink is not None]


async def _reason(attempt: Coroutine[Any, Any, None]) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await attempt
    except InvalidJob as error:
        return "; ".join(fault.message for fault in error.faults)
    except StreamprocError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {PATIENCE_S:.0f} s"
    return None


async def _checkpoint(job: Job, world: World) -> None:
    store = open_store(job.checkpoint, world)
    await check_conditional(store)
    await store.close()


async def _source(spec: SourceSpec, world: World) -> None:
    source = Registered().source(spec, world)
    try:
        await source.shards()
    finally:
        await source.close()


async def _table(spec: TableSpec, time_zone: str, world: World) -> None:
    table = Registered().table(spec, spec.schema, time_zone, world)
    try:
        await table.read()
    finally:
        await table.close()


async def _sink(spec: SinkSpec, world: World) -> None:
    path = getattr(spec.options, "path", None)
    if path is not None:
        store = open_store(path, world)
        async for _ in store.list():
            break
        await store.close()
