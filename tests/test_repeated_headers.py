"""A header that identifies the client may occur only once: every service refuses a request that repeats it.

Of two such headers, a proxy and a service might each trust a different one (RFC 9110, 5.3). The rule's one copy is in
access/bearer.py; the services run here with one real token, which each accepts when the header occurs once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
from auth.app import AuthService, auth_service
from auth.migrate import migrate
from auth.settings import AuthSettings
from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broker
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from reader.app import reader_service
from reader.settings import ReaderSettings
from runtime.http.listen import listen
from runtime.http.operation import Operation
from runtime.http.problems import problem_middleware
from simulator.api import Api
from simulator.device import device_session
from simulator.device_pool import DevicePool
from simulator.metrics import SimulatorMetrics
from simulator.serve import SimulatorRoutes

USER = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
SERVICES = ["auth", "gateway", "reader", "simulator"]
# A call of each service that succeeds with one token.
WORKS = {"auth": "/user/me", "gateway": "/readings", "reader": "/series", "simulator": "/simulator/devices"}
SIMULATOR_CALLS = [("POST", "/simulator/devices"), ("GET", "/simulator/devices"), ("DELETE", "/simulator/devices/x")]


@dataclass(frozen=True)
class Running:
    """One of the services on a port, a user's token that it accepts, and its calls that require a token."""

    url: str
    token: str
    http: aiohttp.ClientSession
    calls: list[tuple[str, str]]

    async def call(self, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, str]:
        """Return the status and the problem code of a request with these headers; the body is one reading."""
        sent = CIMultiDict(headers)
        body = None if method == "GET" else {"value": 1, "sensorType": "temperature"}
        async with self.http.request(method, self.url + path, headers=sent, json=body) as response:
            answer = await response.json(content_type=None)
            return response.status, answer.get("code", "")


def secured(calls: list[Operation]) -> list[tuple[str, str]]:
    return [(call.method, call.path.replace("{id}", "x")) for call in calls if call.secured]


@asynccontextmanager
async def on_a_port(app: web.Application) -> AsyncIterator[str]:
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def new_app() -> web.Application:
    return web.Application(middlewares=[problem_middleware])


@asynccontextmanager
async def running(service: str, folder: Path, mongo: tuple[str, str]) -> AsyncIterator[Running]:
    users = f"sqlite+aiosqlite:///{folder / 'users.db'}"
    await migrate(users)
    settings = AuthSettings(auth_database_url=users, signing_key_secret="only for tests, 16 and more", bcrypt_cost=4)
    app = new_app()
    async with (
        auth_service(settings, registry=CollectorRegistry()) as auth,
        EmbeddedBroker.open_at(folder / "queue.db") as broker,
        aiohttp.ClientSession() as http,
    ):
        auth.add_routes(app, internal=True)
        async with on_a_port(app) as url:
            token = await new_token(http, url)
            match service:
                case "auth":
                    yield Running(url, token, http, secured(auth.calls))
                case "simulator":
                    async with simulator(url) as own:
                        yield Running(own, token, http, SIMULATOR_CALLS)
                case _:
                    async with verifying(service, auth, broker, mongo) as (own, calls):
                        yield Running(own, token, http, calls)


async def new_token(http: aiohttp.ClientSession, url: str) -> str:
    async with http.post(f"{url}/user/signup", json=USER) as response:
        assert response.status == 201
    async with http.post(f"{url}/user/login", json={key: USER[key] for key in ("email", "password")}) as response:
        return str((await response.json())["accessToken"])


@asynccontextmanager
async def simulator(target: str) -> AsyncIterator[str]:
    app, metrics = new_app(), SimulatorMetrics(CollectorRegistry())
    async with (
        device_session() as http,
        DevicePool(http, target, metrics, max_devices=1, max_devices_per_user=1).open() as devices,
    ):
        SimulatorRoutes(Api(http, target, attempts=1), devices).add_to(app)
        async with on_a_port(app) as url:
            yield url


@asynccontextmanager
async def verifying(
    service: str, auth: AuthService, broker: Broker, mongo: tuple[str, str]
) -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """Run the gateway or the reader, with keys and revocations of `auth`."""
    app, registry, keys = new_app(), CollectorRegistry(), KeySet(auth.jwks)
    async with RevocationList(auth.revocations).kept_fresh() as revocations:
        if service == "gateway":
            settings = GatewaySettings(broker_url="embedded://unused", auth_url="http://unused")
            async with gateway_service(
                settings, broker=broker, keys=keys, revocations=revocations, registry=registry
            ) as gateway:
                gateway.add_routes(app)
                async with on_a_port(app) as url:
                    yield url, secured(gateway.calls)
            return
        chosen = ReaderSettings(
            broker_url="embedded://unused", auth_url="http://unused", readings_url=mongo[0], readings_database=mongo[1]
        )
        async with reader_service(
            chosen, broker=broker, keys=keys, revocations=revocations, devices=auth.devices, registry=registry
        ) as reader:
            reader.add_routes(app)
            async with on_a_port(app) as url:
                yield url, secured(reader.calls)


@pytest.mark.parametrize("service", SERVICES)
async def test_two_authorization_headers_are_refused(
    service: str, tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    async with running(service, tmp_path, mongodb_database) as it:
        one, device = ("Authorization", f"Bearer {it.token}"), ("X-Device-Id", "press-1")
        method = "POST" if service == "gateway" else "GET"
        status, _ = await it.call(method, WORKS[service], [one, device])
        assert status in (200, 202), "a single header is accepted"
        assert (method, WORKS[service]) in it.calls
        for other in (f"Bearer {it.token}", "Bearer another", "Basic YTpi", ""):
            for first, second in ((one[1], other), (other, one[1])):
                headers = [("Authorization", first), ("Authorization", second), device]
                for call in it.calls:
                    assert await it.call(*call, headers) == (401, "unauthorized"), (call, first, second)


async def test_two_device_headers_are_refused_at_post_readings(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    async with running("gateway", tmp_path, mongodb_database) as it:
        token = ("Authorization", f"Bearer {it.token}")
        for other in ("press-1", "press-2", ""):
            for first, second in (("press-1", other), (other, "press-1")):
                headers = [token, ("X-Device-Id", first), ("X-Device-Id", second)]
                assert await it.call("POST", "/readings", headers) == (401, "unauthorized"), (first, second)
        assert (await it.call("POST", "/readings", [token, ("X-Device-Id", "press-1")]))[0] == 202
