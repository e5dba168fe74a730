"""The reader's wiring: MongoDB → history; broker → live feed and presence; auth → who may see what, and names."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.bearer import Bearer
from access.revocations import RevocationList, fetch_revocations_over_http
from access.tokens import KeySet, TokenVerifier, Verified, fetch_jwks_over_http
from broker.connect import open_broker
from broker.interface import Broker
from reader.from_auth import FetchDevices, FromAuth, fetch_devices_over_http
from reader.from_presence import FromPresence
from reader.history.catalogues import Catalogues
from reader.history.from_mongodb import FromMongoDB
from reader.http.concurrency import Gate
from reader.http.dashboard import Dashboard
from reader.http.live import LiveRoutes
from reader.http.readings import ReadingsRoutes
from reader.http.request_guard import Asking
from reader.http.search import SearchRoutes
from reader.http.series import SeriesRoutes
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

# How long a question waits for room before it is refused.
QUESTION_WAITS_S = 2.0


class Reader:
    """A reader whose parts are open: add it to an application and people can read."""

    def __init__(self, calls: list[Operation], live: LiveRoutes, checks: Mapping[str, Check]) -> None:
        self.calls = calls
        self.checks = checks
        self._live = live

    def end_feeds(self) -> None:
        """End every live feed: browsers go to another reader."""
        self._live.end_all()

    def add_routes(self, app: web.Application) -> None:
        """Serve the calls and the dashboard on `app`, which needs `problem_middleware`."""

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
    """Open the reader's parts."""
    metrics = ReaderMetrics(registry)

    async def require_active(claims: Verified) -> None:
        revocations.require_active(claims)

    questions, exports = (
        Gate(metrics, what, most=most, most_per_owner=most_per_owner, wait_s=QUESTION_WAITS_S)
        for what, most, most_per_owner in (
            ("questions", settings.max_queries, settings.max_queries_per_owner),
            ("exports", settings.max_exports, settings.max_exports_per_owner),
        )
    )
    feeds = Gate(metrics, "live feeds", most=settings.max_live, most_per_owner=settings.max_live_per_owner)
    async with (
        FromMongoDB.connected(
            settings.readings_url, settings.readings_database, timeout_s=settings.query_timeout_seconds
        ) as history,
        FromPresence.heard(broker) as presence,
        FromLive.heard(broker, metrics, heartbeat_s=settings.heartbeat_seconds) as live,
        Catalogues(history, FromAuth(devices), metrics).opened() as catalogues,
    ):
        bearer = Bearer(TokenVerifier(keys, settings.token_issuer), require_active)
        asking = Asking(bearer, revocations, questions, exports, metrics)
        live_routes = LiveRoutes(
            asking, feeds, live, history, revocations, metrics, unread_timeout_s=settings.unread_timeout_seconds
        )
        calls = [
            *ReadingsRoutes(asking, history, metrics).calls(),
            *SeriesRoutes(asking, history, presence, live, metrics).calls(),
            *SearchRoutes(asking, history, presence, catalogues, metrics).calls(),
            *live_routes.calls(),
        ]
        checks = {"mongodb": history.check, "broker": live.check, "keys": keys.check, "revocations": revocations.check}
        async with live_routes.watching():
            yield Reader(calls, live_routes, checks)


async def serve(settings: ReaderSettings, shutdown: Shutdown) -> None:
    """Run a reader as a process of its own."""
    registry = CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])
    allow_origins(app, settings.cors_origins)
    async with (
        aiohttp.ClientSession() as session,
        KeySet(fetch_jwks_over_http(session, settings.auth_url)).kept_fresh() as keys,
        RevocationList(
            fetch_revocations_over_http(session, settings.auth_url), every_s=settings.revocations_every_seconds
        ).kept_fresh() as revocations,
        open_broker(settings.broker_url) as broker,
        reader_service(
            settings,
            broker=broker,
            keys=keys,
            revocations=revocations,
            devices=fetch_devices_over_http(session, settings.auth_url),
            registry=registry,
        ) as reader,
        ops_server(settings, shutdown, registry, reader.checks),
    ):
        reader.add_routes(app)
        async with listen(app, settings.host, settings.port) as port:
            log.info("Readings can be read.", host=settings.host, port=port)
            freeze_startup_objects()
            await shutdown.wait()
