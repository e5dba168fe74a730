"""The wiring of `alarms`: RabbitMQ → evaluation → the users' database → deliveries, and the calls of owners."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_network

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.bearer import Bearer
from access.claims import Verified
from access.over_http import AuthOverHttp
from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet, TokenVerifier
from alarms.deliveries.notification import Recorded
from alarms.deliveries.sender import DeliverySender, lanes
from alarms.deliveries.store import DeliveryStore
from alarms.evaluation.evaluation import Evaluation
from alarms.evaluation.leader import Leader
from alarms.evaluation.store import AlarmStore
from alarms.http.alarms import AlarmRoutes
from alarms.http.email import EmailRoutes
from alarms.http.guard import AlarmsGuard
from alarms.http.rules import RuleRoutes
from alarms.listing import AlarmListing
from alarms.mail.channel import EmailChannel
from alarms.mail.codes import Codes
from alarms.mail.confirmations import Confirmations
from alarms.mail.mailer import Mailer
from alarms.mail.server import parse_sender, parse_smtp_url
from alarms.metrics import AlarmsMetrics
from alarms.rules.book import RuleBook
from alarms.rules.devices import DeviceNames
from alarms.rules.store import RuleStore
from alarms.rules.trial import Trials
from alarms.settings import AlarmsSettings
from alarms.to_live import ToLive
from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.channel import WebhookChannel
from alarms.webhooks.http_client import WebhookClient
from alarms.webhooks.secrets import Secrets
from broker.alarms import encode_watches
from broker.connect import open_broker
from broker.interface import Broker
from broker.topology import ALARM_EVENTS_EXCHANGE
from database.connection import open_database
from runtime.background import background
from runtime.http.addresses import ClientAddresses
from runtime.http.cors import allow_origins
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.operation import Operation
from runtime.http.ops import Check, ops_server
from runtime.http.problems import Problem, problem_middleware
from runtime.logs import logger
from runtime.process import Shutdown, freeze_startup_objects

log = logger("alarms")

DAY_MS = 86_400_000


class AlarmsService:
    """`alarms` with open connections: add its routes to an application to serve requests."""

    def __init__(self, calls: list[Operation], checks: Mapping[str, Check], book: RuleBook) -> None:
        self.calls = calls
        self.checks = checks
        self._book = book

    def add_routes(self, app: web.Application, *, internal: bool = False) -> None:
        """Add the calls to `app`, which must have `problem_middleware`.

        `internal` also adds the calls for other services; never set it on a public interface.
        """
        app.add_routes([call.route() for call in self.calls if internal or not call.internal])

    async def watched(self, since: str | None) -> bytes:
        """Return the response body of `GET /alarms/watched`, for persisters of the same process; ConnectionError."""
        try:
            return encode_watches(await self._book.watches_after(since))
        except Problem as problem:
            raise ConnectionError(problem.detail) from problem


@asynccontextmanager
async def alarms_service(
    settings: AlarmsSettings,
    *,
    broker: Broker,
    keys: KeySet,
    revocations: RevocationList,
    registry: CollectorRegistry,
    reader_url: Callable[[], str] | None = None,
) -> AsyncIterator[AlarmsService]:
    """Open what the service needs; evaluate, if no other process does, and deliver while the context is open.

    `reader_url`: where a reader answers, for trials of rules; without it, rules cannot be tried.
    """
    metrics = AlarmsMetrics(registry)
    history_ms = settings.alarm_history_days * DAY_MS
    allowed = [ip_network(network) for network in settings.webhook_allowed_networks]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            open_database(
                settings.auth_database_url,
                connections=settings.database_connections,
                timeout_s=settings.database_timeout_seconds,
            )
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(WebhookClient.opened(AddressGuard(allowed)))
        to_live = ToLive(await stack.enter_async_context(broker.broadcaster(ALARM_EVENTS_EXCHANGE)))
        secrets = Secrets(settings.alarm_secret)
        rules, names = RuleStore(database), DeviceNames(database)
        book = RuleBook(rules, names, revocations)
        leader = Leader(database)
        metrics.leading.set_function(lambda: leader.is_leading)
        deliveries = DeliveryStore(database)
        mailer, confirmations = _mailer(settings, metrics), Confirmations(database, Codes(settings.alarm_secret))
        channels = lanes(WebhookChannel(client, secrets), EmailChannel(mailer, confirmations))
        sender = DeliverySender(deliveries, channels, metrics, history_ms=history_ms)

        def on_recorded(recorded: Sequence[Recorded]) -> None:
            to_live.broadcast(recorded)
            sender.wake()

        evaluation = Evaluation(broker, book, AlarmStore(database, leader), metrics, on_recorded, history_ms=history_ms)

        async def require_active(claims: Verified) -> None:
            revocations.require_active(claims)

        guard = AlarmsGuard(
            Bearer(TokenVerifier(keys, settings.token_issuer), require_active),
            ClientAddresses(settings.trusted_proxies),
        )
        trials = None if reader_url is None else Trials(session, reader_url)
        emails = EmailRoutes(confirmations, mailer, guard)
        calls = [
            *RuleRoutes(rules, book, guard, emails, secrets, database, trials).calls(),
            *emails.calls(),
            *AlarmRoutes(AlarmListing(database), deliveries, guard, on_recorded, sender.wake).calls(),
        ]
        checks = {"database": database.check, "keys": keys.check, "revocations": revocations.check}
        async with sender.sending(), background(leader.lead(evaluation.run), name="evaluation"):
            yield AlarmsService(calls, checks, book)
        with suppress(Problem):
            await leader.release()


def _mailer(settings: AlarmsSettings, metrics: AlarmsMetrics) -> Mailer | None:
    if not settings.smtp_url:
        return None
    return Mailer(parse_smtp_url(settings.smtp_url), parse_sender(settings.email_from), metrics)


async def serve(settings: AlarmsSettings, shutdown: Shutdown) -> None:
    """Run as a process of its own."""
    registry, listening = CollectorRegistry(), asyncio.Event()
    app = web.Application(middlewares=[problem_middleware])
    allow_origins(app, settings.cors_origins)
    async with (
        AuthOverHttp.open(settings.auth_url, revocations_every_s=settings.revocations_every_seconds) as auth,
        open_broker(settings.broker_url) as broker,
        alarms_service(
            settings,
            broker=broker,
            keys=auth.keys,
            revocations=auth.revocations,
            registry=registry,
            reader_url=(lambda: settings.reader_url) if settings.reader_url else None,
        ) as alarms,
        ops_server(settings, shutdown, registry, alarms.checks, listening),
    ):
        alarms.add_routes(app, internal=True)
        add_docs(app, PUBLIC_API, alarms.calls)
        async with listen(app, settings.host, settings.port, listening=listening) as port:
            log.info("Alarms are served.", host=settings.host, port=port)
            freeze_startup_objects()
            await shutdown.wait()
