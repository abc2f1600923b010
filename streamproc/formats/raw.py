"""Raw payloads: one column that holds the payload itself, as BINARY, or as STRING where it must be UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import BAD_SCHEMA, Decoded
from streamproc.formats.decoder import bad_table, flat, table_of, text_of
from streamproc.formats.scalar import Misfit
from streamproc.schema import ddl


@dataclass(frozen=True, slots=True)
class RawDecoder:
    """A `Decoder` of payloads that are taken as they are. `schema` is the declared column, or none if it is not read."""

    schema: pa.Schema
    column: pa.Field

    def decode(self, values: pa.Array) -> Decoded:
        """Payloads (binary or string; NULL is NULL) to rows; never raises for what a payload holds."""
        values = flat(values)
        bad = self._bad(values)
        if not bad:
            return Decoded(self._rows(values), BAD_SCHEMA.empty_table())
        good = pc.indices_nonzero(pc.invert(pc.is_in(pa.array(range(len(values))), pa.array([b[0] for b in bad])))).cast(pa.int64())
        return Decoded(self._rows(values.take(good)), bad_table(bad), good)

    def _rows(self, values: pa.Array) -> pa.Table:
        return table_of([values.cast(f.type) for f in self.schema], self.schema, len(values))

    def _bad(self, values: pa.Array) -> list[tuple[int, str, str, bytes | None]]:
        if self._fits(values):
            return []
        found = [(i, self._misfit(payload), payload) for i, payload in enumerate(values.to_pylist())]
        return [(i, misfit.reason, str(misfit), payload) for i, misfit, payload in found if misfit]

    def _fits(self, values: pa.Array) -> bool:
        try:
            values.cast(self.column.type)
        except pa.ArrowInvalid:
            return False
        return self.column.nullable or not values.null_count

    def _misfit(self, payload: bytes | None) -> Misfit | None:
        if payload is None:
            return None if self.column.nullable else Misfit("missing_not_null", f"column {self.column.name!r} is NOT NULL and has no value")
        try:
            if self.column.type == pa.string():
                text_of(payload)
        except Misfit as misfit:
            return misfit
        return None


def raw_decoder(schema: pa.Schema, declared: pa.Schema) -> RawDecoder:
    """Decoder of the one declared column. ValueError if there are more, or one of another type."""
    if len(declared) != 1 or declared.field(0).type not in (pa.binary(), pa.string()):
        raise ValueError(f"format raw has one column, BINARY or STRING, and the schema is {ddl(declared)}; write: value BINARY")
    return RawDecoder(schema, declared.field(0))
