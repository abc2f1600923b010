"""Objects in S3, Google Cloud Storage or Azure, through obstore.

S3 is tested here (two servers); gs:// and az:// run the same code and are not. Endpoints and keys come from the
platform's own variables (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, …), from container, web identity and
instance roles, and, where botocore is installed, from profiles.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import obstore
from obstore import store as backends
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from streamproc.errors import Fault, InvalidJob, Unavailable
from streamproc.store import Changed, Exists, Listed, Missing, Object, Store
from streamproc.stores.names import check_name
from streamproc.world import World

LARGE_BYTES = 16 * 2**20
"""From here on an object is uploaded in parts."""
UPLOADS = "_uploads/"
"""Where large objects are put together before they get their name; readers of lakes skip names that begin with `_`."""
STRAY_AFTER_US = 3600 * 10**6
_CLIENT = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "30s", "timeout": "300s"}
_RETRY = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_CREDENTIALS_FOR = timedelta(minutes=5)


class RemoteStore(Store):
    """One key an object, under the URL's prefix. `put` sends If-None-Match or If-Match; a request that is repeated
    after a lost answer may therefore say `Exists` or `Changed` of its own success, which the caller finds out by reading.
    """

    def __init__(self, url: str, world: World, kms_key: str | None = None) -> None:
        """`kms_key`: objects are written with SSE-KMS under this key (s3 only)."""
        self._url = url.rstrip("/")
        self._world = world
        open_url: Any = backends.from_url  # its overloads want each scheme's keys as literals
        self._store: Any = open_url(self._url, client_options=_CLIENT, retry_config=_RETRY, **_config(self._url, kms_key, world))

    @property
    def objects(self) -> Any:
        """The store of obstore itself: for readers of lakes, whose names and sizes are not a checkpoint's."""
        return self._store

    async def get(self, name: str) -> Object:
        with self._errors(name):
            answer = await obstore.get_async(self._store, name)
            data = bytes(await answer.bytes_async())
        return Object(data, _etag(answer.meta))

    async def put(self, name: str, data: bytes, *, if_match: str | None = None, overwrite: bool = False) -> str:
        check_name(name)
        mode: Any = _update(if_match) if if_match is not None else "overwrite" if overwrite else "create"
        if mode == "create" and len(data) >= LARGE_BYTES:
            return await self._put_large(name, data)
        try:
            with self._errors(name):
                return _etag(await obstore.put_async(self._store, name, data, mode=mode, use_multipart=False))
        except (Exists, Missing):
            raise (Exists(name) if if_match is None else Changed(name)) from None

    async def create(self, name: str, fill: Callable[[BinaryIO], None]) -> None:
        """A large object is uploaded in parts under `_uploads/`, then copied to its name on the server if that is free."""
        check_name(name)
        with tempfile.TemporaryFile() as file:
            await asyncio.to_thread(fill, file)
            size = file.tell()
            file.seek(0)
            if size < LARGE_BYTES:
                await self.put(name, file.read())
            else:
                await self._put_large(name, file)

    async def _put_large(self, name: str, content: Any) -> str:
        upload = f"{UPLOADS}{self._world.new_id()}"
        with self._errors(name):
            await obstore.put_async(self._store, upload, content, use_multipart=True)
            try:
                await obstore.copy_async(self._store, upload, name, overwrite=False)
                return _etag(await obstore.head_async(self._store, name))
            finally:
                await obstore.delete_async(self._store, upload)

    async def list(self, prefix: str = "") -> AsyncIterator[Listed]:
        check_name(f"{prefix}x")
        folder = prefix.rpartition("/")[0] or None  # obstore's prefixes are whole folders
        with self._errors(prefix):
            async for page in obstore.list(self._store, prefix=folder, offset=prefix[:-1] or None):
                for meta in page:
                    if meta["path"].startswith(prefix):
                        if meta["path"].startswith(UPLOADS):
                            continue
                        yield Listed(meta["path"], meta["size"], _us(meta["last_modified"]))
                    elif meta["path"] > prefix:
                        return

    async def delete(self, name: str) -> None:
        try:
            with self._errors(name):
                await obstore.delete_async(self._store, name)
        except Missing:
            return

    async def sweep(self) -> None:
        oldest_us = self._world.clock.now_us() - STRAY_AFTER_US
        with self._errors(UPLOADS):
            async for page in obstore.list(self._store, prefix=UPLOADS):
                strays = [meta["path"] for meta in page if _us(meta["last_modified"]) < oldest_us]
                await asyncio.gather(*(obstore.delete_async(self._store, path) for path in strays))

    def __repr__(self) -> str:
        return f"RemoteStore({self._url!r})"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Errors of obstore as ours. Only the first line of its text: what follows are dumps of requests."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise InvalidJob([Fault(self._url, 0, "the bucket does not exist; create it or correct the URL")]) from None
            raise Missing(name) from None
        except (AlreadyExistsError, PreconditionError):
            raise Exists(name) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise InvalidJob([Fault(self._url, 0, f"access denied: {_line(error)}")]) from None
        except (BaseError, OSError) as error:
            if "configured region" in str(error):
                raise InvalidJob([Fault(self._url, 0, "the bucket is in another region; set AWS_REGION to it")]) from None
            raise Unavailable(f"{self._url}/{name}: {_line(error)}") from None


def _config(url: str, kms_key: str | None, world: World) -> dict[str, Any]:
    if not url.startswith("s3://"):
        return {}
    config: dict[str, Any] = {"copy_if_not_exists": "multipart"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        config["endpoint"] = endpoint
    if kms_key:
        config |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": kms_key}
    if "AWS_ACCESS_KEY_ID" not in os.environ and _has_profiles():
        config |= _profile(world)
    return config


def _has_profiles() -> bool:
    files = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
    return any(Path(os.environ.get(name, default)).expanduser().is_file() for name, default in files)


def _profile(world: World) -> dict[str, Any]:
    """Credentials and region of the AWS profile, read by botocore (obstore knows no profiles); empty without botocore."""
    try:
        from botocore.session import Session
    except ImportError:
        return {}
    session = Session()
    credentials = session.get_credentials()
    if credentials is None:
        return {}

    def provide() -> dict[str, Any]:
        keys = credentials.get_frozen_credentials()
        expires = datetime.fromtimestamp(world.clock.now_us() / 1e6, UTC) + _CREDENTIALS_FOR
        return {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "token": keys.token, "expires_at": expires}

    region = session.get_config_variable("region")
    return {"credential_provider": provide} | ({"region": region} if region else {})


def _etag(meta: Mapping[str, Any]) -> str:
    """The etag alone, or with the version that Google's compare-and-swap goes by."""
    return str(meta["e_tag"]) if meta.get("version") is None else f"{meta['e_tag']} {meta['version']}"


def _update(etag: str) -> dict[str, str]:
    e_tag, _, version = etag.partition(" ")
    return {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag}


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
