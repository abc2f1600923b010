"""Rows that an epoch refuses, and what becomes of them: bad records, absurd event times, rows the SQL cannot take.

Everything here is a function of the epoch's log and its rows, so a replay refuses the same ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.engine.feed import Piece, newest_event
from streamproc.engine.intake import Intake
from streamproc.engine.runtime import Runtime
from streamproc.engine.unbounded import Table
from streamproc.errors import BadRecord
from streamproc.operators.operator import EpochOutput, Output, Poison
from streamproc.sink import DEAD_LETTER_SCHEMA

RATIO_RECORDS_MIN = 100
"""`max_bad_ratio` is judged over an epoch of so many records or more: of few, one is a large part."""
AHEAD = "event_time_ahead"
POISON = "sql_error"
RESULT = "result_error"
UNQUOTED = "fails in SQL, like others beside it; only the first of many are looked at one by one for their error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Records of one piece: `index` among its records, with one reason, and a text each."""

    piece: Piece
    index: pa.Array
    reason: pa.Array
    error: pa.Array
    raw: pa.Array
    event: pa.Array


@dataclass(frozen=True)
class Judged:
    """An epoch's input after step 3's first look: `inputs` are the plan's (good rows, no absurd times), `parts` say
    which piece each stretch of an input came from, `refusals` what was left out, by source.
    """

    inputs: dict[str, pa.Table] = field(repr=False)
    parts: dict[str, list[Piece]] = field(repr=False)
    refusals: dict[str, list[Refusal]] = field(repr=False)
    event_us: dict[tuple[str, str], int]
    records: dict[str, int]
    nbytes: dict[str, int]
    refused: Mapping[tuple[str, str], int]
    replayed: bool = False

    def origin(self, source: str, row: int) -> tuple[Piece, int]:
        """Piece and record index of a row of an input."""
        for piece in self.parts[source]:
            if row < piece.rows.num_rows:
                return piece, row if piece.index is None else piece.index[row].as_py()
            row -= piece.rows.num_rows
        raise IndexError(row)


def judge(tables: Mapping[str, Table], intake: Intake, now_us: int) -> Judged:
    """Take out what is bad or absurdly far ahead of the logged `now_us`; note the newest event of every shard."""
    inputs, parts, refusals = {}, {}, {}
    event_us: dict[tuple[str, str], int] = {}
    for name, table in tables.items():
        pieces = intake.pieces.get(name, [])
        refusals[name] = [_bad(piece) for piece in pieces if piece.bad.num_rows]
        parts[name] = [_without_ahead(table, piece, now_us, refusals[name]) for piece in pieces]
        inputs[name] = pa.concat_tables([p.rows for p in parts[name]]) if parts[name] else table.schema.empty_table()
        for piece in parts[name]:
            if piece.event_us is not None:
                key = (name, piece.shard)
                event_us[key] = max(piece.event_us, event_us.get(key, piece.event_us))
    refused = Counter({(n, r): c for n, found in refusals.items() for r, c in _reasons(found)})
    records = {name: sum(p.count for p in intake.pieces.get(name, [])) for name in tables}
    nbytes = {name: sum(p.nbytes for p in intake.pieces.get(name, [])) for name in tables}
    return Judged(inputs, parts, refusals, event_us, records, nbytes, refused, intake.replayed)


