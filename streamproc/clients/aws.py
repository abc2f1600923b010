"""AWS clients: made from the platform's own chain of credentials and endpoints, errors mapped to the project's kinds."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Any

from streamproc.errors import Fault, InvalidJob, StreamprocError, Unavailable

Handler = Callable[..., None]
CONNECT_S = 5
READ_S = 20
ATTEMPTS = 2
"""Attempts of one call inside botocore; whoever calls retries `Unavailable` with a back-off of its own."""

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "KMSThrottlingException",
    }
)
_PASSING = frozenset({"InternalFailureException", "RequestTimeout"})
_OLD_CREDENTIALS = frozenset({"ExpiredToken", "ExpiredTokenException"})
_SKEWED = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_AGE = re.compile("expired|not yet current")
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "KMSAccessDeniedException"})


class Throttled(Unavailable):
    """The server asks for fewer calls."""


class LimitExceeded(Throttled):
    """A limit of the account or the resource is reached (LimitExceededException). Often it is the rate of calls."""


class InUse(Unavailable):
    """What the call names is being made, changed or used by another (ResourceInUseException)."""


class OldCredentials(Unavailable):
    """The credentials that the call was signed with have expired: read them again."""


class Denied(InvalidJob):
    """The credentials have no right to this call."""


class Expired(StreamprocError):
    """A token of the server (a shard iterator) is too old: get a new one."""


class NotFound(StreamprocError):
    """What the call names does not exist. The caller knows what that means."""


class Refused(StreamprocError):
    """The server does not accept the arguments (InvalidArgumentException). The caller knows what that means."""


class AwsClient:
    """One service's aiobotocore client, connected at its first use and again after `close`.

    Region and endpoint come from the job, else from the platform: AWS_REGION, AWS_ENDPOINT_URL(_<SERVICE>), profiles, roles.
    `handlers` are called on botocore's events. `attempts` of one call inside botocore, instead of ATTEMPTS.
    """

    def __init__(
        self, service: str, *, region: str | None = None, endpoint_url: str | None = None,
        handlers: Mapping[str, Handler] | None = None, attempts: int | None = None,
    ) -> None:  # fmt: skip
        self.service = service
        self.region = region
        self.endpoint_url = endpoint_url
        self._handlers = handlers or {}
        self._attempts = attempts
        self._stack: AsyncExitStack | None = None
        self._client: Any = None
        self._session: Any = None

    async def get(self) -> Any:
        """The connected client. Import and set-up take most of a second, hence only here."""
        if self._client is None:
            from aiobotocore.config import AioConfig
            from aiobotocore.session import get_session

            session = get_session()
            session.register_component("data_loader", _loader())
            retries = {"mode": "standard", "total_max_attempts": self._attempts or ATTEMPTS}
            config = AioConfig(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=retries)
            stack = AsyncExitStack()
            with aws_errors(self.service):
                made = session.create_client(
                    self.service, region_name=self.region or _region(), endpoint_url=self.endpoint_url, config=config
                )
                client = await stack.enter_async_context(made)
            if self._client is not None:  # another task was quicker
                await stack.aclose()
                return self._client
            for event, handler in self._handlers.items():
                client.meta.events.register(event, handler)
            self._stack, self._client, self._session = stack, client, session
        return self._client

    @asynccontextmanager
    async def calls(self, what: str) -> AsyncIterator[Any]:
        """The client for a call or two; errors as of `aws_errors`. Credentials that have expired are read anew for the next call:
        botocore renews those that say when they end; this is for keys in files and variables that somebody else replaces.
        """
        client = await self.get()
        try:
            with aws_errors(what):
                yield client
        except OldCredentials:
            if client is self._client:
                await self.close()
            raise

    async def sign(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Headers of a request that does not go through the client, signed (Signature Version 4) with its credentials."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import NoCredentialsError

        client = await self.get()
        with aws_errors(self.service):
            credentials = await self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            request = AWSRequest(method, url, data=body, headers=dict(headers))
            SigV4Auth(await credentials.get_frozen_credentials(), self.service, client.meta.region_name).add_auth(request)
        return dict(request.headers.items())

    @property
    def ca_bundle(self) -> str | None:
        """File of the authorities that the platform trusts (AWS_CA_BUNDLE, `ca_bundle` of a profile), once connected."""
        return self._session.get_config_variable("ca_bundle") if self._session else None

    async def close(self) -> None:
        stack, self._stack, self._client = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    def __repr__(self) -> str:
        return f"<AwsClient {self.service} {self.endpoint_url or self.region or ''}{' connected' * (self._client is not None)}>"


@cache
def _loader() -> Any:
    """The reader of service models, with its cache: a further client takes 20 ms instead of 180."""
    from botocore.loaders import create_loader

    return create_loader()


def _region() -> str | None:
    """AWS_REGION, which other SDKs honour and botocore does not; None leaves it to botocore's chain."""
    return os.environ.get("AWS_REGION") or None


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Map the errors of botocore and its HTTP session. `what` says in messages what was tried, for example `stream clicks`.

    Raises Unavailable and its kinds (Throttled, LimitExceeded, InUse, OldCredentials), Expired, NotFound, Refused, or InvalidJob
    where only the user can help (no region; Denied: no right).
    """
    import aiohttp
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        said, http = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        raise error_of(what, said.get("Code", ""), said.get("Message", ""), http.get("HTTPStatusCode", 0)) from error
    except (boto.NoRegionError, boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        raise InvalidJob([Fault(what, 0, f"{error}; set it in the job or in the platform's own configuration")]) from error
    except (boto.ParamValidationError, boto.InvalidRegionError) as error:
        raise InvalidJob([Fault(what, 0, str(error))]) from error
    except (boto.BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


def error_of(what: str, code: str, text: str, status: int) -> StreamprocError:
    """The kind of an error that the server answered with, by its code; `status` is HTTP's."""
    text = text.partition("\n")[0]  # a wrong signature is answered with the canonical request, session token included
    message = f"{what}: {code}: {text}"
    if code == "LimitExceededException":
        return LimitExceeded(message)
    if code in _THROTTLED:
        return Throttled(message)
    if code == "ResourceInUseException":
        return InUse(message)
    if code in _OLD_CREDENTIALS:
        return OldCredentials(f"{message}; they are read anew")
    if code in _SKEWED or (code.startswith("InvalidSignature") and _AGE.search(message)):
        return Unavailable(f"{message}; the clock of this machine is wrong: let it be set (NTP)")
    if code in ("ExpiredIteratorException", "ExpiredNextTokenException"):
        return Expired(message)
    if code in ("ResourceNotFoundException", "NoSuchBucket"):
        return NotFound(message)
    if code in ("InvalidArgumentException", "ValidationException"):
        return Refused(message)
    if status >= 500 or code in _PASSING:
        return Unavailable(message)
    return (Denied if code in _DENIED else InvalidJob)([Fault(what, 0, f"{code}: {text}; check rights, region and names")])
