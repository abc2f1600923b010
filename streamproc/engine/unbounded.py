"""An unbounded table of the job: its source, what of it is decoded, and its time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import BAD_SCHEMA, EXTRA_COLUMNS, Chunk, Decoded, Decoder, Shard
from streamproc.engine.feed import Piece, newest_event
from streamproc.errors import BadRecord
from streamproc.hash_ranges import HashRange
from streamproc.plan.plan import Watermark
from streamproc.source import Source
from streamproc.state.hash_range import WHOLE, bounds, hash_of, inside


@dataclass(frozen=True)
class Table:
    """One source as the engine reads it. `schema` is the scan's: declared columns the job reads and extra columns.
    `decoder` is None where the source yields columns itself (parquet files). `keeps_payloads`: refused rows must be
    able to show their bytes (the job has a dead letter sink). `partitioned_by`: the column that the producer has
    promised to be the partition key; it is decoded even if no query reads it. `hash_range`: where keys are held against it.
    """

    name: str
    source: Source
    schema: pa.Schema
    decoder: Decoder | None
    watermark: Watermark | None = None
    bad_records: str = "fail"
    max_bad_ratio: float | None = None
    rows_max: int | None = None
    nbytes_max: int | None = None
    keeps_payloads: bool = False
    partitioned_by: str | None = None
    hash_range: HashRange | None = None

    def decode(self, chunk: Chunk) -> Piece:
        """One chunk's records as a piece: declared columns from the payloads, extra columns from the wire."""
        wire = chunk.rows
        decoded = self._values(wire)
        self._check_partitions(decoded, wire, chunk.shard)
        rows = pa.Table.from_arrays([self._column(f, decoded, wire, chunk.shard) for f in self.schema], schema=self.schema)
        names = wire.schema.names
        return Piece(
            shard=chunk.shard,
            rows=rows,
            bad=decoded.bad,
            offsets=wire.column("_offset"),
            sub_offsets=wire.column("_sub_sequence") if "_sub_sequence" in names else None,
            index=decoded.index,
            end=chunk.end,
            time_column=self.watermark.column if self.watermark else None,
            event_us=newest_event(rows, self.watermark.column if self.watermark else None),
            payloads=wire.column("_value") if self.keeps_payloads and "_value" in names else None,
            nbytes=rows.nbytes + decoded.bad.nbytes + (wire.nbytes if self.keeps_payloads else wire.column("_offset").nbytes),
        )

    def of_shard(self, shard: Shard) -> Table:
        """The table as a task over this shard alone reads it: equal keys must not be in other shards."""
        return replace(self, hash_range=shard.hash_range or WHOLE)

    def _check_partitions(self, decoded: Decoded, wire: pa.RecordBatch, shard: str) -> None:
        """BadRecord, whatever `bad_records` says, where a row breaks the producer's promise: its group may be elsewhere too."""
        if self.partitioned_by is None:
            return
        index = decoded.index if decoded.index is not None else pa.arange(0, wire.num_rows)
        keys = wire.column("_key").take(index).cast(pa.string())
        values = decoded.rows.column(self.partitioned_by).cast(pa.string())
        kept = pc.fill_null(pc.equal(keys, values), pc.and_(pc.is_null(keys), pc.is_null(values)))
        if self.hash_range is not None:
            kept = pc.and_(kept, inside(keys, self.hash_range))
        broken = pc.index(kept, False).as_py()
        if broken >= 0:
            offset = wire.column("_offset")[index[broken].as_py()]
            raise BadRecord(
                f"source {self.name}, shard {shard}, offset {offset}: {self._why(keys[broken].as_py(), values[broken].as_py())}"
            )

    def _why(self, key: str | None, value: str | None) -> str:
        """Which promise a row breaks."""
        if key != value:
            return f"the partition key is {key!r}, but {self.partitioned_by} is {value!r}; partitioned_by promises that they are equal"
        if key is None:
            return f"there is no partition key, and {self.partitioned_by} is NULL: such rows may be in any shard"
        low, high = bounds(self.hash_range or WHOLE)
        return (
            f"the hash of {self.partitioned_by} {key!r}, {hash_of(key)}, is not in the shard's range {low} to {high}: the producer chose"
            " another (ExplicitHashKey), so rows of one key may be in several shards; leave out partitioned_by"
        )

    def _values(self, wire: pa.RecordBatch) -> Decoded:
        if self.decoder is not None:
            return self.decoder.decode(wire.column("_value"))
        return Decoded(pa.Table.from_batches([wire]), BAD_SCHEMA.empty_table())

    def _column(self, column: pa.Field, decoded: Decoded, wire: pa.RecordBatch, shard: str) -> pa.ChunkedArray | pa.Array:
        if column.name in decoded.rows.schema.names and not (column.name in EXTRA_COLUMNS.names and self.decoder is None):
            return decoded.rows.column(column.name).cast(column.type)
        if column.name == "_shard":
            return pa.repeat(pa.scalar(shard, pa.string()), decoded.rows.num_rows)
        if column.name not in wire.schema.names:
            return pa.nulls(decoded.rows.num_rows, column.type)
        values = wire.column(column.name)
        return (values if decoded.index is None else values.take(decoded.index)).cast(column.type)
