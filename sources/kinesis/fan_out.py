"""Enhanced fan-out: a registered consumer to whom SubscribeToShard pushes what comes, 2 MB/s a shard of its own.

A subscription lasts five minutes and is the only one of its consumer and shard; whenever there is none (the consumer is not
active yet, another worker had the shard within the last five seconds, no right, no room for another consumer) the shard is polled.
So are rows that are read again up to a position, and a closed shard that has nothing left: GetRecords says at once that it has ended.
Committed positions are those of records. Where a quiet shard has been read to is the server's continuation number, from which
the next subscription begins; it names no record, so that nobody could tell after a crash whether a row before it is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import structlog

from sources.kinesis.polling import NOTHING, PollingReader, Reading
from streamproc.batch import Chunk
from streamproc.clients.aws import InUse, LimitExceeded, NotFound, Refused
from streamproc.clients.event_stream import EventStream
from streamproc.clients.kinesis import Answer, KinesisStream
from streamproc.errors import InvalidJob, StreamprocError, Unavailable
from streamproc.offset import Position
from streamproc.source import Reader
from streamproc.world import World

ANSWER_S = 1.0
"""How long a read waits for an event."""
OVERDUE_S = 10.0
"""An open subscription says every five seconds how far behind it is; its last word holds until the next is overdue."""
TAKEN_S = 5.0
"""So long a subscription cannot be taken over, not even by the one who had it."""
PAUSE_S = 1.0
FALLBACK_S = 300.0
"""After this time a source that had to fall back to polling tries again."""
LIMITED_MAX = 5
"""LimitExceeded is said of too many calls a second and of too many consumers being made too; when it stays, it is their number."""
FAILURES_MAX = 10
"""After so many subscriptions in a row without an event something is in the way (a proxy without HTTP/2)."""
log = structlog.get_logger()


class FanOut:
    """The consumer of a source, one for all its shards; found or registered in the background."""

    def __init__(self, stream: KinesisStream, consumer: str, world: World, name: str) -> None:
        self._stream = stream
        self._consumer = consumer
        self._world = world
        self._name = name
        self._arn: str | None = None
        self._not_before_s = 0.0
        self._registering: asyncio.Task[None] | None = None
        self.readers: WeakSet[FanOutReader] = WeakSet()

    def arn(self) -> str | None:
        """The active consumer; None as long as shards must be polled."""
        if self._registering is not None and self._registering.done():
            self._registering.result()
            self._registering = None
        due = self._world.clock.monotonic_s() >= self._not_before_s
        if self._arn is None and due and self._registering is None:
            self._registering = asyncio.ensure_future(self._register())
        return self._arn

    async def look(self) -> None:
        """Give a consumer that is active already the time to be found, so that nothing is polled then."""
        if self.arn() is None and self._registering is not None:
            await done_within(ANSWER_S, self._registering, self._world)

    def forget(self, arn: str) -> None:
        """The server does not know it any more: look for it again."""
        if arn == self._arn:
            self._arn = None

    def fall_back(self, why: StreamprocError) -> None:
        """Poll for a while."""
        self._arn = None
        self._not_before_s = self._world.clock.monotonic_s() + FALLBACK_S
        self._world.metrics.set("streamproc_fan_out_fallback", 1, source=self._name)
        log.warning("no enhanced fan-out, polling instead", source=self._name, consumer=self._consumer, error=str(why))

    async def _register(self) -> None:
        try:
            self._arn = await self._active()
            self._world.metrics.set("streamproc_fan_out_fallback", 0, source=self._name)
        except LimitExceeded as error:
            self.fall_back(error)
        except Unavailable:  # readers notice it too
            self._not_before_s = self._world.clock.monotonic_s() + self._pause_s()
        except StreamprocError as error:
            self.fall_back(error)

    async def _active(self) -> str:
        """The consumer's ARN once it is active; it is registered if there is none."""
        limited = 0
        while True:
            try:
                found = await self._stream.consumer(self._consumer)
                if found is None:
                    await self._stream.register(self._consumer)
                elif found.status == "ACTIVE":
                    return found.arn
            except InUse:
                pass  # another worker was quicker, or the stream is being changed
            except LimitExceeded:
                limited += 1
                if limited == LIMITED_MAX:
                    raise
            await self._world.clock.sleep(self._pause_s())

    def _pause_s(self) -> float:
        return PAUSE_S * self._world.random.uniform(0.5, 1.5)

    async def close(self) -> None:
        for reader in tuple(self.readers):
            await reader.close()
        registering, self._registering, self._arn = self._registering, None, None
        if registering is not None:
            registering.cancel()
            await asyncio.wait([registering])

    def __repr__(self) -> str:
        return f"<FanOut {self._name} {self._arn or self._consumer + ', polling'}>"


async def done_within(seconds: float, task: asyncio.Task[Any], world: World) -> bool:
    """Whether it is done by then; it is not cancelled, also if this wait is."""
    pause = asyncio.ensure_future(world.clock.sleep(seconds))
    try:
        await asyncio.wait((task, pause), return_when=asyncio.FIRST_COMPLETED)
    finally:
        pause.cancel()
    return task.done()


