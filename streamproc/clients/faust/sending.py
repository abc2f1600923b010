"""Values into an app's topic or channel: by the app itself where a Faust worker runs it here, else by a producer of our own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from faust.types.tuples import Message

from streamproc.clients.faust import apps
from streamproc.errors import BadRecord, Unavailable
from streamproc.world import World

SEND_TIMEOUT_S = 10.0
LOOK_EVERY_S = 1.0
TAKEN_S = 60.0
"""Agents that have taken no row for so long are not waited for any more: the epoch is sent again."""

Pairs = Sequence[tuple[Any, Any]]
"""Key and value of each message, as the app's own code would give them to `send`."""


class Way(Protocol):
    """How values get to an app."""

    async def send(self, pairs: Pairs) -> None:
        """Until they are there. `Unavailable`: some may be."""
        ...

    async def close(self) -> None: ...


class ByApp:
    """The app's own producer, with its settings and the signal `on_produce_message`. Not by `topic.send`: that takes six times as
    long, on the loop of the agents.
    """

    def __init__(self, topic: Any) -> None:
        self._topic = topic

    async def send(self, pairs: Pairs) -> None:
        name = self._topic.get_topic_name()
        messages = _messages(self._topic, pairs)
        with _mapped(self._topic):
            producer = await self._topic.app.maybe_start_producer()
            await _all_of([await producer.send(name, key, value, None, None, None) for key, value in messages])

    async def close(self) -> None:
        return


class ByProducer:
    """A producer with the app's settings, in a process that does not run the app."""

    def __init__(self, topic: Any) -> None:
        self._topic = topic
        self._producer: Any = None

    async def send(self, pairs: Pairs) -> None:
        messages = _messages(self._topic, pairs)
        name = self._topic.get_topic_name()
        with _mapped(self._topic):
            producer = await self._started()
            await _all_of([await producer.send(name, value, key=key) for key, value in messages])

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(**_settings(self._topic.app))
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer


class ToAgents:
    """An in-memory channel of an app that runs here. A value is there once an agent has taken and finished it: until then a
    crash, and a rebalance too, which empties the queues of channels, would lose it. Where several agents listen, one is enough.
    """

    def __init__(self, channel: Any, world: World) -> None:
        self._channel = channel
        self._app = channel.app
        self._world = world

    async def send(self, pairs: Pairs) -> None:
        at_once = max(1, self._channel.maxsize or self._app.conf.stream_buffer_maxsize)
        for first in range(0, len(pairs), at_once):
            await self._deliver(pairs[first : first + at_once])

    async def close(self) -> None:
        return

    async def _deliver(self, pairs: Pairs) -> None:
        rebalances = self._app.rebalancing_count
        awaited = Awaited(len(pairs))
        for key, value in pairs:
            await self._put(key, value, awaited)
        left, idle_s = awaited.left, 0.0
        while not await awaited.over(LOOK_EVERY_S):
            idle_s = idle_s + LOOK_EVERY_S if awaited.left == left else 0.0
            left = awaited.left
            if self._app.rebalancing_count != rebalances:
                raise Unavailable("the Faust worker's partitions were assigned anew, which empties channels; the rows are sent again")
            if idle_s >= TAKEN_S:
                raise Unavailable(f"no agent has finished a row for {TAKEN_S:.0f} s; the rows are sent again")

    async def _put(self, key: Any, value: Any, awaited: Awaited) -> None:
        if not self._app.flow_control.is_active():
            raise Unavailable("the Faust worker's streams are suspended: it assigns partitions anew, or stops")
        if not self._channel.subscriber_count:
            raise Unavailable("no agent listens to the channel yet")
        message = Delivery(key, value, self._world.clock.now_us() / 1e6, self._app.consumer_generation_id, awaited)
        try:
            await self._channel.put(self._app.create_event(key, value, None, message))
        except asyncio.CancelledError:  # emptying a queue cancels those who wait for room in it
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the Faust worker's partitions were assigned anew, which empties channels") from None


class Awaited:
    """How many values agents have yet to finish."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._over = asyncio.Event()

    def finish_one(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self._over.set()

    async def over(self, timeout_s: float) -> bool:
        """Whether all are finished, waiting for it a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), timeout_s)
        return self.left <= 0


class Delivery(Message):
    """A message of a channel that tells when it is acknowledged. Streams drop those of another `generation` than the worker's.

    Faust's compiled streams set `acked` where its Python calls `on_final_ack`, so that it is the one place to look.
    """

    __slots__ = ("_acked", "_awaited")

    def __init__(self, key: Any, value: Any, timestamp_s: float, generation: int, awaited: Awaited) -> None:
        self._awaited = awaited
        self._acked = False
        super().__init__("<channel>", 0, -1, timestamp_s, 1, None, key, value, None, generation_id=generation)

    @property
    def acked(self) -> bool:
        return self._acked

    @acked.setter
    def acked(self, acked: bool) -> None:
        if acked and not self._acked:
            self._awaited.finish_one()
        self._acked = acked


def _messages(topic: Any, pairs: Pairs) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values as the app's codecs write them. BadRecord where one cannot."""
    try:
        return [(topic.prepare_key(key, None)[0], topic.prepare_value(value, None)[0]) for key, value in pairs]
    except Exception as error:  # a codec may be the author's own
        reason = f"topic {topic.get_topic_name()} of Faust app {topic.app.conf.id}: a row cannot be written: {error}"
        raise BadRecord(reason) from error


async def _all_of(sent: list[Any]) -> None:
    """Waits for every message, also after one has failed: its order is then decided."""
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _settings(app: Any) -> dict[str, Any]:
    conf = app.conf
    return {
        "bootstrap_servers": apps.servers(app, producing=True),
        **apps.security_settings(app),
        "client_id": conf.broker_client_id,
        "acks": "all",
        "linger_ms": round((conf.producer_linger or 0) * 1000),
        "max_batch_size": conf.producer_max_batch_size,
        "max_request_size": conf.producer_max_request_size,
        "compression_type": conf.producer_compression_type,
        "request_timeout_ms": round(SEND_TIMEOUT_S * 1000),
        **({"partitioner": conf.producer_partitioner} if conf.producer_partitioner else {}),
    }


@contextlib.contextmanager
def _mapped(topic: Any) -> Iterator[None]:
    try:
        yield
    except (KafkaError, ProducerSendError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"topic {topic.get_topic_name()} of Faust app {topic.app.conf.id}: {reason}") from error
