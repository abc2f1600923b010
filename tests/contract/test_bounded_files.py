"""Bounded tables in files: what is there is read whole, and a version changes with what is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sources.bounded_files import BoundedFiles
from streamproc.bounded import Snapshot
from streamproc.errors import BadRecord, Unavailable
from streamproc.schema import parse_ddl
from streamproc.world import World

DDL = "user STRING, n INT"


def table(path: Path | str, ddl: str = DDL, wanted: str = DDL, **keys: Any) -> BoundedFiles:
    options = BoundedFiles.Options(path=str(path), schema=ddl, **keys)
    return BoundedFiles(options, parse_ddl(wanted), World(), "users", "UTC")


async def read(users: BoundedFiles) -> Snapshot:
    found = await users.read()
    assert found is not None
    return found


async def test_json_files_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"user": "b", "n": 2}\n')
    (tmp_path / "a.json").write_text('{"user": "a", "n": 1}\n{"user": "c"}\n')
    (tmp_path / "_SUCCESS").write_text("done")
    assert (await read(table(tmp_path))).rows.to_pylist() == [{"user": "a", "n": 1}, {"user": "c", "n": None}, {"user": "b", "n": 2}]


async def test_csv_with_a_header_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("user;n\na;1\nb;\n")
    users = table(file, format="csv", csv={"header": True, "delimiter": ";"})
    assert (await read(users)).rows.to_pylist() == [{"user": "a", "n": 1}, {"user": "b", "n": None}]


async def test_parquet_by_a_glob_brought_to_the_schema(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    pq.write_table(pa.table({"x": [0.5], "user": ["a"], "n": pa.array([7], pa.int16())}), tmp_path / "day=1" / "p.parquet")
    (tmp_path / "day=1" / "notes.txt").write_text("not parquet")
    rows = (await read(table(tmp_path / "*" / "*.parquet", format="parquet"))).rows
    assert rows.schema.equals(parse_ddl(DDL))
    assert rows.to_pylist() == [{"user": "a", "n": 7}]


async def test_columns_that_nobody_reads_are_not_judged(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("a,many\n")
    assert (await read(table(tmp_path, wanted="user STRING", format="csv"))).rows.to_pylist() == [{"user": "a"}]


async def test_a_version_changes_with_the_files(tmp_path: Path) -> None:
    file = tmp_path / "u.json"
    file.write_text('{"user": "a"}\n')
    users = table(tmp_path)
    first = await read(users)
    assert await users.read(first.version) is None
    assert await table(tmp_path).read(first.version) is None
    changed = tmp_path / ".new"
    changed.write_text('{"user": "b"}\n')
    os.replace(changed, file)
    second = await users.read(first.version)
    assert second is not None
    assert second.rows.to_pylist() == [{"user": "b", "n": None}]
    (tmp_path / "v.json").write_text('{"user": "v"}\n')
    third = await users.read(second.version)
    assert third is not None
    assert len({first.version, second.version, third.version}) == 3


async def test_no_file_is_no_empty_table(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(Unavailable, match=r"table users: .* holds no file"):
            await table(place).read()
    (tmp_path / "u.json").write_text("\n")
    assert (await read(table(tmp_path))).rows.num_rows == 0


async def test_a_value_that_does_not_fit_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "u.json").write_text('{"user": "a"}\n\n{"user": "b", "n": "many"}\n')
    with pytest.raises(BadRecord, match=r"table users: .* u\.json line 3: "):
        await table(tmp_path).read()
    with pytest.raises(BadRecord, match=r"table users: .* u\.json cannot be read: "):
        await table(tmp_path, format="parquet").read()


async def test_a_change_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u.json").write_text('{"user": "a"}\n')
    users = table(tmp_path)
    opened = users.folder.open

    def opening(name: str) -> Any:
        (tmp_path / "v.json").write_text('{"user": "v"}\n')
        return opened(name)

    monkeypatch.setattr(users.folder, "open", opening)
    with pytest.raises(Unavailable, match="changed while it was read"):
        await users.read()
