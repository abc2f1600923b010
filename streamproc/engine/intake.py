"""All feeds of a job: finds shards, opens them parents first, and hands an epoch its rows, or the same rows again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamproc.checkpoint.records import ShardBegin, ShardEnd
from streamproc.checkpoint.tasks import TaskScope
from streamproc.engine.feed import Decoding, Feed, Piece
from streamproc.engine.unbounded import Table
from streamproc.errors import Bug, Unavailable
from streamproc.offset import EARLIEST
from streamproc.race import ended
from streamproc.source import Shard
from streamproc.world import World

EVERY_SHARD = TaskScope()
ShardEnds = Mapping[str, Mapping[str, ShardEnd]]


@dataclass(frozen=True, slots=True)
class Intake:
    """What one epoch reads: `shards` is logged (begin), `pieces` are the rows behind it, by source, in shard order."""

    shards: dict[str, dict[str, ShardBegin]]
    pieces: dict[str, list[Piece]] = field(repr=False)
    replayed: bool = False

    @property
    def records(self) -> int:
        return sum(piece.count for pieces in self.pieces.values() for piece in pieces)


class Feeds:
    """Every readable shard of every table, or the one of `scope`, has a running feed. `ends` of the newest commit say where
    shards stand; `news` is set after every answer.
    """

    def __init__(
        self, tables: Mapping[str, Table], ends: ShardEnds, world: World, decoding: Decoding, *,
        scope: TaskScope = EVERY_SHARD, once: bool = False,
    ) -> None:  # fmt: skip
        self.tables = tables
        self.feeds: dict[tuple[str, str], Feed] = {}
        self.news = asyncio.Event()
        self._known: dict[str, dict[str, Shard]] = {name: {} for name in tables}
        self._ends = ends
        self._after: dict[tuple[str, str], str] = {}
        self._world = world
        self._decoding = decoding
        self._scope = scope
        self._once = once
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._unlisted: dict[str, str] = {}
        self._discovery: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Find the shards once, then again in the background. A task of one shard knows it."""
        if self._scope.source is not None and self._scope.shard is not None:
            await self._know(self._scope.source, self._scope.shard)
            self._open_readable(self._scope.source)
            return
        await asyncio.gather(*(self.discover(name) for name in self.tables))
        self._discovery = [self._spawn(self._rediscover(name)) for name in self.tables]

    async def discover(self, name: str) -> None:
        """Ask the source for its shards; open those that may be read. Unavailable: try again later."""
        source = self.tables[name].source
        try:
            for shard in (*await source.shards(), *self._children(name)):
                await self._know(name, shard)
        except Unavailable as error:
            self._unlisted[name] = str(error)
            return
        self._unlisted.pop(name, None)
        self._open_readable(name)

    def _children(self, name: str) -> Iterator[Shard]:
        """Shards that the end of another has named: a listing may be late."""
        for feed in self.feeds.values():
            if feed.source_name == name:
                yield from feed.children

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run beside the epochs; its end is news too, since it may be an error."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self.news.set())
        return task

    async def _know(self, name: str, shard: Shard) -> None:
        if shard.id in self._known[name]:
            return
        end = self._ends.get(name, {}).get(shard.id)
        after = end.end if end else await self.tables[name].source.position(shard, EARLIEST)
        if shard.id not in self._known[name]:  # another discovery may have been quicker, and rows have been taken since
            self._after[name, shard.id] = after
            self._known[name][shard.id] = shard

    async def _rediscover(self, name: str) -> None:
        while True:
            await self._world.clock.sleep(self.tables[name].source.discovery_interval_s)
            await self.discover(name)

    def committed(self, ends: ShardEnds) -> None:
        """A commit stands: children of shards that ended in it may be read now."""
        ended = {name for name in self.tables for shard, end in ends.get(name, {}).items() if end.ended and not self._is_over(name, shard)}
        self._ends = ends
        for name in self.tables:
            self._open_readable(name)
        if self._scope.shard is None:
            self._discovery += [self._spawn(self.discover(name)) for name in ended]

    def _open_readable(self, name: str) -> None:
        for shard in readable(self._known[name].values(), self._ends.get(name, {})):
            key = (name, shard.id)
            if key not in self.feeds:
                table, end = self.tables[name], self._ends.get(name, {}).get(shard.id)
                self.feeds[key] = Feed(
                    name, table.source, shard, self._after[key], table.decode, self._decoding, self._world,
                    self.news.set, idle_us=end.idle_us if end else 0, once=self._once,
                )  # fmt: skip
                self._running[key] = self._spawn(self.feeds[key].run())

    @property
    def work(self) -> bool:
        """Whether an epoch has something to take: records, or the end of a shard."""
        return any(feed.queue for feed in self.feeds.values())

    @property
    def exhausted(self) -> bool:
        """Everything that was there has been read and taken (feeds opened with `once`, or ended)."""
        unread = {(n, s) for n, shards in self._known.items() for s in shards if not self._is_over(n, s)}
        return not self.work and all(key in self.feeds and self.feeds[key].exhausted and self.feeds[key].settled for key in unread)

    def _is_over(self, name: str, shard: str) -> bool:
        end = self._ends.get(name, {}).get(shard)
        return end is not None and end.ended

    def failed(self) -> Exception | None:
        """The error of a feed, or of finding shards, that cannot go on, if any."""
        broken = (feed.failure for feed in self.feeds.values() if feed.broken and not feed.queue)
        crashed = (task.exception() for task in (*self._running.values(), *self._discovery) if task.done() and not task.cancelled())
        return next((e for e in (*broken, *crashed) if e is not None), None)  # type: ignore[return-value]  # BaseException of a task is an Exception here

    def faults(self) -> dict[str, str]:
        """Sources that do not answer now, with the reason: a reader's, or why there is none."""
        failing = {feed.source_name: str(feed.failure) for feed in self.feeds.values() if feed.failure is not None}
        read = {name for name, _ in self.feeds}
        return {name: reason for name, reason in self._unlisted.items() if name not in read} | failing

    async def settle(self) -> None:
        """Until every readable shard has answered once more and its rows are decoded (tests step by this)."""
        if self._scope.shard is None:
            await asyncio.gather(*(self.discover(name) for name in self.tables))
        wanted = {key: feed.answers + 1 for key, feed in self.feeds.items()}
        for feed in self.feeds.values():
            feed.poke()
        while not all(self._settled(self.feeds[key], answers) for key, answers in wanted.items()):
            self.news.clear()
            await self.news.wait()

    def _settled(self, feed: Feed, answers: int) -> bool:
        if feed.failure is not None or (feed.exhausted and feed.settled):
            return True
        return feed.settled and (feed.answers >= answers or bool(feed.queue))

    def take(self) -> Intake:
        """The rows of the next epoch: what the feeds hold, up to each table's limits, fairly shared by its shards."""
        pieces: dict[str, list[Piece]] = {}
        shards: dict[str, dict[str, ShardBegin]] = {}
        for name, table in self.tables.items():
            feeds = self._feeds_of(name)
            queued = {s: (feed.rows, _nbytes(feed)) for s, feed in feeds.items() if feed is not None}
            shares = shared(queued, table.rows_max, table.nbytes_max)
            pieces[name], shards[name] = [], {}
            for shard, feed in feeds.items():
                taken = feed.take(shares[shard]) if feed is not None else []
                pieces[name] += taken
                shards[name][shard] = self._begin(name, shard, feed, taken)
                self._after[name, shard] = shards[name][shard].until
                if feed is not None:
                    feed.begun()
        self.news.clear()
        return Intake(shards, pieces)

    def standing(self) -> dict[str, dict[str, ShardBegin]]:
        """What `take` would log if there were no rows."""
        return {n: {s: self._begin(n, s, feed, []) for s, feed in self._feeds_of(n).items()} for n in self.tables}

    def _feeds_of(self, name: str) -> dict[str, Feed | None]:
        return {s: self.feeds.get((name, s)) for s in sorted(self._known[name], key=shard_order)}

    def _begin(self, name: str, shard: str, feed: Feed | None, taken: Sequence[Piece]) -> ShardBegin:
        after, parents = self._after[name, shard], self._known[name][shard].parents
        if feed is None:
            old = self._ends.get(name, {}).get(shard)
            idle_us = old.idle_us if old else 0
            ended = old.ended if old else False
            return ShardBegin(after=after, until=after, idle_us=idle_us, idle_before_us=idle_us, ended=ended, parents=parents)
        until = feed.taken_to or (taken[-1].end if taken else after)
        drained = feed.taken_to is not None
        return ShardBegin(
            after=after,
            until=until,
            idle_us=feed.idle_us if drained else 0,
            idle_before_us=feed.idle_before_us if taken else feed.idle_us,
            ended=feed.ended and drained,
            parents=parents,
        )

    async def close(self) -> None:
        """Stop reading."""
        await ended([*self._running.values(), *self._discovery])
        for feed in self.feeds.values():
            feed.drop()


