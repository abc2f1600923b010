"""A topic of a Faust app as an unbounded table: cluster, columns and codec are the app's."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from streamproc.clients.faust import apps, records
from streamproc.clients.kafka.connection import KafkaConnection
from streamproc.clients.kafka.source import KafkaSource, ReadingOptions
from streamproc.world import World

Topic = Annotated[apps.Named, PlainValidator(apps.topic), WithJsonSchema({"type": "string"})]


class FaustTopic(apps.AppOptions):
    """Which topic of which app."""

    topic: Topic = Field(description="a topic of the app: its name, or module:variable")


def _format(given: object, info: ValidationInfo) -> object:
    topic = info.data.get("topic")
    if topic is None:  # its own fault is told
        return given or "json"
    written = records.format_of(topic.found)
    if given not in (None, written):
        raise ValueError(f"the app writes the topic's values as {written}: remove the key")
    return written


class FaustOptions(ReadingOptions, FaustTopic):
    """Keys of `type: faust`."""

    schema_from_code: ClassVar[bool] = True
    format: Annotated[Literal["json", "raw"], BeforeValidator(_format)] = Field(None, validate_default=True, description="the app says it")

    def default_schema(self) -> pa.Schema | None:
        return records.columns_of(self.topic.found)


class Faust(KafkaSource):
    """Reads as `kafka` does, beside the app's own consumers and without its consumer group."""

    Options: ClassVar = FaustOptions

    def __init__(self, options: FaustOptions, world: World, name: str) -> None:
        app, topic = options.app.found, options.topic.found
        settings = partial(apps.security_settings, app)
        connection = KafkaConnection(apps.servers(app), settings, world.clock, f"sources.{name}")
        topics = topic.topics[0] if len(topic.topics) == 1 else topic.topics
        super().__init__(connection, re.compile(topic.pattern) if topic.pattern else topics, options, world, name)
