"""`app: 'module:app'` of a job file → the app, its topics and channels, and how it reaches its cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetPydanticSchema, ValidationInfo, WithJsonSchema
from pydantic_core import core_schema

from streamproc import user_code
from streamproc.options import Options


@dataclass(frozen=True)
class Named:
    """Something of the author's program, by the name that the job file gives it. Equal if the names are."""

    name: str
    folder: Path = field(repr=False)
    found: Any = field(repr=False, compare=False)  # an app's own repr shows its brokers' URLs

    def __str__(self) -> str:
        return self.name


def _app(given: object, info: ValidationInfo) -> Named:
    if not isinstance(given, str) or ":" not in given:
        raise ValueError("should be module:app, as in `faust -A module:app`")
    try:
        from faust.types import AppT
    except ImportError:
        raise ValueError("needs faust-streaming: pip install 'streamproc[faust]'") from None
    folder = Path((info.context or {}).get("folder", "."))
    app = _load(given, folder)
    if not isinstance(app, AppT):
        raise ValueError(f"{given} is {type(app).__name__}, not a faust.App")
    app.finalize()
    return Named(given, folder, app)


App = Annotated[
    Named,
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(Named)),
    BeforeValidator(_app),
    WithJsonSchema({"type": "string", "pattern": ".+:.+", "examples": ["shop:app"]}),
]


class AppOptions(Options):
    """Which app. Named before other keys, since those are looked up in it."""

    app: App = Field(description="module:app of the Faust app; the job file's folder is first on the path")


def topic(given: object, info: ValidationInfo) -> Named | None:
    """The app's topic of a Kafka name, or at `module:variable`. None where the app itself is at fault."""
    return _member(given, info, "topic", _topics)


def channel(given: object, info: ValidationInfo) -> Named | None:
    """The app's in-memory channel that a variable holds: of the app's module, or `module:variable`."""
    return _member(given, info, "channel", _channels)


def _member(given: object, info: ValidationInfo, what: str, known: Any) -> Named | None:
    app: Named | None = info.data.get("app")
    if app is None:
        return None
    if not isinstance(given, str):
        raise ValueError(f"should be the name of a {what} of the app, or module:variable")
    if ":" in given:
        found = _load(given, app.folder)
        if not any(found is member for member in _of_kind(what, [found])):
            raise ValueError(f"{given} is {type(found).__name__}, not a {what} of an app")
        return Named(given, app.folder, found)
    members = dict(known(app))
    if given not in members:
        raise ValueError(f"{app} has no {what} {given!r}; known are {', '.join(sorted(members)) or 'none'} (or write module:variable)")
    return Named(given, app.folder, members[given])


def _topics(app: Named) -> Iterator[tuple[str, Any]]:
    """Topics that variables of the app's module hold or its agents read, by Kafka's name."""
    agents = [agent.channel for agent in app.found.agents.values()]
    for each in _of_kind("topic", [*agents, *vars(_module_of(app)).values()]):
        if each.app is app.found and len(each.topics) == 1:
            yield each.topics[0], each


def _channels(app: Named) -> Iterator[tuple[str, Any]]:
    for name, value in vars(_module_of(app)).items():
        if _of_kind("channel", [value]) and value.app is app.found:
            yield name, value


def _of_kind(what: str, values: list[Any]) -> list[Any]:
    """Topics are channels too; `channel` means those in memory."""
    from faust.types import ChannelT, TopicT

    return [v for v in values if isinstance(v, ChannelT) and isinstance(v, TopicT) == (what == "topic")]


def _load(dotted: str, folder: Path) -> Any:
    """As `user_code.load`. The running program is not imported a second time under its module's name (`python shop.py worker`):
    that would be another app than the one that runs.
    """
    module, _, name = dotted.partition(":")
    main = sys.modules["__main__"]
    if _is_program(module, folder) and hasattr(main, name):
        return getattr(main, name)
    return user_code.load(dotted, folder)


def _module_of(app: Named) -> Any:
    module = app.name.partition(":")[0]
    return sys.modules["__main__"] if _is_program(module, app.folder) else sys.modules[module]


def _is_program(module: str, folder: Path) -> bool:
    main = sys.modules["__main__"]
    if getattr(getattr(main, "__spec__", None), "name", None) == module:
        return True
    file = getattr(main, "__file__", None)
    return file is not None and Path(file).resolve() == folder.joinpath(*module.split(".")).with_suffix(".py").resolve()


def servers(app: Any, *, producing: bool = False) -> str:
    """The app's brokers as Kafka clients take them."""
    from faust.transport.drivers.aiokafka import server_list

    urls = app.conf.broker_producer if producing else app.conf.broker_consumer
    return ",".join(server_list(urls, 9092))


def security_settings(app: Any) -> Mapping[str, Any]:
    """The app's credentials and TLS as aiokafka's clients take them."""
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    return credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)


def is_running(app: Any) -> bool:
    """Whether a Faust worker runs the app in this process."""
    return bool(app.started and not app.should_stop)