def _nbytes(feed: Feed) -> int:
    return sum(piece.nbytes for piece in feed.queue)


def shard_order(shard: str) -> tuple[int, str]:
    """Numbers before and among themselves by value (Kafka), other ids as text (Kinesis: older first)."""
    return (int(shard), "") if shard.isdecimal() else (2**63, shard)


def readable(shards: Iterable[Shard], ends: Mapping[str, ShardEnd]) -> list[Shard]:
    """Shards that have not ended and whose parents, as far as they are still listed or logged, have."""
    listed = {s.id: s for s in shards}
    over = {shard for shard, end in ends.items() if end.ended}
    known = set(listed) | set(ends)
    return [s for s in listed.values() if s.id not in over and not any(p in known and p not in over for p in s.parents)]


def shared(queued: Mapping[str, tuple[int, int]], rows_max: int | None, nbytes_max: int | None) -> dict[str, int]:
    """How many records of each shard an epoch takes: all, or equal parts of the limit, what one leaves going to the rest.

    `queued` is (records, bytes) by shard; a byte limit becomes a record limit by the mean size of what is queued.
    """
    records = {shard: n for shard, (n, _) in queued.items()}
    total, nbytes = sum(records.values()), sum(b for _, b in queued.values())
    limit = total if rows_max is None else min(total, rows_max)
    if nbytes_max is not None and nbytes > nbytes_max:
        limit = min(limit, max(1, total * nbytes_max // nbytes))
    shares, left = dict.fromkeys(records, 0), limit
    waiting = [s for s, n in records.items() if n]
    while left and waiting:
        part = max(1, left // len(waiting))
        for shard in list(waiting):
            more = min(part, records[shard] - shares[shard], left)
            shares[shard] += more
            left -= more
            if shares[shard] == records[shard]:
                waiting.remove(shard)
    return shares


async def reread(tables: Mapping[str, Table], shards: Mapping[str, Mapping[str, ShardBegin]]) -> Intake:
    """The rows of an epoch that was begun, from the positions it logged. BadRecord if they are gone."""
    pieces: dict[str, list[Piece]] = {}
    for name, begun in shards.items():
        ordered = sorted(begun, key=shard_order)
        found = await asyncio.gather(*(_reread_shard(tables[name], shard, begun[shard]) for shard in ordered))
        pieces[name] = [piece for shard in found for piece in shard]
    return Intake({n: dict(b) for n, b in shards.items()}, pieces, replayed=True)


async def _reread_shard(table: Table, shard: str, begun: ShardBegin) -> list[Piece]:
    if begun.after == begun.until:
        return []
    pieces: list[Piece] = []
    reader = await table.source.open(Shard(shard, begun.parents), begun.after)
    end = begun.after
    while end != begun.until:
        chunk = await reader.read(begun.until)
        end = chunk.end
        if chunk.rows.num_rows:
            pieces.append(await asyncio.to_thread(table.decode, chunk))
        if chunk.ended and end != begun.until:
            raise Bug(f"{table.name}/{shard} ended at {end} before {begun.until}")
    await reader.close()
    return pieces
