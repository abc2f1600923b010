"""The author's Python: found from the job's folder, with faults that say where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.user_code import load, load_callable, place


@pytest.fixture(autouse=True)
def _path_restored() -> Iterator[None]:
    before, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "own_module.py") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def test_the_job_s_folder_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "def f(): return 'mine'", "own_package/inner.py")
    assert load_callable("own_package.inner:f", tmp_path)() == "mine"
    assert sys.path[0] == str(tmp_path)
    assert load("json:dumps", tmp_path)([1]) == "[1]"


def test_jobs_of_two_folders_may_call_their_modules_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write(folder, "from own_helpers import name\ndef f(): return name()", "own_functions.py")
        write(folder, f"def name(): return {folder.name!r}", "own_helpers.py")
    first, second = (load_callable("own_functions:f", folder) for folder in (one, two))
    assert (first(), second()) == ("one", "two")
    assert load_callable("own_functions:f", one)() == "one"


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("x = 1", "own_module:f", r"there is no 'f' in .*own_module\.py"),
        ("f = 1", "own_module:f", "own_module:f is int, not a function"),
        ("", "own_modul:f", "there is no module 'own_modul' in "),
        ("", "own_module.inner:f", "there is no module 'own_module.inner'|own_module' is not a package"),
        ("x = 1\ndef f(:\n", "own_module:f", r"own_module cannot be imported: .* \(.*own_module\.py:2\)"),
        ("x = 1\n\nx / 0", "own_module:f", r"cannot be imported: ZeroDivisionError: division by zero \(.*own_module\.py:3\)"),
        ("\nimport not_installed_at_all", "own_module:f", r"No module named 'not_installed_at_all' \(.*own_module\.py:2\)"),
    ],
)
def test_faults_say_where(tmp_path: Path, text: str, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_callable(name, write(tmp_path, text))


def test_the_place_of_an_error_is_in_the_author_s_file(tmp_path: Path) -> None:
    write(tmp_path, "import json\ndef f(x):\n    return json.loads(x)\n")
    with pytest.raises(ValueError, match="Expecting value") as caught:
        load_callable("own_module:f", tmp_path)("?")
    assert place(caught.value) == f"{tmp_path}/own_module.py:3"
