"""Deleted owners reach the broker, whatever is away meanwhile."""

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from auth.app import auth_service
from broker.connect import open_broker
from broker.deleted_owner import DeletedOwner
from broker.embedded import EmbeddedBroker
from broker.interface import Broker
from broker.topology import DELETED_OWNERS
from tests.auth.service import SECRET, Client, make_settings, running
from tests.auth.test_process import QUICK, line_with, process
from tests.servers.rabbitmq import RabbitMQServer


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
    """A process of its own: accounts are deleted while RabbitMQ is stopped, and announced when it is back."""
    with RabbitMQServer(tmp_path) as server:
        url = server.create_vhost()
        settings = make_settings(database_url)
        async with open_broker(url) as broker:
            # The queue is there before the server goes, as in production.
            async with broker.consumer(DELETED_OWNERS, prefetch=1) as consumer:
                await consumer.check()
            server.wait_until_registered(DELETED_OWNERS.name, url)
            await asyncio.to_thread(server.stop)
            variables = QUICK | {"AUTH_DATABASE_URL": database_url, "SIGNING_KEY_SECRET": SECRET, "BROKER_URL": url}
            async with process(**variables) as auth:
                await line_with(auth, "Accounts, devices and tokens are served.")
                async with running(settings) as client:
                    owner = await delete_account(client, "ada@example.org")
                await line_with(auth, "Deleted owners wait to be announced; their readings are erased later.")
                await asyncio.to_thread(server.start)
                await line_with(auth, "A deleted owner was announced.")
            assert await next_owner(broker) == owner
