"""`streamproc infer` over servers: samples of a Kafka topic and of a Kinesis stream."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from aiobotocore.session import get_session
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamproc.errors import StreamprocError
from streamproc.infer import propose

ROWS = [{"user": f"u{i}", "ts": f"2026-01-01T00:00:{10 + i % 40}.5Z", "o": {"n": i}} for i in range(200)]
PAYLOADS = [json.dumps(row).encode() for row in ROWS]
SCHEMA = "user STRING,\nts TIMESTAMP,\no STRUCT<n: BIGINT>"


async def proposed(folder, keys):
    file = folder / "clicks.yaml"
    file.write_text(yaml.safe_dump(keys))
    snippet = await propose(str(file))
    assert "from 200 records of 2 shards" in snippet
    return yaml.safe_load(snippet)["sources"]["clicks"]


async def test_a_kafka_topic(noida_broker, tmp_path):
    topic = f"infer-{time.time_ns()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=noida_broker.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=noida_broker.bootstrap_servers)
    await producer.start()
    for i, payload in enumerate(PAYLOADS):
        await producer.send(topic, payload, partition=i % 2)
    await producer.stop()
    found = await proposed(tmp_path, {"type": "kafka", "topic": topic, "bootstrap_servers": noida_broker.bootstrap_servers})
    assert found["schema"] == SCHEMA
    assert found["watermark"] == {"column": "ts", "delay": "5 minutes"}  # 39 s were seen, twice that is 78 s


async def test_a_kinesis_stream(kinesis, tmp_path, monkeypatch):
    for name, value in kinesis.items():
        monkeypatch.setenv(name, value)
    stream = f"infer-{time.time_ns()}"
    async with get_session().create_client("kinesis", region_name="us-east-1") as client:
        await client.create_stream(StreamName=stream, ShardCount=2)
        records = [{"Data": payload, "PartitionKey": str(i)} for i, payload in enumerate(PAYLOADS)]
        await client.put_records(StreamName=stream, Records=records)
    found = await proposed(tmp_path, {"type": "kinesis", "stream": stream, "region": "us-east-1"})
    assert found["schema"] == SCHEMA
    assert found["watermark"]["column"] == "ts"


async def test_a_server_that_is_away(tmp_path):
    file = tmp_path / "clicks.yaml"
    file.write_text(yaml.safe_dump({"type": "kafka", "topic": "t", "bootstrap_servers": "127.0.0.1:9"}))
    with pytest.raises(StreamprocError):
        await propose(str(file))
