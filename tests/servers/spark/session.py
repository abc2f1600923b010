"""A real Spark session (local, ANSI on) for tests: SQL in, values or error classes out.

    python tests/servers/spark/session.py install

Needs Java 17; pyspark comes from PyPI into a virtual environment below ${XDG_CACHE_HOME:-~/.cache}/streamproc.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

VERSION = "4.2.0"
_HERE = Path(__file__).parent


class Unobtainable(Exception):
    """Java is not here, or PyPI is out of reach."""


class SparkSession:
    """The process, from `start` to `stop` or as a context manager. Calls block; one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> SparkSession:
        """Start it and wait until it answers; Unobtainable if it cannot be installed, RuntimeError if it does not start."""
        python = install()
        environment = os.environ | {"TZ": "UTC", "PYSPARK_PYTHON": str(python), "SPARK_LOCAL_IP": "127.0.0.1"}
        self._process = subprocess.Popen(
            [python, _HERE / "worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment, cwd=tempfile.gettempdir(),
        )  # fmt: skip
        self._read()
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def register(self, tables: Mapping[str, pa.Table]) -> None:
        self._ask({"tables": {name: [_ipc(table), *map(_ipc, _rows(table))] for name, table in tables.items()}})

    def evaluate(self, table: str, expressions: Sequence[str], zone: str = "UTC") -> list[Any]:
        """An answer per expression (see worker.py), each row of `table` for itself."""
        return list(self._ask({"zone": zone, "table": table, "expressions": list(expressions)})["answers"])

    def query(self, queries: Sequence[str], zone: str = "UTC") -> list[Any]:
        """An answer per query: its type is a struct, its rows are lists of values."""
        return list(self._ask({"zone": zone, "queries": list(queries)})["answers"])

    def stream(self, asked: Mapping[str, Any]) -> Any:
        """What Structured Streaming writes after each step, as worker.py says."""
        return self._ask({"stream": asked})

    def _ask(self, question: Mapping[str, Any]) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"Spark ended with {self._process.wait()}")

    def __enter__(self) -> SparkSession:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<SparkSession {VERSION}{' stopped' * (self._process is None)}>"


def install() -> Path:
    """The Python of the virtual environment with pyspark, which the first call makes."""
    if shutil.which("java") is None:
        raise Unobtainable("Spark needs Java 17: no java on the path")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "streamproc")
    folder = cache / f"spark-{VERSION}"
    if not (folder / "installed").exists():
        cache.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "-q", "-r", str(_HERE / "requirements.txt")])
        (folder / "installed").touch()
    return folder / "bin" / "python"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Unobtainable(f"{command[0]} failed: {done.stdout.decode(errors='replace')[-2000:]}")


def _rows(table: pa.Table) -> list[pa.Table]:
    return [table.slice(index, 1) for index in range(table.num_rows)]


def _ipc(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode()


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    print(install())
