"""Faults of a job file: collected, so that the user sees all of them at once, each with its line and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streamproc.errors import Fault
from streamproc.job.document import Document, Path

Model = TypeVar("Model", bound=BaseModel)

NOT_YET: dict[str, frozenset[str]] = {
    "source": frozenset({"read", "consumer"}),
    "table": frozenset({"query"}),
    "sink": frozenset({"evolve", "on_error", "register"}),
    "view": frozenset({"lambda"}),
}
"""Keys that the format names and this version cannot run; a connector that declares one makes it known."""


def not_yet(what: str) -> str:
    return f"{what} is not supported yet by this version"


def nearest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or, where nothing is near, `; known are a, b`."""
    names = sorted(known)
    if not names:
        return ""
    close = difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


class Faults:
    """The faults of one job file."""

    def __init__(self, file: str, document: Document) -> None:
        self._file = file
        self._document = document
        self.found: list[Fault] = []
        for line, message in document.faults:
            self.at_line(line, message)

    def at_line(self, line: int, message: str) -> None:
        fault = Fault(self._file, line, message)
        if fault not in self.found:
            self.found.append(fault)

    def add(self, path: Path, message: str) -> None:
        """A fault at the value of `path`, or at the nearest mapping around it."""
        option = self._document.option(path)
        self.at_line(self._document.line(path), f"{option}: {message}" if option else message)

    def stands(self, path: Path) -> bool:
        """Whether the file itself has something at `path`."""
        return path in self._document.places

    def validate(self, model: type[Model], value: Mapping[str, Any], path: Path, place: str = "") -> Model | None:
        """The model of `value`, or None with every fault noted. Keys without a value count as absent."""
        known = keys_of(model)
        given = {key: item for key, item in value.items() if item is not None or key not in known}
        try:
            return model.model_validate(given, context={"job_file": True, "folder": FilePath(self._file).parent})
        except ValidationError as error:
            self._note(model, error, path, place)
            return None

    def _note(self, model: type[BaseModel], error: ValidationError, path: Path, place: str) -> None:
        said: dict[Path, list[str]] = {}
        for detail in error.errors(include_url=False):
            if (*path, *detail["loc"]) in self._document.failed:
                continue  # its fault has been told already
            at = self._path(path, detail)
            message = _message(model, detail, place)
            if message not in said.setdefault(at, []):
                said[at].append(message)
        for at, messages in said.items():
            for message in _joined(_label(at, len(path)), messages):
                self.add(at, message)

    def _path(self, path: Path, detail: ErrorDetails) -> Path:
        """The error's place as far as the file has it (pydantic also names union members); a missing key is at its mapping."""
        at = path
        for part in detail["loc"]:
            if (*at, part) not in self._document.places:
                break
            at = (*at, part)
        return at


def _label(path: Path, above: int) -> str:
    return ".".join(map(str, path[max(0, above - 2) :])) if path else "the file"


def _joined(label: str, messages: list[str]) -> list[str]:
    """The members of a union that a value fits none of are told as one fault."""
    if all(message.startswith("should be ") for message in messages):
        return [f"{label}: should be {' or '.join(m.removeprefix('should be ') for m in messages)}"]
    return [m if _whole(m) else f"{label}: {m}" for m in messages]


def _whole(message: str) -> bool:
    return message.startswith(("unknown key", "missing key"))


def _message(model: type[BaseModel], detail: ErrorDetails, place: str) -> str:
    kind, loc = detail["type"], detail["loc"]
    last = str(loc[-1]) if loc else ""
    if kind == "extra_forbidden":
        return _unknown_key(model, loc, place)
    if kind == "missing":
        return f"missing key {last!r}{_described(_inner(model, loc), last)}"
    if kind == "literal_error":
        return _choice(detail)
    return detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be").replace("dictionary", "mapping")


def _unknown_key(model: type[BaseModel], loc: tuple[int | str, ...], place: str) -> str:
    key = str(loc[-1])
    if len(loc) == 1 and key in NOT_YET.get(place, ()):
        return not_yet(f"{key!r}") + ": remove the key"
    if " " in key:
        return f"unknown key {key!r}; quote the value before it: in {{…}} a comma ends a value"
    return f"unknown key {key!r}{nearest(key, keys_of(_inner(model, loc)))}"


def _choice(detail: ErrorDetails) -> str:
    given, expected = detail["input"], str(detail.get("ctx", {}).get("expected", ""))
    close = difflib.get_close_matches(str(given)[:100], expected.replace("'", "").replace(" or ", ", ").split(", "), n=1)
    return f"should be {expected}, not {_brief(given)}" + (f"; did you mean {close[0]!r}?" if close else "")


def _brief(value: object) -> str:
    shown = repr(getattr(value, "template", value))
    return shown if len(shown) <= 60 else shown[:57] + "..."


def keys_of(model: type[BaseModel] | None) -> list[str]:
    """The keys a model takes, as written in the file."""
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _inner(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that the last part of an error's `loc` is a key of."""
    found: type[BaseModel] | None = model
    for part in loc[:-1]:
        field = next((f for n, f in found.model_fields.items() if (f.alias or n) == part), None) if found else None
        if field is not None:
            found = _model_in(field.annotation)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = [*getattr(annotation, "__args__", ())]
    return next((found for part in parts if (found := _model_in(part))), None)


def _described(model: type[BaseModel] | None, key: str) -> str:
    field = next((f for n, f in model.model_fields.items() if (f.alias or n) == key), None) if model else None
    return f" ({field.description})" if field is not None and field.description else ""
