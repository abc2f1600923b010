"""One epoch, in seven steps. Recovery runs the same steps over what the log says.

    1 read     what the feeds hold, up to the limits                       (intake.py)
    2 log      <n>.begin, create-if-absent: everything that decides the result
    3 run      the plan, in threads
    4 write    every sink, idempotent on the epoch's id, side by side
    5 save     the state runs that are new
    6 commit   <n>.commit, create-if-absent
    7 tell     the sources: a mirror for other tools, never the truth

A crash between any two of them leaves a log from which the next worker goes on:

    no <n>.begin             nothing happened: rows are read again
    <n>.begin, no <n>.commit the same rows are read again by their positions and steps 3 to 7 repeated; sinks know the id
    <n>.commit               done; step 7 may be missing and comes with the next epoch
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import structlog

from streamproc.checkpoint.answers import Answers
from streamproc.checkpoint.records import Begin, Commit, Refused, ShardBegin, ShardEnd, Verdict
from streamproc.engine.intake import Intake
from streamproc.engine.refusals import POISON, RESULT, Judged, dead_letters, judge, poison_policy, result_policy, stop_at_bad_ratio
from streamproc.engine.retry import retried
from streamproc.engine.runtime import Runtime
from streamproc.errors import BadRecord, LeaseLost
from streamproc.operators.operator import EpochOutput, EpochTime, Output, Poison
from streamproc.sink import EpochId
from streamproc.state.runs import Run, RunRef
from streamproc.state.watermark import Floor, ShardTime, inherited, raised, shard_watermark, task_watermark

log = structlog.get_logger()
END_OF_TIME_US = 2**62
UNDECIDED = Answers({}, Verdict(writer=""))


class Overtaken(Exception):
    """Another worker's begin or commit stands where ours should: read the log again and go on from it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is true after the newest commit: its number, its record, and the state it names, in memory."""

    epoch: int
    commit: Commit
    state: Mapping[str, Sequence[Run]] = field(default_factory=dict, repr=False)


async def run_epoch(rt: Runtime, standing: Standing, intake: Intake, *, drain: bool = False) -> Standing:
    """Steps 2 to 7 for rows that were read; returns what stands then.

    Overtaken: somebody else's begin or commit stands. LeaseLost: drop the task. BadRecord: the job says to stop.
    """
    await rt.boundary("after_read")
    stop_at_bad_records(rt, intake)
    stop_at_bad_ratio(rt.tables, intake)
    begin = await log_begin(rt, standing, intake.shards, drain=drain)
    await rt.boundary("after_begin")
    return await finish_epoch(rt, standing, begin, intake)


async def finish_epoch(rt: Runtime, standing: Standing, begin: Begin, intake: Intake) -> Standing:
    """Steps 3 to 7 of an epoch that is begun, by us or by a worker that did not finish it."""
    epoch = standing.epoch + 1
    judged = judge(rt.tables, intake, begin.now_us)
    time, shards, sources = advance_time(rt, standing.commit, begin, judged.event_us)
    try:
        output, verdict = await run_plan(rt, standing, begin, judged, time)
    except BadRecord as error:
        await abort_epoch(rt, standing, begin, str(error))
        raise
    await rt.boundary("after_run")
    letters = dead_letters(rt, judged, verdict, output, epoch, begin.now_us)
    written = await write_sinks(rt, output, letters, EpochId(rt.line.checkpoint, rt.line.generation, "", rt.line.task, epoch, begin.now_us))
    await rt.boundary("after_write")
    state = await save_state(rt, epoch, output.state)
    await rt.boundary("before_commit")
    before = standing.commit
    commit = Commit(
        writer=rt.writer,
        job=begin.job,
        now_us=begin.now_us,
        shards=shards,
        tables=begin.tables,
        watermark_us=time.watermark_end_us,
        source_watermarks=sources,
        state={op: [RunRef.of(run) for run in runs] for op, runs in state.items()},
        late=added(before.late, {name: out.late_rows for name, out in output.sinks.items()}),
        dead=before.dead + (letters.num_rows if letters is not None else 0),
        written=added(before.written, written),
        limits=dict(output.limits),
        floors=tuple(floor for floor in before.floors if raised(floor.watermark_us, time.watermark_end_us) == floor.watermark_us),
        finished=begin.drain,
    )
    await log_commit(rt, epoch, commit)
    await rt.boundary("after_commit")
    await tell_sources(rt, commit)
    count(rt, judged, verdict, output, written)
    return Standing(epoch, commit, state)


