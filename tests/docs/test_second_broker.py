"""Moving from one RabbitMQ to another, as in docs/operations.md: from the oldest available version to the newest."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.faults.fleet import Fleet
from tests.faults.verdict import Stores, judged
from tests.integration.services import ROOT, SECRET, Running, migrated, started
from tests.reader.harness import Mongo

DEVICES = 6
QUEUES = {"tidegate.readings", "tidegate.backfill", "tidegate.readings.dead", "tidegate.owners.deleted"}


@pytest.fixture
def new_url(newest_rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """URL of a fresh vhost on the newest RabbitMQ."""
    url = newest_rabbitmq_server.create_vhost()
    yield url
    newest_rabbitmq_server.delete_vhost(url)


class Moving:
    """Gateways and persisters, each on one of two brokers, and devices that stream continuously."""

    def __init__(self, stack: AsyncExitStack, mongo: Mongo, auth: Running, fleet: Fleet, port: int) -> None:
        self._stack = stack
        self._mongo = mongo
        self._auth = auth
        self._port = port
        self.fleet = fleet

    async def persister(self, broker_url: str) -> Running:
        settings = {"READINGS_URL": self._mongo[0], "READINGS_DATABASE": self._mongo[1]}
        return await self._stack.enter_async_context(started("persister", BROKER_URL=broker_url, **settings))

    async def gateway(self, broker_url: str) -> Running:
        """Start a gateway at the address that devices use."""
        settings = {"AUTH_URL": self._auth.url, "PORT": str(self._port)}
        return await self._stack.enter_async_context(started("gateway", BROKER_URL=broker_url, **settings))

    async def are_accepted(self) -> None:
        """Wait until each device has received another `accepted`."""
        await self.fleet.accepted_since(asyncio.get_running_loop().time(), 20)


@pytest.fixture
async def moving(tmp_path: Path, mongodb_database: Mongo) -> AsyncIterator[Moving]:
    users = f"sqlite+aiosqlite:///{tmp_path}/users.db"
    await migrated(users)
    async with AsyncExitStack() as stack, sending() as tasks:
        auth = await stack.enter_async_context(
            started("auth", AUTH_DATABASE_URL=users, SIGNING_KEY_SECRET=SECRET, BCRYPT_COST="4")
        )
        port = free_port()
        fleet = await Fleet.registered(auth.url, [f"http://127.0.0.1:{port}"], devices=DEVICES, seed=1)
        tasks += [asyncio.ensure_future(sender.run()) for sender in fleet.senders]
        fleet.begin("moved")
        yield Moving(stack, mongodb_database, auth, fleet, port)


@asynccontextmanager
async def sending() -> AsyncIterator[list[asyncio.Future[None]]]:
    tasks: list[asyncio.Future[None]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def declared(url: str) -> None:
    """Run `python -m broker declare`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "declare", "--wait", "60"), cwd=ROOT, env=os.environ | {"BROKER_URL": url}
    )
    assert await process.wait() == 0


async def waiting(server: RabbitMQServer, url: str) -> dict[str, int]:
    """Return the number of messages of each queue, by `rabbitmqctl list_queues`."""
    vhost = urlsplit(url).path[1:]
    output = await asyncio.to_thread(server.rabbitmqctl, "list_queues", "-p", vhost, "name", "messages")
    rows = [line.split() for line in output.splitlines() if line.startswith("tidegate.")]
    return {name: int(messages) for name, messages in rows if name in QUEUES}


async def drained(server: RabbitMQServer, url: str) -> None:
    async def empty() -> bool:
        return await waiting(server, url) == dict.fromkeys(QUEUES, 0)

    await eventually(empty, "the queues of the first broker are empty", 30)


async def require_all_stored_once(moving: Moving, new_url: str, mongo: Mongo) -> None:
    await moving.fleet.finish(20)
    counts = await judged(Stores(mongo[0], new_url, mongo[1]), moving.fleet, "moved", 20)
    assert counts["acknowledged"] > 100
    bad = {name: counts[name] for name in ("lost", "dead", "duplicated", "foreign")}
    assert bad == dict.fromkeys(bad, 0)
    assert not any(sender.refused for sender in moving.fleet.senders)


async def test_gateways_move_to_a_second_broker_while_workers_drain_the_first(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, new_url: str, mongodb_database: Mongo, moving: Moving
) -> None:
    first = await moving.gateway(rabbitmq_url)
    drains = await moving.persister(rabbitmq_url)
    await moving.are_accepted()
    assert await drains.stop() == 0  # so that messages queue up at the first broker
    await moving.are_accepted()
    await declared(new_url)
    await moving.persister(new_url)
    assert await first.stop() == 0
    await moving.gateway(new_url)
    await moving.are_accepted()
    left = await waiting(rabbitmq_server, rabbitmq_url)
    assert left["tidegate.readings"] > 0
    drains = await moving.persister(rabbitmq_url)
    await drained(rabbitmq_server, rabbitmq_url)
    assert await drains.stop() == 0
    await require_all_stored_once(moving, new_url, mongodb_database)


async def test_one_broker_takes_the_place_of_another_whose_queues_are_empty(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, new_url: str, mongodb_database: Mongo, moving: Moving
) -> None:
    gateway, persister = await moving.gateway(rabbitmq_url), await moving.persister(rabbitmq_url)
    await moving.are_accepted()
    assert await gateway.stop() == 0
    await drained(rabbitmq_server, rabbitmq_url)
    assert await persister.stop() == 0
    await declared(new_url)
    await moving.persister(new_url)
    await moving.gateway(new_url)
    await moving.are_accepted()
    await require_all_stored_once(moving, new_url, mongodb_database)
