"""Answers of AWS that are streams of events (`application/vnd.amazon.eventstream`), over HTTP/2.

AWS promises SubscribeToShard over HTTP/2 only, which aiobotocore does not speak: httpx2 does, botocore signs the request and
reads the frames. An endpoint without TLS (an emulator) is spoken to over HTTP/1.1. Proxies come from the environment, the
certificates of authorities from AWS_CA_BUNDLE, else from the system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from ssl import SSLContext, create_default_context
from typing import Any

import msgspec

from streamproc.clients.aws import CONNECT_S, AwsClient, error_of
from streamproc.errors import Unavailable

SILENT_S = 30
"""A stream without any event for so long is broken: the server sends empty ones every few seconds."""


class _Refusal(msgspec.Struct):
    """Body of an error (JSON 1.1) and payload of an exception's frame; both spellings of `message` occur."""

    code: str = msgspec.field(default="", name="__type")
    message: str = ""
    Message: str = ""


class EventStreams:
    """Opens streams: a connection each, so that one that is not read stops no other. `what` is for messages."""

    def __init__(self, aws: AwsClient, what: str, target: str) -> None:
        self._aws = aws
        self._what = what
        self._target = target
        self._tls: SSLContext | None = None

    async def open(self, operation: str, body: Mapping[str, Any]) -> EventStream:
        """Raises what `error_of` makes of a refusal, else Unavailable."""
        import httpx2

        content = msgspec.json.encode(body)
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{self._target}.{operation}"}
        async with self._aws.calls(self._what) as client, AsyncExitStack() as stack:
            url = f"{client.meta.endpoint_url}/"
            signed = await self._aws.sign("POST", url, headers, content)
            with _http_errors(self._what):
                http = httpx2.AsyncClient(http2=True, verify=self._trusted(), timeout=httpx2.Timeout(SILENT_S, connect=CONNECT_S))
                await stack.enter_async_context(http)
                answer = await stack.enter_async_context(http.stream("POST", url, content=content, headers=signed))
                if answer.status_code >= 300:
                    raise _refused(self._what, await answer.aread(), "", answer.status_code)
            return EventStream(self._what, answer, stack.pop_all())

    def _trusted(self) -> SSLContext:
        """The TLS context, made once: it reads some hundred certificates."""
        if self._tls is None:
            self._tls = create_default_context(cafile=self._aws.ca_bundle)
        return self._tls

    def __repr__(self) -> str:
        return f"<EventStreams {self._target} of {self._aws!r}>"


class EventStream:
    """One open answer. Nothing is read ahead: who does not ask for events lets the server wait."""

    def __init__(self, what: str, answer: Any, stack: AsyncExitStack) -> None:
        from botocore.eventstream import EventStreamBuffer

        self._what = what
        self._http = answer.http_version
        self._chunks: AsyncIterator[bytes] = answer.aiter_raw()
        self._stack = stack
        self._frames = EventStreamBuffer()

    async def next(self, kind: str) -> bytes | None:
        """Payload of the next event of that kind; None once the server has ended the stream. Not to be cancelled and called again."""
        from botocore.eventstream import ParserError

        try:
            while True:
                for frame in self._frames:
                    if frame.headers.get(":message-type") != "event":
                        raise _broken_off(self._what, frame)
                    if frame.headers.get(":event-type") == kind:
                        return bytes(frame.payload)
                with _http_errors(self._what):
                    chunk = await anext(self._chunks, None)
                if chunk is None:
                    return None
                self._frames.add_data(chunk)
        except ParserError as error:
            raise Unavailable(f"{self._what}: the stream of events is garbled: {error}") from error

    async def close(self) -> None:
        with _http_errors(self._what):
            await self._stack.aclose()

    def __repr__(self) -> str:
        return f"<EventStream {self._http} {self._what}>"


@contextmanager
def _http_errors(what: str) -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


def _broken_off(what: str, frame: Any) -> Exception:
    """An error in the middle of a stream: an exception of the service's model, or one of the protocol. What is not known is an outage."""
    headers = frame.headers
    if headers.get(":message-type") == "error":
        return error_of(what, headers.get(":error-code", ""), headers.get(":error-message", ""), 500)
    return _refused(what, frame.payload, headers.get(":exception-type", ""), 500)


def _refused(what: str, body: bytes, code: str, status: int) -> Exception:
    try:
        said = msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:
        said = _Refusal(message=f"HTTP {status}")
    return error_of(what, code or said.code.rpartition("#")[2], said.message or said.Message, status)
