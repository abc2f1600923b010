"""Python of the job's author: `package.module:name`, looked for in the job file's folder first, then where Python looks."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_folders: set[str] = set()
"""Of the jobs whose code was loaded."""
_importing = threading.RLock()
"""A service reads job files beside its running jobs; the path is one for the process."""


def load(dotted: str, folder: Path) -> Any:
    """What `package.module:name` names. The folder becomes the first on the path.

    ValueError says what is not there, or where in the author's file the import fails.
    """
    module_name, _, name = dotted.partition(":")
    module = _module(module_name, str(folder.resolve()))
    try:
        return getattr(module, name)
    except AttributeError:
        raise ValueError(f"there is no {name!r} in {module.__file__ or module_name}") from None


def load_callable(dotted: str, folder: Path) -> Any:
    """As `load`, for what can be called."""
    found = load(dotted, folder)
    if not callable(found):
        raise ValueError(f"{dotted} is {type(found).__name__}, not a function")
    return found


def place(error: BaseException) -> str:
    """`file:line` where the author's code raised: the innermost frame that is not of the standard library or a package."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if not frame.filename.startswith(("<", sys.prefix, sys.base_prefix))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else "?"


def _module(name: str, folder: str) -> ModuleType:
    with _importing:
        return _first_in(folder, name)


def _first_in(folder: str, name: str) -> ModuleType:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    _forget_namesakes(folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"there is no module {error.name!r} in {folder} or among the installed packages") from None
        raise ValueError(f"{name} cannot be imported: {error} ({place(error)})") from error
    except SyntaxError as error:
        raise ValueError(f"{name} cannot be imported: {error.msg} ({error.filename}:{error.lineno})") from error
    except Exception as error:  # whatever the author's module raises
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error} ({place(error)})") from error


def _forget_namesakes(folder: str) -> None:
    """A worker runs jobs of several folders, which may call their modules the same. What was loaded from another one keeps
    working for those who hold it; only an import that a function does while it runs would find the newer namesake.
    """
    importlib.invalidate_caches()
    others = tuple(f"{other}{os.sep}" for other in _folders if other != folder)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(others) and PathFinder.find_spec(name.partition(".")[0], [folder]):
            del sys.modules[name]
    _folders.add(folder)
