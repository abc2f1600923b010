"""Kafka topics as an unbounded table."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, model_validator

from streamproc.clients.kafka.connection import KafkaConnection
from streamproc.clients.kafka.security import KafkaSecurity, client_settings
from streamproc.clients.kafka.source import KafkaSource, ReadingOptions
from streamproc.world import World

Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaOptions(ReadingOptions):
    """Keys of `type: kafka`."""

    topic: Topic | tuple[Topic, ...] | None = Field(default=None, description="topic, or list of topics (shards are then `topic-0`)")
    topic_pattern: str | None = Field(
        default=None, description="regular expression for whole topic names; new topics are found while running"
    )
    bootstrap_servers: str = Field(description="host:port, several separated by commas")
    security: KafkaSecurity = KafkaSecurity()

    @model_validator(mode="after")
    def _topics(self) -> KafkaOptions:
        if (self.topic is None) == (self.topic_pattern is None):
            raise ValueError("write either topic or topic_pattern")
        if self.topic_pattern is not None:
            try:
                re.compile(self.topic_pattern)
            except re.error as error:
                raise ValueError(f"topic_pattern is not a regular expression: {error}") from None
        return self


class Kafka(KafkaSource):
    """The topics that the job file names."""

    Options: ClassVar = KafkaOptions

    def __init__(self, options: KafkaOptions, world: World, name: str) -> None:
        settings = partial(client_settings, options.security)
        connection = KafkaConnection(options.bootstrap_servers, settings, world.clock, f"sources.{name}")
        topics = options.topic if options.topic_pattern is None else re.compile(options.topic_pattern)
        super().__init__(connection, topics or (), options, world, name)
