"""The `tests:` of a job file: their steps as values, checked against the job's own names and columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamproc.job.document import Path
from streamproc.job.faults import Faults, nearest
from streamproc.job.keys import AddKeys, ReshardKeys, StepKeys, TestKeys
from streamproc.job.model import Added, Reshard, SourceSpec, StepPayload, TableSpec, TestCase, TestStep

SETTABLE = ("_key", "_partition_key", "_timestamp", "_headers")
"""Extra columns that a test may give its rows."""
_KINDS = tuple(StepKeys.model_fields)
_OF_SOURCES = ("add", "watermark", "reshard")
_OF_SINKS = ("expect", "state_rows", "late")


class TestReader:
    """Makes TestCases of validated keys; what does not fit the job goes to `faults`."""

    __test__ = False

    def __init__(
        self,
        faults: Faults,
        sources: Mapping[str, SourceSpec | None],
        tables: Mapping[str, TableSpec | None],
        sinks: Mapping[str, object],
    ) -> None:
        self._faults = faults
        self._sources = sources
        self._tables = tables
        self._sinks = sinks

    def read(self, tests: list[dict[str, Any]], line: Callable[[Path], int]) -> tuple[TestCase, ...]:
        read = [self._test(test, ("tests", i), line) for i, test in enumerate(tests)]
        return tuple(test for test in read if test is not None)

    def _test(self, given: dict[str, Any], path: Path, line: Callable[[Path], int]) -> TestCase | None:
        test = self._faults.validate(TestKeys, given, path)
        steps = given.get("steps")
        read = self._steps(steps, (*path, "steps"), line) if isinstance(steps, list) else ()
        if test is None:
            return None
        for name, given_rows in test.tables.items():
            self._table(name, given_rows, (*path, "tables", name))
        rows = {name: tuple(rows) for name, rows in test.tables.items()}
        return TestCase(test.name, line(path), test.clock, rows, read)

    def _table(self, name: str, rows: list[dict[str, Any]], path: Path) -> None:
        self._known(name, self._tables, "table", path)
        table = self._tables.get(name)
        for i, row in enumerate(rows if table is not None else ()):
            assert table is not None
            for column in row.keys() - set(table.schema.names):
                self._faults.add((*path, i, column), f"table {name!r} has no column {column!r}{nearest(column, table.schema.names)}")

    def _steps(self, steps: list[Any], path: Path, line: Callable[[Path], int]) -> tuple[TestStep, ...]:
        read = []
        for i, given in enumerate(steps):
            step = self._step(given, (*path, i), line((*path, i))) if isinstance(given, dict) else None
            if step is not None and step.kind == "fails" and i < len(steps) - 1:
                self._faults.add((*path, i, "fails"), "fails must be the last step: the job has stopped")
            read += [step] if step is not None else []
        return tuple(read)

    def _step(self, given: dict[str, Any], path: Path, line: int) -> TestStep | None:
        keys = self._faults.validate(StepKeys, given, path)
        if len(given) != 1:
            said = f"has {' and '.join(given)}; write a list item for each" if given else f"is empty; write one of {', '.join(_KINDS)}"
            self._faults.add(path, f"a step {said}")
        kind = next(iter(given), "")
        if keys is None or len(given) != 1 or given[kind] is None:
            self._refuse_nothing(given, path)
            return None
        value = getattr(keys, kind)
        if kind in _OF_SOURCES + _OF_SINKS:
            names: Mapping[str, object] = self._sources if kind in _OF_SOURCES else self._sinks
            for name in value:
                self._known(name, names, "source" if kind in _OF_SOURCES else "sink", (*path, kind, name))
        return TestStep(kind, line, self._payload(kind, value, (*path, kind)))  # type: ignore[arg-type]  # a key of StepKeys

    def _refuse_nothing(self, given: dict[str, Any], path: Path) -> None:
        for kind, value in given.items():
            if value is None and kind in _KINDS:
                self._faults.add((*path, kind), f"{kind} has no value" + ("; write restart: {}" if kind == "restart" else ""))

    def _payload(self, kind: str, value: Any, path: Path) -> StepPayload:
        if kind == "add":
            return {name: self._added(name, keys, (*path, name)) for name, keys in value.items()}
        if kind == "expect":
            return {name: tuple(rows) for name, rows in value.items()}
        if kind == "reshard":
            return {name: self._reshard(keys, (*path, name)) for name, keys in value.items()}
        if kind == "watermark":
            self._watermarked(value, path)
        return None if kind == "restart" else value

    def _added(self, name: str, keys: AddKeys, path: Path) -> Added:
        source = self._sources.get(name)
        if source is not None:
            known = {*source.schema.names, *SETTABLE}
            for i, row in enumerate(keys.rows):
                for column in row.keys() - known:
                    self._faults.add(self._row(path, i, column), f"source {name!r} has no column {column!r}{nearest(column, known)}")
        raw = tuple(item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item for item in keys.raw)
        return Added(str(keys.shard), tuple(keys.rows), raw)

    def _row(self, path: Path, index: int, column: str) -> Path:
        direct: Path = (*path, index, column)
        return direct if self._faults.stands(direct) else (*path, "rows", index, column)

    def _watermarked(self, value: Mapping[str, int | None], path: Path) -> None:
        for name in value:
            source = self._sources.get(name)
            if source is not None and source.options.watermark is None:
                self._faults.add((*path, name), f"source {name!r} has no watermark: declare one or remove the step")

    def _reshard(self, keys: ReshardKeys, path: Path) -> Reshard:
        given = [kind for kind in ("split", "merge", "add") if getattr(keys, kind) is not None]
        if len(given) != 1:
            self._faults.add(path, "a reshard is exactly one of split, merge and add")
            return Reshard("add", (), ())
        kind, value = given[0], getattr(keys, given[0])
        shards = (value,) if isinstance(value, str) else tuple(value)
        into = self._into(keys, {"split": (f"{shards[0]}-0", f"{shards[0]}-1"), "merge": ("+".join(shards),), "add": shards}[kind])
        if len(into) != (2 if kind == "split" else 1) or len({*into, *shards}) != len(into) + len(shards) * (kind != "add"):
            self._faults.add(path, f"{kind} needs {'two names' if kind == 'split' else 'one name'} in into, all different")
        if kind == "add" and keys.into is not None:
            self._faults.add((*path, "into"), "add names the new shard itself; remove into")
        return Reshard(kind, shards, into)  # type: ignore[arg-type]  # one of the three

    def _into(self, keys: ReshardKeys, default: tuple[str, ...]) -> tuple[str, ...]:
        if keys.into is None:
            return default
        return (keys.into,) if isinstance(keys.into, str) else tuple(keys.into)

    def _known(self, name: str, known: Mapping[str, object], what: str, path: Path) -> None:
        if name not in known:
            self._faults.add(path, f"unknown {what} {name!r}{nearest(name, known)}")