class FanOutReader(Reader):
    """Holds at most one event: while nobody reads, the server's push waits in the socket."""

    def __init__(self, reading: Reading, after: Position, fan_out: FanOut) -> None:
        self._reading = reading
        self._after = after
        self._fan_out = fan_out
        self._polling: PollingReader | None = None
        self._events: EventStream | None = None
        self._pending: asyncio.Task[Answer] | None = None
        self._continuation: str | None = None
        self._resuming = True
        self._subscribed_s = self._not_before_s = 0.0
        self._at_end_since_s: float | None = None
        self._failures = 0
        self._closing = False
        fan_out.readers.add(self)

    async def read(self, until: Position | None = None) -> Chunk:
        polled = self._polling is not None and self._polling.holds_rows
        arn = None if until is not None or polled or self._closing else self._fan_out.arn()
        if arn is None or (self._pending is None and self._now_s() < self._not_before_s):
            return await self._poll(until)
        try:
            return await self._push(arn)
        except NotFound as error:  # the consumer, or the shard: then polling will say so
            self._fan_out.forget(arn)
            self._later(error)
        except (Unavailable, Refused) as error:
            self._later(error)
        except InvalidJob as error:
            self._fan_out.fall_back(error)
        return await self._poll(None)

    async def _poll(self, until: Position | None) -> Chunk:
        await self._drop()
        if self._polling is None:
            self._polling = PollingReader(self._reading, self._after)
        chunk = await self._polling.read(until)
        if chunk.end != self._after:
            self._after, self._continuation, self._resuming = chunk.end, None, True
        return chunk

    async def _push(self, arn: str) -> Chunk:
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive(arn))
        if not await done_within(ANSWER_S, self._pending, self._reading.world):
            return self._quiet()
        return await self._hand_out(self._pending.result())

    async def _receive(self, arn: str) -> Answer:
        """The next event, of a new subscription if there is none or it is over."""
        stream, shard = self._reading.stream, self._reading.shard.id
        while True:
            if self._events is None:
                self._events = await stream.subscribe(arn, shard, self._start())
                self._subscribed_s = self._now_s()
            answer = await stream.pushed(self._events, bare=self._reading.bare(self._resuming))
            if answer is not None:
                return answer
            await self._end_subscription()
            if self._now_s() < self._subscribed_s + TAKEN_S:
                raise InUse(f"source {self._reading.name}, shard {shard}: the subscription ended early")

    def _start(self) -> Mapping[str, Any]:
        """AT, not AFTER, the sequence number of a record: it must come first, else it is gone."""
        if self._continuation is not None:
            return {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": self._continuation}
        kind, _, rest = self._after.partition(":")
        if kind == "AT_TIMESTAMP":
            return {"Type": kind, "Timestamp": int(rest) / 1000}
        return {"Type": kind} if kind == "TRIM_HORIZON" else {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": kind}

    async def _hand_out(self, answer: Answer) -> Chunk:
        """State changes only after the last await: a cancelled read is simply made again."""
        if self._resuming:
            await self._reading.check_gap(self._after, answer.Records)
        read_all = answer.MillisBehindLatest == 0
        closing = read_all and self._reading.stream.closed(self._reading.shard.id)
        page = self._reading.page(answer, self._after, at_end=read_all and not closing, ended=bool(answer.ChildShards))
        self._pending = self._polling = None
        self._failures, self._closing = 0, closing
        self._after, self._continuation = page.read.end or self._after, answer.ContinuationSequenceNumber
        self._resuming = self._resuming and not answer.Records
        self._at_end_since_s = self._now_s() if page.at_end else None
        return self._reading.chunk(page.read.rows, self._after, page)

    def _quiet(self) -> Chunk:
        since_s = self._at_end_since_s
        at_end = since_s is not None and self._now_s() < since_s + OVERDUE_S
        return Chunk(self._reading.shard.id, NOTHING, self._after, at_end=at_end, lag=0 if at_end else None)

    def _later(self, error: StreamprocError) -> None:
        """Poll until the server may accept a subscription."""
        reading = self._reading
        self._not_before_s = self._now_s() + TAKEN_S * reading.world.random.uniform(1, 1.4)
        self._failures += 1
        reading.count_retry()
        if self._failures % FAILURES_MAX == 0:
            self._fan_out.fall_back(error)

    async def _drop(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            await asyncio.wait([pending])
            if not pending.cancelled():
                pending.exception()
        self._at_end_since_s = None
        await self._end_subscription()

    async def _end_subscription(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            with suppress(Unavailable):
                await events.close()

    async def close(self) -> None:
        await self._drop()

    def _now_s(self) -> float:
        return self._reading.world.clock.monotonic_s()

    def __repr__(self) -> str:
        how = "subscribed" if self._events else "polling"
        return f"<FanOutReader {self._reading.shard.id} after {self._after}, {how}>"
