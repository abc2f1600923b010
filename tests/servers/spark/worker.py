"""Runs inside Spark's own virtual environment: questions as JSON lines on stdin, answers as JSON lines on stdout.

    {"tables": {"t": [Arrow IPC stream in base64 of all rows, of row 0, of row 1, …]}}   → {"tables": 1}
    {"zone": "UTC", "table": "t", "expressions": ["a + b"]}                              → {"answers": [ANSWER]}
    {"zone": "UTC", "queries": ["SELECT …"]}                                             → {"answers": [ANSWER]}
    {"stream": {"sources": {"a": {"schema": DDL, "column": "ts", "delay": "10 seconds"}}, "mode": MODE, "query": SQL,
                "dedup": {"table": "a", "columns": ["k"], "within": false}, "steps": [{"a": [JSON row]}]}}
        → {"steps": [rows of a step]}, or {"refused": class}

ANSWER is {"type": Spark's type, "rows": [value or {"error": class}]}, or {"refused": class} if Spark does not take the SQL.
A query's type is a struct, and its rows are lists. An expression is evaluated over local relations, without a Spark job.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import py4j.java_gateway
import py4j.protocol
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.warehouse.dir": "/nonexistent",
}


class Worker:
    def __init__(self) -> None:
        builder = SparkSession.builder.master("local[1]")
        for key, value in _SETTINGS.items():
            builder = builder.config(key, value)
        self._spark = builder.getOrCreate()
        self._spark.sparkContext.setLogLevel("OFF")
        self._rows: dict[str, int] = {}
        py4j.java_gateway.get_return_value = py4j.protocol.get_return_value  # pyspark's makes an error of 100 ms of each Java error

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if "tables" in question:
            for name, parts in question["tables"].items():
                self._register(name, parts)
            return {"tables": len(question["tables"])}
        self._spark.conf.set("spark.sql.session.timeZone", question.get("zone", "UTC"))
        if "stream" in question:
            with tempfile.TemporaryDirectory() as folder:
                return self._stream(question["stream"], Path(folder))
        if "queries" in question:
            return {"answers": [self._query(sql) for sql in question["queries"]]}
        return {"answers": [self._expression(question["table"], sql) for sql in question["expressions"]]}

    def _register(self, name: str, parts: list[str]) -> None:
        """Views `name` and, of one row each, `name__0`, `name__1`, …"""
        for index, part in enumerate(parts, -1):
            table = pa.ipc.open_stream(io.BytesIO(base64.b64decode(part))).read_all()
            self._spark.createDataFrame(table, from_arrow_schema(table.schema, prefer_timestamp_ntz=True)).createOrReplaceTempView(
                name if index < 0 else f"{name}__{index}"
            )
        self._rows[name] = len(parts) - 1

    def _expression(self, table: str, sql: str) -> dict[str, Any]:
        try:
            frame = self._spark.sql(f"SELECT {sql} AS x FROM {table}")
        except Py4JJavaError as error:
            return {"refused": error_class(error)}
        try:
            rows = [encode(row[0]) for row in frame.collect()]
        except (Py4JJavaError, ValueError, OverflowError):  # one of the rows: which?
            rows = [self._one(f"SELECT {sql} AS x FROM {table}__{index}") for index in range(self._rows[table])]
        return {"type": frame.schema[0].dataType.simpleString(), "rows": rows}

    def _one(self, sql: str) -> Any:
        try:
            return encode(self._spark.sql(sql).collect()[0][0])
        except Py4JJavaError as error:
            return {"error": error_class(error)}
        except (ValueError, OverflowError) as error:  # Python's datetime ends with the year 9999
            return {"beyond": str(error)}

    def _query(self, sql: str) -> dict[str, Any]:
        try:
            frame = self._spark.sql(sql)
        except Py4JJavaError as error:
            return {"refused": error_class(error)}
        try:
            rows: Any = [[encode(value) for value in row] for row in frame.collect()]
        except Py4JJavaError as error:
            rows = {"error": error_class(error)}
        return {"type": frame.schema.simpleString(), "rows": rows}

    def _stream(self, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Each step's rows are a file a source; after each, everything is processed, also batches without rows."""
        for name, source in asked["sources"].items():
            (folder / name).mkdir()
            rows = self._spark.readStream.schema(source["schema"]).json(str(folder / name))
            rows.withWatermark(source["column"], source["delay"]).createOrReplaceTempView(name)
        written: list[Any] = []
        try:
            if dedup := asked.get("dedup"):
                table = self._spark.table(dedup["table"])
                drop = table.dropDuplicatesWithinWatermark if dedup["within"] else table.dropDuplicates
                drop(dedup["columns"] or None).createOrReplaceTempView("deduplicated")
            frame = self._spark.sql(asked["query"])
            keep = lambda batch, _: written.extend([encode(value) for value in row] for row in batch.collect())  # noqa: E731
            query = frame.writeStream.outputMode(asked["mode"]).foreachBatch(keep).option("checkpointLocation", str(folder / "log")).start()
        except (Py4JJavaError, AnalysisException) as error:
            return {"refused": error_class(error) if isinstance(error, Py4JJavaError) else error.getCondition()}
        steps = []
        for number, step in enumerate(asked["steps"]):
            for name, rows in step.items():
                (folder / f"{name}-{number}").write_text("\n".join(map(json.dumps, rows)))
                (folder / f"{name}-{number}").rename(folder / name / f"{number:05}.json")
            query.processAllAvailable()
            steps.append(written[:])
            written.clear()
        query.stop()
        return {"steps": steps}


def error_class(error: Py4JJavaError) -> str:
    """Spark's error condition, or the class of an error without one."""
    java = error.java_exception
    try:
        return str(java.getCondition())
    except py4j.protocol.Py4JError:
        return str(java.getClass().getSimpleName())


def encode(value: Any) -> Any:
    """JSON of a value: fractions, decimals and times as text, structs as lists, maps as sorted pairs."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, dict):
        return sorted(([encode(k), encode(v)] for k, v in value.items()), key=json.dumps)
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    return repr(value) if isinstance(value, float) else format(value, "f") if hasattr(value, "as_tuple") else str(value)


def main() -> None:
    worker = Worker()
    print(json.dumps({"ready": worker._spark.version}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
