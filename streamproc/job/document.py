"""The YAML of a job file: values by YAML 1.2's core schema (and ISO times), each with its line, `${VAR}` replaced.

Source of the format: YAML 1.2 §10.3 (core schema), https://yaml.org/type/timestamp.html for times, /merge.html for `<<`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import yaml

from streamproc.job.variables import Variables

Path = tuple[str | int, ...]
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 200_000
_TAG = "tag:yaml.org,2002:"


def is_sql(path: Path) -> bool:
    """Whether the value at `path` of a job file is SQL, in which `${` means nothing."""
    if len(path) == 2:
        return path[0] == "views"
    return len(path) >= 3 and path[0] in ("sinks", "tables") and path[-1] == "query"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: `line` (1-based) is its key's line for a mapping or list, its own for a scalar.
    `option` is the `--set` that put it there.
    """

    line: int
    node: yaml.Node
    option: str | None = None


@dataclass
class Document:
    """A parsed job file. `value` is plain data, without keys whose value became empty; `faults` are (line, message)."""

    text: str = field(repr=False)
    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict, repr=False)
    faults: list[tuple[int, str]] = field(default_factory=list)
    failed: set[Path] = field(default_factory=set, repr=False)
    """Values that are absent because a fault was found in them."""

    def place(self, path: Path) -> Place | None:
        """The place of the nearest thing around `path` that stands in the file."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path)

    def line(self, path: Path) -> int:
        place = self.place(path)
        return place.line if place else 1

    def option(self, path: Path) -> str | None:
        place = self.place(path)
        return place.option if place else None

    def line_in(self, path: Path, line: int) -> int:
        """Line of the file of the 0-based `line` of the text at `path`, whatever its style."""
        place = self.places.get(path)
        if place is None or not isinstance(place.node, yaml.ScalarNode) or place.option:
            return self.line(path)
        return _line_in_scalar(self.text, place.node, line)


class _Loader(yaml.SafeLoader):
    """Composes nodes; what a plain scalar is, is said by YAML 1.2's core schema, not by PyYAML's 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own attribute

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_INSTANT = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[Tt]|[ \t]+)(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,30}))?[ \t]*(Z|[+-]\d{1,2}(?::?\d{2})?)?")
for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "timestamp": rf"\d{{4}}-\d{{2}}-\d{{2}}|{_INSTANT.pattern}",
    "merge": r"<<",
}.items():
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), None)


def _null(_text: str) -> None:
    return None


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("not true or false")
    return text.lower() == "true"


def _int(text: str) -> int:
    if text.lower().startswith(("0o", "0x")):
        return int(text, 0)
    return int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _timestamp(text: str) -> datetime | date | str:
    """The instant or date; text that only looks like one (day 32) stays text, for whoever needs a time to refuse it."""
    match = _INSTANT.fullmatch(text)
    try:
        if match is None:
            return date.fromisoformat(text)
        year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
        micros = int((match[7] or "0")[:6].ljust(6, "0"))
        return datetime(year, month, day, hour, minute, second, micros, _zone(match[8]))
    except ValueError:
        return text


def _zone(text: str | None) -> timezone | None:
    if text is None or text == "Z":
        return UTC if text else None
    hours, _, minutes = text[1:].partition(":") if ":" in text else (text[1:3], "", text[3:])
    ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-ahead if text[0] == "-" else ahead)


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64 ({error})") from None


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": _null, "bool": _bool, "int": _int, "float": _float, "timestamp": _timestamp, "binary": _binary, "str": str, "merge": str,
}  # fmt: skip
_ABSENT = object()


class _Stop(Exception):
    """The document is too large to look at further."""


def read_document(text: str, environment: Mapping[str, str] | None, overrides: Sequence[str]) -> Document:
    """Parse a job file; faults of the YAML, of `${VAR}` and of `--set` are in the document's `faults`.
    Without an environment, variables stay as they are written.
    """
    document = Document(text)
    if len(text) > MAX_CHARACTERS:
        document.faults.append((1, f"the file is longer than {MAX_CHARACTERS:,} characters"))
        return document
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        document.faults.append((_mark_line(error), f"not valid YAML: {_problem(text, error)}"))
    except yaml.YAMLError as error:
        document.faults.append((_reader_line(text, error), f"not valid YAML: {getattr(error, 'reason', error)}"))
    else:
        _build(document, root, None if environment is None else Variables(environment), overrides)
    return document


