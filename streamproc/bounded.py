"""The contract of bounded tables: small tables that a query joins a stream with, read whole, again at intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from streamproc.options import DdlSchema, Duration, Options


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table's rows as of one moment. `version` differs whenever the rows may."""

    version: str
    rows: pa.Table = field(repr=False)


class VersionedOptions(Options):
    """A table of which each row is valid from a time on, until the next one of its key."""

    key: str = Field(description="column that says what the row is about")
    time: str = Field(description="column from when on the row is valid (TIMESTAMP)")


class TableOptions(Options):
    """Keys of every bounded table; a connector's `Options` subclass adds its own."""

    type: str
    schema_: DdlSchema | None = Field(None, alias="schema", description="Spark DDL column list")
    refresh: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="how often the table is read again; without it once, when the job starts"
    )
    versioned: VersionedOptions | None = Field(None, description="each row is valid from its time on: a join takes the one valid then")


class BoundedTable(ABC):
    """One table. `read` gives all of it, with the columns of the declared schema, rows in an order that the version decides."""

    @abstractmethod
    async def read(self, known: str | None = None) -> Snapshot | None:
        """The table now; None if it is still at version `known`.

        Unavailable: not now. BadRecord: a value does not fit the schema; file and record are named.
        """

    async def close(self) -> None:
        """Release connections."""
        return
