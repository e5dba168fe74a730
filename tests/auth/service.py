"""The auth service on a real port, a client of it, and what tests read from its tokens and keys."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from auth.accounts import Accounts
from auth.app import AuthService, auth_service
from auth.metrics import AuthMetrics
from auth.passwords import password_hasher
from auth.settings import AuthSettings
from auth.tokens.revocations import RevocationLog
from broker.interface import Broker
from database.connection import open_database
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
        """The invalid fields named by a problem, with their codes."""
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


async def session(client: Client) -> dict[str, Any]:
    """Sign up and log in; return the response to the log-in."""
    assert (await client.sign_up()).status == 201
    tokens: dict[str, Any] = (await client.log_in()).json
    return tokens


async def is_active(client: Client, access_token: str) -> bool:
    """Return whether the service accepts an access token; otherwise it must be `revoked`."""
    answer = await client.get("/user/token", token=access_token)
    if answer.status == 401:
        assert answer.json["code"] == "revoked"
    return answer.status == 200


def kid_of(token: str) -> str:
    """Return the id of the key that signed a token."""
    part = token.split(".", maxsplit=1)[0]
    header: dict[str, str] = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return header["kid"]


async def new_token(client: Client) -> str:
    """Log in again and return the access token."""
    return str((await client.log_in()).json["accessToken"])


async def published(client: Client) -> list[str]:
    """Return the key ids in the JWKS."""
    return [key["kid"] for key in (await client.get("/.well-known/jwks.json")).json["keys"]]


async def until_published(client: Client, kids: list[str]) -> None:
    """Wait: a JWKS may be 0.2 s old, and a command may end sooner."""
    async with asyncio.timeout(10):
        while await published(client) != kids:
            await asyncio.sleep(0.02)


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, without verification."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def listed_revocations(client: Client) -> list[tuple[str, str]]:
    items = (await client.get("/revocations")).json["items"]
    return [(item["kind"], item["id"]) for item in items]


@asynccontextmanager
async def accounts(url: str) -> AsyncIterator[Accounts]:
    """The accounts as an operator's command changes them."""
    with password_hasher(cost=4, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())) as passwords:
        async with open_database(url, connections=1, timeout_s=30) as database:
            yield Accounts(database, passwords, RevocationLog(database, access_s=3600, device_s=3600))
