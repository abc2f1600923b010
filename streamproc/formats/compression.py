"""Payloads that are compressed one by one: gzip or zstd, taken out before they are decoded.

A loop over the records, since no library takes a batch of small streams of gzip, and Arrow's codecs want to know the size
before: 2.5 µs a record of 200 bytes, most of it in C without the interpreter lock. What a payload grows to is limited.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from streamproc.batch import Decoded, Decoder
from streamproc.formats.decoder import bad_table, flat, table_of
from streamproc.formats.scalar import Misfit

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor

MAX_BYTES = 64 * 2**20
"""Of one payload when decompressed: a few bytes can grow to gigabytes."""
_PART_BYTES = 256 * 2**20
"""So much is decoded at once, at least one payload."""
Decompress = Callable[[bytes], bytes]


@dataclass(frozen=True)
class DecompressingDecoder:
    """A `Decoder` of compressed payloads; `inner` gets what was in them. Dead letters show the payload as it came."""

    inner: Decoder
    decompress: Decompress

    @property
    def schema(self) -> pa.Schema:
        return self.inner.schema

    def decode(self, values: pa.Array) -> Decoded:
        """Payloads (binary, NULL allowed) to rows; never raises for what a payload holds."""
        values = flat(values)
        payloads: list[bytes | None] = values.to_pylist()
        parts: list[Decoded] = []
        places: list[list[int]] = []
        broken: list[tuple[int, Misfit]] = []
        at = 0
        while at < len(payloads):
            here, found, at = self._part(payloads, at, broken)
            parts.append(self.inner.decode(pa.array(found, pa.binary())))
            places.append(here)
        return _joined(parts, places, broken, payloads, self.schema)

    def _part(self, payloads: list[bytes | None], at: int, broken: list[tuple[int, Misfit]]) -> tuple[list[int], list[bytes | None], int]:
        """Places and contents of the next payloads, and where to go on."""
        here: list[int] = []
        found: list[bytes | None] = []
        left = _PART_BYTES
        while at < len(payloads) and left > 0:
            try:
                payload = payloads[at]
                content = None if payload is None else self.decompress(payload)
                here.append(at)
                found.append(content)
                left -= len(content or b"")
            except Misfit as misfit:
                broken.append((at, misfit))
            at += 1
        return here, found, at


def _joined(
    parts: list[Decoded], places: list[list[int]], broken: list[tuple[int, Misfit]], payloads: list[bytes | None], schema: pa.Schema
) -> Decoded:
    bad = [(at, misfit.reason, str(misfit), payloads[at]) for at, misfit in broken]
    index: list[pa.Array] = []
    for part, here in zip(parts, places, strict=True):
        found = zip(*(part.bad.column(c).to_pylist() for c in ("index", "reason", "error")), strict=True)
        bad += [(here[i], reason, error, payloads[here[i]]) for i, reason, error in found]
        place = pa.array(here, pa.int64())
        index.append(place if part.index is None else place.take(part.index))
    rows = pa.concat_tables([part.rows for part in parts]) if parts else table_of([pa.nulls(0, f.type) for f in schema], schema, 0)
    return Decoded(
        rows, bad_table(sorted(bad)), pa.concat_arrays(index) if bad and index else None if not bad else pa.array([], pa.int64())
    )


def decompressor(codec: str) -> Decompress:
    """Of one payload; raises Misfit. ValueError if the codec's package is missing."""
    if codec == "gzip":
        return _gunzip
    try:
        import zstandard
    except ImportError:
        raise ValueError("compression: zstd needs a package that is missing: pip install 'streamproc[zstd]'") from None
    threads = threading.local()

    def decompress(payload: bytes) -> bytes:
        if not hasattr(threads, "stream"):  # one is not safe in several threads, and costs 9 µs to make
            threads.stream = zstandard.ZstdDecompressor(max_window_size=MAX_BYTES)
        try:
            size = zstandard.frame_content_size(payload)
            if size > MAX_BYTES:
                raise _too_large()
            return _unzstd(threads.stream, payload, sized=size >= 0)
        except zstandard.ZstdError as error:
            raise Misfit("bad_compression", f"expected zstd: {error}") from None

    return decompress


def _unzstd(stream: ZstdDecompressor, payload: bytes, *, sized: bool) -> bytes:
    """One frame. Where its size is not in front (it was written as a stream) ever larger rooms are tried."""
    for room in () if sized else (2**16, 2**22):
        try:
            return stream.decompress(payload, max_output_size=room, allow_extra_data=False)
        except Exception:
            continue
    return stream.decompress(payload, max_output_size=MAX_BYTES, allow_extra_data=False)


def _gunzip(payload: bytes) -> bytes:
    """One gzip member, or several behind each other (RFC 1952, 2.2)."""
    found, rest = b"", payload
    while rest or not found:
        stream = zlib.decompressobj(wbits=31)
        try:
            found += stream.decompress(rest, MAX_BYTES + 1 - len(found))
        except zlib.error as error:
            raise Misfit("bad_compression", f"expected gzip: {error}") from None
        if len(found) > MAX_BYTES:
            raise _too_large()
        if not stream.eof:
            raise Misfit("bad_compression", "expected gzip: it ends in the middle")
        rest = stream.unused_data
        if not rest:
            break
    return found


def _too_large() -> Misfit:
    return Misfit("too_large", f"grows to more than {MAX_BYTES // 2**20} MiB when decompressed")
