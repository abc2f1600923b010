"""Large responses straight from the socket into Arrow memory.

aiokafka's stream reader copies a response three times and stops reading at every 64 KB: half of the CPU time of a
fetch. A connection that aiokafka has opened and authenticated is read by a `Receiver` from then on; requests,
timeouts and closing stay aiokafka's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa

COPIED_BYTES = 1 << 15
"""What is not longer is copied: strings must be bytes to be decoded, and their length has 16 bits."""
COPIED_FRACTION = 10
"""A slice keeps its whole response in memory: one below this fraction of it is copied."""


def receive(connection: Any) -> None:
    """Let a `Receiver` read an open `AIOKafkaConnection` that waits for no response now."""
    transport = connection._writer.transport
    if not isinstance(transport.get_protocol(), Receiver):
        connection._read_task.cancel()
        transport.set_protocol(Receiver(connection))


class Receiver(asyncio.BufferedProtocol):
    """Gives each response of an `AIOKafkaConnection` a buffer of its own; its long parts are memoryviews of that."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._streams = connection._protocol
        self._prefix = memoryview(bytearray(4))
        self._into = self._prefix
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._into):
            return
        received, self._filled = self._into, 0
        try:
            if received is self._prefix:
                size = int.from_bytes(received, "big", signed=True)
                self._into = memoryview(pa.allocate_buffer(size)).cast("B")  # Arrow's pool: its pages are already there, unlike malloc's
            else:
                self._into = self._prefix
                self._answer(received)
        except Exception as error:  # not the protocol
            self._lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or EOFError("the broker closed the connection"))
        self._streams.connection_lost(exc)  # tells who waits for the closing

    def _answer(self, response: memoryview) -> None:
        """As `AIOKafkaConnection._handle_frame` does: the oldest request is answered, and left there if that fails."""
        connection, data = self._connection, ResponseReader(response)
        correlation_id, request, waiting = connection._requests[0]
        header = request.parse_response_header(data)
        if header.correlation_id != correlation_id:
            raise ValueError(f"an answer to request {header.correlation_id} came for request {correlation_id}")
        if not waiting.done():
            waiting.set_result(request.RESPONSE_TYPE.decode(data))
        connection._last_action = connection._loop.time()
        connection._requests.popleft()

    def _lose(self, error: Exception) -> None:
        from aiokafka.conn import CloseReason

        self._connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)

    def __repr__(self) -> str:
        return f"<Receiver of {self._connection}, {self._filled} of {len(self._into)} bytes>"


class ResponseReader:
    """What aiokafka's decoders read a response from: a file whose long reads are slices."""

    def __init__(self, response: memoryview) -> None:
        self._response = response
        self._at = 0

    def read(self, nbytes: int) -> bytes | memoryview:
        data = self._response[self._at : self._at + nbytes]
        self._at += nbytes
        short = nbytes <= COPIED_BYTES or nbytes * COPIED_FRACTION < len(self._response)
        return bytes(data) if short else data
