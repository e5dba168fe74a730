"""The gateway's wiring: keys and revocations → admission; devices → handler → lanes → broker; sessions → presence."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.over_http import AuthOverHttp
from access.revocations import RevocationList
from access.tokens import KeySet, TokenVerifier
from broker.connect import open_broker
from broker.interface import Broker, Publisher
from broker.topology import BACKFILL_EXCHANGE, PRESENCE_EXCHANGE, READINGS_EXCHANGE, Exchange
from broker.tracing import with_tracing
from gateway.admission import Admission
from gateway.commands import CommandReceiver
from gateway.from_devices import FromDevices
from gateway.from_http import FromHttp
from gateway.ingest import EventHandler
from gateway.lanes import BACKFILL_SLOTS, Lanes
from gateway.limits.connections import ConnectionLimits
from gateway.metrics import GatewayMetrics
from gateway.presence import PresenceBroadcaster, new_gateway_id
from gateway.settings import GatewaySettings
from gateway.to_broker import ToBroker
from runtime.http.addresses import ClientAddresses
from runtime.http.cors import allow_origins
from runtime.http.listen import listen
from runtime.http.ops import Check, ops_server
from runtime.http.problems import problem_middleware
from runtime.logs import logger
from runtime.process import Shutdown, freeze_startup_objects
from runtime.tracing import Tracing, open_tracing

log = logger("gateway")


class Gateway:
    """A gateway whose parts are open: add its routes to an application and devices can connect."""

    def __init__(self, devices: FromDevices, http: FromHttp, checks: Mapping[str, Check]) -> None:
        self._devices = devices
        self.calls = http.calls
        self.checks = checks

    def add_routes(self, app: web.Application) -> None:
        """Serve devices on `app`, which needs `problem_middleware`."""
        self._devices.attach(app)
        app.add_routes([call.route() for call in self.calls])


@asynccontextmanager
async def gateway_service(
    settings: GatewaySettings,
    *,
    broker: Broker,
    keys: KeySet,
    revocations: RevocationList,
    registry: CollectorRegistry,
    tracing: Tracing | None = None,
) -> AsyncIterator[Gateway]:
    """Open the gateway's parts; leaving the context waits for the last confirm."""
    metrics = GatewayMetrics(registry)
    verifier = TokenVerifier(keys, settings.token_issuer)
    admission = Admission(verifier, revocations, ConnectionLimits(settings), ClientAddresses(settings.trusted_proxies))
    lane = partial(_lane, broker, settings, metrics, tracing)
    async with (
        lane(READINGS_EXCHANGE, settings.publish_slots) as (live, publisher),
        lane(BACKFILL_EXCHANGE, BACKFILL_SLOTS) if settings.backfill_after_seconds else nullcontext((None, None)) as (
            backfill,
            _,
        ),
        broker.broadcaster(PRESENCE_EXCHANGE) as broadcaster,
        PresenceBroadcaster(broadcaster, new_gateway_id()).broadcasting() as presence,
    ):
        event_handler = EventHandler(Lanes(live, backfill, metrics), metrics, settings, presence.accepted)
        devices = FromDevices(settings, admission, event_handler, presence, revocations, metrics)
        checks = {"broker": publisher.check, "keys": keys.check, "revocations": revocations.check}
        async with (
            devices.receipts.passed_on(broker),
            CommandReceiver.receiving(broker, devices, presence, metrics),
        ):
            yield Gateway(devices, FromHttp(settings, admission, event_handler, metrics), checks)


@asynccontextmanager
async def _lane(
    broker: Broker,
    settings: GatewaySettings,
    metrics: GatewayMetrics,
    tracing: Tracing | None,
    exchange: Exchange,
    slots: int,
) -> AsyncIterator[tuple[ToBroker, Publisher]]:
    """Open a publisher to one exchange. Its connection is its own, so that no lane waits behind the other one."""
    async with (
        broker.publisher(exchange, confirm_timeout_s=settings.confirm_timeout_seconds) as publisher,
        ToBroker(
            with_tracing(publisher, tracing),
            metrics,
            slots=slots,
            max_waiting_bytes=settings.max_waiting_bytes,
            exchange=exchange,
        ).running() as to_broker,
    ):
        yield to_broker, publisher


async def serve(settings: GatewaySettings, shutdown: Shutdown) -> None:
    """Run a gateway as its own process until shutdown."""
    registry, listening = CollectorRegistry(), asyncio.Event()
    app = web.Application(middlewares=[problem_middleware])
    allow_origins(app, settings.cors_origins)
    async with (
        AuthOverHttp.open(settings.auth_url, revocations_every_s=settings.revocations_every_seconds) as auth,
        open_tracing("gateway") as tracing,
        open_broker(settings.broker_url) as broker,
        gateway_service(
            settings, broker=broker, keys=auth.keys, revocations=auth.revocations, registry=registry, tracing=tracing
        ) as gateway,
        ops_server(settings, shutdown, registry, gateway.checks, listening),
    ):
        gateway.add_routes(app)
        async with listen(app, settings.host, settings.port, listening=listening) as port:
            log.info("Devices can connect.", host=settings.host, port=port)
            freeze_startup_objects()
            await shutdown.wait()
