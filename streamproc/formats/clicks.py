"""Made-up click events: JSON payloads that are a pure function of (seed, shard, row), a column at a time.

Row `i` of a shard happens about `i * step_us` after `since_us`, up to `disorder_us` earlier. Any cut of the rows gives the same bytes.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from streamproc.batch import TIMESTAMP
from streamproc.formats.counted_random import random_bits, shifted

SCHEMA = "user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP"
"""Spark DDL of the payloads."""
SINCE_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z"""
USERS, PAGES, CENTS = 10_000, 100, 10_000
_CENT = pa.scalar(Decimal("0.01"), pa.decimal128(3, 2))


def clicks(
    seed: int, shard: str, first: int, count: int, *, step_us: int = 1000, since_us: int = SINCE_US, disorder_us: int = 2_000_000
) -> pa.Array:
    """The payloads of rows `first` to `first + count - 1`: an array of binary, for example
    `{"user":"u42","page":"/page/7","amount":12.34,"ts":"2026-01-01T00:00:05.001000Z"}`.
    """
    rows = _range(first, count)
    user, page, cents, early = (random_bits(rows, seed, f"{shard}/{what}") for what in ("user", "page", "cents", "early"))
    amount = pc.multiply(_below(cents, CENTS).cast(pa.decimal128(19, 0)), _CENT)
    happened = pc.subtract(times(first, count, step_us=step_us, since_us=since_us).cast(pa.int64()), _below(early, disorder_us + 1))
    text = [
        '{"user":"u', _text(_below(user, USERS)), '","page":"/page/', _text(_below(page, PAGES)),
        '","amount":', _text(amount), ',"ts":"', _iso(happened), 'Z"}', "",
    ]  # fmt: skip
    return pc.binary_join_element_wise(*text).cast(pa.binary())


def times(first: int, count: int, *, step_us: int = 1000, since_us: int = SINCE_US) -> pa.Array:
    """When the rows arrive, in order (`_timestamp`)."""
    return pc.add(pc.multiply(_range(first, count), step_us), since_us).cast(TIMESTAMP)


def _range(first: int, count: int) -> pa.Array:
    return pa.arange(first, first + count)


def _below(bits: pa.Array, limit: int) -> pa.Array:
    """Whole numbers from 0 up to `limit` - 1 from random bits."""
    z, size = shifted(bits, 2), pa.scalar(limit, pa.uint64())
    return pc.subtract(z, pc.multiply(pc.divide(z, size), size)).cast(pa.int64())


def _text(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string())


def _iso(us: pa.Array) -> pa.Array:
    """ISO 8601 without a zone; a cast that writes the zone itself is 70 times slower."""
    return pc.binary_replace_slice(us.cast(pa.timestamp("us")).cast(pa.string()), 10, 11, "T")
