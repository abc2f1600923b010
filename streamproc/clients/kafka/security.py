"""How to prove who we are to a Kafka cluster: keys of the job file → settings of aiokafka's client."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any, Literal

from pydantic import Field, model_validator

from streamproc.errors import Unavailable
from streamproc.options import Options, Secret

Mechanism = Literal["PLAIN", "SCRAM", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER", "AWS_MSK_IAM"]
MSK_TOKEN_TTL_S = 900


class KafkaSecurity(Options):
    """TLS and SASL. Without `protocol` it follows from the other keys: SASL_SSL with a mechanism, SSL with a file."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    mechanism: Mechanism | None = Field(default=None, description="SCRAM is SCRAM-SHA-512")
    username: str | None = Field(default=None, description="PLAIN and SCRAM")
    password: Secret | None = Field(default=None, description="PLAIN and SCRAM")
    token: Secret | None = Field(default=None, description="OAUTHBEARER: read again at each connection, so a file may be renewed")
    region: str | None = Field(default=None, description="AWS_MSK_IAM; default AWS_REGION")
    ca_file: str | None = Field(default=None, description="PEM of the authority that signed the brokers; default the system's")
    cert_file: str | None = Field(default=None, description="PEM of our own certificate (mutual TLS)")
    key_file: str | None = Field(default=None, description="PEM of our own key; default in cert_file")

    @model_validator(mode="after")
    def _complete(self) -> KafkaSecurity:
        if self.mechanism in ("PLAIN", "SCRAM", "SCRAM-SHA-256", "SCRAM-SHA-512") and not (self.username and self.password):
            raise ValueError(f"mechanism {self.mechanism} needs username and password")
        if self.mechanism == "OAUTHBEARER" and self.token is None:
            raise ValueError("mechanism OAUTHBEARER needs token: secret://file/PATH or secret://env/NAME")
        if self.protocol in ("PLAINTEXT", "SSL") and self.mechanism:
            raise ValueError(f"protocol {self.protocol} has no mechanism; write SASL_PLAINTEXT or SASL_SSL")
        if self.protocol in ("SASL_PLAINTEXT", "SASL_SSL") and not self.mechanism:
            raise ValueError(f"protocol {self.protocol} needs a mechanism, for example SCRAM-SHA-512")
        return self

    @property
    def effective_protocol(self) -> str:
        if self.protocol:
            return self.protocol
        if self.mechanism:
            return "SASL_SSL"
        return "SSL" if self.ca_file or self.cert_file else "PLAINTEXT"


def client_settings(security: KafkaSecurity) -> dict[str, Any]:
    """Keyword arguments of `AIOKafkaClient`. OSError and ValueError if a file or a secret cannot be read."""
    protocol = security.effective_protocol
    settings: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        from aiokafka.helpers import create_ssl_context

        settings["ssl_context"] = create_ssl_context(cafile=security.ca_file, certfile=security.cert_file, keyfile=security.key_file)
    return settings | (_sasl_settings(security) if security.mechanism else {})


def _sasl_settings(security: KafkaSecurity) -> dict[str, Any]:
    if security.mechanism in ("OAUTHBEARER", "AWS_MSK_IAM"):
        return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _token_provider(security)}
    if security.mechanism == "GSSAPI":
        return {"sasl_mechanism": "GSSAPI"}
    return {
        "sasl_mechanism": "SCRAM-SHA-512" if security.mechanism == "SCRAM" else security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password.reveal() if security.password else None,
    }


def _token_provider(security: KafkaSecurity) -> Any:
    from aiokafka.abc import AbstractTokenProvider

    class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types; it checks for its own class
        async def token(self) -> str:
            return await asyncio.to_thread(_token, security)

    return TokenProvider()


def _token(security: KafkaSecurity) -> str:
    if security.token is not None:
        return security.token.reveal()
    return msk_iam_token(security.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))


def msk_iam_token(region: str | None) -> str:
    """A token of AWS MSK's IAM access control: a presigned `kafka-cluster:Connect` URL, base64url without padding.

    Format: github.com/aws/aws-msk-iam-sasl-signer-python. Credentials come from AWS's own chain. Unavailable without
    them, as they may come back (instance roles).
    """
    try:
        from botocore.auth import SigV4QueryAuth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session
    except ImportError:
        raise Unavailable("AWS_MSK_IAM signs with botocore: pip install 'streamproc[kinesis]'") from None
    credentials = Session().get_credentials()
    if credentials is None or region is None:
        missing = "credentials" if region else "region (security.region or AWS_REGION)"
        raise Unavailable(f"AWS_MSK_IAM: no AWS {missing} found")
    request = AWSRequest("GET", f"https://kafka.{region}.amazonaws.com/", params={"Action": "kafka-cluster:Connect"})
    SigV4QueryAuth(credentials, "kafka-cluster", region, expires=MSK_TOKEN_TTL_S).add_auth(request)
    url = f"{request.url}&User-Agent=streamproc"
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
