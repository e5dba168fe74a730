"""auth and gateways on one broker, and devices of them that are plain clients."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import socketio
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.interface import Broker
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from tests.auth.service import Client

Answer = Callable[[dict[str, Any]], Any]


@asynccontextmanager
async def gateway(broker: Broker, auth: Client) -> AsyncIterator[str]:
    """Serve devices until the context ends; yields the URL."""
    settings = GatewaySettings(broker_url="embedded://unused", auth_url="http://unused", ops_port=0)
    app = web.Application(middlewares=[problem_middleware])
    async with (
        KeySet(auth.service.jwks).kept_fresh() as keys,
        RevocationList(auth.service.revocations).kept_fresh() as revocations,
        gateway_service(
            settings, broker=broker, keys=keys, revocations=revocations, registry=CollectorRegistry()
        ) as service,
    ):
        service.add_routes(app)
        async with listen(app, "127.0.0.1", 0) as port:
            yield f"http://127.0.0.1:{port}"


class Device:
    """A registered device, and the commands that it received."""

    def __init__(self, auth: Client, user_token: str, device_id: str, token: str) -> None:
        self.auth = auth
        self.user_token = user_token
        self.id = device_id
        self.token = token
        self.received: list[dict[str, Any]] = []

    @classmethod
    async def registered(cls, auth: Client, user_token: str) -> "Device":
        """Register a device of this user."""
        device = await auth.new_device(user_token)
        issued = await auth.post(f"/devices/{device['id']}/token", token=user_token)
        return cls(auth, user_token, device["id"], issued.json["token"])

    async def command(self, name: str = "set_rate", *, auth: Client | None = None, **body: Any) -> Any:
        """Send a command as the owner, by default to the device's own `auth`; return the answer."""
        path = f"/devices/{self.id}/commands"
        return await (auth or self.auth).post(path, {"name": name} | body, token=self.user_token)

    async def listed(self) -> list[dict[str, Any]]:
        answer = await self.auth.get(f"/devices/{self.id}/commands", token=self.user_token)
        assert answer.status == 200, answer.raw
        items: list[dict[str, Any]] = answer.json["items"]
        return items

    async def listed_as(self, *statuses: str) -> list[dict[str, Any]]:
        """Wait until the commands have these statuses, the newest first."""
        async with asyncio.timeout(20):
            while True:
                items = await self.listed()
                if [item["status"] for item in items] == list(statuses):
                    return items
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def connected(self, url: str, answer: Answer | None) -> AsyncIterator[socketio.AsyncClient]:
        """Connect; `answer` gives the acknowledgement of a command, None does not handle commands."""
        async with aiohttp.ClientSession() as http:
            client = socketio.AsyncClient(http_session=http, reconnection=False)
            if answer is not None:

                async def on_command(command: dict[str, Any]) -> Any:
                    self.received.append(command)
                    answered = answer(command)
                    return await answered if asyncio.iscoroutine(answered) else answered

                client.on("command", on_command)
            await client.connect(url, auth={"token": self.token}, transports=["websocket"], wait_timeout=5)
            try:
                yield client
            finally:
                await client.disconnect()


def done(result: Any = None) -> Answer:
    """Acknowledge every command as done."""
    return lambda _: {"status": "done", "result": result}
