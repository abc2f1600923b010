"""Records of a binary format read side by side: a reading position for each, moved on together by numpy.

A field is read for all records of a batch at once, so Python's cost is per field and batch, not per record. A record
that is found bad is parked on the zero bytes behind the data: reading goes on there, harmlessly, and nobody asks for the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.formats.fit import Fit
from streamproc.formats.scalar import Misfit
from streamproc.schema import ddl_type

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_PADDING = 32
_SHOWN_CHARS = 100


class Payloads:
    """The bytes of a batch (a binary array without NULL), and what has been found bad among them."""

    def __init__(self, values: pa.BinaryArray) -> None:
        _, offsets, data = values.buffers()
        bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
        found = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]] if data is not None else np.empty(0, np.uint8)
        self.data = np.concatenate([found, np.zeros(_PADDING, np.uint8)])
        self.begin, self.end = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
        self.size = len(found)
        self.is_bad = np.zeros(len(values), np.bool_)
        self.bad: dict[int, Misfit] = {}
        """Why a record is bad: the first that was found."""

    def __len__(self) -> int:
        return len(self.begin)

    def __repr__(self) -> str:
        return f"<Payloads {len(self)} records, {len(self.bad)} bad>"


class Cursors:
    """Reading positions: row i is at `at[i]` in record `record[i]` and may read up to `end[i]`.

    Every method takes the rows that it is about, ascending. What goes beyond `end` makes the record bad as `malformed`.
    """

    def __init__(self, payloads: Payloads, record: Ints, at: Ints, end: Ints, malformed: str) -> None:
        self.payloads = payloads
        self.record = record
        self.at = at
        self.end = end
        self.malformed = malformed

    def __len__(self) -> int:
        return len(self.at)

    def within(self, rows: Ints, starts: Ints, lengths: Ints) -> Cursors:
        """New rows for parts of these rows' data (embedded messages)."""
        return Cursors(self.payloads, self.record[rows], starts, starts + lengths, self.malformed)

    def refuse(self, rows: Ints, reason: str, text: str | Callable[[int], str]) -> None:
        """The records of these rows are bad; `text` may depend on the place among `rows`. Loops over bad records only."""
        payloads = self.payloads
        for i, record in enumerate(self.record[rows].tolist()):
            if record not in payloads.bad:
                payloads.bad[record] = Misfit(reason, text if isinstance(text, str) else text(i))
        payloads.is_bad[self.record[rows]] = True
        self._park(rows)

    def _park(self, rows: Ints) -> None:
        self.at[rows] = self.end[rows] = self.payloads.size

    def good(self, rows: Ints) -> Ints:
        """Those of the rows whose record is not bad yet."""
        return rows[~self.payloads.is_bad[self.record[rows]]] if self.payloads.bad else rows

    def _move(self, rows: Ints, at: Ints) -> Bools | None:
        """Go on at `at`; gives which rows cannot, if any."""
        beyond = at > self.end[rows]
        self.at[rows] = at
        if not beyond.any():
            return None
        self.refuse(rows[beyond], self.malformed, "ends in the middle of a value")
        return beyond

    def varint(self, rows: Ints) -> npt.NDArray[np.uint64]:
        """Base 128 integers, 7 bits a byte, the low ones first; up to 10 bytes."""
        at = self.at[rows]
        byte = self.payloads.data[at]
        value = (byte & 0x7F).astype(np.uint64)
        at += 1
        longer = np.flatnonzero(byte & 0x80)
        for shift in range(7, 70, 7):
            if not longer.size:
                break
            byte = self.payloads.data[at[longer]]
            value[longer] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            at[longer] += 1
            longer = longer[byte >= 0x80]
        if longer.size:
            self.refuse(rows[longer], self.malformed, "an integer has more than 10 bytes")
            at[longer] = self.payloads.size
            value[longer] = 0
        beyond = self._move(rows, at)
        if beyond is not None:
            value[beyond] = 0
        return value

    def zigzag(self, rows: Ints) -> Ints:
        """Signed integers as varints: 0, -1, 1, -2, …"""
        return unzigzag(self.varint(rows))

    def fixed(self, rows: Ints, kind: npt.DTypeLike) -> npt.NDArray[np.generic]:
        """Little-endian numbers of 1 to 16 bytes."""
        size = np.dtype(kind).itemsize
        at = self.at[rows]
        found: npt.NDArray[np.generic] = self.payloads.data[at[:, None] + np.arange(size)].view(kind).reshape(len(rows))
        self._move(rows, at + size)
        return found

    def span(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Starts and lengths of the next `lengths` bytes, which are passed."""
        starts = self.at[rows]
        wrong = (lengths < 0) | (lengths > self.end[rows] - starts)
        if not wrong.any():
            self.at[rows] = starts + lengths
            return starts, lengths
        lengths = np.where(wrong, 0, lengths)
        self.at[rows] = starts + lengths
        self.refuse(rows[wrong], self.malformed, "a length goes beyond the end of the record")
        return starts, lengths

    def bytes_of(self, starts: Ints, lengths: Ints) -> pa.Array:
        """Parts of the data as a binary array; starts ascend, but for parts without bytes."""
        count, ends = len(starts), starts + lengths
        empty = lengths == 0
        if empty.any():
            starts = np.where(empty, np.maximum.accumulate(np.where(empty, 0, ends)), starts)
            ends = starts + lengths
        bounds = np.empty(2 * count + 1, np.int32)
        bounds[0:-1:2], bounds[1::2] = starts, ends
        bounds[-1] = bounds[-2] if count else 0
        # values and what lies between them, as one array without a copy; taking every second one copies in C++
        both = pa.Array.from_buffers(pa.binary(), 2 * count, [None, pa.py_buffer(bounds), pa.py_buffer(self.payloads.data)])
        return both.take(pa.array(np.arange(0, 2 * count, 2)))

    def text(self, rows: Ints, found: pa.Array, path: str) -> pa.Array:
        """Bytes as strings; what is not UTF-8 makes its record bad and is NULL."""
        try:
            return found.cast(pa.string())
        except pa.ArrowInvalid:
            texts = [_utf8(value) for value in found.to_pylist()]  # a loop, but only where something is broken
        broken = np.array([text is None and valid for text, valid in zip(texts, found.is_valid().to_pylist(), strict=True)], np.bool_)
        self.refuse(rows[broken], "not_utf8", f"column {path!r}: a string is not UTF-8")
        return pa.array(texts, pa.string())

    def fitted(self, rows: Ints, found: pa.Array, fit: Fit, kind: pa.DataType, path: str) -> pa.Array:
        """Values as `kind`; what does not fit makes its record bad and is NULL."""
        made = fit(found)
        if made.misfits is not None:
            at = np.flatnonzero(np.array(made.misfits.to_pylist(), np.bool_))

            def text(i: int) -> str:
                return f"column {path!r}: expected {ddl_type(kind)}, found {shown(found[int(at[i])])}"

            self.refuse(rows[at], made.reason, text)
        return made.values

    def __repr__(self) -> str:
        return f"<Cursors {len(self)} rows of {self.payloads!r}>"


def over(values: pa.BinaryArray, malformed: str, skip: int = 0) -> Cursors:
    """A row for each payload (none NULL, none shorter than `skip`), behind its first `skip` bytes."""
    payloads = Payloads(values)
    return Cursors(payloads, np.arange(len(payloads)), payloads.begin + skip, payloads.end.copy(), malformed)


def unzigzag(value: npt.NDArray[np.uint64]) -> Ints:
    signed = value.view(np.int64)
    return (signed >> 1 & 0x7FFFFFFFFFFFFFFF) ^ -(signed & 1)


def placed(parts: list[pa.Array], places: list[Ints], count: int, kind: pa.DataType) -> pa.Array:
    """`count` values: those of each part at its places, NULL elsewhere."""
    if not parts:
        return pa.nulls(count, kind)
    if len(parts) == 1 and len(places[0]) == count:
        return parts[0]
    order = np.full(count, -1, np.int64)
    order[np.concatenate(places)] = np.arange(sum(map(len, places)))
    return pa.concat_arrays(parts).take(pa.array(order, mask=order < 0))


def grouped(parts: list[pa.Array], owners: list[Ints], count: int, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    """Items that were read one of each owner at a time → (offsets of each owner's list, all items in that order)."""
    if not parts:
        return pa.array(np.zeros(count + 1, np.int32)), pa.array([], kind)
    owner = np.concatenate(owners)
    items = pa.concat_arrays(parts)
    if len(parts) > 1:
        items = items.take(pa.array(np.argsort(owner, kind="stable")))
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(owner, minlength=count), out=offsets[1:])
    return pa.array(offsets), items


def shown(value: pa.Scalar) -> str:
    """A value as a message shows it; times and dates, which may be out of range, as numbers."""
    text = str(value.value if pa.types.is_temporal(value.type) else value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