def stop_at_bad_records(rt: Runtime, intake: Intake) -> None:
    """Under `bad_records: fail` the job stops before the epoch is logged, so that an edited job may read it anew."""
    for name, pieces in intake.pieces.items():
        if rt.tables[name].bad_records == "fail":
            for piece in pieces:
                if piece.bad.num_rows:
                    first = piece.bad.slice(0, 1).to_pylist()[0]
                    raise BadRecord(
                        f"source {name}, shard {piece.shard}, offset {piece.offsets[first['index']]}: {first['reason']}: {first['error']}"
                        " (bad_records: skip or dead_letter lets the job go on)"
                    )


async def log_begin(rt: Runtime, standing: Standing, shards: dict[str, dict[str, ShardBegin]], *, drain: bool) -> Begin:
    """Step 2. `now` rises strictly, whatever the clock does."""
    now_us = max(rt.world.clock.now_us(), standing.commit.now_us + 1)
    async with timed(rt, "begin"):
        pinned = await retried(rt, "checkpoint", lambda: rt.bounded.pin(f"{rt.state_prefix}{standing.epoch + 1}-"))
        record = Begin(
            writer=rt.writer, job=rt.job_hash, now_us=now_us, shards=shards, tables=pinned, engine=rt.versions, drain=drain,
        )  # fmt: skip
        stands = await retried(rt, "checkpoint", lambda: rt.log.begin(standing.epoch + 1, record))
    if stands.writer != rt.writer:
        raise Overtaken
    return stands


def advance_time(
    rt: Runtime, before: Commit, begin: Begin, event_us: Mapping[tuple[str, str], int]
) -> tuple[EpochTime, dict[str, dict[str, ShardEnd]], dict[str, int | None]]:
    """Where every shard and the watermarks stand after this epoch: a function of the log and its newest event times.

    The watermark at its start counts the idle time that had passed when its first rows came.
    """
    ends = {name: dict(_kept(before.shards.get(name, {}), begun)) for name, begun in begin.shards.items()}
    first: dict[str, list[ShardTime]] = {}
    last: dict[str, list[ShardTime]] = {}
    for name, begun in begin.shards.items():
        watermark = rt.tables[name].watermark
        for shard, b in begun.items():
            old = ends[name].get(shard)
            base = raised(old.watermark_us if old else None, inherited([ends[name][p].watermark_us for p in b.parents if p in ends[name]]))
            new = shard_watermark(base, event_us.get((name, shard)), watermark.delay_us) if watermark else None
            ends[name][shard] = ShardEnd(end=b.until, watermark_us=new, idle_us=b.idle_us, ended=b.ended, parents=b.parents)
            if watermark and not (old and old.ended) and not _waits(b, before.shards.get(name, {})):
                idle_us = old.idle_us if old else 0
                first.setdefault(name, []).append(ShardTime(base, b.idle_before_us, idle_us, watermark.idle_us))
                last.setdefault(name, []).append(ShardTime(new, b.idle_us, min(b.idle_before_us, b.idle_us), watermark.idle_us))
    sources = {n: task_watermark(task_watermark(before.source_watermarks.get(n), first[n]), last[n]) for n in first}
    start_us = task_watermark(before.watermark_us, _all(first))
    end_us = END_OF_TIME_US if begin.drain else task_watermark(start_us, _all(last))
    return EpochTime(begin.now_us, start_us, end_us, _floors(before)), ends, sources


