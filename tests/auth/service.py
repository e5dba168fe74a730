"""The auth service behind a real socket, and a client that speaks to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from auth.app import AuthService, auth_service
from auth.settings import AuthSettings
from broker.interface import Broker
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware

SECRET = "a secret that is only for tests"
PASSWORD = "correct horse battery"


def make_settings(url: str, **changes: Any) -> AuthSettings:
    quick: dict[str, Any] = {"bcrypt_cost": 4, "signing_key_secret": SECRET, "log_level": "debug"}
    # A disk that is busy with other tests for some seconds fails none of these; test_database has the real deadline.
    quick["database_timeout_seconds"] = 30.0
    return AuthSettings(auth_database_url=url, **quick | changes)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def fields(self) -> dict[str, str]:
        """The wrong fields of a problem, with their codes."""
        return {error["field"]: error["code"] for error in self.json["errors"]}


class Client:
    def __init__(
        self, session: aiohttp.ClientSession, url: str, service: AuthService, registry: CollectorRegistry
    ) -> None:
        self._session = session
        self.url = url
        self.service = service
        self.registry = registry

    async def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Answer:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.request(method, self.url + path, headers=headers, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        if body is not None:
            more["json"] = body
        return await self.call("POST", path, **more)

    async def sign_up(self, email: str = "ada@example.org", password: str = PASSWORD, name: str = "Ada") -> Answer:
        return await self.post("/user/signup", {"name": name, "email": email, "password": password})

    async def log_in(self, email: str = "ada@example.org", password: str = PASSWORD) -> Answer:
        return await self.post("/user/login", {"email": email, "password": password})

    async def new_user(self, email: str = "ada@example.org") -> str:
        """Sign up, log in, and return the access token."""
        assert (await self.sign_up(email)).status == 201
        return str((await self.log_in(email)).json["accessToken"])

    async def new_device(self, token: str, **changes: Any) -> dict[str, Any]:
        body = {"sensorType": "temperature", "location": "hall 3"} | changes
        answer = await self.post("/devices", body, token=token)
        assert answer.status == 201, answer.raw
        device: dict[str, Any] = answer.json
        return device

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(settings: AuthSettings, *, broker: Broker | None = None) -> AsyncIterator[Client]:
    """Serve until the context ends; the database must have been migrated."""
    registry = CollectorRegistry()
    async with auth_service(settings, registry=registry, broker=broker) as service:
        app = web.Application(middlewares=[problem_middleware])
        service.add_routes(app, internal=True)
        add_docs(app, PUBLIC_API, service.calls)
        async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{port}", service, registry)
