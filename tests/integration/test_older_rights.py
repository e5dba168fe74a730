"""Gateways and persisters of this version with the rights on RabbitMQ of the version before: readings are stored."""

from collections.abc import AsyncIterator, Iterator

import pytest
from yarl import URL

from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import READINGS
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.gateway.harness import ISSUING, RunningGateway, gateway, reading

# Without receipts and commands.
OLDER = {
    "configure": "^$",
    "write": r"^tidegate\.(readings|presence)$",
    "read": r"^tidegate\.declared$",
}


@pytest.fixture
def older(each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str) -> Iterator[str]:
    """The URL of a gateway's user with older rights."""
    vhost = URL(each_rabbitmq_url).path[1:]
    user = f"older-{vhost}"
    each_rabbitmq_server.api("PUT", f"users/{user}", {"password": "secret", "tags": ""})
    each_rabbitmq_server.api("PUT", f"permissions/{vhost}/{user}", OLDER)
    yield str(URL(each_rabbitmq_url).with_user(user).with_password("secret"))
    each_rabbitmq_server.api("DELETE", f"users/{user}")


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
