"""The calls of alarms on a real port, with a token for each of two owners."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
from alarms.app import alarms_service
from alarms.settings import AlarmsSettings
from broker.embedded.broker import EmbeddedBroker
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from testing.issuer import ISSUER, Issuer

SCOPE = "alarms:manage readings:read"


@dataclass(frozen=True)
class Client:
    """A client of the calls; a token is given by the claims that differ from ada's."""

    session: aiohttp.ClientSession
    url: str
    issuer: Issuer
    database_url: str

    async def call(
        self, method: str, path: str, body: Any = None, *, owner: str = "ada", token: str | None = None
    ) -> tuple[int, Any]:
        """Return status and parsed body; the token is a session's of `owner`, if none is given."""
        status, _, answer = await self.call_with_headers(method, path, body, owner=owner, token=token)
        return status, answer

    async def call_with_headers(
        self, method: str, path: str, body: Any = None, *, owner: str = "ada", token: str | None = None
    ) -> tuple[int, Mapping[str, str], Any]:
        """Return status, headers and parsed body."""
        bearer = token or self.issuer.user(sub=owner, owner=owner, scope=SCOPE)
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            raw = await response.read()
            return response.status, response.headers, json.loads(raw) if raw else None


@pytest.fixture
async def client(database_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(database_url, tmp_path) as it:
        yield it


@asynccontextmanager
async def serving(database_url: str, folder: Path, **more: Any) -> AsyncIterator[Client]:
    """Serve the calls; `more`: settings."""
    issuer = Issuer()

    async def jwks() -> dict[str, Any]:
        return issuer.jwks()

    async def no_revocations(_: str | None) -> bytes:
        return b'{"items": [], "cursor": "0"}'

    settings = AlarmsSettings(
        auth_database_url=database_url,
        broker_url="embedded://unused",
        auth_url="http://unused",
        alarm_secret="a secret only for tests",
        token_issuer=ISSUER,
        database_timeout_seconds=30.0,
        **more,
    )
    app = web.Application(middlewares=[problem_middleware])
    async with (
        EmbeddedBroker.open_at(folder / "queue.db") as broker,
        KeySet(jwks).kept_fresh() as keys,
        RevocationList(no_revocations).kept_fresh() as revocations,
        alarms_service(
            settings, broker=broker, keys=keys, revocations=revocations, registry=CollectorRegistry()
        ) as alarms,
    ):
        alarms.add_routes(app)
        async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{port}", issuer, database_url)
