"""JSON logs on stderr, one line an event, with the world's time and no secret in them.

Our modules log through `structlog.get_logger()`, libraries through the standard `logging`; both come out the same way.
`bind(epoch=…)` adds a field to every line that follows in this task.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from pydantic import BaseModel
from structlog.typing import Processor

from streamproc.clock import Clock
from streamproc.options import Secret

Event = MutableMapping[str, Any]
QUIET = ("aiokafka", "aiobotocore", "botocore", "aiohttp", "asyncio", "httpx2", "httpcore2", "urllib3", "sqlglot")
HIDDEN = "[secret]"
SECRET_CHARS_MIN = 4
"""Shorter values are not searched for: they would blank out ordinary text, and are no secrets worth the name."""

_passed_on: list[Secret] = []
bind = structlog.contextvars.bind_contextvars
_FORMATTER = structlog.stdlib.ProcessorFormatter


def configure(clock: Clock, secrets: Iterable[Secret] = (), *, terminal: bool = False, stream: TextIO | None = None, **fields: Any) -> None:
    """Send every log to `stream` (stderr) as JSON; `fields` (`job=…`) are in each line.

    On a terminal, where the live picture tells the rest, only warnings and errors are shown, as plain text.
    """
    structlog.contextvars.clear_contextvars()
    bind(**fields)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.PositionalArgumentsFormatter(), _FORMATTER.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _Time(clock),
        structlog.processors.format_exc_info,
        Redaction(secrets),
        _FORMATTER.remove_processors_meta,
        _plain if terminal else structlog.processors.JSONRenderer(default=str),
    ]
    formatter = _FORMATTER(processors=processors, foreign_pre_chain=[structlog.stdlib.ExtraAdder()])
    _install(formatter, stream, logging.WARNING if terminal else logging.INFO)


def pass_on(secrets: Iterable[Secret]) -> None:
    """Hand our lines to the standard `logging` as any library does, for a program with a logging of its own: nothing else is
    configured, and where the program has configured structlog itself, not even that. May be called for several jobs.
    """
    if structlog.is_configured() and structlog.get_config()["processors"][-1] is not _as_text:
        return
    _passed_on.extend(secrets)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, Redaction(_passed_on), _as_text],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class _Time:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        event["time"] = datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event


class Redaction:
    """Blanks the values of known secrets, wherever in an event they stand.

    A second line of defence: code must not log them in the first place.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        values = {value for secret in secrets if (value := _value(secret)) and len(value) >= SECRET_CHARS_MIN}
        self._values = sorted(values, key=len, reverse=True)

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        return {key: value if key.startswith("_") else self.hide(value) for key, value in event.items()}

    def hide(self, value: Any) -> Any:
        if not self._values or isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, Mapping):
            return {str(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.hide(item) for item in value]
        text = str(value)
        for secret in self._values:
            text = text.replace(secret, HIDDEN)
        return text

    def __repr__(self) -> str:
        return f"<Redaction of {len(self._values)} secrets>"


def secrets_in(value: object) -> list[Secret]:
    """Every secret in a job or in options, however deep."""
    if isinstance(value, Secret):
        return [value]
    if isinstance(value, BaseModel):
        return secrets_in([getattr(value, name) for name in type(value).model_fields])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return secrets_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, Mapping):
        return secrets_in(list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [secret for item in value for secret in secrets_in(item)]
    return []


def _value(secret: Secret) -> str | None:
    try:
        return secret.reveal()
    except (ValueError, OSError):
        return None


def _plain(_logger: object, _method: str, event: Event) -> str:
    level, text = event.pop("level"), event.pop("event")
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("time", "logger", "job"))
    return f"{level}: {text} {rest}".rstrip()


def _as_text(_logger: object, _method: str, event: Event) -> tuple[tuple[str], dict[str, Any]]:
    text, raised = event.pop("event"), event.pop("exc_info", None)
    return (" ".join([str(text), *(f"{key}={value}" for key, value in event.items())]),), {"exc_info": raised}


class _Stderr(logging.StreamHandler[TextIO]):
    """Looks sys.stderr up at each line: the live picture puts itself in its place while it is drawn."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream or sys.stderr)
        self._follow = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._follow:
            self.stream = sys.stderr
        super().emit(record)


def _install(formatter: logging.Formatter, stream: TextIO | None, level: int) -> None:
    handler = _Stderr(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
