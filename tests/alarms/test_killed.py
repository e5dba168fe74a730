"""A process that is killed at any step, or stopped: each change is stored once, and each is notified, under one id."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import select

from alarms.rules.store import RuleStore
from alarms.webhooks.secrets import Secrets
from alarms.webhooks.signature import new_secret
from broker.alarms import WatchedReading, announcements
from broker.connect import open_broker
from broker.failpoints import VARIABLE, Point
from broker.headers import SCHEMA_HEADER
from broker.message import Message
from broker.topology import ALARMS, ALARMS_EXCHANGE
from database.alarm_tables import alarm_deliveries, alarm_history, alarm_series
from database.connection import open_database
from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.alarms.conftest import prepare
from tests.alarms.mail.confirming import EMAIL, confirmed
from tests.alarms.mail.mail_server import MailServer
from tests.alarms.making import announced, definition, reading
from tests.alarms.rows import rows
from tests.integration.services import SECRET, Running, started

VALUES = (70, 81, 82, 60, 90, 50)
CHANGES = [("firing", 1000), ("ok", 3000), ("firing", 4000), ("ok", 5000)]


class Receiver:
    """Takes webhooks: bodies by id."""

    def __init__(self) -> None:
        self.received: dict[str, set[bytes]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        self.received.setdefault(request.headers["webhook-id"], set()).add(await request.read())
        return web.Response()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/hook", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/hook"
        await runner.cleanup()

    def numbers(self) -> list[int]:
        """Return the numbers of the changes that were notified."""
        return sorted(json.loads(body)["data"]["number"] for bodies in self.received.values() for body in bodies)


def settings_of(rabbitmq_url: str, mariadb_url: str) -> dict[str, str]:
    return {
        "AUTH_DATABASE_URL": mariadb_url,
        "BROKER_URL": rabbitmq_url,
        # Nobody is there, and no call is made.
        "AUTH_URL": "http://127.0.0.1:1",
        "ALARM_SECRET": SECRET,
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", ["alarms.before_commit", "alarms.committed", "alarms.before_send", "alarms.sent"])
async def test_a_killed_process_leaves_nothing_out_and_does_nothing_twice(
    rabbitmq_url: str, mariadb_url: str, point: Point
) -> None:
    await prepare(mariadb_url)
    receiver = Receiver()
    settings = settings_of(rabbitmq_url, mariadb_url)
    async with (
        receiver.listening() as hook,
        open_database(mariadb_url, connections=2, timeout_s=30) as database,
        open_broker(rabbitmq_url) as broker,
        broker.publisher(ALARMS_EXCHANGE) as publisher,
    ):
        sealed = Secrets(SECRET).seal("ada", new_secret())
        await RuleStore(database).create("ada", definition(notify=[{"kind": "webhook", "url": hook}]), sealed)
        readings = [reading(number * 1000, value) for number, value in enumerate(VALUES)]
        (body,) = announcements([announced(*readings)])
        async with started("alarms", until="healthz", **settings, **{VARIABLE: f"{point}:1"}) as killed:
            await publisher.publish(Message(body, {SCHEMA_HEADER: 1}), ALARMS_EXCHANGE)
            await asyncio.wait_for(killed.process.wait(), 60)
            assert killed.process.returncode == -9
        async with started("alarms", until="healthz", **settings) as next_one:

            async def all_are_notified() -> bool:
                return receiver.numbers() == [1, 2, 3, 4]

            # A lease of the killed process, of 10 s, and one of its delivery, of 30 s, may have to end.
            await eventually(all_are_notified, "every change is notified", 120)
            assert await next_one.stop() == 0
        found = await rows(mariadb_url, select(alarm_history).order_by(alarm_history.c.number))
    assert [(one["state"], one["ts_ms"] - readings[0].ts_ms) for one in found] == CHANGES
    assert len(receiver.received) == len(CHANGES), "one id for each change"
    assert all(len(bodies) == 1 for bodies in receiver.received.values()), "the same body at every attempt"


@pytest.mark.timeout(300)
async def test_what_a_stopped_process_has_is_evaluated_first_by_the_one_that_takes_over(
    rabbitmq_url: str, mariadb_url: str
) -> None:
    await prepare(mariadb_url)
    settings = settings_of(rabbitmq_url, mariadb_url)
    # A rule that a late reading does not bring about, so that none is late.
    kind = {"when": {"op": "changed"}}
    readings = [reading(number * 1000, value) for number, value in enumerate((1, 1, 2, 2, 3, 3))]
    async with (
        open_database(mariadb_url, connections=2, timeout_s=30) as database,
        open_broker(rabbitmq_url) as broker,
        broker.publisher(ALARMS_EXCHANGE) as publisher,
    ):
        await RuleStore(database).create("ada", definition(**kind), None)

        async def announce(some: list[WatchedReading]) -> None:
            (body,) = announcements([announced(*some)])
            await publisher.publish(Message(body, {SCHEMA_HEADER: 1}), ALARMS_EXCHANGE)

        async with started("alarms", until="healthz", **settings) as first:
            await announce(readings[:2])
            await eventually(lambda: is_saved(mariadb_url, readings[1]), "the first readings are evaluated")
            assert await first.stop() == 0
        async with AsyncExitStack() as held:
            # Stands in for a process that is stopped, and has no room for more.
            stopped = await held.enter_async_context(broker.consumer(ALARMS, prefetch=1))
            await announce(readings[2:4])
            await stopped.get()
            async with started("alarms", until="healthz", **settings) as second:
                await eventually(lambda: leads(second), "the other process leads")
                await announce(readings[4:])
                # In which it would take them, if it did not wait.
                await asyncio.sleep(4)
                await held.aclose()
                await eventually(lambda: is_saved(mariadb_url, readings[5]), "the last readings are evaluated")
                found = await rows(mariadb_url, select(alarm_history).order_by(alarm_history.c.number))
                assert await second.stop() == 0
    changes = [(one["state"], one["ts_ms"] - readings[0].ts_ms) for one in found]
    assert changes == [("firing", 2000), ("ok", 3000), ("firing", 4000), ("ok", 5000)]


async def is_saved(url: str, newest: WatchedReading) -> bool:
    return any(one["ts_ms"] == newest.ts_ms for one in await rows(url, select(alarm_series)))


async def leads(process: Running) -> bool:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{process.ops_port}/metrics") as answer,
    ):
        return "\ntidegate_alarms_leading 1.0\n" in await answer.text()


@pytest.mark.timeout(300)
async def test_a_mail_that_was_sent_and_not_noted_is_sent_again_under_its_id(
    rabbitmq_url: str, mariadb_url: str
) -> None:
    await prepare(mariadb_url)
    async with (
        MailServer.listening() as mail,
        open_database(mariadb_url, connections=2, timeout_s=30) as database,
        open_broker(rabbitmq_url) as broker,
        broker.publisher(ALARMS_EXCHANGE) as publisher,
    ):
        await confirmed(database, "ada")
        await RuleStore(database).create("ada", definition(**EMAIL), None)
        settings = {
            "AUTH_DATABASE_URL": mariadb_url,
            "BROKER_URL": rabbitmq_url,
            "AUTH_URL": "http://127.0.0.1:1",
            "ALARM_SECRET": SECRET,
            "SMTP_URL": mail.url,
            "EMAIL_FROM": "alarms@tidegate.test",
        }
        (body,) = announcements([announced(reading(0, 81))])
        async with started("alarms", until="healthz", **settings, **{VARIABLE: "alarms.sent:1"}) as killed:
            await publisher.publish(Message(body, {SCHEMA_HEADER: 1}), ALARMS_EXCHANGE)
            await asyncio.wait_for(killed.process.wait(), 60)
            assert killed.process.returncode == -9
        async with started("alarms", until="healthz", **settings) as next_one:

            async def is_noted() -> bool:
                found = await rows(mariadb_url, select(alarm_deliveries))
                return [one["state"] for one in found] == ["delivered"]

            await eventually(is_noted, "the ledger has it", 120)
            assert await next_one.stop() == 0
        (row,) = await rows(mariadb_url, select(alarm_deliveries))
    first, second = mail.taken
    assert first.raw == second.raw
    assert first.message["Message-ID"] == f"<{row['id']}@tidegate.test>"
