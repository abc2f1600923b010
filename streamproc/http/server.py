"""The listener: `/metrics`, `/healthz`, `/readyz`, and what else it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from streamproc.errors import Unavailable
from streamproc.http.exposition import CONTENT_TYPE
from streamproc.http.health import Health

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "streamproc"}


class Server:
    """A listener that runs until `close`. `port` is the one it really has (0 asks the system for a free one)."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self.host, self.port = runner.addresses[0][:2]

    async def close(self) -> None:
        await self._runner.cleanup()

    def __repr__(self) -> str:
        return f"<Server http://{self.host}:{self.port}>"


async def serve(
    host: str, port: int, metrics: Callable[[], bytes], health: Callable[[], Health], *,
    routes: Sequence[web.RouteDef] = (), key: str = "metrics.port",
) -> Server:  # fmt: skip
    """Listen on host:port. `metrics` gives the page of now, `key` is what the user wrote the port under.

    `Unavailable` if the address cannot be had.
    """
    pages = _Pages(metrics, health)
    app = web.Application()
    app.on_response_prepare.append(_add_headers)
    app.add_routes([web.get("/metrics", pages.metrics), web.get("/healthz", pages.alive), web.get("/readyz", pages.ready), *routes])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        hint = f"choose another {key}, or port 0 for a free one"
        raise Unavailable(f"cannot listen on {host}:{port} ({error.strerror}); {hint}") from error
    return Server(runner)


async def _add_headers(_request: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(HEADERS)


class _Pages:
    def __init__(self, metrics: Callable[[], bytes], health: Callable[[], Health]) -> None:
        self._metrics, self._health = metrics, health

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def alive(self, _request: web.Request) -> web.Response:
        return _verdict(self._health().stuck)

    async def ready(self, _request: web.Request) -> web.Response:
        health = self._health()
        return _verdict((*health.stuck, *health.waiting))


def _verdict(reasons: Sequence[str]) -> web.Response:
    return web.json_response({"ok": not reasons, "reasons": list(reasons)}, status=503 if reasons else 200)
