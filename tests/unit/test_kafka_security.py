"""Keys of `security:` → settings of the client, and tokens."""

import base64
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from sources.kafka import KafkaOptions
from streamproc.clients.kafka.security import KafkaSecurity, client_settings, msk_iam_token
from streamproc.errors import Unavailable

SECRET = "secret://env/KAFKA_TEST_PASSWORD"


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("KAFKA_TEST_PASSWORD", "hush")


@pytest.mark.parametrize(
    ("keys", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"ca_file": "ca.pem"}, "SSL"),
        ({"mechanism": "SCRAM-SHA-256", "username": "a", "password": SECRET}, "SASL_SSL"),
        ({"protocol": "SASL_PLAINTEXT", "mechanism": "GSSAPI"}, "SASL_PLAINTEXT"),
    ],
)
def test_the_protocol_follows_from_the_other_keys(keys, protocol):
    assert KafkaSecurity(**keys).effective_protocol == protocol


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"mechanism": "PLAIN", "username": "a"}, "needs username and password"),
        ({"mechanism": "OAUTHBEARER"}, "needs token"),
        ({"protocol": "SSL", "mechanism": "GSSAPI"}, "write SASL_PLAINTEXT or SASL_SSL"),
        ({"protocol": "SASL_SSL"}, "needs a mechanism"),
        ({"mechanism": "PLAIN", "username": "a", "password": "literal"}, "never as a literal"),
        ({"mechanism": "DIGEST"}, "SCRAM-SHA-512"),
    ],
)
def test_faults_say_what_to_write(keys, text):
    with pytest.raises(ValidationError, match=text) as caught:
        KafkaSecurity(**keys)
    assert "hush" not in str(caught.value)


def test_settings_of_scram():
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", mechanism="SCRAM", username="a", password=SECRET)
    settings = client_settings(security)
    assert settings["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (settings["sasl_plain_username"], settings["sasl_plain_password"]) == ("a", "hush")
    assert "hush" not in repr(security)


async def test_a_token_is_read_again_at_each_connection(tmp_path):
    file = tmp_path / "token"
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", mechanism="OAUTHBEARER", token=f"secret://file{file}")
    provider = client_settings(security)["sasl_oauth_token_provider"]
    for token in ("one", "two"):
        file.write_text(token + "\n")
        assert await provider.token() == token


def test_msk_iam_token_is_a_presigned_connect(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    token = msk_iam_token("eu-west-1")
    assert "=" not in token
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc, url.path) == ("https", "kafka.eu-west-1.amazonaws.com", "/")
    assert (query["Action"], query["X-Amz-Expires"], query["X-Amz-Algorithm"]) == ("kafka-cluster:Connect", "900", "AWS4-HMAC-SHA256")
    assert query["X-Amz-Credential"].startswith("AKIDEXAMPLE/")
    assert query["X-Amz-Credential"].endswith("/eu-west-1/kafka-cluster/aws4_request")
    assert query["X-Amz-Security-Token"] == "session"
    assert len(query["X-Amz-Signature"]) == 64
    assert query["User-Agent"] == "streamproc"


def test_msk_iam_without_credentials_or_region_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="no AWS credentials"):
        msk_iam_token("eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(Unavailable, match=r"security\.region"):
        msk_iam_token(None)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "either topic or topic_pattern"),
        ({"topic": "a", "topic_pattern": "b"}, "either topic or topic_pattern"),
        ({"topic_pattern": "("}, "not a regular expression"),
        ({"topic": "a b"}, "pattern"),
        ({"topic": "a", "on_data_loss": "latest"}, "earliest"),
    ],
)
def test_faults_of_the_source(keys, text):
    with pytest.raises(ValidationError, match=text):
        KafkaOptions(type="kafka", bootstrap_servers="x:1", **keys)
