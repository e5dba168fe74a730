"""Deleted owners reach the broker, whichever server is down meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select
from structlog.testing import capture_logs

from auth.app import auth_service
from auth.deletion_outbox import POLL_EVERY_S, announce_again
from auth.migrate import migrate
from broker.connect import open_broker
from broker.deleted_owner import DeletedOwner
from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broker, ConfirmLate, Publisher
from broker.message import Message
from broker.topology import DELETED_OWNERS, OWNERS_EXCHANGE, Exchange
from database.connection import open_database
from database.tables import announced_owners, deleted_owners
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.auth.processes import QUICK, auth, line_with, process
from tests.auth.service import SECRET, Client, make_settings, running


async def next_owner(broker: Broker) -> str:
    async with asyncio.timeout(20), broker.consumer(DELETED_OWNERS, prefetch=1) as consumer:
        delivery = await consumer.get()
        await consumer.acknowledge(delivery)
        return DeletedOwner.of(delivery.message).owner


async def delete_account(client: Client, email: str) -> str:
    token = await client.new_user(email)
    owner = str((await client.get("/user/me", token=token)).json["id"])
    assert (await client.call("DELETE", "/user/me", token=token)).status == 204
    return owner


async def test_a_deletion_is_announced_once_there_is_a_broker(database_url: str, tmp_path: Path) -> None:
    async with running(make_settings(database_url)) as client:
        owner = await delete_account(client, "ada@example.org")
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        auth_service(make_settings(database_url), registry=CollectorRegistry(), broker=broker),
    ):
        assert await next_owner(broker) == owner


async def test_rabbitmq_away_keeps_the_deletion_until_it_is_back(database_url: str, tmp_path: Path) -> None:
    """In a separate process: accounts are deleted while RabbitMQ is stopped, and announced when it is back."""
    with RabbitMQServer(tmp_path) as server:
        url = server.create_vhost()
        settings = make_settings(database_url)
        async with open_broker(url) as broker:
            # The queue is there before the server goes, as in production.
            async with broker.consumer(DELETED_OWNERS, prefetch=1) as consumer:
                await consumer.check()
            server.wait_until_registered(url, DELETED_OWNERS.name)
            await asyncio.to_thread(server.kill)
            variables = QUICK | {"AUTH_DATABASE_URL": database_url, "SIGNING_KEY_SECRET": SECRET, "BROKER_URL": url}
            async with process(**variables) as auth:
                await line_with(auth, "Accounts, devices and tokens are served.")
                async with running(settings) as client:
                    owner = await delete_account(client, "ada@example.org")
                await line_with(auth, "Deleted owners wait to be announced; their readings are erased later.")
                await asyncio.to_thread(server.restart)
                await line_with(auth, "A deleted owner was announced.")
            assert await next_owner(broker) == owner


async def waiting_rows(database_url: str) -> int:
    async with open_database(database_url, connections=1, timeout_s=5) as database, database.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(deleted_owners)) or 0


async def nothing_waits(client: Client, database_url: str) -> None:
    async def none() -> bool:
        return await waiting_rows(database_url) == 0 and client.metric("tidegate_auth_deleted_owners_waiting") == 0

    await eventually(none, "the outbox is empty")


async def test_a_deletion_is_announced_at_once_and_leaves_the_outbox(database_url: str, tmp_path: Path) -> None:
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        running(make_settings(database_url), broker=broker) as client,
    ):
        for email in ("ada@example.org", "bob@example.org"):
            started = time.monotonic()
            owner = await delete_account(client, email)
            assert await next_owner(broker) == owner
            assert time.monotonic() - started < POLL_EVERY_S, "it is not the next look that found it"
        await nothing_waits(client, database_url)


class _LateOnce:
    """A publisher whose first confirm is lost, although the broker has the message."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._lost = False

    async def publish(self, message: Message, exchange: Exchange) -> None:
        await self._publisher.publish(message, exchange)
        if not self._lost:
            self._lost = True
            raise ConfirmLate("the confirm was lost")

    async def check(self) -> None:
        await self._publisher.check()


