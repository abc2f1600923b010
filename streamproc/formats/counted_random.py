"""Random numbers by counter: the bits of a row depend on its number, the seed and the purpose alone, never on the rows before it."""

from __future__ import annotations

from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc

_GOLDEN, _MIX_1, _MIX_2 = (pa.scalar(c, pa.uint64()) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_LOW_HALF = pa.scalar(2**32 - 1, pa.uint64())


def random_bits(rows: pa.Array, seed: int, purpose: str) -> pa.Array:
    """64 bits (uint64) a row: splitmix64 (Steele, Lea, Flood) of its number, begun elsewhere for each seed and purpose."""
    begin = pa.scalar(seed << 32 & (2**64 - 1) | crc32(purpose.encode()), pa.uint64())
    z = pc.multiply(pc.add(rows.cast(pa.uint64()), begin), _GOLDEN)
    z = pc.multiply(pc.bit_wise_xor(z, shifted(z, 30)), _MIX_1)
    z = pc.multiply(pc.bit_wise_xor(z, shifted(z, 27)), _MIX_2)
    return pc.bit_wise_xor(z, shifted(z, 31))


def shifted(bits: pa.Array, by: int) -> pa.Array:
    """The upper bits."""
    return pc.shift_right(bits, pa.scalar(by, pa.uint64()))


def halves(bits: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Two independent numbers below 2**32 (uint64) of 64 bits."""
    return shifted(bits, 32), pc.bit_wise_and(bits, _LOW_HALF)


def drawn(half: pa.Array, limit: int | pa.Array) -> pa.Array:
    """Whole numbers (int64) from 0 up to `limit` - 1, a limit for all or one a row, from numbers below 2**32."""
    size = pa.scalar(limit, pa.uint64()) if isinstance(limit, int) else limit.cast(pa.uint64())
    return shifted(pc.multiply(half, size), 32).cast(pa.int64())
