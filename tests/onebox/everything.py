"""auth, gateway, reader and alarms on one port, wired as in a onebox, and every call of theirs that a token opens."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet
from alarms.app import alarms_service
from alarms.settings import AlarmsSettings
from auth.app import auth_service
from auth.migrate import migrate
from broker.embedded.broker import EmbeddedBroker
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from reader.app import reader_service
from reader.settings import ReaderSettings
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from tests.auth.service import make_settings
from tests.reader.harness import Mongo

READ, WRITE, MANAGE, ALARMS = "readings:read", "readings:write", "devices:manage", "alarms:manage"
SCOPES = (READ, WRITE, MANAGE, ALARMS)
PASSWORD = "correct horse battery"
DEVICE = {"sensorType": "temperature", "location": "hidden"}
STORED = {"items": [{"sensorType": "temperature", "readings": [[1, 1]]}]}
SERIES = "device={id}&sensorType=temperature"
RULE = {"name": "hot", "devices": "all", "sensorType": "temperature", "when": {"op": "above", "value": 80}}


@dataclass(frozen=True)
class Call:
    """What a call asks of a key, and how it is called. `scopes`: one of them is enough; none: no key is."""

    scopes: tuple[str, ...] = ()
    query: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    # A key that is limited to devices gets 403, whatever is asked.
    of_all_devices: bool = False
    # All scopes are needed, not one of them.
    needs_each: bool = False

    def names_a_device(self, path: str) -> bool:
        place = path if path.startswith("/devices/") else ""
        return self.scopes != () and "{id}" in (place + self.query + "".join(self.headers.values()))

    def permits(self, *scopes: str) -> bool:
        enough = all if self.needs_each else any
        return self.scopes != () and enough(scope in scopes for scope in self.scopes)


PUBLIC = {
    "POST /user/signup",
    "POST /user/login",
    "POST /user/refresh",
    "POST /devices/claim",
    "GET /.well-known/jwks.json",
}
OF_DEVICE = {"X-Device-Id": "{id}"}
CALLS = {
    "GET /user/me": Call(),
    "PATCH /user/me": Call(body={"name": "Eve"}),
    "DELETE /user/me": Call(),
    "POST /user/logout": Call(),
    "POST /keys": Call(body={"name": "more", "scope": [READ]}),
    "GET /keys": Call(),
    "DELETE /keys/{id}": Call(),
    "POST /provisioning": Call(body={"name": "more", "maxDevices": 1}),
    "GET /provisioning": Call(),
    "DELETE /provisioning/{id}": Call(),
    "GET /user/token": Call(SCOPES),
    "POST /devices": Call((MANAGE,), body=DEVICE | {"location": "new"}, of_all_devices=True),
    "POST /devices/batch": Call((MANAGE,), body=[DEVICE | {"location": "new", "name": "more"}], of_all_devices=True),
    "GET /devices": Call((READ, MANAGE)),
    "GET /devices/{id}": Call((READ, MANAGE)),
    "PATCH /devices/{id}": Call((MANAGE,), body={"sensorType": "pressure"}),
    "POST /devices/{id}/token": Call((MANAGE,)),
    "POST /devices/{id}/commands": Call((MANAGE,), body={"name": "x", "timeoutMs": 100}),
    "GET /devices/{id}/commands": Call((MANAGE,)),
    "DELETE /devices/{id}/claim": Call((MANAGE,)),
    "DELETE /devices/{id}/tokens": Call((MANAGE,)),
    "DELETE /devices/{id}": Call((MANAGE,)),
    "POST /readings": Call((WRITE,), body={"sensorType": "temperature", "value": 1}, headers=OF_DEVICE),
    "POST /readings/stored": Call((READ, WRITE), body=STORED, headers=OF_DEVICE),
    "GET /readings": Call((READ,), SERIES),
    "GET /readings/buckets": Call((READ,), SERIES),
    "GET /readings/latest": Call((READ,), "device={id}"),
    "GET /series": Call((READ,), "device={id}"),
    "GET /series/search": Call((READ,), "device={id}"),
    "GET /devices/{id}/gaps": Call((READ,), "sensorType=temperature"),
    "GET /live": Call((READ,), "device={id}"),
    "GET /pipeline": Call((READ,), of_all_devices=True),
    "POST /alarms/rules": Call((ALARMS,), body=RULE, of_all_devices=True),
    "POST /alarms/rules/test": Call((ALARMS, READ), body=RULE, of_all_devices=True, needs_each=True),
    "GET /alarms/rules": Call((ALARMS,), of_all_devices=True),
    "GET /alarms/rules/{id}": Call((ALARMS,), of_all_devices=True),
    "PATCH /alarms/rules/{id}": Call((ALARMS,), body={"name": "hotter"}, of_all_devices=True),
    "DELETE /alarms/rules/{id}": Call((ALARMS,), of_all_devices=True),
    "POST /alarms/rules/{id}/secret": Call((ALARMS,), of_all_devices=True),
    "GET /alarms": Call((ALARMS,), "device={id}"),
    "GET /alarms/{id}/history": Call((ALARMS,)),
    "POST /alarms/{id}/acknowledge": Call((ALARMS,)),
    "GET /alarms/deliveries": Call((ALARMS,), of_all_devices=True),
    "POST /alarms/deliveries/{id}/replay": Call((ALARMS,), of_all_devices=True),
    "GET /alarms/email": Call((ALARMS,), of_all_devices=True),
    "POST /alarms/email/confirmation": Call(),
    "POST /alarms/email/confirm": Call(body={"code": "ABCDE23456"}),
}


class Client:
    """A client of everything."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def call(
        self, method: str, path: str, token: str | None = None, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Return status and body; of a live feed only the status."""
        sent = dict(headers or {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
        async with self._session.request(method, self.url + path, json=body, headers=sent) as response:
            live = response.content_type == "text/event-stream"
            return response.status, "" if live else await response.text()

    async def json(self, method: str, path: str, token: str | None = None, body: Any = None) -> Any:
        status, text = await self.call(method, path, token, body)
        assert status in (200, 201), text
        return json.loads(text)

    async def tried(self, name: str, device: str, token: str) -> tuple[int, str]:
        """Make one of the calls, about a device."""
        (method, path), call = name.split(" "), CALLS[name]
        address = path + (f"?{call.query}" if call.query else "")
        headers = {header: value.replace("{id}", device) for header, value in call.headers.items()}
        return await self.call(method, address.replace("{id}", device), token, call.body, headers)

    async def new_user(self, email: str) -> tuple[str, str]:
        """Return the user's id and a token."""
        person = {"name": "Ada", "email": email, "password": PASSWORD}
        user = (await self.json("POST", "/user/signup", body=person))["id"]
        del person["name"]
        return user, (await self.json("POST", "/user/login", body=person))["accessToken"]

    async def new_device(self, token: str) -> str:
        return str((await self.json("POST", "/devices", token, DEVICE))["id"])

    async def new_key(self, token: str, scope: tuple[str, ...] = SCOPES, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = await self.json("POST", "/keys", token, {"name": "k", "scope": scope, **more})
        return made


@asynccontextmanager
async def everything(folder: Path, mongo: Mongo) -> AsyncIterator[Client]:
    """Serve auth, gateway, reader and alarms on one port, wired as in a onebox."""
    users = f"sqlite+aiosqlite:///{folder / 'users.db'}"
    await migrate(users)
    common: dict[str, Any] = {"broker_url": "embedded://unused", "auth_url": "http://unused"}
    history: dict[str, Any] = {"readings_url": mongo[0], "readings_database": mongo[1]}
    registry, app = CollectorRegistry(), web.Application(middlewares=[problem_middleware])
    async with (
        EmbeddedBroker.open_at(folder / "queue.db") as broker,
        auth_service(make_settings(users), registry=registry, broker=broker) as auth,
        KeySet(auth.jwks).kept_fresh() as keys,
        RevocationList(auth.revocations).kept_fresh() as revocations,
        gateway_service(
            GatewaySettings(**common), broker=broker, keys=keys, revocations=revocations, registry=registry
        ) as gateway,
        reader_service(
            ReaderSettings(**common, **history),
            broker=broker,
            keys=keys,
            revocations=revocations,
            devices=auth.devices,
            registry=registry,
        ) as reader,
        alarms_service(
            AlarmsSettings(**common, auth_database_url=users, alarm_secret="a-secret-of-the-tests-only"),
            broker=broker,
            keys=keys,
            revocations=revocations,
            registry=registry,
            reader_url=lambda: url,
        ) as alarms,
    ):
        for part in (auth, gateway, reader, alarms):
            part.add_routes(app)
        add_docs(app, PUBLIC_API, [*auth.calls, *gateway.calls, *reader.calls, *alarms.calls])
        async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}"
            yield Client(session, url)
