"""Kinesis' hash of a partition key: the MD5 of its UTF-8 text, an unsigned number of 128 bits. A shard takes a range of these.

Compared as text of 32 hexadecimal digits, which has the numbers' order.
"""

from __future__ import annotations

import threading
from hashlib import md5

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.formats.slot import TableSlot
from streamproc.hash_ranges import HASHES, HashRange

WHOLE: HashRange = (0, HASHES - 1)
_KEYS = pa.schema([("key", pa.string())])
_threads = threading.local()


def hash_sql(text: str) -> str:
    """SQL of a key's hash, of a VARCHAR."""
    return f"md5({text})"


def hash_of(key: str) -> str:
    """A key's hash as `hash_sql` writes it."""
    return md5(key.encode(), usedforsecurity=False).hexdigest()


def bounds(hash_range: HashRange) -> tuple[str, str]:
    """The range as `hash_sql` writes hashes."""
    return f"{hash_range[0]:032x}", f"{hash_range[1]:032x}"


def inside(keys: pa.Array | pa.ChunkedArray, hash_range: HashRange) -> pa.ChunkedArray:
    """Of each key (text or whole numbers), whether its hash lies in the range; a NULL has none."""
    texts = keys.cast(pa.string())
    texts = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    if hash_range == WHOLE:
        return texts.is_valid()
    low, high = bounds(hash_range)
    hashes = _instance().hashes(texts)
    return pc.fill_null(pc.and_(pc.greater_equal(hashes, low), pc.less_equal(hashes, high)), False)


class _Instance:
    """A DuckDB of one thread."""

    def __init__(self) -> None:
        connection = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False, "autoinstall_known_extensions": False})
        self._slot = TableSlot(connection, "keys", _KEYS)
        self._hashes = connection.sql(f"SELECT {hash_sql('key')} FROM keys")  # bound once, run anew at each call

    def hashes(self, keys: pa.ChunkedArray) -> pa.ChunkedArray:
        with self._slot.holding(pa.table([keys], schema=_KEYS)):
            return self._hashes.to_arrow_table().column(0)


def _instance() -> _Instance:
    if not hasattr(_threads, "instance"):
        _threads.instance = _Instance()
    instance: _Instance = _threads.instance
    return instance
