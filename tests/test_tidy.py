"""The house rules as tests: sizes, names, layers, layout, docstrings. A rule that no test checks is only a wish."""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from streamproc.testing import run_job_tests

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("streamproc", "sources", "sinks", "windows")
TOP_LEVEL = {"pyproject.toml", "README.md", "streamproc", "sources", "sinks", "windows", "deploy", "tests"}
CONTRACTS = ("source", "sink", "window", "store", "metrics", "lease/lease", "batch", "offset", "clock", "errors", "world", "options")
BANNED_WORDS = {"util", "utils", "common", "manager", "helper", "helpers", "base"}
FUNCTION_LINES_MEDIAN, FUNCTION_LINES_MAX, MODULE_LINES_MAX = 8, 70, 500
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
LEFTOVER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/$])/(?:work|root|home/\w+|Users/\w+)/")
REGISTRY_HOST = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.org|repo\w*\.maven|proxy\.golang\.org|crates\.io")


@cache
def tracked() -> tuple[str, ...]:
    """Paths that git knows, from the root; the files of an unpacked archive have no git and are not judged."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return tuple(p for p in listed.stdout.split("\0") if p and (ROOT / p).is_file())


def python_files(*tops: str) -> list[Path]:
    return [ROOT / p for p in tracked() if p.endswith(".py") and p.split("/")[0] in (tops or PACKAGES)]


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold a token other than a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for t in tokens if t.type not in NOT_CODE for line in range(t.start[0], t.end[0] + 1)}


def function_sizes(path: Path) -> Iterator[tuple[str, int]]:
    """Code lines of each function's body: signature, docstring, comments and blank lines aside."""
    code = code_lines(path.read_text(encoding="utf-8"))
    for function in functions(path):
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        lines = code & set(range(body[0].lineno, (function.end_lineno or 0) + 1)) if body else set()
        yield f"{path.relative_to(ROOT)}:{function.lineno} {function.name}", len(lines)


def test_functions_are_short() -> None:
    sizes = dict(size for path in python_files() for size in function_sizes(path))
    assert statistics.median(sizes.values()) <= FUNCTION_LINES_MEDIAN
    assert {name: lines for name, lines in sizes.items() if lines > FUNCTION_LINES_MAX} == {}


def test_modules_are_short() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in python_files(*PACKAGES, "tests")}
    assert {name: lines for name, lines in sizes.items() if lines > MODULE_LINES_MAX} == {}


def words(name: str) -> set[str]:
    return {w.lower() for part in re.split(r"[\W_]+", name) for w in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", part)}


def test_names_say_what_a_thing_is() -> None:
    named = [(p, p) for p in tracked()]
    for path in python_files(*PACKAGES, "tests"):
        definitions = (n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))
        named += [(n.name, f"{path.relative_to(ROOT)}:{n.lineno} {n.name}") for n in definitions if not n.name.startswith("test_")]
    assert [where for name, where in named if words(name) & BANNED_WORDS] == []


def test_nothing_is_left_for_later() -> None:
    assert [path for path, text in texts() if LEFTOVER.search(text)] == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [(path, hit[0]) for path, text in texts() for hit in [MACHINE_PATH.search(text) or REGISTRY_HOST.search(text)] if hit]
    assert found == []


def test_imports_keep_their_direction() -> None:
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    kept = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, check=False)
    assert kept.returncode == 0, kept.stdout + kept.stderr


def test_the_top_level_shows_the_architecture() -> None:
    assert {p.split("/")[0] for p in tracked() if not p.startswith(".")} == TOP_LEVEL


def test_no_package_below_tests() -> None:
    assert [p for p in tracked() if re.fullmatch(r"tests/(.*/)?__init__\.py", p)] == []


def test_test_files_have_unique_names() -> None:
    names = [Path(p).name for p in tracked() if re.fullmatch(r"tests/(.*/)?test_[^/]*\.py", p)]
    assert sorted({n for n in names if names.count(n) > 1}) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_published(package: str) -> None:
    assert f"{package}/py.typed" in tracked()


@pytest.mark.parametrize("folder", ["sources", "sinks", "windows"])
def test_a_folder_of_implementations_says_how_to_write_one(folder: str) -> None:
    assert f"{folder}/README.md" in tracked()


@pytest.mark.parametrize("module", CONTRACTS)
def test_public_names_of_contracts_have_docstrings(module: str) -> None:
    tree = parsed(ROOT / "streamproc" / f"{module}.py")
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert ast.get_docstring(tree), f"{module} says nothing about itself"
    assert [n.name for n in public if not ast.get_docstring(n)] == []


def test_every_product_folder_is_a_package() -> None:
    """Import-linter does not look into a folder without `__init__.py`, and says nothing about it."""
    folders = {path.parent for path in python_files()}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_every_module_of_the_engine_has_a_place_in_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    placed = set(re.findall(r"streamproc\.(\w+)", " ".join(contracts[0]["layers"])))
    children = {p.split("/")[1].removesuffix(".py") for p in tracked() if re.fullmatch(r"streamproc/(\w+\.py|\w+/__init__\.py)", p)}
    assert children - placed == {"__init__"}


def test_every_product_module_says_what_it_is() -> None:
    assert [str(p.relative_to(ROOT)) for p in python_files() if not ast.get_docstring(parsed(p))] == []


def test_functions_are_typed() -> None:
    untyped = [
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name}"
        for path in python_files()
        for f in functions(path)
        if f.returns is None
        or any(a.annotation is None and a.arg not in ("self", "cls") for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs))
    ]
    assert untyped == []


@pytest.mark.parametrize("job", sorted((ROOT / "deploy" / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_job_passes_its_own_tests(job: Path) -> None:
    results = run_job_tests(job)
    assert results, "an example without a test"
    assert [(r.name, r.line, r.failure) for r in results if r.failure is not None] == []
