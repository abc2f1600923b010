"""The events of the Nexmark benchmark: an auction house's persons, auctions and bids, a column at a time.

After the public generator (Apache Beam's and nexmark/nexmark's) with its default configuration: of 50 events in a row the first is
a person, the next 3 are auctions, the other 46 bids; ids count from 1000; half of the bids go to the hot auction (the first of the
newest 100), three of four come from the hot bidder, three of four auctions from the hot seller; other bids go to one of the last
100 auctions, other bidders and sellers are among the last 1000 persons, either up to 10 ahead of what exists so far. Prices are
100 to 100,000,000, spread evenly over the magnitudes. Auctions end after 167 ms on average at 10,000 events a second.

The number of an event decides everything about it, so three sources with the same seed and rate show one world, and any cut of
the rows gives the same rows. Strings are drawn from pools of 10,000 rather than letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.formats.counted_random import drawn, halves, random_bits
from streamproc.schema import parse_ddl

SINCE_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""
EVENTS_PER_SECOND = 10_000

NexmarkKind = Literal["person", "auction", "bid"]
SCHEMAS: dict[NexmarkKind, str] = {
    "person": "id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, dateTime TIMESTAMP, extra STRING",
    "auction": "id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, dateTime TIMESTAMP, expires TIMESTAMP,"
    " seller BIGINT, category BIGINT, extra STRING",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP, extra STRING",
}
"""Spark DDL of each kind's rows."""
CYCLE = 50
SLOTS: dict[NexmarkKind, tuple[int, int]] = {"person": (0, 1), "auction": (1, 3), "bid": (4, 46)}
"""First place of a kind among 50 events, and how many it has."""

FIRST_ID, FIRST_CATEGORY, CATEGORIES = 1000, 10, 5
HOT_AUCTIONS, HOT_SELLERS, HOT_BIDDERS = 2, 4, 4
"""One in so many is not hot."""
HOT_BATCH, IN_FLIGHT, ACTIVE_PEOPLE, LEAD = 100, 100, 1000, 10
POOL, TEXT_CHARS, CHANNELS = 10_000, 65_536, 10_000
HOT_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
STATES = pa.array(["AZ", "CA", "ID", "OR", "WA", "WY"])
CITIES = pa.array(["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"])
FIRST_NAMES = pa.array(["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"])
LAST_NAMES = pa.array(["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"])


