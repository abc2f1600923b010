"""The fetch loop: one request a broker for the partitions of all readers that have room, again and again.

A broker answers the requests of one connection in order, so a long poll a partition would queue behind the others.
Partitions at their end wait in a long poll of their own lane: they never hold up those with a backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from streamproc.clients.kafka.connection import KafkaConnection, TopicPartition
from streamproc.clients.kafka.records import Fetched, next_offset
from streamproc.clock import SystemClock
from streamproc.errors import BadRecord, Bug, StreamprocError, Unavailable

RESPONSE_BYTES = 8 << 20
PARTITION_BYTES = 1 << 20
"""What is unpacked while it is still in the CPU's cache: 2 MB cost 8 % more time and 40 MB more memory."""
AHEAD_BYTES = 2 << 20
"""A feed that holds so many bytes is not fetched: at most this and one answer wait in memory, a reader."""
LONG_POLL_MS = 500
PAUSE_S = 0.05
OFFSET_OUT_OF_RANGE = 1

Lane = tuple[int, bool]
"""Broker, and whether its partitions are at their end."""


class Feed:
    """What the fetch loop has for one reader: answers of one partition in order, or why there are none."""

    def __init__(self, at: TopicPartition, position: int) -> None:
        self.at = at
        self.position = position
        self.parts: deque[Fetched] = deque()
        self.nbytes = 0
        self.end: int | None = None
        self.error: StreamprocError | None = None
        self.out_of_range = False
        self.in_flight = False
        self.turn = 0
        self.answered = False
        self._asked = 0
        self.node: int | None = None
        self._news = asyncio.Event()

    @property
    def hungry(self) -> bool:
        return not (self.in_flight or self.error or self.out_of_range) and self.nbytes < AHEAD_BYTES

    @property
    def at_end(self) -> bool:
        """The newest answer said that nothing is left to fetch."""
        return self.end is not None and self.position >= self.end

    def begin(self) -> None:
        """A read begins: `answered` says whether an answer came during it. Answers to earlier requests may be too old
        to say that nothing is left.
        """
        self.turn += 1
        self.answered = False

    def ask(self) -> None:
        """A request is on its way."""
        self.in_flight = True
        self._asked = self.turn

    async def wait(self, timeout_s: float) -> None:
        """Until the fetch loop has something new: rows, an error, or the word that there is nothing."""
        self._news.clear()
        if not (self.parts or self.error or self.out_of_range):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout_s)

    def pop(self) -> Fetched | None:
        if not self.parts:
            return None
        part = self.parts.popleft()
        self.nbytes -= len(part.data)
        return part

    def put(self, data: bytes | memoryview, end: int, aborted: Sequence[tuple[int, int]]) -> None:
        """Take an answer to a fetch from `position`."""
        self.end = end
        self.answered = True
        if data:
            next_ = next_offset(data, self.position)
            if next_ == self.position:
                self.error = BadRecord(f"{self.at}: no whole record batch at offset {self.position} in {len(data)} bytes")
            else:
                self.parts.append(Fetched(data, self.position, next_, end, tuple(aborted), self._asked))
                self.nbytes += len(data)
                self.position = next_
        self._news.set()

    def fail(self, error: StreamprocError) -> None:
        self.error = error
        self._news.set()

    def lose(self) -> None:
        """The broker has no such offset."""
        self.out_of_range = True
        self._news.set()

    def restart(self, position: int) -> None:
        """Go on from another offset."""
        self.position = position
        self.out_of_range = False

    def __repr__(self) -> str:
        return f"<Feed {self.at} at {self.position}, {self.nbytes} bytes waiting>"


