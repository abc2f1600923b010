"""Functions that functions.yaml calls."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

_calls: Counter[object] = Counter()
COUNTRIES = {"10": "DE", "20": "FR"}


def country(addresses: pa.Array) -> pa.Array:
    """Of an address' first part; NULL is told apart from what is not known."""
    return pa.array(["none" if a is None else COUNTRIES.get(a.partition(".")[0]) for a in addresses.to_pylist()])


def add(left: pa.Array, right: pa.Array) -> pa.Array:
    return pc.add(left, right)


def half(values: pa.Array) -> pa.Array:
    """Fails for a slice with an odd number."""
    for value in values.to_pylist():
        if value is not None and value % 2:
            raise ValueError(f"{value} is odd")
    return pc.divide(values, 2)


def tagged(values: pa.Array) -> pa.Array:
    return pa.array([{"value": v, "tags": ["a", "b"]} for v in values.to_pylist()])


def calls(values: pa.Array) -> pa.Array:
    """How often it was called with each value."""
    _calls.update(values.to_pylist())
    return pa.array([_calls[value] for value in values.to_pylist()], pa.int64())


def short(values: pa.Array) -> pa.Array:
    return values.slice(1) if any(v == "short" for v in values.to_pylist()) else values


def text(values: pa.Array) -> pa.Array:
    return pa.array(["x"] * len(values)) if 7 in values.to_pylist() else values
