"""The rest of a rollback: sinks remove what was written after the commit that was gone back to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import structlog
from msgspec import structs

from streamproc.checkpoint.records import Root
from streamproc.checkpoint.root import open_root, write_root
from streamproc.checkpoint.tasks import TaskScope
from streamproc.engine.retry import Leased, retried
from streamproc.sink import EpochId, Sink
from streamproc.store import Changed, Store

log = structlog.get_logger()


class Undoing(Leased, Protocol):
    """A task, as far as this needs it."""

    store: Store
    scope: TaskScope


async def undo_task(task: Undoing, sinks: Mapping[str, Sink], root: Root) -> None:
    """Remove what the task's old line wrote, then note that it is done."""
    if task.scope.name not in root.undo:
        return
    for name, epoch in root.undo[task.scope.name].items():
        if name in sinks:
            after = EpochId(root.checkpoint, root.generation - 1, name, task.scope.name, epoch)
            if stays := await retried(task, name, partial(sinks[name].undo, after)):
                log.warning("rows stay after the rollback", sink=name, why=stays)
    await retried(task, "checkpoint", partial(_note_done, task))


async def _note_done(task: Undoing) -> None:
    while True:
        opened = await open_root(task.store, task.world)
        left = {name: sinks for name, sinks in opened.root.undo.items() if name != task.scope.name}
        try:
            await write_root(task.store, structs.replace(opened.root, undo=left), opened.etag)
            return
        except Changed:
            continue
