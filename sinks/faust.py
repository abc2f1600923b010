"""Sink `faust`: rows go on as values of a Faust app's topic, or of an in-memory channel of an app in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from streamproc.clients.faust import apps, records
from streamproc.errors import BadRecord, Fault, InvalidJob
from streamproc.options import SinkOptions
from streamproc.sink import Change, EpochId, Sink
from streamproc.world import World

if TYPE_CHECKING:
    from streamproc.clients.faust.sending import Pairs, Way

ROWS = 1000
"""Rows that are on their way at a time."""

Topic = Annotated[apps.Named, PlainValidator(apps.topic), WithJsonSchema({"type": "string"})]
Channel = Annotated[apps.Named, PlainValidator(apps.channel), WithJsonSchema({"type": "string"})]


class Place(apps.AppOptions):
    """Where in which app."""

    topic: Topic | None = Field(None, description="a topic of the app: its name, or module:variable")
    channel: Channel | None = Field(None, description="a variable that holds an in-memory channel; where the job is attached to the app")


class FaustOptions(SinkOptions, Place):
    """Keys of `type: faust`."""

    key: str | None = Field(None, description="column that becomes the message's key")

    @property
    def place(self) -> Any:
        """The topic or channel itself."""
        return (self.topic or self.channel).found  # type: ignore[union-attr]  # one of them is there, see below

    @model_validator(mode="after")
    def _one_place(self) -> FaustOptions:
        if (self.topic is None) == (self.channel is None):
            raise ValueError("write either topic or channel")
        if self.mode == "complete":
            raise ValueError("mode complete replaces the whole result, and messages stay; write append or update")
        if self.topic is not None and len(self.place.topics) != 1:
            raise ValueError("topic should be one topic with one name, not several or a pattern")
        return self


class Faust(Sink):
    """At least once: an epoch that is written again, after a crash or a timeout, sends its rows again."""

    guarantee: ClassVar[str] = "at least once"
    Options: ClassVar = FaustOptions

    def __init__(self, options: FaustOptions, world: World, name: str) -> None:
        self._options = options
        self._world = world
        self._name = name
        self._way: Way | None = None

    @classmethod
    def refuses(cls, options: FaustOptions, schema: pa.Schema) -> str | None:
        conf = options.app.found.conf
        if options.key is not None and options.key not in schema.names:
            return f"key {options.key!r} is no column of the rows; they have {', '.join(schema.names)}"
        if options.topic is not None and conf.producer_acks != -1:
            return f"the app's producer_acks={conf.producer_acks} may lose what was sent; set it to -1, which waits for all replicas"
        if options.app.found.in_transaction:
            return "the app has processing_guarantee exactly_once, whose transactions belong to its own agents; write type: kafka instead"
        return records.refused(options.place.value_type, schema)

    async def write(self, epoch: EpochId, rows: pa.RecordBatchReader, change: Change) -> None:
        while (batch := await asyncio.to_thread(_next, rows)) is not None:
            for first in range(0, batch.num_rows, ROWS):
                await self._send(batch.slice(first, ROWS))

    async def close(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            await way.close()

    async def _send(self, rows: pa.RecordBatch) -> None:
        """An object per row cannot be avoided: they are what agents are given. CPU a row (tests/benchmarks/bench_faust.py): 9 µs
        as a Record, then 13 for its JSON and Kafka's client, or 16 through a channel. Results are few beside the rows read.
        """
        way = self._way = self._way or self._chosen()
        await way.send(self._pairs(rows))

    def _pairs(self, rows: pa.RecordBatch) -> Pairs:
        place, key = self._options.place, self._options.key
        try:
            keys = _keys(place, rows.column(key)) if key is not None else [None] * rows.num_rows
            return list(zip(keys, records.values_of(rows, place.value_type), strict=True))
        except Exception as error:  # the author's Record may raise anything
            raise BadRecord(f"sinks.{self._name}: a row is no {place.value_type}: {error}") from error

    def _chosen(self) -> Way:
        from streamproc.clients.faust.sending import ByApp, ByProducer, ToAgents

        running = apps.is_running(self._options.app.found)
        if self._options.channel is None:
            return ByApp(self._options.place) if running else ByProducer(self._options.place)
        if not running:
            message = "a channel lives in the app's process: run the job there, by streamproc.faust.attach(app, …), or write to a topic"
            raise InvalidJob([Fault(f"sinks.{self._name}", 0, message)])
        return ToAgents(self._options.place, self._world)

    def __repr__(self) -> str:
        return f"<Faust {self._name}: {self._options.topic or self._options.channel} of {self._options.app}>"


def _next(rows: pa.RecordBatchReader) -> pa.RecordBatch | None:
    return next(rows, None)


def _keys(place: Any, keys: pa.Array) -> list[Any]:
    """As they are where the app says how keys are written, else as text."""
    as_they_are = place.key_type not in (None, str, bytes) or getattr(place, "key_serializer", None) or place.app.conf.key_serializer
    if as_they_are or pa.types.is_binary(keys.type):
        return keys.to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types
    return keys.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
