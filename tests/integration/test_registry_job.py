"""A whole job over Avro in Confluent's wire format: a broker, a registry over a socket, and dead letters that can be replayed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import pytest
import yaml
from aiokafka import AIOKafkaProducer

SCHEMAS = {
    1: {"type": "record", "name": "Click", "fields": [{"name": "user", "type": "string"}, {"name": "n", "type": "int"}]},
    2: {"type": "record", "name": "Click", "fields": [{"name": "n", "type": ["null", "long"]}, {"name": "user", "type": "string"}]},
}


class Registry(BaseHTTPRequestHandler):
    def do_GET(self):
        schema = SCHEMAS.get(int(self.path.rpartition("/")[2]))
        self.send_response(200 if schema else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"schema": json.dumps(schema)}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def registry():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def payload(schema_id, record):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMAS[schema_id]), record)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


async def test_records_of_two_schemas_become_rows_and_others_dead_letters(noida_broker, registry, tmp_path):
    topic = f"avro-{time.time_ns()}"
    unknown = b"\0\0\0\0\x09\x02a"
    producer = AIOKafkaProducer(bootstrap_servers=noida_broker.bootstrap_servers)
    await producer.start()
    for value in (payload(1, {"user": "a", "n": 1}), unknown, payload(2, {"user": "b", "n": None}), b"{}"):
        await producer.send_and_wait(topic, value)
    await producer.stop()
    job = tmp_path / "job.yaml"
    source = {
        "type": "kafka", "topic": topic, "bootstrap_servers": noida_broker.bootstrap_servers, "format": "avro", "schema_registry": registry,
        "schema": "n BIGINT, user STRING", "bad_records": "dead_letter",
    }  # fmt: skip
    sinks = {"out": {"type": "files", "path": f"{tmp_path}/out", "format": "json", "query": "SELECT user, n FROM clicks"}}
    letters = {"type": "files", "path": f"{tmp_path}/dead"}
    keys = {"sources": {"clicks": source}, "sinks": sinks, "dead_letter": letters, "checkpoint": f"{tmp_path}/checkpoint"}
    job.write_text(yaml.safe_dump(keys))
    command = [sys.executable, "-m", "streamproc", "run", str(job), "--available-now"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [(row["user"], row.get("n")) for row in rows(tmp_path / "out")] == [("a", 1), ("b", None)]
    assert [(letter["reason"], letter["offset"]) for letter in rows(tmp_path / "dead")] == [("unknown_schema", "1"), ("no_schema_id", "3")]


def rows(folder):
    return [json.loads(line) for file in sorted(folder.glob("*.json")) for line in file.read_text().splitlines()]
