"""The wiring of a onebox: every service, unchanged, in one process on embedded storage; a run, a drain, a summary.

The contexts are nested so that each can still use its dependencies while it closes: storage outlives the persister,
the persister outlives the gateway, the gateway outlives the devices.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet
from alarms.app import AlarmsService, alarms_service
from auth.app import auth_service
from auth.migrate import migrate
from broker.embedded.broker import EmbeddedBroker
from broker.topology import LANES
from gateway.app import gateway_service
from onebox.data_folder import Secrets
from onebox.demo import DEMO_EMAIL, demo_user, run_devices
from onebox.mongod import MongodError, PrivateMongod
from onebox.panel import GATEWAY_READINGS, Sources, View, count, shown
from onebox.reading_audit import ReadingAudit
from onebox.run import Plan, Summary
from onebox.services import ServiceSettings
from onebox.settings import OneboxSettings
from persister.app import persister_service
from persister.compaction.service import compactor_service
from reader.app import reader_service
from runtime.http.cors import allow_origins
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.ops import Check, ops_server
from runtime.http.problems import problem_middleware
from runtime.logs import logger
from runtime.process import Shutdown, freeze_startup_objects
from runtime.tracing import open_tracing
from simulator.run_stats import RunStats

log = logger("onebox")

# A drain that settles nothing for this long is stalled.
STALLED_S = 30.0


@dataclass(slots=True)
class _Storage:
    """The open storage, and what observes it."""

    broker: EmbeddedBroker
    audit: ReadingAudit
    registry: CollectorRegistry
    checks: dict[str, Check]


class Pipeline:
    """The services of one run."""

    def __init__(self, plan: Plan, settings: OneboxSettings, services: ServiceSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._services = services
        self._alarms: asyncio.Future[AlarmsService] = asyncio.get_running_loop().create_future()
        self._url = ""

    async def run(self, mongod: PrivateMongod, secrets: Secrets, shutdown: Shutdown) -> tuple[Summary, list[str]]:
        """Run until the plan is done or a stop is requested; drain; return the summary and the devices that failed."""
        self._services = self._services.with_secret(secrets.signing_key_secret).with_mongod(mongod.url)
        async with self._storage(mongod) as storage, asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_fail_when_mongod_exits(mongod), name="mongod")
            tally = RunStats(on_acked=lambda *acked: storage.audit.acknowledged(tally.owner, *acked))
            await self._serve(storage, secrets, tally, shutdown)
            await self._drain(storage)
            summary = await self._sum_up(storage, tally)
            watch.cancel()
        return summary, tally.failures

    @asynccontextmanager
    async def _storage(self, mongod: PrivateMongod) -> AsyncIterator[_Storage]:
        """Open the queue, and run the persister between it and mongod."""
        plan, registry = self._plan, CollectorRegistry()
        started_ms = time.time_ns() // 1_000_000
        async with (
            EmbeddedBroker.open_at(plan.queue) as broker,
            ReadingAudit.over(mongod.url, self._services.persister.readings_database, started_ms) as audit,
            open_tracing("persister") as tracing,
            persister_service(
                self._services.persister,
                broker=broker,
                registry=registry,
                on_settled=audit.watch,
                tracing=tracing,
                fetch_watched=self._watched,
            ) as checks,
            compactor_service(self._services.compactor, registry) as compactor_checks,
        ):
            yield _Storage(broker, audit, registry, {**compactor_checks, **checks})

    async def _serve(self, storage: _Storage, secrets: Secrets, tally: RunStats, shutdown: Shutdown) -> None:
        """Serve auth, gateway and reader on one port, run the devices, and stop accepting readings again."""
        plan, settings = self._plan, self._services
        await migrate(settings.auth.auth_database_url)
        app = web.Application(middlewares=[problem_middleware])
        allow_origins(app, self._settings.cors_origins)
        async with (
            demo_user(settings.auth, secrets.demo_password) as created,
            auth_service(settings.auth, registry=storage.registry, broker=storage.broker) as auth,
            KeySet(auth.jwks).kept_fresh() as keys,
            RevocationList(
                auth.revocations, every_s=settings.gateway.revocations_every_seconds
            ).kept_fresh() as revocations,
            open_tracing("gateway") as tracing,
            gateway_service(
                settings.gateway,
                broker=storage.broker,
                keys=keys,
                revocations=revocations,
                registry=storage.registry,
                tracing=tracing,
            ) as gateway,
            reader_service(
                settings.reader,
                broker=storage.broker,
                keys=keys,
                revocations=revocations,
                devices=auth.devices,
                registry=storage.registry,
            ) as reader,
            alarms_service(
                settings.alarms,
                broker=storage.broker,
                keys=keys,
                revocations=revocations,
                registry=storage.registry,
                reader_url=lambda: self._url,
            ) as alarms,
        ):
            auth.add_routes(app)
            gateway.add_routes(app)
            reader.add_routes(app)
            alarms.add_routes(app)
            self._alarms.set_result(alarms)
            add_docs(app, PUBLIC_API, [*auth.calls, *gateway.calls, *reader.calls, *alarms.calls])
            await created
            listening = asyncio.Event()
            checks = {**storage.checks, **gateway.checks, **reader.checks, "users": auth.check}
            async with (
                ops_server(self._settings, shutdown, storage.registry, checks, listening) as ops_port,
                listen(app, plan.host, plan.port, listening=listening) as port,
            ):
                url = self._url = f"http://{plan.host}:{port}"
                log.info("Tidegate is up.", url=url, ops_port=ops_port)
                sources = Sources(storage.registry, tally, lambda: sum(map(storage.broker.unsettled, LANES)))
                account = f"{DEMO_EMAIL} / {secrets.demo_password}"
                freeze_startup_objects()
                async with shown(View(sources, url, account, plan.seconds)):
                    await run_devices(plan, url, secrets.demo_password, tally, shutdown)

    async def _watched(self, since: str | None) -> bytes:
        """Return what rules watch, once alarms are served."""
        return await (await asyncio.shield(self._alarms)).watched(since)

    async def _drain(self, storage: _Storage) -> None:
        """Wait until every reading that this run accepted has an outcome and the queues are empty."""
        progress, since = (-1, -1), time.monotonic()
        while True:
            accepted = count(storage.registry, GATEWAY_READINGS, answer="accepted")
            depth = sum([await storage.broker.depth(queue) for queue in LANES])
            if storage.audit.settled >= accepted and depth == 0:
                return
            if (storage.audit.settled, depth) != progress:
                progress, since = (storage.audit.settled, depth), time.monotonic()
            elif time.monotonic() - since > STALLED_S:
                log.error("The drain has stalled.", accepted=accepted, settled=storage.audit.settled)
                return
            await asyncio.sleep(0.02)

    async def _sum_up(self, storage: _Storage, tally: RunStats) -> Summary:
        devices = tally.summary()
        return Summary(
            sent=devices.sent,
            acked=devices.acked,
            accepted=count(storage.registry, GATEWAY_READINGS, answer="accepted"),
            rejected=count(storage.registry, GATEWAY_READINGS, answer="rejected"),
            stored=storage.audit.stored,
            duplicates=storage.audit.duplicates,
            lost=await storage.audit.lost(storage.broker),
            ack_p50_ms=devices.ack_p50_ms,
            ack_p99_ms=devices.ack_p99_ms,
            seconds=devices.seconds,
            readings_per_second=devices.readings_per_second,
        )


async def _fail_when_mongod_exits(mongod: PrivateMongod) -> None:
    code = await mongod.exited()
    raise MongodError(f"mongod exited with status {code} during the run; its log is next to its data")