def _floors(before: Commit) -> tuple[Floor, ...]:
    return tuple(Floor((int(floor.first), int(floor.last)), floor.watermark_us) for floor in before.floors)


def _all(times: Mapping[str, Sequence[ShardTime]]) -> list[ShardTime]:
    return [time for shards in times.values() for time in shards]


def _kept(before: Mapping[str, ShardEnd], begun: Mapping[str, ShardBegin]) -> dict[str, ShardEnd]:
    """Shards go on being known while they are listed or have not ended."""
    return {shard: end for shard, end in before.items() if shard in begun or not end.ended}


def _waits(begun: ShardBegin, before: Mapping[str, ShardEnd]) -> bool:
    """A child takes part in the minimum from the moment its parents have ended, read or not."""
    return any(parent in before and not before[parent].ended for parent in begun.parents)


async def run_plan(
    rt: Runtime, standing: Standing, begin: Begin, judged: Judged, time: EpochTime
) -> tuple[EpochOutput, Sequence[Poison]]:  # fmt: skip
    """Step 3. What a second run might not get again is stored before anything of the epoch is visible, and a replay obeys it:
    which rows the SQL cannot take, and results of functions that are not deterministic.
    """
    async with timed(rt, "run"):
        epoch = standing.epoch + 1
        tables = await retried(rt, "checkpoint", lambda: rt.bounded.rows(begin.tables))
        decided = await read_decisions(rt, epoch) if judged.replayed else UNDECIDED
        while True:
            poison = [Poison(r.source, r.row, r.error) for r in decided.verdict.rows]
            run = partial(
                rt.executor.run, judged.inputs, time, standing.state, tables=tables, answers=decided.tables,
                limits=standing.commit.limits, poison=poison, first_only=rt.strict,
            )  # fmt: skip
            output = await retried(rt, "functions", partial(in_turn, rt, run))
            if output.poison:
                poison_policy(rt.tables, judged, output.poison)
            found = [*poison, *output.poison]
            others = await store_decisions(rt, epoch, decided, output, found)
            if others is None:
                result_policy(rt.tables, output.sinks)
                return output, found
            decided = others


async def in_turn(rt: Runtime, run: Callable[[], Awaitable[EpochOutput]]) -> EpochOutput:
    """Compute when it is this job's turn among those of the process."""
    async with rt.connected.turns.turn(rt.job_name):
        return await run()


async def read_decisions(rt: Runtime, epoch: int) -> Answers:
    """What an earlier run of the epoch has decided."""
    answers = await retried(rt, "checkpoint", lambda: rt.log.read_answers(epoch)) if rt.executor.keeps_answers else None
    verdict = await retried(rt, "checkpoint", lambda: rt.log.read_verdict(epoch)) if answers is None else None
    return answers or (Answers({}, verdict) if verdict else UNDECIDED)


async def store_decisions(rt: Runtime, epoch: int, decided: Answers, output: EpochOutput, poison: Sequence[Poison]) -> Answers | None:
    """Store what is new beyond `decided`. If another worker that runs the epoch too was first, its decisions: they count."""
    verdict = Verdict(writer=rt.writer, rows=[Refused(source=p.source, row=p.row, error=p.error) for p in poison])
    if not decided.tables and (any(table.num_rows for table in output.answers.values()) or (output.answers and poison)):
        stands = await retried(rt, "checkpoint", lambda: rt.log.answers(epoch, Answers(output.answers, verdict)))
        return None if stands.verdict.writer == rt.writer else stands
    if output.poison:
        await retried(rt, "checkpoint", lambda: rt.log.verdict(epoch, verdict))
    return None


