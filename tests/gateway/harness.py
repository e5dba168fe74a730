"""Harness: a gateway on a real port, and clients of it."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import socketio
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broker
from broker.topology import READINGS
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from readings.document import decode_document
from runtime.http.listen import FIRST_REQUEST_S, listen
from runtime.http.problems import problem_middleware
from testing.issuer import ISSUER, Issuer

ISSUING = Issuer()
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
TS = 1_750_000_000_000
# Settings of every gateway, unless a test gives others.
# TS is long ago: without this, everything would take the backfill lane.
DEFAULTS: dict[str, Any] = {"backfill_after_seconds": 0}
ACCEPTED = {"status": "accepted", "accepted": 1}


class RunningGateway:
    """A gateway on a port, and clients of it."""

    def __init__(self, port: int, registry: CollectorRegistry, http: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.registry = registry
        self.http = http

    def count(self, name: str) -> float:
        return self.registry.get_sample_value(f"tidegate_gateway_{name}") or 0.0

    @asynccontextmanager
    async def connected(
        self, auth: object = None, *, headers: dict[str, str] | None = None, query: str = ""
    ) -> AsyncIterator[Any]:
        client = socketio.AsyncClient(http_session=self.http, reconnection=False)
        client.refusals = []
        client.on("connect_error", client.refusals.append)
        try:
            await client.connect(
                self.url + query, auth=auth, headers=headers or {}, transports=["websocket"], wait_timeout=5
            )
            yield client
        finally:
            await client.disconnect()

    async def refusal(self, auth: object = None, **connect: Any) -> dict[str, Any]:
        """Return the error data of a client that is refused permanently."""
        client = socketio.AsyncClient(http_session=self.http, reconnection=False)
        errors: list[dict[str, Any]] = []
        client.on("connect_error", errors.append)
        query = connect.pop("query", "")
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(self.url + query, auth=auth, transports=["websocket"], wait_timeout=5, **connect)
        await client.disconnect()
        assert len(errors) == 1
        assert errors[0]["message"]
        return dict(errors[0]["data"])

    async def closed_for_now(self, auth: object) -> str:
        """Return the reason of a socket that is closed with 1013, with nothing sent before it."""
        async with self.raw(auth) as socket:
            message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1013)
        return str(message.extra)

    async def not_upgraded(self, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the problem of an upgrade that is refused with 503, Retry-After, and the same in the body."""
        url = f"{self.url}/socket.io/?EIO=4&transport=websocket"
        async with self.http.get(url, headers=UPGRADE | (headers or {})) as answer:
            assert (answer.status, answer.content_type) == (503, "application/problem+json")
            problem: dict[str, Any] = await answer.json()
            assert int(answer.headers["Retry-After"]) == math.ceil(problem["retryAfterMs"] / 1000) > 0
        return problem

    @asynccontextmanager
    async def raw(self, auth: object = None) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket with a Socket.IO session, to send what no client library would."""
        async with self.http.ws_connect(f"{self.url}/socket.io/?EIO=4&transport=websocket", max_msg_size=0) as socket:
            assert (await socket.receive_str(timeout=5)).startswith("0{")
            await socket.send_str("40" + json.dumps(auth if auth is not None else {"token": ISSUING.device()}))
            yield socket

    @asynccontextmanager
    async def unconnected(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket without a Socket.IO session."""
        async with self.http.ws_connect(f"{self.url}/socket.io/?EIO=4&transport=websocket") as socket:
            assert (await socket.receive_str(timeout=5)).startswith("0{")
            yield socket


@asynccontextmanager
async def gateway(
    broker: Broker, *, keys: KeySet | None = None, revocations: RevocationList | None = None, **settings: Any
) -> AsyncIterator[RunningGateway]:
    first_request_s = settings.pop("first_request_s", FIRST_REQUEST_S)
    at_port = settings.pop("at_port", 0)
    chosen = GatewaySettings(
        broker_url="embedded://unused",
        auth_url="http://unused",
        token_issuer=ISSUER,
        ops_port=0,
        **(DEFAULTS | settings),
    )
    registry = CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])
    async with (
        aiohttp.ClientSession() as http,
        (RevocationList(nothing_revoked) if revocations is None else revocations).kept_fresh() as listed,
        gateway_service(
            chosen, broker=broker, keys=keys or KeySet(jwks), revocations=listed, registry=registry
        ) as service,
    ):
        service.add_routes(app)
        async with listen(app, "127.0.0.1", at_port, first_request_s=first_request_s) as port:
            yield RunningGateway(port, registry, http)


async def jwks() -> dict[str, Any]:
    return ISSUING.jwks()


async def nothing_revoked(_: str | None) -> bytes:
    return b'{"items":[],"cursor":"0"}'


async def stored(broker: EmbeddedBroker, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(5), broker.consumer(READINGS, prefetch=1000) as consumer:
        while len(found) < count:
            delivery = await consumer.get()
            found += map(decode_document, delivery.message.documents())
            await consumer.acknowledge(delivery)
    return found


def reading(value: Any, **fields: Any) -> dict[str, Any]:
    return {"value": value, "ts": TS, **fields}


async def closed(socket: aiohttp.ClientWebSocketResponse, within_s: float = 5) -> tuple[int | None, list[str]]:
    """Read a socket to its end; return the close code and the texts before it."""
    texts: list[str] = []
    async with asyncio.timeout(within_s):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            texts.append(message.data)
    return socket.close_code, texts
