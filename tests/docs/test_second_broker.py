"""Moving from one RabbitMQ to another, as in docs/operations.md: from 3.10 and from 4.0 to the newest, 4.3."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import QUEUES, READINGS, READINGS_EXCHANGE
from testing.servers.debian import NotAvailableError
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.faults.fleet import Fleet
from tests.faults.verdict import Stores, judged, until_stored
from tests.integration.services import ROOT, SECRET, Running, migrated, started
from tests.matrix.choices import CHOICES, find
from tests.reader.harness import Mongo

DEVICES = 6
# Messages of a reading each that wait at the first broker while gateways move.
WAITING = 10_000
PUBLISHED_AT_ONCE = 500
OLDER = [choice for choice in CHOICES if choice.name in ("rabbitmq-3.10", "rabbitmq-4.0")]


@pytest.fixture(scope="module", params=OLDER, ids=lambda choice: choice.name)
def older_rabbitmq_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitMQServer]:
    """The versions to move away from."""
    try:
        found = find(request.param)
    except NotAvailableError as error:
        why = f"{request.param.name} is not available: {error}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with RabbitMQServer(tmp_path_factory.mktemp("older"), root=found.root) as server:
        assert server.version.startswith(f"{request.param.version}.")
        yield server


@pytest.fixture
def older_url(older_rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """URL of a fresh vhost on each of them."""
    url = older_rabbitmq_server.create_vhost()
    yield url
    older_rabbitmq_server.delete_vhost(url)


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
        await self.fleet.accepted_since(asyncio.get_running_loop().time(), 60)


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
    """Return the number of messages of each durable queue, by `rabbitmqctl list_queues`."""
    vhost = urlsplit(url).path[1:]
    output = await asyncio.to_thread(server.rabbitmqctl, "list_queues", "-p", vhost, "name", "messages")
    rows = [line.split() for line in output.splitlines() if line.startswith("tidegate.")]
    durable = {queue.name for queue in QUEUES}
    return {name: int(messages) for name, messages in rows if name in durable}


async def published(url: str, fleet: Fleet, count: int) -> None:
    """Publish messages of one reading each as a gateway does, confirmed, for devices that are not connected now."""
    documents = fleet.senders[0].published_past_the_gateway(count)
    async with RabbitMQBroker(url).publisher() as publisher:
        for start in range(0, count, PUBLISHED_AT_ONCE):
            messages = [Message.of([one]) for one in documents[start : start + PUBLISHED_AT_ONCE]]
            await asyncio.gather(*(publisher.publish(one, READINGS_EXCHANGE) for one in messages))


async def drained(server: RabbitMQServer, url: str) -> None:
    async def empty() -> bool:
        left = await waiting(server, url)
        return READINGS.name in left and not any(left.values())

    await eventually(empty, "the queues of the first broker are empty", 120)


async def require_all_stored_once(moving: Moving, new_url: str, mongo: Mongo, *, least: int = 100) -> None:
    await moving.fleet.finish(60)
    stores = Stores(mongo[0], new_url, mongo[1])
    await until_stored(stores, moving.fleet, "moved", 60)
    counts, _ = await judged(stores, moving.fleet, "moved")
    assert counts["acknowledged"] > least
    bad = {name: counts[name] for name in ("lost", "dead", "duplicated", "foreign")}
    assert bad == dict.fromkeys(bad, 0)
    assert not any(sender.refused for sender in moving.fleet.senders)


@pytest.mark.timeout(600)  # 10,000 confirmed messages on a machine that does other work at the same time
async def test_gateways_move_to_a_second_broker_while_workers_drain_the_first(
    older_rabbitmq_server: RabbitMQServer, older_url: str, new_url: str, mongodb_database: Mongo, moving: Moving
) -> None:
    first = await moving.gateway(older_url)
    drains = await moving.persister(older_url)
    await moving.are_accepted()
    assert await drains.stop() == 0  # so that messages queue up at the first broker
    await published(older_url, moving.fleet, WAITING)
    await moving.are_accepted()
    await declared(new_url)
    await moving.persister(new_url)
    assert await first.stop() == 0
    await moving.gateway(new_url)
    await moving.are_accepted()
    left = await waiting(older_rabbitmq_server, older_url)
    assert left[READINGS.name] > WAITING
    drains = await moving.persister(older_url)
    await drained(older_rabbitmq_server, older_url)
    assert await drains.stop() == 0
    await require_all_stored_once(moving, new_url, mongodb_database, least=WAITING)


async def test_one_broker_takes_the_place_of_another_whose_queues_are_empty(
    older_rabbitmq_server: RabbitMQServer, older_url: str, new_url: str, mongodb_database: Mongo, moving: Moving
) -> None:
    gateway, persister = await moving.gateway(older_url), await moving.persister(older_url)
    await moving.are_accepted()
    assert await gateway.stop() == 0
    await drained(older_rabbitmq_server, older_url)
    assert await persister.stop() == 0
    await declared(new_url)
    await moving.persister(new_url)
    await moving.gateway(new_url)
    await moving.are_accepted()
    await require_all_stored_once(moving, new_url, mongodb_database)