def _reasons(refusals: Sequence[Refusal]) -> Iterator[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for refusal in refusals:
        counts.update(refusal.reason.to_pylist())
    return iter(counts.items())


def _bad(piece: Piece) -> Refusal:
    bad = piece.bad.combine_chunks()
    columns = [bad.column(c).combine_chunks() for c in ("index", "reason", "error", "raw")]
    index, reason, error, raw = (c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns)
    return Refusal(piece, index, reason, error, raw, pa.nulls(len(index), TIMESTAMP))


def _without_ahead(table: Table, piece: Piece, now_us: int, refusals: list[Refusal]) -> Piece:
    """The piece without rows whose time lies beyond `max_ahead`: one bad clock must not close every window."""
    if table.watermark is None or piece.event_us is None or piece.event_us <= now_us + table.watermark.max_ahead_us:
        return piece
    times = pc.cast(piece.rows.column(table.watermark.column), pa.timestamp("us")).cast(pa.int64())
    ahead = pc.fill_null(pc.greater(times, now_us + table.watermark.max_ahead_us), False)
    index = piece.index if piece.index is not None else pa.array(range(piece.count), pa.int64())
    good = pc.invert(ahead)
    refusals.append(_ahead(table, piece, index.filter(_one(ahead)), piece.rows.filter(ahead)))
    rows = piece.rows.filter(good)
    return replace(piece, rows=rows, index=index.filter(_one(good)), event_us=newest_event(rows, piece.time_column))


def _ahead(table: Table, piece: Piece, index: pa.Array, rows: pa.Table) -> Refusal:
    assert table.watermark is not None
    events = _one(rows.column(table.watermark.column).cast(TIMESTAMP))
    limit_s = table.watermark.max_ahead_us / 1e6
    texts = pa.array([f"{table.watermark.column} {t} is more than {limit_s:g} s past the clock" for t in events.to_pylist()], pa.string())
    return Refusal(piece, index, pa.repeat(AHEAD, len(index)), texts, _payloads(piece, index), events)


def _payloads(piece: Piece, index: pa.Array) -> pa.Array:
    return pa.nulls(len(index), pa.binary()) if piece.payloads is None else piece.payloads.take(index).cast(pa.binary())


def _one(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def stop_at_bad_ratio(tables: Mapping[str, Table], intake: Intake) -> None:
    """BadRecord where more of a source's records are bad than `max_bad_ratio` allows; before the epoch is logged, so that an
    edited job may read it anew.
    """
    for name, table in tables.items():
        pieces = intake.pieces.get(name, [])
        bad, records = sum(p.bad.num_rows for p in pieces), sum(p.count for p in pieces)
        if table.max_bad_ratio is not None and records >= RATIO_RECORDS_MIN and bad > table.max_bad_ratio * records:
            piece = next(p for p in pieces if p.bad.num_rows)
            first = piece.bad.slice(0, 1).to_pylist()[0]
            raise BadRecord(
                f"source {name}: {bad} of {records} records ({bad / records:.1%}) are bad, more than max_bad_ratio: {table.max_bad_ratio:g}"
                f" allows; the first, shard {piece.shard}, offset {piece.offsets[first['index']]}: {first['reason']}: {first['error']}"
            )


def poison_policy(tables: Mapping[str, Table], judged: Judged, poison: Sequence[Poison]) -> None:
    """BadRecord naming shard and offset where a source says `fail`."""
    for found in poison:
        if tables[found.source].bad_records == "fail":
            piece, index = judged.origin(found.source, found.row)
            raise BadRecord(
                f"source {found.source}, shard {piece.shard}, offset {piece.offsets[index]}: {found.error}"
                " (bad_records: skip or dead_letter lets the job go on)"
            )


def result_policy(tables: Mapping[str, Table], sinks: Mapping[str, Output]) -> None:
    """BadRecord naming sink and group where the source of a result that failed says `fail`."""
    for sink, output in sinks.items():
        for failure in output.failures:
            if tables[failure.source].bad_records == "fail":
                raise BadRecord(
                    f"sink {sink}: the result of group {failure.key} fails: {failure.error}"
                    " (bad_records: skip or dead_letter lets the job go on)"
                )


def dead_letters(rt: Runtime, judged: Judged, poison: Sequence[Poison], output: EpochOutput, epoch: int, now_us: int) -> pa.Table | None:
    """The epoch's dead letters in (source, shard, offset) order; None where the job has no dead letter sink."""
    if not rt.has_dead_letters:
        return None
    found = [(name, r) for name, refusals in judged.refusals.items() for r in refusals if _goes_to_letters(rt.tables[name], r)]
    for name in judged.parts:
        if rt.tables[name].bad_records == "dead_letter":
            found += [(name, refusal) for refusal in _poisoned(judged, name, [p for p in poison if p.source == name])]
    letters = [_letters(rt.job_name, name, refusal, epoch, now_us) for name, refusal in found]
    letters += _failed_results(rt, output, epoch, now_us)
    return pa.concat_tables(letters) if letters else DEAD_LETTER_SCHEMA.empty_table()


def _goes_to_letters(table: Table, refusal: Refusal) -> bool:
    """Absurd times go there whenever the job has dead letters, also under `fail`; bad records as the source says."""
    return table.bad_records == "dead_letter" or (len(refusal.reason) > 0 and refusal.reason[0].as_py() == AHEAD)


def _poisoned(judged: Judged, source: str, poison: Sequence[Poison]) -> Iterator[Refusal]:
    """A refusal for every piece that has poison."""
    ordered = sorted(poison, key=lambda found: found.row)
    rows, start = [found.row for found in ordered], 0
    for piece in judged.parts[source]:
        stop = start + piece.rows.num_rows
        here = ordered[bisect_left(rows, start) : bisect_left(rows, stop)]
        if here:
            at = pa.array([found.row - start for found in here], pa.int64())
            index = at if piece.index is None else piece.index.take(at)
            errors = pa.array([found.error or UNQUOTED for found in here], pa.string())
            yield Refusal(piece, index, pa.repeat(POISON, len(here)), errors, _payloads(piece, index), pa.nulls(len(here), TIMESTAMP))
        start = stop


def _failed_results(rt: Runtime, output: EpochOutput, epoch: int, now_us: int) -> list[pa.Table]:
    """A table for every sink that has such: the sink, what was grouped, and the reason."""
    tables = []
    for sink, out in output.sinks.items():
        rows = [
            {
                "job": rt.job_name, "sink": sink, "source": f.source, "reason": RESULT, "error": f.error, "raw": f.key.encode(),
                "epoch": epoch, "time": now_us,
            }
            for f in out.failures if rt.tables[f.source].bad_records == "dead_letter"
        ]  # fmt: skip
        tables += [pa.Table.from_pylist(rows, schema=DEAD_LETTER_SCHEMA)] if rows else []
    return tables


def _letters(job: str, source: str, refusal: Refusal, epoch: int, now_us: int) -> pa.Table:
    n, piece = len(refusal.index), refusal.piece
    sub = pa.repeat(pa.scalar(0, pa.int64()), n) if piece.sub_offsets is None else piece.sub_offsets.take(refusal.index)
    columns = {
        "job": pa.repeat(pa.scalar(job, pa.string()), n),
        "sink": pa.nulls(n, pa.string()),
        "source": pa.repeat(pa.scalar(source, pa.string()), n),
        "shard": pa.repeat(pa.scalar(piece.shard, pa.string()), n),
        "offset": piece.offsets.take(refusal.index).cast(pa.string()),
        "sub_offset": sub,
        "event_time": refusal.event,
        "reason": refusal.reason,
        "error": refusal.error,
        "raw": refusal.raw,
        "epoch": pa.repeat(pa.scalar(epoch, pa.int64()), n),
        "time": pa.repeat(pa.scalar(now_us, TIMESTAMP), n),
    }
    return pa.table([columns[f.name].cast(f.type) for f in DEAD_LETTER_SCHEMA], schema=DEAD_LETTER_SCHEMA)
