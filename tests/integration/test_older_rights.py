"""Gateways and persisters of this version with the rights on RabbitMQ of the version before: readings are stored."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from broker.interface import BrokerUnavailable
from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import BACKFILL, READINGS, READINGS_EXCHANGE
from persister.app import persister_service
from persister.settings import PersisterSettings
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.gateway.harness import ISSUING, RunningGateway, gateway, reading
from tests.persister.harness import document, stored

# Without receipts, commands and the backfill lane.
OLDER = {
    "configure": "^$",
    "write": r"^tidegate\.(readings|presence)$",
    "read": r"^tidegate\.declared$",
}


@contextmanager
def having(server: RabbitMQServer, url: str, rights: dict[str, str]) -> Iterator[str]:
    """Make a user with these rights on the vhost of `url`, for the duration of the context."""
    vhost = URL(url).path[1:]
    user = f"older-{vhost}"
    server.api("PUT", f"users/{user}", {"password": "secret", "tags": ""})
    server.api("PUT", f"permissions/{vhost}/{user}", rights)
    yield str(URL(url).with_user(user).with_password("secret"))
    server.api("DELETE", f"users/{user}")


@pytest.fixture
def older(each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str) -> Iterator[str]:
    """The URL of a gateway's user with older rights."""
    with having(each_rabbitmq_server, each_rabbitmq_url, OLDER) as url:
        yield url


@pytest.fixture
async def running(older: str, each_rabbitmq_url: str) -> AsyncIterator[RunningGateway]:
    await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
    async with gateway(RabbitMQBroker(older)) as found:
        yield found


async def test_a_gateway_accepts_readings_although_it_may_not_hear_of_receipts_and_commands(
    running: RunningGateway, each_rabbitmq_url: str
) -> None:
    async with running.connected({"token": ISSUING.device(), "receipts": True}) as device:

        async def accepted() -> bool:
            answer = await device.call("reading", reading(1), timeout=10)
            return bool(answer["status"] == "accepted")

        await eventually(accepted, "a reading is accepted")
        for number in range(20):
            assert (await device.call("reading", reading(number, seq=number)))["status"] == "accepted"
    assert await RabbitMQBroker(each_rabbitmq_url).depth(READINGS) > 0


async def test_late_readings_travel_with_the_live_ones_where_their_lane_is_refused(
    older: str, each_rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(each_rabbitmq_url, durable_after_s=0)
    await broker.declare()
    async with (
        gateway(RabbitMQBroker(older), backfill_after_seconds=60) as running,
        running.connected({"token": ISSUING.device()}) as device,
    ):
        # Refused once, then accepted; the device sends again as it is told to.
        answers: list[dict[str, Any]] = []
        while not answers or answers[-1] != {"status": "accepted", "accepted": 1}:
            assert len(answers) < 20
            answers.append(await device.call("reading", reading(1), timeout=10))
        assert (await device.call("reading", reading(2, seq=2), timeout=10))["status"] == "accepted"
    assert {answer["status"] for answer in answers[:-1]} <= {"retry"}
    assert await broker.depth(BACKFILL) == 0
    assert await broker.depth(READINGS) == 2


async def test_a_worker_that_may_not_read_the_backfill_lane_stores_the_live_one(
    each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str, mongodb_database: tuple[str, str]
) -> None:
    broker = RabbitMQBroker(each_rabbitmq_url, durable_after_s=0)
    await broker.declare()
    rights = {
        "configure": "^$",
        "write": r"^tidegate\.(dead|live|stored)$",
        "read": r"^tidegate\.(readings|owners\.deleted|declared)$",
    }
    settings = PersisterSettings(
        broker_url="embedded://unused", readings_url=mongodb_database[0], readings_database=mongodb_database[1]
    )
    with having(each_rabbitmq_server, each_rabbitmq_url, rights) as older_url:
        async with (
            persister_service(settings, broker=RabbitMQBroker(older_url), registry=CollectorRegistry()) as checks,
            broker.publisher(READINGS_EXCHANGE) as publisher,
        ):
            await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)

            async def is_stored() -> bool:
                return len(await asyncio.to_thread(stored, mongodb_database)) == 1

            await eventually(is_stored, "it is stored")

            async def is_ready() -> bool:
                with suppress(BrokerUnavailable):
                    await checks["broker"]()
                    return True
                return False

            await eventually(is_ready, "it is ready")
