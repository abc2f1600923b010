"""`epochs/<n>.rows`: results that a second run of the epoch would not get again, kept before anything of it is visible.

An Arrow IPC file: a row for every call and slice with its results as an IPC file of their own; the schema's metadata hold the
verdict on poison rows that belongs to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from streamproc.checkpoint.records import Verdict, decode, encode
from streamproc.errors import Bug
from streamproc.state.files import from_bytes, to_bytes

_SCHEMA = pa.schema([("call", pa.string()), ("results", pa.binary())])
_VERDICT = b"verdict"


@dataclass(frozen=True)
class Answers:
    """`tables` by call and slice (see `EpochOutput.answers`); `verdict`: rows that were left out when they were made."""

    tables: Mapping[str, pa.Table] = field(repr=False)
    verdict: Verdict

    def to_bytes(self) -> bytes:
        results = [to_bytes(table) for table in self.tables.values()]
        table = pa.table([pa.array(self.tables, pa.string()), pa.array(results, pa.binary())], schema=_SCHEMA)
        return to_bytes(table.replace_schema_metadata({_VERDICT: encode(self.verdict)}))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Answers:
        """Bug: the object is damaged."""
        table = from_bytes(data, name)
        metadata = table.schema.metadata or {}
        if _VERDICT not in metadata:
            raise Bug(f"checkpoint object {name} is damaged: it has no verdict")
        rows = zip(table.column("call").to_pylist(), table.column("results").to_pylist(), strict=True)
        return cls({call: from_bytes(results, name) for call, results in rows}, decode(metadata[_VERDICT], Verdict, name))
