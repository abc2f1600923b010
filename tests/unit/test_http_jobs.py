"""/jobs over a real socket: who may read and who may change something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamproc.http.health import Health
from streamproc.http.jobs import JobPages, is_loopback
from streamproc.http.server import serve
from streamproc.options import Secret

TOKEN = "sesame-sesame"


class Asked:
    """Two jobs that note what they are asked to do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def pictures(self) -> Mapping[str, Any]:
        return {"jobs": [{"job": "a"}, {"job": "b"}], "faults": []}

    def picture(self, name: str) -> Mapping[str, Any] | None:
        return {"job": name} if name in "ab" else None

    def restart(self, name: str) -> bool:
        self.done.append(f"restart {name}")
        return name in "ab"

    async def reload(self) -> Mapping[str, Any]:
        self.done.append("reload")
        return {"started": ["c"]}


class Browser:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def ask(self, method: str, path: str, authorization: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": authorization} if authorization else {}
        async with self._session.request(method, self._url + path, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None


@asynccontextmanager
async def listening(asked: Asked, token: Secret | None, *, loopback: bool = True) -> AsyncIterator[Browser]:
    pages = JobPages(asked, token, loopback=loopback)
    server = await serve("127.0.0.1", 0, bytes, Health, routes=pages.routes())
    async with aiohttp.ClientSession() as session:
        yield Browser(f"http://127.0.0.1:{server.port}", session)
    await server.close()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv("ADMIN", TOKEN)
    return Secret.of("secret://env/ADMIN")


async def test_on_loopback_everybody_reads(token: Secret) -> None:
    for given in (None, token):
        async with listening(Asked(), given) as browser:
            assert await browser.ask("GET", "/jobs") == (200, {"jobs": [{"job": "a"}, {"job": "b"}], "faults": []})
            assert await browser.ask("GET", "/jobs/a") == (200, {"job": "a"})
            assert await browser.ask("GET", "/jobs/nobody") == (404, {"error": "there is no job 'nobody'"})


async def test_without_a_token_nothing_can_be_changed() -> None:
    asked = Asked()
    async with listening(asked, None) as browser:
        for path in ("/jobs/a/restart", "/reload"):
            assert (await browser.ask("POST", path, f"Bearer {TOKEN}"))[0] == 404
    assert asked.done == []


async def test_the_token_restarts_and_reloads(token: Secret) -> None:
    asked = Asked()
    async with listening(asked, token) as browser:
        assert await browser.ask("POST", "/jobs/a/restart", f"Bearer {TOKEN}") == (202, {"job": "a", "state": "restarting"})
        assert await browser.ask("POST", "/reload", f"bearer {TOKEN}") == (200, {"started": ["c"]})
        assert (await browser.ask("POST", "/jobs/nobody/restart", f"Bearer {TOKEN}"))[0] == 404
        assert (await browser.ask("GET", "/reload", f"Bearer {TOKEN}"))[0] == 405
    assert asked.done == ["restart a", "reload", "restart nobody"]


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer ", "Bearer sesame", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ä"]
)
async def test_a_wrong_token_is_refused(authorization: str | None, token: Secret) -> None:
    asked = Asked()
    async with listening(asked, token) as browser:
        status, said = await browser.ask("POST", "/reload", authorization)
    assert (status, asked.done) == (401, [])
    assert TOKEN not in str(said)


async def test_a_token_that_is_gone_lets_nobody_in(tmp_path: Path) -> None:
    kept = tmp_path / "token"
    kept.write_text("first\n")
    asked = Asked()
    async with listening(asked, Secret.of(f"secret://file{kept}")) as browser:
        assert (await browser.ask("POST", "/reload", "Bearer first"))[0] == 200
        kept.write_text("second\n")
        assert (await browser.ask("POST", "/reload", "Bearer first"))[0] == 401
        for gone in (lambda: kept.write_text(""), kept.unlink):
            gone()
            assert (await browser.ask("POST", "/reload", "Bearer "))[0] == 401
    assert asked.done == ["reload"]


async def test_others_read_only_with_a_token(token: Secret) -> None:
    async with listening(Asked(), None, loopback=False) as browser:
        assert [(await browser.ask("GET", path))[0] for path in ("/jobs", "/jobs/a", "/healthz", "/metrics")] == [403, 403, 200, 200]
    async with listening(Asked(), token, loopback=False) as browser:
        assert [(await browser.ask("GET", path))[0] for path in ("/jobs", "/jobs/a", "/healthz", "/metrics")] == [401, 401, 200, 200]
        assert (await browser.ask("GET", "/jobs", f"Bearer {TOKEN}"))[0] == 200


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own
