"""TLS and SASL against a real broker: who may in, and what is said to who may not."""

import base64
import json
import time

import pytest
from aiokafka import AIOKafkaProducer

from sources.kafka import Kafka, KafkaOptions
from streamproc.clients.kafka.security import KafkaSecurity
from streamproc.errors import InvalidJob, Unavailable
from streamproc.source import Shard
from streamproc.world import World

pytestmark = pytest.mark.kafka
USER, PASSWORD = "alice", "alice-secret"  # of tests/servers/kafka/broker.py


@pytest.fixture
async def topics(apache_kafka):
    """Lists the topics seen through a listener; KafkaOptions' keys as in a job file."""

    async def shards(listener, **security):
        keys = {key: value.replace("FILES", str(apache_kafka.directory)) for key, value in security.items()}
        options = KafkaOptions(
            type="kafka", topic_pattern="secure", bootstrap_servers=apache_kafka.address(listener), security=KafkaSecurity(**keys)
        )
        source = Kafka(options, World(), "s")
        try:
            return await source.shards()
        finally:
            await source.close()

    return shards


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    monkeypatch.setenv("RIGHT", PASSWORD)
    monkeypatch.setenv("WRONG", "no")
    monkeypatch.setenv("TOKEN", unsigned_token())


def unsigned_token():
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now_s = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': USER, 'iat': now_s, 'exp': now_s + 600})}."


CA = {"ca_file": "FILES/ca.pem"}
LOGIN = {"username": USER, "password": "secret://env/RIGHT"}
WRONG = LOGIN | {"password": "secret://env/WRONG"}
CLIENT = {"cert_file": "FILES/client.pem", "key_file": "FILES/client.key"}


@pytest.mark.parametrize(
    ("listener", "security"),
    [
        ("plain", {}),
        ("sasl", {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", **LOGIN}),
        ("sasl", {"protocol": "SASL_PLAINTEXT", "mechanism": "SCRAM-SHA-256", **LOGIN}),
        ("sasl", {"protocol": "SASL_PLAINTEXT", "mechanism": "SCRAM", **LOGIN}),
        ("sasl", {"protocol": "SASL_PLAINTEXT", "mechanism": "OAUTHBEARER", "token": "secret://env/TOKEN"}),
        ("ssl", CA),
        ("mtls", CA | CLIENT),
        ("saslssl", {"mechanism": "SCRAM-SHA-512", **LOGIN, **CA}),
    ],
)
async def test_the_right_credentials_are_let_in(topics, listener, security):
    assert await topics(listener, **security) == []


async def test_rows_of_many_bytes_come_over_tls(apache_kafka):
    values = [b"%d" % number * 10_000 for number in range(300)]
    async with AIOKafkaProducer(bootstrap_servers=apache_kafka.bootstrap_servers) as producer:
        for value in values:
            await producer.send("over-tls", value, partition=0)
    security = KafkaSecurity(ca_file=str(apache_kafka.directory / "ca.pem"))
    source = Kafka(
        KafkaOptions(type="kafka", topic="over-tls", bootstrap_servers=apache_kafka.address("ssl"), security=security), World(), "s"
    )
    reader, read = await source.open(Shard("0"), "-1"), []
    while len(read) < len(values):
        read += (await reader.read()).rows["_value"].to_pylist()
    await source.close()
    assert read == values


@pytest.mark.parametrize(
    ("listener", "security", "text"),
    [
        (
            "sasl",
            {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", **WRONG},
            "Invalid username or password",
        ),
        ("sasl", {"protocol": "SASL_PLAINTEXT", "mechanism": "SCRAM", **WRONG}, "invalid credentials"),
        ("ssl", {"protocol": "SSL"}, "certificate verify failed"),
        ("mtls", CA, "closed"),
    ],
)
async def test_the_wrong_ones_are_told_why(topics, listener, security, text):
    with pytest.raises(Unavailable, match=text) as caught:
        await topics(listener, **security)
    assert "secret" not in str(caught.value)


async def test_a_secret_or_file_that_is_missing_is_a_fault_of_the_job(topics):
    with pytest.raises(InvalidJob, match="secret://env/NOWHERE is not set"):
        await topics("sasl", protocol="SASL_PLAINTEXT", mechanism="PLAIN", username=USER, password="secret://env/NOWHERE")
    with pytest.raises(InvalidJob, match="No such file"):
        await topics("ssl", ca_file="FILES/none.pem")
