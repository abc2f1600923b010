"""Saved runs: an Arrow IPC file (zstd) a run, in the checkpoint's store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from streamproc.errors import Bug
from streamproc.state.runs import Run, RunRef
from streamproc.store import Missing, Store

_CONCURRENCY = 8  # objects on their way at once: bounds memory
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


async def save(state: Mapping[str, Sequence[Run]], store: Store, name: Callable[[], str]) -> dict[str, list[Run]]:
    """The state with every run named: runs without a name are written to `<name()>`, side by side; the others stay as they are."""
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def saved(run: Run) -> Run:
        if run.name is not None:
            return run
        async with gate:
            target = name()
            await store.put(target, await asyncio.to_thread(to_bytes, run.table))
        return replace(run, name=target, offset=0)

    return {operator: list(await asyncio.gather(*map(saved, runs))) for operator, runs in state.items()}


async def load(state: Mapping[str, Sequence[RunRef]], store: Store, schemas: Mapping[str, pa.Schema] | None = None) -> dict[str, list[Run]]:
    """The runs of a commit, in its order. `schemas`: the columns each operator expects of its runs.

    Bug: an object is gone, damaged, or holds other columns; it is named.
    """
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def loaded(saved: RunRef, schema: pa.Schema | None) -> Run:
        async with gate:
            try:
                data = (await store.get(saved.name)).data
            except Missing:
                raise Bug(f"state object {saved.name} is gone, but a commit names it") from None
            return await asyncio.to_thread(_run, saved, data, schema)

    return {
        operator: list(await asyncio.gather(*(loaded(saved, (schemas or {}).get(operator)) for saved in runs)))
        for operator, runs in state.items()
    }


def to_bytes(table: pa.Table) -> bytes:
    """A run's rows as the object that holds them."""
    target = pa.BufferOutputStream()
    with pa.ipc.new_file(target, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return bytes(target.getvalue())


def from_bytes(data: bytes, name: str) -> pa.Table:
    """The rows of a saved object. Bug: it is damaged."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise Bug(f"state object {name} ({len(data)} bytes) is damaged: {error}") from error


def _run(saved: RunRef, data: bytes, schema: pa.Schema | None) -> Run:
    table = from_bytes(data, saved.name)
    if schema is not None and not table.schema.equals(schema):
        raise Bug(f"state object {saved.name} has columns [{_columns(table.schema)}], the query needs [{_columns(schema)}]")
    if saved.offset + saved.length != table.num_rows:
        rows = f"{table.num_rows} rows, the commit says {saved.offset + saved.length}"
        raise Bug(f"state object {saved.name} has {rows}")
    return Run(
        table=table.slice(saved.offset), chain=saved.chain, window_min=saved.window_min, window_max=saved.window_max,
        nbytes=saved.nbytes, name=saved.name, offset=saved.offset, merging=saved.merging,
    )  # fmt: skip


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
