"""One client of a Kafka cluster: connected when first used, connected again after a loss; aiokafka's errors end here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from streamproc.clients.kafka.receiver import receive
from streamproc.clock import Clock
from streamproc.errors import Fault, InvalidJob, Unavailable

REQUEST_TIMEOUT_S = 10.0
"""A broker that does not answer for so long is away: no call hangs."""
MISSING_TOPIC_S = 10.0
"""A topic may be unknown for a moment (a broker that starts, a topic just made); longer is a fault of the job."""
EARLIEST_MS = -2
LATEST_MS = -1


class TopicPartition(NamedTuple):
    """Prints as users know it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class KafkaConnection:
    """A cluster as one source or sink sees it.

    Every coroutine raises `Unavailable` while the cluster cannot do it; the same call works once it can. After a
    failure the metadata are asked again before the next use, and if no known broker answers, `servers`.
    """

    def __init__(self, servers: str, settings: Callable[[], Mapping[str, Any]], clock: Clock, name: str) -> None:
        """`settings` are aiokafka's for TLS and SASL, asked for at each connection; `name` is the part of the job that is at fault."""
        self._servers = servers
        self._settings = settings
        self._clock = clock
        self._name = name
        self._client: Any = None
        self._topics: set[str] = set()
        self._stale = True
        self._missing_since_s: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def partitions(self, topics: list[str]) -> list[TopicPartition]:
        """Partitions of the topics now, by topic and number. InvalidJob if a topic does not exist."""
        async with self._lock:
            await self._refresh(topics)
            return [TopicPartition(topic, number) for topic in topics for number in self._numbers(topic)]

    async def matching(self, pattern: str) -> list[TopicPartition]:
        """Partitions of all topics whose whole name matches."""
        async with self._lock:
            await self._refresh(None)
            topics = sorted(topic for topic in self._client.cluster.topics() if re.fullmatch(pattern, topic))
            return [TopicPartition(topic, number) for topic in topics for number in self._numbers(topic)]

    async def leader(self, at: TopicPartition) -> int:
        """The node that serves a partition."""
        self._topics.add(at.topic)
        async with self._lock:
            if self._stale or self._known_leader(at) is None:
                await self._refresh([at.topic])
            self._numbers(at.topic)
        node = self._known_leader(at)
        if node is None:
            self.distrust()
            raise Unavailable(f"{at} has no leader now ({self})")
        return node

    def distrust(self) -> None:
        """What we know of the cluster may be old: ask again before the next use."""
        self._stale = True

    async def send(self, node: int, request: Any, lane: str = "control") -> Any:
        """The response to a request. Requests of one lane are answered in order, over a socket of their own."""
        client = await self._connected()
        try:
            with self._mapped(f"broker {node}"):
                return await client.send(node, request, group=lane)
        except Unavailable:
            self.distrust()
            raise

    async def fetch(self, node: int, request: Any, lane: str) -> Any:
        """`send` for long responses, one at a time a lane: byte fields may be slices (memoryview) of the response."""
        client = await self._connected()
        with self._mapped(f"broker {node}"):
            connection = await client._get_conn(node, group=lane)
        if connection is not None:  # else `send` says why
            receive(connection)
        return await self.send(node, request, lane)

    async def offset(self, at: TopicPartition, time_ms: int, *, committed: bool = False) -> int | None:
        """The first offset at or after a time; EARLIEST_MS: where the log starts; LATEST_MS: where it ends (or the
        last stable offset, if only committed rows count). None if all rows are older.
        """
        from aiokafka.protocol.offset import OffsetRequest

        request = OffsetRequest(-1, int(committed), [(at.topic, [(at.partition, time_ms)])])
        response = await self.send(await self.leader(at), request)
        ((_, ((_, code, *_, offset),)),) = response.topics
        self.check(code, str(at))
        return None if offset < 0 else int(offset)

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Store next offsets for a consumer group, as a consumer without membership does."""
        from aiokafka.client import CoordinationType
        from aiokafka.protocol.commit import OffsetCommitRequest

        client = await self._connected()
        with self._mapped(f"group {group}"):
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for at, offset in offsets.items():
            topics.setdefault(at.topic, []).append((at.partition, offset, ""))
        response = await self.send(node, OffsetCommitRequest(group, -1, "", -1, list(topics.items())))
        for topic, results in response.topics:
            for partition, code in results:
                self.check(code, f"group {group}, {topic}-{partition}")

    def check(self, code: int, what: str) -> None:
        """Raise `Unavailable` for the error code of a response; the metadata are asked again before the next use."""
        from aiokafka.errors import NoError, for_code

        error = for_code(code)
        if error is not NoError:
            self.distrust()
            raise Unavailable(f"{what}: {_words(error())} ({self})")

    async def close(self) -> None:
        """Close all sockets. The connection may be used again."""
        async with self._lock:
            await self._drop()

    def _known_leader(self, at: TopicPartition) -> int | None:
        node = self._client.cluster.leader_for_partition(at) if self._client is not None else None
        return None if node in (None, -1) else int(node)

    def _numbers(self, topic: str) -> list[int]:
        numbers = self._client.cluster.partitions_for_topic(topic)
        if numbers:
            self._missing_since_s.pop(topic, None)
            return sorted(numbers)
        self.distrust()
        if topic in self._client.cluster.unauthorized_topics:
            raise Unavailable(f"not authorized to see topic {topic!r}: allow DESCRIBE and READ ({self})")
        now_s = self._clock.monotonic_s()
        message = f"topic {topic!r} does not exist at {self._servers}: create it, or correct `topic`"
        if now_s - self._missing_since_s.setdefault(topic, now_s) < MISSING_TOPIC_S:
            raise Unavailable(message)
        raise InvalidJob([Fault(self._name, 0, message)])

    async def _refresh(self, topics: list[str] | None) -> None:
        """Ask for metadata, of all topics in use or of every topic, without creating one."""
        from aiokafka.protocol.metadata import MetadataRequest

        self._topics.update(topics or ())
        client = await self._connected(locked=True)
        request = MetadataRequest(sorted(self._topics) if topics is not None else None, allow_auto_topic_creation=False)
        reason: Unavailable | None = None
        for broker in client.cluster.brokers():
            try:
                with self._mapped(f"broker {broker.nodeId}"):
                    client.cluster.update_metadata(await client.send(broker.nodeId, request, group="control"))
            except Unavailable as error:
                reason = error
            else:
                self._stale = False
                return
        await self._drop()
        raise reason or Unavailable(f"{self} names no brokers")

    async def _connected(self, *, locked: bool = False) -> Any:
        if self._client is None:
            if not locked:
                async with self._lock:
                    return await self._connected(locked=True)
            self._client = await self._connect()
        return self._client

    async def _connect(self) -> Any:
        try:
            from aiokafka.client import AIOKafkaClient
        except ImportError:
            raise InvalidJob([Fault(self._name, 0, "Kafka needs aiokafka: pip install 'streamproc[kafka]'")]) from None
        logger = logging.getLogger("aiokafka")
        if logger.level == logging.NOTSET:  # it logs each failure that we raise
            logger.setLevel(logging.CRITICAL)
        settings = {"request_timeout_ms": round(REQUEST_TIMEOUT_S * 1000), **self._client_settings()}
        client = AIOKafkaClient(bootstrap_servers=self._servers, **settings)
        try:
            with self._mapped("connecting"):
                await client.bootstrap()
        except Unavailable as error:
            await client.close()
            raise Unavailable(f"cannot reach Kafka at {self._servers}: {await self._reason(client, settings)}") from error
        self._stale = True
        return client

    def _client_settings(self) -> Mapping[str, Any]:
        try:
            return self._settings()
        except (OSError, ValueError) as error:
            raise InvalidJob([Fault(self._name, 0, f"security: {error}")]) from error

    async def _reason(self, client: Any, settings: dict[str, Any]) -> str:
        """Why it failed: `bootstrap` only logs it, so the first server is tried once more."""
        from aiokafka.conn import create_conn
        from aiokafka.errors import KafkaError

        host, port, _ = client.hosts[0]
        try:
            connection = await create_conn(host, port, **settings)
        except (KafkaError, OSError, TimeoutError) as error:
            return _words(error)
        await connection.close()
        return "it does not answer"

    async def _drop(self) -> None:
        client, self._client = self._client, None
        self._stale = True
        if client is not None:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(client.close(), REQUEST_TIMEOUT_S)

    @contextlib.contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        from aiokafka.errors import KafkaError

        try:
            yield
        except (KafkaError, OSError, TimeoutError, KeyError) as error:  # KeyError: aiokafka lost the connection meanwhile
            raise Unavailable(f"{what}: {_words(error)} ({self})") from error

    def __repr__(self) -> str:
        return f"Kafka at {self._servers}"


def _words(error: BaseException) -> str:
    """An error for users: its own text, else its class's description, else its name."""
    if isinstance(error, OSError) and str(error):
        return str(error)
    text = str(error.args[0]) if error.args else ""
    return text or getattr(error, "description", "") or type(error).__name__
