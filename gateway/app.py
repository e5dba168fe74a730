"""The gateway's wiring: keys → verifier → sessions; devices → answerer → broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from broker.connect import open_broker
from broker.interface import Broker, Publisher
from gateway.answer import Answerer
from gateway.from_devices import FromDevices
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.to_broker import ToBroker
from runtime.listen import listen
from runtime.logs import logger
from runtime.ops import ops_server
from runtime.problems import problem_middleware
from runtime.process import Shutdown
from runtime.tokens import KeySet, TokenVerifier, fetch_jwks_over_http

log = logger("gateway")


class Gateway:
    """A gateway whose parts are open: add it to an application and devices can connect."""

    def __init__(self, devices: FromDevices, publisher: Publisher, keys: KeySet, metrics: GatewayMetrics) -> None:
        self._devices = devices
        self.metrics = metrics
        self.checks = {"broker": publisher.check, "keys": keys.check}

    def add_routes(self, app: web.Application) -> None:
        """Serve devices on `app`."""
        self._devices.attach(app)


@asynccontextmanager
async def gateway_service(
    settings: GatewaySettings, *, broker: Broker, keys: KeySet, registry: CollectorRegistry
) -> AsyncIterator[Gateway]:
    """Open the gateway's parts; leaving waits for the last confirm."""
    metrics = GatewayMetrics(registry)
    async with broker.publisher(confirm_timeout_s=settings.confirm_timeout_seconds) as publisher:
        to_broker = ToBroker(
            publisher, metrics, slots=settings.publish_slots, max_waiting_bytes=settings.max_waiting_bytes
        )
        async with to_broker.running():
            answerer = Answerer(to_broker, metrics, settings)
            verifier = TokenVerifier(keys, settings.token_issuer)
            yield Gateway(FromDevices(settings, verifier, answerer, metrics), publisher, keys, metrics)


async def serve(settings: GatewaySettings, shutdown: Shutdown) -> None:
    """Run a gateway as a process of its own."""
    registry = CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])
    async with (
        aiohttp.ClientSession() as session,
        KeySet(fetch_jwks_over_http(session, settings.auth_url)).kept_fresh() as keys,
        open_broker(settings.broker_url) as broker,
        gateway_service(settings, broker=broker, keys=keys, registry=registry) as gateway,
        ops_server(settings, shutdown, registry, gateway.checks),
    ):
        gateway.add_routes(app)
        async with listen(app, settings.host, settings.port) as port:
            log.info("Devices can connect.", host=settings.host, port=port)
            await shutdown.wait()
