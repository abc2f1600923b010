"""Responses received into Arrow memory: as aiokafka decodes them, however the bytes arrive."""

import asyncio
import io
import struct
from collections import deque
from types import SimpleNamespace

import pytest
from aiokafka.protocol.fetch import FetchRequest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.clients.kafka.receiver import COPIED_BYTES, Receiver

VERSIONS = {1: (0, 11)}
DATA = st.one_of(st.none(), st.binary(max_size=40), st.sampled_from([b"x" * COPIED_BYTES, b"y" * (COPIED_BYTES + 1), b"z" * 400_000]))


class Connection:
    """What a receiver uses of an AIOKafkaConnection."""

    def __init__(self, loop):
        self._loop = loop
        self._requests = deque()
        self.told = []
        self._protocol = SimpleNamespace(connection_lost=self.told.append)
        self.closed_by = None

    def ask(self, correlation_id):
        request = FetchRequest(0, 1, 1 << 20, 0, [("t", [(0, 0, 1 << 20)])]).prepare(VERSIONS)
        waiting = self._loop.create_future()
        self._requests.append((correlation_id, request, waiting))
        return request, waiting

    def close(self, reason, exc):
        self.closed_by = exc


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def framed(request, correlation_id, parts):
    partitions = [(number, 0, 10, 10, 0, [(7, 3)] if number else None, -1, data) for number, data in enumerate(parts)]
    body = struct.pack(">i", correlation_id) + request.RESPONSE_TYPE(0, 0, 0, [("t", partitions)]).encode()
    return struct.pack(">i", len(body)) + body, body


def arrive(receiver, data, cut=1 << 30):
    while data:
        buffer = receiver.get_buffer(-1)
        count = min(len(buffer), len(data), cut)
        buffer[:count] = data[:count]
        data = data[count:]
        receiver.buffer_updated(count)


@given(st.lists(st.lists(DATA, max_size=4), min_size=1, max_size=3), st.sampled_from([1, 3, 1000, 1 << 30]))
def test_responses_are_as_aiokafka_decodes_them(answers, cut):
    loop = asyncio.new_event_loop()
    connection = Connection(loop)
    receiver, wire, asked = Receiver(connection), b"", []
    for correlation_id, parts in enumerate(answers):
        request, waiting = connection.ask(correlation_id)
        frame, body = framed(request, correlation_id, parts)
        wire += frame
        asked.append((waiting, request.RESPONSE_TYPE.decode(io.BytesIO(body[4:]))))
    arrive(receiver, wire, max(cut, len(wire) // 1000))
    for waiting, expected in asked:
        assert waiting.result().topics == expected.topics  # a memoryview equals the bytes it shows
    assert connection.closed_by is None
    assert not connection._requests
    loop.close()


def test_a_long_part_is_not_copied_and_a_small_part_does_not_keep_the_response(loop):
    connection = Connection(loop)
    request, waiting = connection.ask(1)
    arrive(Receiver(connection), framed(request, 1, [b"a" * 1_000_000, b"b" * 50_000])[0])
    long, small = (part[-1] for part in waiting.result().topics[0][1])
    assert type(long) is memoryview
    assert type(small) is bytes


@pytest.mark.parametrize("wire", [struct.pack(">i", -5), struct.pack(">ii", 4, 99), struct.pack(">iii", 8, 1, 5)])
def test_what_is_no_answer_closes_the_connection(wire, loop):
    """A negative size, another request's number, a body that ends too early."""
    connection = Connection(loop)
    _, waiting = connection.ask(1)
    arrive(Receiver(connection), wire)
    assert connection.closed_by is not None
    assert connection._requests  # for `close` to fail
    assert not waiting.done()


def test_an_answer_that_nobody_waits_for_any_more_is_dropped(loop):
    connection = Connection(loop)
    request, waiting = connection.ask(1)
    waiting.cancel()
    arrive(Receiver(connection), framed(request, 1, [b"a"])[0])
    assert not connection._requests
    assert connection.closed_by is None


def test_a_lost_connection_is_closed_and_told(loop):
    connection = Connection(loop)
    Receiver(connection).connection_lost(None)
    assert isinstance(connection.closed_by, EOFError)
    assert connection.told == [None]
