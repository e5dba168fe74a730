"""The reader's wiring: MongoDB → history; broker → live feed and presence; auth → authorization and device names."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.bearer import Bearer
from access.claims import Verified
from access.over_http import AuthOverHttp
from access.revocations import RevocationList
from access.tokens import KeySet, TokenVerifier
from broker.connect import open_broker
from broker.interface import Broker
from reader.from_auth import FetchDevices, FromAuth, fetch_devices_over_http
from reader.from_presence import FromPresence
from reader.history.catalogue_cache import CatalogueCache
from reader.history.from_mongodb import FromMongoDB
from reader.http.concurrency import ConcurrencyLimiter
from reader.http.dashboard import Dashboard
from reader.http.gaps import GapsRoutes
from reader.http.live import LiveRoutes
from reader.http.readings import ReadingsRoutes
from reader.http.request_guard import RequestGuard
from reader.http.search import SearchRoutes
from reader.http.series import SeriesRoutes
from reader.http.stored import StoredRoutes
from reader.live.from_alarms import FromAlarms
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from reader.settings import ReaderSettings
from runtime.http.cors import allow_origins
from runtime.http.listen import listen
from runtime.http.operation import Operation
from runtime.http.ops import Check, ops_server
from runtime.http.problems import problem_middleware
from runtime.logs import logger
from runtime.process import Shutdown, freeze_startup_objects

log = logger("reader")

# How long a request waits for a slot before it is rejected.
QUERY_WAIT_S = 2.0


class Reader:
    """A reader with open connections: add its routes to an application to serve requests."""

    def __init__(self, calls: list[Operation], live: LiveRoutes, checks: Mapping[str, Check]) -> None:
        self.calls = calls
        self.checks = checks
        self._live = live

    def end_feeds(self) -> None:
        """End every live feed: clients reconnect to another reader."""
        self._live.end_all()

    def add_routes(self, app: web.Application) -> None:
        """Serve the operations and the dashboard on `app`, which needs `problem_middleware`."""

        async def end_feeds(_: web.Application) -> None:
            self.end_feeds()

        app.add_routes([call.route() for call in self.calls])
        Dashboard().add_routes(app)
        app.on_shutdown.append(end_feeds)


@asynccontextmanager
async def reader_service(
    settings: ReaderSettings,
    *,
    broker: Broker,
    keys: KeySet,
    revocations: RevocationList,
    devices: FetchDevices,
    registry: CollectorRegistry,
) -> AsyncIterator[Reader]:
    """Open the reader's connections and background tasks."""
    metrics = ReaderMetrics(registry)

    async def require_active(claims: Verified) -> None:
        revocations.require_active(claims)

    queries, exports = (
        ConcurrencyLimiter(metrics, what, limit=limit, limit_per_owner=limit_per_owner, wait_s=QUERY_WAIT_S)
        for what, limit, limit_per_owner in (
            ("questions", settings.max_queries, settings.max_queries_per_owner),
            ("exports", settings.max_exports, settings.max_exports_per_owner),
        )
    )
    feeds = ConcurrencyLimiter(
        metrics, "live feeds", limit=settings.max_live, limit_per_owner=settings.max_live_per_owner
    )
    async with (
        FromMongoDB.connected(
            settings.readings_url, settings.readings_database, timeout_s=settings.query_timeout_seconds
        ) as history,
        FromPresence.subscribed(broker) as presence,
        FromLive.subscribed(broker, metrics, heartbeat_s=settings.heartbeat_seconds) as live,
        FromAlarms.subscribed(broker, live, metrics),
        CatalogueCache(history, FromAuth(devices), metrics).open() as catalogues,
    ):
        bearer = Bearer(TokenVerifier(keys, settings.token_issuer), require_active)
        guard = RequestGuard(bearer, revocations, queries, exports, metrics)
        live_routes = LiveRoutes(
            guard, feeds, live, history, revocations, metrics, unread_timeout_s=settings.unread_timeout_seconds
        )
        calls = [
            *ReadingsRoutes(guard, history, metrics).calls(),
            *SeriesRoutes(guard, history, presence, live, metrics).calls(),
            *SearchRoutes(guard, history, presence, catalogues, metrics).calls(),
            *StoredRoutes(guard, history, metrics).calls(),
            *GapsRoutes(guard, history).calls(),
            *live_routes.calls(),
        ]
        checks = {"mongodb": history.check, "broker": live.check, "keys": keys.check, "revocations": revocations.check}
        async with live_routes.watching():
            yield Reader(calls, live_routes, checks)


async def serve(settings: ReaderSettings, shutdown: Shutdown) -> None:
    """Run a reader as a separate process."""
    registry, listening = CollectorRegistry(), asyncio.Event()
    app = web.Application(middlewares=[problem_middleware])
    allow_origins(app, settings.cors_origins)
    async with (
        AuthOverHttp.open(settings.auth_url, revocations_every_s=settings.revocations_every_seconds) as auth,
        open_broker(settings.broker_url) as broker,
        reader_service(
            settings,
            broker=broker,
            keys=auth.keys,
            revocations=auth.revocations,
            devices=fetch_devices_over_http(auth.session, settings.auth_url),
            registry=registry,
        ) as reader,
        ops_server(settings, shutdown, registry, reader.checks, listening),
    ):
        reader.add_routes(app)
        async with listen(app, settings.host, settings.port, listening=listening) as port:
            log.info("The reader is listening.", host=settings.host, port=port)
            freeze_startup_objects()
            await shutdown.wait()
