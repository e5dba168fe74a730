"""Pages of other origins can read what CORS_ORIGINS allows, from every public service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from auth.app import serve as serve_auth
from auth.migrate import migrate
from auth.settings import AuthSettings
from gateway.app import serve as serve_gateway
from gateway.settings import GatewaySettings
from onebox.settings import OneboxSettings
from reader.app import serve as serve_reader
from reader.settings import ReaderSettings
from runtime.http.cors import allow_origins
from runtime.http.listen import listen
from runtime.http.problems import Problem, problem_middleware
from runtime.process import Shutdown
from runtime.settings import SettingsError, from_env
from testing.servers.ports import free_port
from testing.waiting import eventually

LISTED, OTHER = "https://app.example", "https://app.example.evil"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-device-id"}
GOOD = {
    "BROKER_URL": "amqp://broker",
    "READINGS_URL": "mongodb://mongo",
    "AUTH_URL": "http://auth:8001",
    "AUTH_DATABASE_URL": "sqlite+aiosqlite:///x",
    "SIGNING_KEY_SECRET": "x" * 16,
}


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Vary": "Accept"})
    await response.prepare(request)
    await response.write(b"x")
    return response


async def _refuse(_: web.Request) -> web.Response:
    raise Problem(429, headers={"Retry-After": "1"})


@asynccontextmanager
async def serving(*origins: str) -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[problem_middleware])
    allow_origins(app, origins)
    app.add_routes([web.get("/stream", _stream), web.post("/refused", _refuse)])
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        yield http


def of_cors(headers: Any) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/stream", 200), ("POST", "/refused", 429), ("GET", "/nothing", 404)]
)
async def test_every_answer_names_a_listed_origin_and_no_other(method: str, path: str, status: int) -> None:
    async with serving(LISTED, "http://localhost:5173") as http:
        for origin in (LISTED, "http://localhost:5173"):
            async with http.request(method, path, headers={"Origin": origin}) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == origin
                assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
                assert "Access-Control-Allow-Credentials" not in answer.headers
                assert answer.headers["Vary"] == ("Accept, Origin" if path == "/stream" else "Origin")
        for headers in ({"Origin": OTHER}, {"Origin": "null"}, {"Origin": LISTED.upper()}, {}):
            async with http.request(method, path, headers=headers) as answer:
                assert (answer.status, of_cors(answer.headers)) == (status, {})
                assert "Origin" in answer.headers["Vary"]


async def test_without_a_list_nothing_is_told_to_anybody() -> None:
    async with serving() as http:
        async with http.get("/stream", headers={"Origin": LISTED}) as answer:
            assert (of_cors(answer.headers), answer.headers["Vary"]) == ({}, "Accept")
        async with http.options("/stream", headers={"Origin": LISTED, **PREFLIGHT}) as answer:
            assert (answer.status, of_cors(answer.headers)) == (204, {})


async def require_preflight(http: aiohttp.ClientSession, path: str) -> None:
    async with http.options(path, headers={"Origin": LISTED, **PREFLIGHT}) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, LISTED)
        methods = answer.headers["Access-Control-Allow-Methods"].split(", ")
        assert {"GET", "POST", "PATCH", "DELETE"} <= set(methods)
        asked = answer.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"Authorization", "Content-Type", "X-Device-Id", "Last-Event-ID"} <= set(asked)
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
    async with http.options(path, headers={"Origin": OTHER, **PREFLIGHT}) as answer:
        assert (answer.status, of_cors(answer.headers)) == (204, {})


def _auth(folder: Path, **more: Any) -> Awaitable[None]:
    url = f"sqlite+aiosqlite:///{folder / 'users'}"
    settings = AuthSettings(auth_database_url=url, signing_key_secret="x" * 16, **more)

    async def run() -> None:
        await migrate(url)
        await serve_auth(settings, Shutdown())

    return run()


def _gateway(folder: Path, **more: Any) -> Awaitable[None]:
    url = f"embedded://{folder / 'queue'}"
    return serve_gateway(GatewaySettings(broker_url=url, auth_url="http://127.0.0.1:9", **more), Shutdown())


def _reader(folder: Path, **more: Any) -> Awaitable[None]:
    urls: dict[str, Any] = {"broker_url": f"embedded://{folder / 'queue'}", "readings_url": "mongodb://127.0.0.1:9"}
    return serve_reader(ReaderSettings(auth_url="http://127.0.0.1:9", **urls, **more), Shutdown())


@pytest.mark.parametrize(
    ("run", "path"), [(_auth, "/user/login"), (_auth, "/user/me"), (_gateway, "/readings"), (_reader, "/live")]
)
async def test_each_service_answers_the_preflight_of_a_listed_origin(
    tmp_path: Path, run: Callable[..., Awaitable[None]], path: str
) -> None:
    port = free_port()
    more = {"host": "127.0.0.1", "port": port, "ops_host": "127.0.0.1", "ops_port": 0, "cors_origins": (LISTED,)}
    serving_it = asyncio.ensure_future(run(tmp_path, **more))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

            async def up() -> bool:
                assert not serving_it.done(), serving_it
                try:
                    async with http.options(path):
                        return True
                except aiohttp.ClientConnectionError:
                    return False

            await eventually(up, "it is up")
            await require_preflight(http, path)
    finally:
        serving_it.cancel()
        await asyncio.wait((serving_it,))


@pytest.mark.parametrize("settings", [AuthSettings, GatewaySettings, ReaderSettings, OneboxSettings])
def test_what_no_browser_sends_as_its_origin_is_named_at_the_start(settings: type[Any]) -> None:
    given = "https://a.example, http://localhost:5173,http://[::1]:80,capacitor://localhost"
    assert len(from_env(settings, GOOD | {"CORS_ORIGINS": given}).cors_origins) == 4
    assert from_env(settings, GOOD).cors_origins == ()
    for bad in ("*", "a.example", "https://a.example/", "https://A.example", "https://*.example", "null"):
        with pytest.raises(SettingsError) as refused:
            from_env(settings, GOOD | {"CORS_ORIGINS": f"https://a.example,{bad}"})
        assert "CORS_ORIGINS" in str(refused.value)
        assert repr(bad) in str(refused.value)