def _build(document: Document, root: yaml.Node | None, variables: Variables | None, overrides: Sequence[str]) -> None:
    builder = _Builder(document, variables)
    if root is None and overrides:
        root = yaml.MappingNode(_TAG + "map", [], _start(), _start())
    if root is None:
        document.faults.append((1, "the file is empty; write at least sources and sinks"))
        return
    for override in overrides:
        builder.override(root, override)
    try:
        value = builder.value(root, (), root.start_mark.line + 1)
        document.value = None if value is _ABSENT else value
    except _Stop:
        document.faults.append((1, f"the file has more than {MAX_NODES:,} values once its aliases are followed"))


class _Builder:
    """Nodes to plain data, noting places on the way."""

    def __init__(self, document: Document, variables: Variables | None) -> None:
        self._document = document
        self._variables = variables
        self._nodes = 0
        self._options: dict[int, str] = {}

    def value(self, node: yaml.Node, path: Path, line: int, option: str | None = None) -> Any:
        self._spend()
        option = self._options.get(id(node), option)
        if len(path) > MAX_DEPTH:
            self._fault(line, f"nested deeper than {MAX_DEPTH} levels (an alias inside its own anchor?)")
            return _ABSENT
        here = node.start_mark.line + 1 if isinstance(node, yaml.ScalarNode) and not option else line
        self._document.places[path] = Place(here, node, option)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, here)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            return self._refuse_tag(node, line)
        return self._mapping(node, path, line, option) if isinstance(node, yaml.MappingNode) else self._sequence(node, path, option)

    def _scalar(self, node: yaml.ScalarNode, path: Path, line: int) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _SCALARS:
            return self._refuse_tag(node, line)
        try:
            value = _SCALARS[kind](node.value)
            if not isinstance(value, str) or is_sql(path) or self._variables is None:
                return value
            return self._variables.replace(value) or (_ABSENT if "${" in value else value)
        except ValueError as error:
            self._document.failed.add(path)
            self._fault(line, f"{_shown(path)}: {_int_reason(error)}")
            return _ABSENT

    def _sequence(self, node: yaml.Node, path: Path, option: str | None) -> list[Any]:
        items: list[Any] = []
        for child in node.value:
            value = self.value(child, (*path, len(items)), child.start_mark.line + 1, option)
            if value is not _ABSENT:
                items.append(value)
        return items

    def _mapping(self, node: yaml.MappingNode, path: Path, line: int, option: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, child in self._pairs(node, line, 0).items():
            value = self.value(child.node, (*path, key), child.line, option)
            if value is not _ABSENT:
                found[key] = value
        return found

    def _pairs(self, node: yaml.MappingNode, line: int, depth: int) -> dict[str, Place]:
        """Keys to value nodes with the keys' lines; own keys win over merged ones (`<<`), earlier merges over later."""
        own: dict[str, Place] = {}
        merged: dict[str, Place] = {}
        for key, child in node.value:
            self._spend()
            at = key.start_mark.line + 1
            if key.tag == _TAG + "merge":
                for source in self._merge_sources(child, at, depth):
                    for name, place in self._pairs(source, at, depth + 1).items():
                        merged.setdefault(name, place)
            elif not isinstance(key, yaml.ScalarNode):
                self._fault(at, "a key must be plain text")
            elif key.value in own:
                self._fault(at, f"key {key.value!r} stands twice in this mapping (first in line {own[key.value].line})")
            else:
                own[key.value] = Place(at, child)
        return {**merged, **own}

    def _merge_sources(self, node: yaml.Node, line: int, depth: int) -> Iterator[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if depth > MAX_DEPTH or not all(isinstance(n, yaml.MappingNode) for n in nodes):
            self._fault(line, "<< takes a mapping or a list of mappings, and none that contains itself")
            return
        yield from nodes  # type: ignore[misc]  # all mappings, as tested above

    def override(self, root: yaml.Node, override: str) -> None:
        """Put the value of `a.b=c` where the path says, creating mappings on the way."""
        name, equals, text = override.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            self._fault(1, f"--set {override}: write --set key.key=value")
            return
        node = self._descend(root, parts[:-1], override)
        if node is not None:
            self._put(node, parts[-1], text, override)

    def _descend(self, node: yaml.Node, parts: list[str], override: str) -> yaml.Node | None:
        for part in parts:
            child = _child(node, part)
            if child is None and isinstance(node, yaml.MappingNode):
                child = yaml.MappingNode(_TAG + "map", [], node.start_mark, node.start_mark)
                self._options[id(child)] = f"--set {override}"
                node.value.append((yaml.ScalarNode(_TAG + "str", part, node.start_mark, node.start_mark), child))
            if not isinstance(child, yaml.CollectionNode):
                self._fault(node.start_mark.line + 1, f"--set {override}: {part!r} is not a mapping or list here")
                return None
            node = child
        return node

    def _put(self, node: yaml.Node, key: str, text: str, override: str) -> None:
        scalar = yaml.ScalarNode(_resolve(text), text, node.start_mark, node.start_mark)
        self._options[id(scalar)] = f"--set {override}"
        if isinstance(node, yaml.SequenceNode):
            if not key.isascii() or not key.isdigit() or len(key) > 6 or int(key) >= len(node.value):
                self._fault(node.start_mark.line + 1, f"--set {override}: the list has no item {key!r}; items count from 0")
                return
            node.value[int(key)] = scalar
            return
        kept = [(k, v) for k, v in node.value if k.value != key]
        at = next((k for k, _ in node.value if k.value == key), yaml.ScalarNode(_TAG + "str", key, node.start_mark, node.start_mark))
        node.value[:] = [*kept, (at, scalar)]

    def _refuse_tag(self, node: yaml.Node, line: int) -> Any:
        self._fault(line, f"tag {node.tag!r} is not allowed; only !!str, !!int, !!float, !!bool, !!null, !!timestamp and !!binary are")
        return _ABSENT

    def _spend(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Stop

    def _fault(self, line: int, message: str) -> None:
        self._document.faults.append((line, message))


def _child(node: yaml.Node, part: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((v for k, v in node.value if k.value == part), None)
    if part.isascii() and part.isdigit() and len(part) <= 6 and int(part) < len(node.value):
        return node.value[int(part)]  # type: ignore[no-any-return]  # types-PyYAML leaves node values open
    return None


def _resolve(text: str) -> str:
    loader = _Loader("")
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


def _start() -> yaml.Mark:
    return yaml.Mark("", 0, 0, 0, "", 0)


def _mark_line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _problem(text: str, error: yaml.MarkedYAMLError) -> str:
    said = [error.problem or error.context or str(error)]
    if error.problem and error.context:
        said.append(error.context)
    lines = text.splitlines()[: _mark_line(error)]
    if "cannot start any token" in said[0] or (lines and "${" in lines[-1]):
        said.append("quote the value")
    return ", ".join(said)


def _reader_line(text: str, error: yaml.YAMLError) -> int:
    at = getattr(error, "position", 0)
    return text.count("\n", 0, at if isinstance(at, int) else 0) + 1


def _int_reason(error: ValueError) -> str:
    return "a number has too many digits" if "integer string conversion" in str(error) else str(error)


def _shown(path: Path) -> str:
    return ".".join(map(str, path)) or "the file"


def _line_in_scalar(text: str, node: yaml.ScalarNode, line: int) -> int:
    """Lines of a literal block are lines of the file. Folded styles join lines, so the place is found by counting the
    characters that folding keeps: all but white space.
    """
    first = node.start_mark.line + 1
    if node.style == "|":
        return first + 1 + line
    wanted = sum(not c.isspace() for c in "".join(node.value.split("\n")[:line]))
    begin = text.find("\n", node.start_mark.index) + 1 if node.style == ">" else node.start_mark.index + (node.style is not None)
    at = first + (node.style == ">")
    for character in text[begin : node.end_mark.index]:
        if character == "\n":
            at += 1
        elif not character.isspace():
            if wanted == 0:
                return at
            wanted -= 1
    return at