@dataclass(frozen=True)
class Nexmark:
    """The rows of one kind; `events_per_second` of all kinds together, in event time. Row numbers count this kind's rows only."""

    kind: NexmarkKind
    seed: int = 0
    events_per_second: int = EVENTS_PER_SECOND

    @cached_property
    def schema(self) -> pa.Schema:
        return parse_ddl(SCHEMAS[self.kind])

    def columns(self, rows: pa.Array, names: Container[str]) -> dict[str, pa.Array]:
        """The named columns (others than the kind's are left out) of rows, given by their numbers (int64)."""
        made = _KINDS[self.kind](self, self._events(rows))
        return {name: make() for name, make in made.makers.items() if name in names}

    def times(self, rows: pa.Array) -> pa.Array:
        """When the rows happen (timestamp[us, UTC]); it rises with the row number."""
        return _instant(self.milliseconds(self._events(rows)))

    def row_at(self, at_us: int) -> int:
        """The number of the first row that happens at a time (µs since 1970) or later."""
        event = max(0, -(-(-(-at_us // 1000) - SINCE_MS) * self.events_per_second // 1000))
        first, share = SLOTS[self.kind]
        cycle, place = divmod(event, CYCLE)
        return cycle * share + min(max(place - first, 0), share)

    def _events(self, rows: pa.Array) -> pa.Array:
        first, share = SLOTS[self.kind]
        cycle = pc.divide(rows, share)
        return pc.add(pc.add(rows, pc.multiply(cycle, CYCLE - share)), first)

    def milliseconds(self, events: pa.Array) -> pa.Array:
        """Times are of whole milliseconds, as in the definition."""
        return pc.add(pc.divide(pc.multiply(events, 1000), self.events_per_second), SINCE_MS)


class _Events:
    """Events of one kind, by their numbers; `makers` make a column each, so that nobody pays for what is not read."""

    makers: dict[str, Callable[[], pa.Array]]

    def __init__(self, world: Nexmark, numbers: pa.Array) -> None:
        self.world = world
        self.numbers = numbers
        self.cycle = pc.divide(numbers, CYCLE)

    @cached_property
    def milliseconds(self) -> pa.Array:
        return self.world.milliseconds(self.numbers)

    def halves(self, purpose: str) -> tuple[pa.Array, pa.Array]:
        return halves(random_bits(self.numbers, self.world.seed, f"{self.world.kind}/{purpose}"))

    def half(self, purpose: str) -> pa.Array:
        return self.halves(purpose)[0]

    def time(self) -> pa.Array:
        return _instant(self.milliseconds)

    def one_of(self, choices: pa.Array, purpose: str) -> pa.Array:
        return choices.take(drawn(self.half(purpose), len(choices)))

    def price(self, purpose: str) -> pa.Array:
        """10 to a power from 0 to 6, in cents."""
        exponent = pc.multiply(self.half(purpose).cast(pa.float64()), 6.0 / 2**32)
        return pc.round(pc.multiply(pc.power(10.0, exponent), 100.0)).cast(pa.int64())

    def extra(self, mean: int) -> pa.Array:
        """Padding: letters, a fifth more or less than `mean` on average."""
        delta = round(mean * 0.2)
        return self.one_of(_strings(self.world.seed, f"{self.world.kind}/extra", mean - delta, mean + delta, ""), "extra")

    def person(self, purpose: str, hot: int, hot_place: int) -> pa.Array:
        """Somebody's id: of `hot` all but one the same person of the newest 100, else one of the active or a few ahead."""
        which, index = self.halves(purpose)
        known = pc.add(self.cycle, 1)
        active = pc.min_element_wise(known, ACTIVE_PEOPLE)
        anybody = pc.add(pc.subtract(known, active), drawn(index, pc.add(active, LEAD)))
        famous = pc.add(pc.multiply(pc.divide(self.cycle, HOT_BATCH), HOT_BATCH), hot_place)
        return pc.add(pc.if_else(pc.greater(drawn(which, hot), 0), famous, anybody), FIRST_ID)


class _Persons(_Events):
    def __init__(self, world: Nexmark, numbers: pa.Array) -> None:
        super().__init__(world, numbers)
        self.makers = {
            "id": lambda: pc.add(self.cycle, FIRST_ID),
            "name": self.name,
            "emailAddress": self.email,
            "creditCard": self.credit_card,
            "city": lambda: self.one_of(CITIES, "city"),
            "state": lambda: self.one_of(STATES, "state"),
            "dateTime": self.time,
            "extra": lambda: self.extra(135),
        }

    def name(self) -> pa.Array:
        return pc.binary_join_element_wise(self.one_of(FIRST_NAMES, "first"), self.one_of(LAST_NAMES, "last"), " ")

    def email(self) -> pa.Array:
        name, host = (self.one_of(_strings(self.world.seed, part, 3, n, " "), part) for part, n in (("mail", 7), ("host", 5)))
        return pc.binary_join_element_wise(name, "@", host, ".com", "")

    def credit_card(self) -> pa.Array:
        groups = [drawn(half, 10_000) for purpose in ("card/1", "card/2") for half in self.halves(purpose)]
        return pc.binary_join_element_wise(*(pc.utf8_lpad(group.cast(pa.string()), 4, "0") for group in groups), " ")


class _Auctions(_Events):
    def __init__(self, world: Nexmark, numbers: pa.Array) -> None:
        super().__init__(world, numbers)
        self.makers = {
            "id": self.id,
            "itemName": lambda: self.one_of(_strings(world.seed, "item", 3, 20, " "), "item"),
            "description": lambda: self.one_of(_strings(world.seed, "description", 3, 100, " "), "description"),
            "initialBid": lambda: self.price("initial"),
            "reserve": lambda: pc.add(self.price("initial"), self.price("reserve")),
            "dateTime": self.time,
            "expires": self.expires,
            "seller": lambda: self.person("seller", HOT_SELLERS, 0),
            "category": lambda: pc.add(drawn(self.half("category"), CATEGORIES), FIRST_CATEGORY),
            "extra": lambda: self.extra(390),
        }

    def id(self) -> pa.Array:
        first, share = SLOTS["auction"]
        place = pc.subtract(pc.subtract(self.numbers, pc.multiply(self.cycle, CYCLE)), first)
        return pc.add(pc.add(pc.multiply(self.cycle, share), place), FIRST_ID)

    def expires(self) -> pa.Array:
        """After up to twice the time in which as many auctions begin as are in flight."""
        ahead = IN_FLIGHT * CYCLE // SLOTS["auction"][1]
        horizon = pc.subtract(self.world.milliseconds(pc.add(self.numbers, ahead)), self.milliseconds)
        length = pc.add(drawn(self.half("length"), pc.max_element_wise(pc.multiply(horizon, 2), 1)), 1)
        return _instant(pc.add(self.milliseconds, length))


class _Bids(_Events):
    def __init__(self, world: Nexmark, numbers: pa.Array) -> None:
        super().__init__(world, numbers)
        self.makers = {
            "auction": self.auction,
            "bidder": lambda: self.person("bidder", HOT_BIDDERS, 1),
            "price": lambda: self.price("price"),
            "channel": lambda: _channels(world.seed)[0].take(self.channel),
            "url": lambda: _channels(world.seed)[1].take(self.channel),
            "dateTime": self.time,
            "extra": lambda: self.extra(68),
        }

    def auction(self) -> pa.Array:
        """The hot one, or one that may be in flight, or one of the next few."""
        share = SLOTS["auction"][1]
        which, index = self.halves("auction")
        last = pc.add(pc.multiply(self.cycle, share), share - 1)
        oldest = pc.max_element_wise(pc.subtract(last, IN_FLIGHT), 0)
        other = pc.add(oldest, drawn(index, pc.add(pc.subtract(last, oldest), 1 + LEAD)))
        hot = pc.multiply(pc.divide(last, HOT_BATCH), HOT_BATCH)
        return pc.add(pc.if_else(pc.greater(drawn(which, HOT_AUCTIONS), 0), hot, other), FIRST_ID)

    @cached_property
    def channel(self) -> pa.Array:
        return drawn(self.half("channel"), 2 * CHANNELS)


_KINDS: dict[NexmarkKind, type[_Persons | _Auctions | _Bids]] = {"person": _Persons, "auction": _Auctions, "bid": _Bids}


def _instant(milliseconds: pa.Array) -> pa.Array:
    return pc.multiply(milliseconds, 1000).cast(TIMESTAMP)


@lru_cache(32)
def _strings(seed: int, purpose: str, shortest: int, longest: int, special: str) -> pa.Array:
    """A pool of strings of `shortest` to `longest` - 1 letters, cut from one long text; one letter in 13 is the special one."""
    bits = random_bits(pa.arange(0, TEXT_CHARS), seed, f"{purpose}/text")
    letters = pa.array([special] * 26 * bool(special) + [chr(97 + i % 26) for i in range(12 * 26)])
    text = "".join(letters.take(drawn(halves(bits)[0], len(letters))).to_pylist())
    start, length = halves(random_bits(pa.arange(0, POOL), seed, f"{purpose}/cut"))
    starts, lengths = drawn(start, TEXT_CHARS - longest).to_pylist(), drawn(length, longest - shortest).to_pylist()
    return pa.array([text[at : at + shortest + more].strip() for at, more in zip(starts, lengths, strict=True)])


@lru_cache(4)
def _channels(seed: int) -> tuple[pa.Array, pa.Array]:
    """Names and URLs, the second half of both the four hot channels over and over: half of the bids come by those."""
    urls = list(_urls(seed))
    names = [f"channel-{i}" for i in range(CHANNELS)]
    hot = CHANNELS // len(HOT_CHANNELS)
    return pa.array(names + list(HOT_CHANNELS) * hot), pa.array(urls[:CHANNELS] + urls[CHANNELS:] * hot)


def _urls(seed: int) -> Iterator[str]:
    """Of every channel, then of the hot ones; one in ten does not name the channel."""
    parts = _strings(seed, "url", 3, 5, "_").to_pylist()
    named = drawn(halves(random_bits(pa.arange(0, CHANNELS), seed, "url/named"))[0], 10).to_pylist()
    for i in range(CHANNELS + len(HOT_CHANNELS)):
        url = f"https://www.nexmark.com/{parts[i % POOL]}/{parts[(i + 1) % POOL]}/{parts[(i + 2) % POOL]}/item.htm?query=1"
        yield url + (f"&channel_id={_reversed(i)}" if i < CHANNELS and named[i] else "")


def _reversed(number: int) -> int:
    """The 32 bits read backwards, without the sign."""
    bits = int(f"{number:032b}"[::-1], 2)
    return min(bits, 2**32 - bits)