async def write_sinks(rt: Runtime, output: EpochOutput, letters: pa.Table | None, epoch: EpochId) -> dict[str, int]:
    """Step 4. Side by side; each is tried again while its server is away. Returns rows written by sink."""
    outputs = rt.addressed(output, letters, epoch.epoch)

    async def write(name: str, out: Output) -> None:
        target = EpochId(epoch.checkpoint, epoch.generation, name, epoch.task, epoch.epoch, epoch.now_us)
        await retried(rt, f"sink {name}", lambda: rt.sinks[name].write(target, out.rows.to_reader(), out.change))

    async with timed(rt, "write"):
        await asyncio.gather(*(write(name, out) for name, out in outputs.items()))
    return {name: out.rows.num_rows for name, out in outputs.items()}


async def save_state(rt: Runtime, epoch: int, state: Mapping[str, Sequence[Run]]) -> Mapping[str, Sequence[Run]]:
    """Step 5. Only runs that are new; names carry epoch and chance, so that two writers never meet."""
    async with timed(rt, "save"):
        return await retried(rt, "checkpoint", lambda: rt.save(state, f"state/{rt.state_prefix}{epoch}-"))


async def log_commit(rt: Runtime, epoch: int, commit: Commit) -> None:
    """Step 6. The one who creates the object did the epoch."""
    async with timed(rt, "commit"):
        stands = await retried(rt, "checkpoint", lambda: rt.log.commit(epoch, commit))
    if stands.writer != rt.writer:
        raise Overtaken


async def abort_epoch(rt: Runtime, standing: Standing, begin: Begin, reason: str) -> None:
    """Commit that nothing of the epoch was taken, so that an edited job can begin it anew with its own text."""
    before = standing.commit
    commit = Commit(
        writer=rt.writer, job=begin.job, now_us=begin.now_us, shards=before.shards, tables=begin.tables,
        watermark_us=before.watermark_us,
        source_watermarks=before.source_watermarks, state=before.state, late=before.late, dead=before.dead,
        written=before.written, limits=before.limits, floors=before.floors, aborted=reason,
    )  # fmt: skip
    await log_commit(rt, standing.epoch + 1, commit)


async def tell_sources(rt: Runtime, commit: Commit) -> None:
    """Step 7. A mirror that fails harms nobody: it is logged and comes again with the next epoch."""
    rt.mark(commit.shards)
    for name, ends in commit.shards.items():
        try:
            await rt.tables[name].source.tell({shard: end.end for shard, end in ends.items()})
        except LeaseLost:
            raise
        except Exception as error:
            log.warning("positions were not mirrored", source=name, error=str(error))


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Counters by name, summed."""
    names = dict.fromkeys(name for one in counts for name in one)
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


def count(
    rt: Runtime, judged: Judged, poison: Sequence[Poison], output: EpochOutput, written: Mapping[str, int]
) -> None:  # fmt: skip
    """The epoch in the metrics."""
    metrics = rt.world.metrics
    for name, rows in written.items():
        metrics.add("streamproc_rows_written_total", rows, sink=name)
    for name, out in output.sinks.items():
        metrics.add("streamproc_late_rows_total", out.late_rows, sink=name)
    refused = Counter((found.source, POISON) for found in poison)
    refused += Counter((failure.source, RESULT) for out in output.sinks.values() for failure in out.failures)
    for (name, reason), rows in [*judged.refused.items(), *refused.items()]:
        metrics.add("streamproc_dead_letters_total", rows, source=name, reason=reason)
    for name, records in judged.records.items():
        metrics.add("streamproc_rows_read_total", records, source=name)
        metrics.add("streamproc_bytes_read_total", judged.nbytes[name], source=name)
    metrics.add("streamproc_epochs_total")
    metrics.set("streamproc_committed_timestamp_seconds", rt.world.clock.now_us() / 1e6)


@asynccontextmanager
async def timed(rt: Runtime, step: str) -> AsyncIterator[None]:
    """Measure a step for the metrics and the live picture."""
    started_s = rt.world.clock.monotonic_s()
    yield
    seconds = rt.world.clock.monotonic_s() - started_s
    rt.steps[step] = seconds
    rt.world.metrics.observe("streamproc_epoch_seconds", seconds, step=step)