class _LosesAConfirm:
    """A broker with such a publisher."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.consumer = broker.consumer
        self.depth = broker.depth
        self.consumers = broker.consumers
        self.broadcaster = broker.broadcaster
        self.subscriber = broker.subscriber
        self.browser = broker.browser
        self.inspector = broker.inspector
        self.declare = broker.declare

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[Publisher]:
        async with self._broker.publisher(*exchanges, confirm_timeout_s=confirm_timeout_s) as publisher:
            yield _LateOnce(publisher)


async def test_without_its_confirm_a_deletion_is_announced_again(database_url: str, tmp_path: Path) -> None:
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        running(make_settings(database_url), broker=_LosesAConfirm(broker)) as client,
    ):
        owner = await delete_account(client, "ada@example.org")
        assert [await next_owner(broker), await next_owner(broker)] == [owner, owner]
        await nothing_waits(client, database_url)


async def test_without_a_broker_deletions_wait_and_it_is_told_once(database_url: str) -> None:
    with capture_logs() as logs:
        async with running(make_settings(database_url)) as client:
            for email in ("ada@example.org", "bob@example.org"):
                await delete_account(client, email)

            async def both() -> bool:
                return client.metric("tidegate_auth_deleted_owners_waiting") == 2

            await eventually(both, "both are seen to wait")
    told = [line for line in logs if line["event"].startswith("Deleted owners wait")]
    assert [line["why"] for line in told] == ["BROKER_URL is not set"]
    assert await waiting_rows(database_url) == 2


async def announced_owners_of(broker: Broker) -> list[str]:
    """Consume all announcements up to LAST."""
    found: list[str] = []
    async with asyncio.timeout(20), broker.consumer(DELETED_OWNERS, prefetch=16) as consumer:
        while True:
            delivery = await consumer.get()
            owner = DeletedOwner.of(delivery.message).owner
            await consumer.acknowledge(delivery)
            if owner == LAST:
                return found
            found.append(owner)


LAST = "last"


async def test_deleted_owners_are_kept_and_announced_again_when_an_operator_asks(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "queue.db"
    async with EmbeddedBroker.open_at(path) as broker, broker.publisher() as publisher:
        async with auth_service(make_settings(database_url), registry=CollectorRegistry(), broker=broker):
            async with running(make_settings(database_url)) as client:
                first = await delete_account(client, "ada@example.org")
                second = await delete_account(client, "grace@example.org")
                await client.new_user("stays@example.org")
            assert {await next_owner(broker), await next_owner(broker)} == {first, second}

            async def moved() -> bool:
                return await waiting_rows(database_url) == 0

            await eventually(moved, "the outbox is empty")
        between = int(time.time() * 1000)
        async with running(make_settings(database_url)) as client:
            third = await delete_account(client, "joan@example.org")  # still in the outbox
        for since, expected in (((), {first, second, third}), (("--since", str(between)), {third})):
            ran = await auth(database_url, "users", "announce-deleted", *since, BROKER_URL=f"embedded://{path}")
            assert ran.code == 0, ran.err
            assert ran.out.startswith(f"{len(expected)} deleted owners were announced")
            assert "Deleted owners were announced again." in ran.err
            await publisher.publish(DeletedOwner(LAST, 1).message(), OWNERS_EXCHANGE)
            told = await announced_owners_of(broker)
            assert sorted(told) == sorted(expected)


async def test_many_deleted_owners_are_announced_page_by_page_and_nobody_who_has_an_account(database_url: str) -> None:
    published: list[str] = []

    class Heard(Publisher):
        async def publish(self, message: Message, exchange: Exchange) -> None:
            published.append(DeletedOwner.of(message).owner)

        async def check(self) -> None:
            return

    async with running(make_settings(database_url)) as client:
        token = await client.new_user("stays@example.org")
        living = str((await client.get("/user/me", token=token)).json["id"])
    async with open_database(database_url, connections=1, timeout_s=10) as database:
        rows = [{"owner_id": f"owner-{number:04}", "deleted_at_ms": number} for number in range(250)]
        async with database.begin() as connection:
            await connection.execute(insert(announced_owners), [*rows, {"owner_id": living, "deleted_at_ms": 1}])
            await connection.execute(insert(deleted_owners), rows[:5])
        assert await announce_again(database, Heard(), None, lambda _: None) == 250
    assert published == [row["owner_id"] for row in rows]


async def test_an_announcement_that_cannot_be_made_says_why(sqlite_url: str, tmp_path: Path) -> None:
    await migrate(sqlite_url)
    for arguments, url, code, says in (
        ((), "", 2, "BROKER_URL"),
        ((), f"embedded://{tmp_path / 'none'}", 1, "There is no file"),
        (("--since", "yesterday"), "embedded://x", 2, "is not a time"),
        ((), "http://x", 2, "BROKER_URL"),
    ):
        ran = await auth(sqlite_url, "users", "announce-deleted", *arguments, BROKER_URL=url)
        assert (ran.code, ran.out) == (code, "")
        assert says in ran.err
        assert "Traceback" not in ran.err
