"""AWS clients: made from the platform's own chain of credentials and endpoints, errors mapped to the project's kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
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
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "KMSThrottlingException",
    }
)
_PASSING = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeout", "RequestTimeTooSkewed"})


class Throttled(Unavailable):
    """The server asks for fewer calls."""


class Expired(StreamprocError):
    """A token of the server (a shard iterator) is too old: get a new one."""


class NotFound(StreamprocError):
    """What the call names does not exist. The caller knows what that means."""


class Refused(StreamprocError):
    """The server does not accept the arguments (InvalidArgumentException). The caller knows what that means."""


class AwsClient:
    """One service's aiobotocore client, connected at its first use and again after `close`.

    Region and endpoint come from the job, else from the platform: AWS_REGION, AWS_ENDPOINT_URL(_<SERVICE>), profiles, roles.
    `handlers` are called on botocore's events.
    """

    def __init__(
        self, service: str, *, region: str | None = None, endpoint_url: str | None = None, handlers: Mapping[str, Handler] | None = None
    ) -> None:
        self.service = service
        self.region = region
        self.endpoint_url = endpoint_url
        self._handlers = handlers or {}
        self._stack: AsyncExitStack | None = None
        self._client: Any = None

    async def get(self) -> Any:
        """The connected client. Import and set-up take most of a second, hence only here."""
        if self._client is None:
            from aiobotocore.config import AioConfig
            from aiobotocore.session import get_session

            session = get_session()
            session.register_component("data_loader", _loader())
            config = AioConfig(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
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
            self._stack, self._client = stack, client
        return self._client

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

    Raises Throttled, Expired, NotFound, Refused, Unavailable, or InvalidJob where only the user can help (no region, no right).
    """
    import aiohttp
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _from_answer(what, error) from error
    except (boto.NoRegionError, boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        raise InvalidJob([Fault(what, 0, f"{error}; set it in the job or in the platform's own configuration")]) from error
    except (boto.ParamValidationError, boto.InvalidRegionError) as error:
        raise InvalidJob([Fault(what, 0, str(error))]) from error
    except (boto.BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


def _from_answer(what: str, error: Any) -> StreamprocError:
    answer = error.response
    code, status = answer.get("Error", {}).get("Code", ""), answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{what}: {code}: {answer.get('Error', {}).get('Message', '')}"
    if code in _THROTTLED:
        return Throttled(message)
    if code in ("ExpiredIteratorException", "ExpiredNextTokenException"):
        return Expired(message)
    if code in ("ResourceNotFoundException", "NoSuchBucket"):
        return NotFound(message)
    if code in ("InvalidArgumentException", "ValidationException"):
        return Refused(message)
    if status >= 500 or code in _PASSING:
        return Unavailable(message)
    return InvalidJob([Fault(what, 0, f"{code}: {answer.get('Error', {}).get('Message', '')}; check rights, region and names")])
