"""The pages of a service's jobs: `/jobs` for those who may read, restart and reload for those who have the admin token."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol

from aiohttp import web

from streamproc.options import Secret

Page = Callable[[web.Request], Awaitable[web.Response]]


class Jobs(Protocol):
    """What is shown of the jobs, and what can be asked of them."""

    def pictures(self) -> Mapping[str, Any]:
        """All jobs, as JSON values."""
        ...

    def picture(self, name: str) -> Mapping[str, Any] | None:
        """One job; None if there is none of this name."""
        ...

    def restart(self, name: str) -> bool:
        """Stop the job cleanly and start it again; False if there is none of this name."""
        ...

    async def reload(self) -> Mapping[str, Any]:
        """Read the job files again; what was done, as JSON values."""
        ...


class JobPages:
    """Reads are open on a loopback address. Elsewhere they take the token, and are refused where there is none.
    Without a token the pages that change something do not exist.
    """

    def __init__(self, jobs: Jobs, token: Secret | None, *, loopback: bool) -> None:
        self._jobs, self._token, self._loopback = jobs, token, loopback

    def routes(self) -> list[web.RouteDef]:
        reads = [web.get("/jobs", self._readable(self._all)), web.get("/jobs/{name}", self._readable(self._one))]
        if self._token is None:
            return reads
        restart = web.post("/jobs/{name}/restart", self._authorized(self._restart))
        return [*reads, restart, web.post("/reload", self._authorized(self._reload))]

    def _readable(self, page: Page) -> Page:
        if self._loopback:
            return page
        return self._refused if self._token is None else self._authorized(page)

    def _authorized(self, page: Page) -> Page:
        async def checked(request: web.Request) -> web.Response:
            if self._has_token(request):
                return await page(request)
            answer = _error(401, "this takes the admin token: Authorization: Bearer TOKEN")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer

        return checked

    def _has_token(self, request: web.Request) -> bool:
        """Read anew each time: a token in a file may be changed while the service runs."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        try:
            token = self._token.reveal() if self._token else ""
        except ValueError:
            token = ""
        right = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())
        return bool(token) and right and scheme.lower() == "bearer"

    async def _refused(self, _request: web.Request) -> web.Response:
        return _error(403, "jobs are shown to this network only with --admin-token")

    async def _all(self, _request: web.Request) -> web.Response:
        return web.json_response(self._jobs.pictures())

    async def _one(self, request: web.Request) -> web.Response:
        picture = self._jobs.picture(request.match_info["name"])
        return _no_job(request) if picture is None else web.json_response(picture)

    async def _restart(self, request: web.Request) -> web.Response:
        if not self._jobs.restart(request.match_info["name"]):
            return _no_job(request)
        return web.json_response({"job": request.match_info["name"], "state": "restarting"}, status=202)

    async def _reload(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._jobs.reload())

    def __repr__(self) -> str:
        return f"<JobPages of {self._jobs!r}{' with a token' if self._token else ''}>"


def is_loopback(host: str) -> bool:
    """Whether all addresses of the host are this machine's own."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ip_address(address.partition("%")[0]).is_loopback for address in found)


def _no_job(request: web.Request) -> web.Response:
    return _error(404, f"there is no job {request.match_info['name']!r}")


def _error(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
