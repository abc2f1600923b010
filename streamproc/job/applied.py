"""Views that are stateful functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from streamproc import user_code
from streamproc.job.document import Document, Path
from streamproc.job.faults import Faults
from streamproc.job.keys import ApplyView
from streamproc.job.model import ApplySpec
from streamproc.schema import parse_ddl
from streamproc.stateful import StatefulFunction


def read_apply(faults: Faults, document: Document, path: Path, given: Mapping[str, Any], folder: FilePath) -> ApplySpec | None:
    """The view at `path`, or None with its faults noted. The author's module is imported: only it knows the class."""
    view = faults.validate(ApplyView, given, path)
    if view is None:
        return None
    keys = view.apply
    try:
        _check(user_code.load(keys.function, folder), keys.function)
    except ValueError as error:
        faults.add((*path, "apply", "function"), str(error))
    line = document.line(path)
    return ApplySpec(
        str(path[-1]), keys.function, keys.input, tuple(keys.key), keys.columns, keys.time, keys.ttl, keys.deterministic, line
    )  # fmt: skip


def _check(found: object, dotted: str) -> None:
    """ValueError: it is no stateful function, or its state has a type that does not exist."""
    if not (isinstance(found, type) and issubclass(found, StatefulFunction)):
        raise ValueError(f"{dotted} is no class made from streamproc.stateful.StatefulFunction")
    for name, kind in found.state.items():
        try:
            parse_ddl(f"{name} {kind}")
        except ValueError as error:
            raise ValueError(f"{dotted}: its state {name!r}: {error}") from None