class Fetcher:
    """Fetches for all readers of a source, each by its feed."""

    def __init__(self, connection: KafkaConnection, *, committed: bool) -> None:
        self._connection = connection
        self._committed = committed
        self._feeds: list[Feed] = []
        self._loops: dict[Lane, asyncio.Task[None]] = {}
        self._clock = SystemClock()  # sockets live in the machine's time, also beside a clock that a test moves

    def attach(self, feed: Feed) -> None:
        self._feeds.append(feed)

    def detach(self, feed: Feed) -> None:
        if feed in self._feeds:
            self._feeds.remove(feed)

    async def find(self, feed: Feed) -> None:
        """Which broker serves the feed now. `Unavailable` if none does."""
        feed.node = await self._connection.leader(feed.at)

    async def close(self) -> None:
        loops = list(self._loops.values())
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._loops.clear()  # one that had not begun yet did not take itself out

    def run(self) -> None:
        """See that hungry feeds are fetched. A loop ends by itself when none is."""
        for lane in {(feed.node, feed.at_end) for feed in self._feeds if feed.hungry and feed.node is not None} - self._loops.keys():
            self._loops[lane] = asyncio.create_task(self._loop(lane))

    async def _loop(self, lane: Lane) -> None:
        try:
            while feeds := self._served(lane):
                begin_s, before = self._clock.monotonic_s(), sum(feed.position for feed in feeds.values())
                await self._fetch(lane, feeds)
                self.run()  # a feed may have changed its lane
                nothing = sum(feed.position for feed in feeds.values()) == before
                if nothing and self._clock.monotonic_s() - begin_s < PAUSE_S:
                    await self._clock.sleep(PAUSE_S)  # a broker that answers "nothing" at once is not asked in a busy loop
        finally:
            self._loops.pop(lane, None)

    def _served(self, lane: Lane) -> dict[TopicPartition, Feed]:
        """Hungry feeds of a lane, one a partition: further readers of it have their turn in the next request."""
        hungry = [feed for feed in self._feeds if feed.hungry and (feed.node, feed.at_end) == lane]
        return {feed.at: feed for feed in reversed(hungry)}

    async def _fetch(self, lane: Lane, feeds: dict[TopicPartition, Feed]) -> None:
        for feed in feeds.values():
            feed.ask()
            if feed in self._feeds:  # to the end of the line
                self._feeds.remove(feed)
                self._feeds.append(feed)
        try:
            await self._answered(lane, dict(feeds))
        except StreamprocError as error:
            _fail(feeds, error)
        except Exception as error:
            bug = Bug(f"fetching from {self._connection}: {error!r}")
            bug.__cause__ = error  # for the readers to raise
            _fail(feeds, bug)
        finally:
            for feed in feeds.values():
                feed.in_flight = False

    async def _answered(self, lane: Lane, feeds: dict[TopicPartition, Feed]) -> None:
        node, at_end = lane
        response = await self._connection.fetch(node, self._request(feeds, LONG_POLL_MS if at_end else 0), f"fetch{'-end' * at_end}")
        self._connection.check(getattr(response, "error_code", 0), "fetch")
        for topic, parts in response.topics:
            for partition, code, high, *rest in parts:
                feed = feeds.pop(TopicPartition(topic, partition))
                self._answer(feed, code, high, rest)
        _fail(feeds, Unavailable(f"broker {node} left partitions out of its answer"))

    def _answer(self, feed: Feed, code: int, high: int, rest: list[Any]) -> None:
        """`rest` is, by version of the response: [last stable offset, [log start,] aborted, [preferred replica,]] data."""
        if code == OFFSET_OUT_OF_RANGE:
            feed.lose()
            return
        try:
            self._connection.check(code, str(feed.at))
        except Unavailable as error:
            feed.fail(error)
            return
        aborted = next((item for item in rest if isinstance(item, list)), [])
        feed.put(rest[-1] or b"", rest[0] if self._committed and len(rest) > 1 else high, aborted)

    def _request(self, feeds: dict[TopicPartition, Feed], max_wait_ms: int) -> Any:
        from aiokafka.protocol.fetch import FetchRequest

        topics: dict[str, list[tuple[int, int, int]]] = {}
        for at, feed in feeds.items():
            topics.setdefault(at.topic, []).append((at.partition, feed.position, PARTITION_BYTES))
        return FetchRequest(max_wait_ms, 1, RESPONSE_BYTES, int(self._committed), list(topics.items()))

    def __repr__(self) -> str:
        return f"<Fetcher {self._connection}, {len(self._feeds)} readers, {len(self._loops)} loops>"


def _fail(feeds: dict[TopicPartition, Feed], error: StreamprocError) -> None:
    for feed in feeds.values():
        feed.fail(error)
