"""Tidegate on one port, as in a onebox: a real gateway and a real reader, to put a proxy in front of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from reader.app import reader_service
from reader.settings import ReaderSettings
from runtime.http.addresses import ClientAddresses
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from testing.issuer import ISSUER
from tests.reader.harness import ISSUING, Mongo

TRUSTED = "127.0.0.1/32"


async def jwks() -> dict[str, object]:
    return ISSUING.jwks()


async def nothing_revoked(_: str | None) -> bytes:
    return b'{"items":[],"cursor":"0"}'


async def no_devices(_: str, __: str, ___: str | None) -> bytes:
    return b'{"items":[]}'


@asynccontextmanager
async def origin(broker: EmbeddedBroker, mongo: Mongo, *, ping_interval_s: float = 25) -> AsyncIterator[int]:
    """Serve both, and `GET /address`: the client address that limits use."""
    named = {"broker_url": "embedded://unused", "auth_url": "http://unused", "token_issuer": ISSUER, "ops_port": 0}
    gateway_settings = GatewaySettings(**named, trusted_proxies=(TRUSTED,), ping_interval_seconds=ping_interval_s)  # type: ignore[arg-type]
    reader_settings = ReaderSettings(**named, readings_url=mongo[0], readings_database=mongo[1])  # type: ignore[arg-type]
    keys, registry = KeySet(jwks), CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])

    async def address(request: web.Request) -> web.Response:
        return web.Response(text=ClientAddresses((TRUSTED,)).of(request))

    app.router.add_get("/address", address)
    async with (
        RevocationList(nothing_revoked).kept_fresh() as revocations,
        gateway_service(
            gateway_settings, broker=broker, keys=keys, revocations=revocations, registry=registry
        ) as gateway,
        reader_service(
            reader_settings, broker=broker, keys=keys, revocations=revocations, devices=no_devices, registry=registry
        ) as reader,
    ):
        gateway.add_routes(app)
        reader.add_routes(app)
        async with listen(app, "127.0.0.1", 0) as port:
            yield port
